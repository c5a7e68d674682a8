"""`b1k results serve`: the results of a workspace in the browser."""

from dataclasses import dataclass, field
from typing import Literal

import tyro

from components.results import serving


@dataclass(frozen=True)
class Options(serving.Options):
    """Serve leaderboards, runs, comparisons and labels over HTTP, by default to this machine alone."""

    action: tyro.conf.Positional[Literal["serve"]] = field(kw_only=True)
    """What to do."""


def run(options: Options) -> int:
    """Serve until interrupted; returns exit code 0."""
    return serving.run(options)
