"""The champions of a folder: which there were, and back to one of them."""

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from components.errors import UserError
from components.evaluation.champion import Champion, Forced
from components.evaluation.registry import Registry
from components.store.artifact import Artifact
from components.store.making import exclusive


@dataclass(frozen=True)
class List:
    """List the champions, oldest first; the last one is that of now."""

    folder: Path = Path("workspace/champion")
    """The champion's folder."""


@dataclass(frozen=True)
class Rollback:
    """Make a former champion the champion again. That of now, once more, is only told to the registry."""

    to: int
    """Its number in the list."""
    by: str
    """Your name; it is recorded."""
    why: str
    """Why; it is recorded."""
    folder: Path = Path("workspace/champion")
    """The champion's folder."""
    registry: Registry = field(default_factory=Registry)
    """The registry that is told."""


Command = (
    Annotated[List, tyro.conf.subcommand("list")] | Annotated[Rollback, tyro.conf.subcommand("rollback")]
)


def run(options: List | Rollback) -> int:
    """Do it, and print the list; returns exit code 0."""
    folder = options.folder
    if isinstance(options, Rollback):
        with exclusive(folder / ".lock", "rollback: a challenger is being compared; waiting for it"):
            _roll_back(options)
    table = Table("number", "promoted", "q", "tasks", "leaderboard", "by a person")
    for number, one in enumerate(_champions(folder), 1):
        forced = "" if one.forced is None else f"{one.forced.by}: {one.forced.why}"
        tasks = str(len(one.by_task))
        table.add_row(str(number), one.promoted, f"{one.q:.3f}", tasks, one.leaderboard.uri, forced)
    Console().print(table)
    return 0


def _champions(folder: Path) -> list[Champion]:
    now = Champion.load(folder)
    if now is None:
        raise UserError(f"there is no champion in {folder}; expected the folder of a champion.json")
    return [*Champion.former(folder), now]


def _roll_back(options: Rollback) -> None:
    folder = options.folder
    champions = _champions(folder)
    if not 1 <= options.to <= len(champions):
        raise UserError(f"--to {options.to}: expected 1 to {len(champions)}, a number of `b1k champion list`")
    if not options.by.strip() or not options.why.strip():
        raise UserError("--by or --why is empty; expected who decides and why, which is recorded")
    chosen, now = champions[options.to - 1], champions[-1]
    if chosen.leaderboard != now.leaderboard:
        for one in chosen.checkpoints.values():
            place = Path(folder, one.path).resolve()
            if not place.is_dir() or Artifact.load(place.parent).digest != one.digest:
                raise UserError(
                    f"{place} is not there any more, or of other weights; choose another champion"
                )
        when = datetime.now(UTC).isoformat(timespec="seconds")
        now, before = dataclasses.replace(chosen, promoted=when, forced=Forced(options.by, options.why)), now
        now.replace(before, folder)
    options.registry.publish(now)
