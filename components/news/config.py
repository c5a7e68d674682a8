"""What the stage news takes and makes."""

from dataclasses import dataclass

from components.demonstrations.source import Source
from components.runtime.declaration import LOOP, Declaration


@dataclass(frozen=True)
class Config(Source):
    """Which demonstrations, and which champion."""

    since: str = ""
    """Branch, tag or commit of the version to compare with; empty: that of the champion or a challenger."""
    champion: str = ""
    """Folder of the champion's record; empty means `champion` in the workspace."""
    initial_checkpoint: str = ""
    """Checkpoint to train from where there is no champion; empty for random values."""


@dataclass(frozen=True)
class Inputs:
    """Nothing: it looks into the repository and at the champion."""


DECLARATION = Declaration(
    "news",
    Config,
    Inputs,
    outputs={LOOP: str, "commit": str, "checkpoint": str},
    output="news",
    page="news_summary",
)
