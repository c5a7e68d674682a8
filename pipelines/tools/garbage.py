"""Remove artifacts that no champion, no recent or running run, and no kept artifact needs."""

import os
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import tyro
from rich.filesize import decimal

from components.errors import UserError
from components.store.garbage import remove, survey
from pipelines.cluster.connection import HOST_VARIABLE, Connection
from pipelines.cluster.run_state import ENDED
from pipelines.cluster.schedules import run_state_of
from pipelines.cluster.server import Server


@dataclass(frozen=True)
class Options:
    """Remove what nothing needs any more: old artifacts, leftovers of killed work, columns of removed data,
    sums of demonstrations, and records of runs. Without --delete it only lists them.
    """

    workspace: Path = Path("workspace")
    """Folder shared by all stages."""
    days: float = 30
    """Keep what was used or made in this many days, and what the runs of these days made."""
    champions: int = 3
    """Number of former champions to keep, besides the champion."""
    connection: tyro.conf.OmitArgPrefixes[Connection] = field(default_factory=Connection)
    """The server whose runs use the workspace: what was used since the oldest active one began is kept. None
    is asked where neither --host nor KF_PIPELINES_ENDPOINT is given; runs on this machine are known by their
    locks."""
    delete: bool = False
    """Remove it."""

    def __post_init__(self) -> None:
        if self.days < 0 or self.champions < 0:
            raise UserError(f"--days {self.days}, --champions {self.champions}: expected 0 or more")


def run(options: Options) -> int:
    """List what nothing needs, and remove it if that is asked for; returns exit code 0."""
    found = survey(
        options.workspace,
        time.time(),
        days=options.days,
        champions=options.champions,
        running_since=_oldest_run(options.connection),
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


def _oldest_run(connection: Connection) -> float | None:
    """When the oldest run that still runs on the cluster began, POSIX time; None without a cluster."""
    if not connection.host and not os.environ.get(HOST_VARIABLE):
        return None
    server = Server(connection)
    runs = (run for run in server.active_runs() if run_state_of(server, run) not in ENDED)
    return min((datetime.fromisoformat(str(run["created_at"])).timestamp() for run in runs), default=None)
