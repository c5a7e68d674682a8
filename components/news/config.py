"""What the stage news takes and makes."""

from dataclasses import dataclass

from components.runtime.declaration import LOOP, Declaration


@dataclass(frozen=True)
class Config:
    """Which demonstrations, and which champion."""

    repository: str = ""
    """Folder or URL of a git repository in which DVC keeps the dataset."""
    revision: str = "HEAD"
    """Branch, tag or commit of the version that may be new."""
    path: str = "data"
    """The dataset's folder in the repository."""
    remote: str = ""
    """DVC remote: a name, a folder or a URL (s3://bucket/prefix); empty for the repository's default."""
    since: str = ""
    """Version to compare with; empty for that of the champion and its challengers."""
    champion: str = ""
    """Folder of the champion's record; empty means `champion` in the workspace."""
    initial_checkpoint: str = ""
    """What to train from where there is no champion; empty for random values."""


@dataclass(frozen=True)
class Inputs:
    """Nothing: the question is about the world outside."""


DECLARATION = Declaration("news", Config, Inputs, outputs={LOOP: str, "commit": str, "checkpoint": str})
