"""Remove artifacts that no champion, no recent or running run, and no kept artifact needs."""

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.filesize import decimal

from components.errors import UserError
from components.store.garbage import remove, survey


@dataclass(frozen=True)
class Options:
    """Remove what nothing needs any more: old artifacts, what killed work left, frames of datasets that are
    gone. Without --delete it only says what would go.
    """

    workspace: Path = Path("workspace")
    """Folder shared by all stages."""
    days: float = 30
    """What was used or made in so many days stays, and what runs of those days made."""
    champions: int = 3
    """So many former champions stay, besides the champion."""
    running_since: str = ""
    """When the oldest run that still runs on a cluster began, ISO 8601; what was used since then stays. Runs
    on this machine are known by their locks."""
    delete: bool = False
    """Remove it."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.days < 0 or self.champions < 0:
            raise UserError(f"--days {self.days}, --champions {self.champions}: expected 0 or more")


def run(options: Options) -> int:
    """List what nothing needs, and remove it if that is asked for.

    Returns:
        Exit code 0.

    Raises:
        UserError: there is no workspace, or it cannot be known what is needed.
    """
    found = survey(
        options.workspace,
        time.time(),
        days=options.days,
        champions=options.champions,
        running_since=_time(options.running_since),
    )
    workspace, freed = options.workspace.resolve(), 0
    outcome = remove(found) if options.delete else ((item, True) for item in found.garbage)
    for item, goes in outcome:
        note = item.reason if goes else "stays: in use"
        print(f"{decimal(item.size):>10}  {item.path.relative_to(workspace)}  ({note})", flush=True)
        freed += item.size if goes else 0
    for reason, count in found.kept.most_common():
        print(f"{count} kept: {reason}")
    print(f"{'freed' if options.delete else '--delete would free'} {decimal(freed)}")
    return 0


def _time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        raise UserError(
            f"--running-since {text!r} is no time; expected ISO 8601, 2026-05-04T12:00Z"
        ) from None
