"""The pipeline and the values of a run, as a command line gives them."""

from collections.abc import Iterable
from pathlib import Path

import tyro

from components.errors import UserError
from components.settings.checks import Arguments, parse, resolve
from components.settings.sections import PIPELINES
from pipelines.definitions.profiles import load_profile

Set = tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]
"""Words of `--set`, which may be given several times, with several words each."""


def find_pipeline(name: str) -> str:
    """The name, if there is such a pipeline; else UserError."""
    if name not in PIPELINES:
        raise UserError(f"there is no pipeline {name!r}; expected one of {', '.join(PIPELINES)}")
    return name


def choose(
    pipeline: str,
    profile_name: str,
    words: Iterable[Iterable[str]],
    *,
    workspace: Path | None = None,
    complete: bool = True,
) -> Arguments:
    """Read the words of `--set`, and check all values of a run together with its profile's.

    `workspace` is given where this machine sees the folders that values name; `complete` says whether all
    values of a run are given.

    Returns:
        What differs from the profile.

    Raises:
        UserError: no such pipeline or profile, or everything that a stage would refuse.
    """
    profile = load_profile(profile_name)
    given, mistakes = parse(find_pipeline(pipeline), (word for group in words for word in group))
    place = profile.place(workspace, complete=complete)
    resolve(pipeline, profile.of(pipeline), given, place, mistakes)
    return given
