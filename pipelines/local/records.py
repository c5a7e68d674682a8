"""Runs of a pipeline on this machine: their records, and the lock against two runs in one workspace."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.evaluation.records import read, write
from components.store import making

RUNNING = "running"
SUCCEEDED = "succeeded"
FAILED = "failed"
INTERRUPTED = "interrupted"
RUN = "run.json"
LATEST = "latest"
"""Link to the folder of the last run."""
FORMAT = 2


@dataclass(frozen=True)
class Containers:
    """How a run uses containers, as a person chose it."""

    registry: str = ""
    """Registry and path before the names of our images; empty for `localhost/b1k`."""
    network: str = "none"
    mounts: tuple[str, ...] = ()
    """Folders besides the workspace that tasks can read."""


@dataclass(frozen=True)
class Run:
    """One run, as `<workspace>/runs/<id>/run.json` records it."""

    id: str
    pipeline: str
    profile: str
    arguments: dict[str, Any]
    """All arguments of the pipeline that differ from the compiled defaults."""
    status: str = RUNNING
    """running, succeeded, failed or interrupted; a killed run keeps `running`."""
    started: str = ""
    """UTC time of the first start, ISO 8601."""
    finished: str = ""
    """UTC time of the last end; empty while it runs."""
    attempts: int = 1
    """1 plus the number of times that it was resumed."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of work per stage, over all attempts."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Folders of the finished artifacts, relative to the workspace, by task."""
    containers: Containers | None = None
    """None where tasks are processes of this machine."""
    format: int = 1
    """Version of this record; arguments of version 1 have names that are no longer known."""

    def folder(self, workspace: Path) -> Path:
        """The run's folder."""
        return workspace / "runs" / self.id

    def save(self, workspace: Path) -> None:
        """Write `run.json`, and point the link to the last run at it."""
        write(self.folder(workspace) / RUN, self)
        aside = workspace / "runs" / f".{LATEST}.partial"
        aside.unlink(missing_ok=True)
        aside.symlink_to(self.id)
        aside.replace(workspace / "runs" / LATEST)


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def new_run(
    workspace: Path,
    pipeline: str,
    profile: str,
    arguments: dict[str, Any],
    containers: Containers | None = None,
) -> Run:
    """A run with a new id, made from the time."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    taken = {path.name for path in (workspace / "runs").glob("*")}
    name = next(n for n in (stamp, *(f"{stamp}-{i}" for i in range(2, 1000))) if n not in taken)
    return Run(name, pipeline, profile, arguments, started=now(), containers=containers, format=FORMAT)


def load_runs(workspace: Path) -> list[Run]:
    """All runs of a workspace, oldest first."""
    paths = sorted(path for path in (workspace / "runs").glob(f"*/{RUN}") if path.parent.name != LATEST)
    return [read(path, Run, "remove the run's folder") for path in paths]


def unfinished_run(workspace: Path) -> Run | None:
    """The last run, if it did not succeed."""
    runs = load_runs(workspace)
    return runs[-1] if runs and runs[-1].status != SUCCEEDED else None


@contextmanager
def exclusive(workspace: Path) -> Iterator[None]:
    """Hold the workspace's lock, which the kernel releases when we end; UserError if another run has it."""
    lock = workspace / ".lock"
    with making.exclusive(lock, waiting=None) as is_ours:
        if not is_ours:
            holder = json.loads(lock.read_text() or "{}")
            raise UserError(
                f"the workspace {workspace} is used by another run (process {holder.get('pid')} on "
                f"{holder.get('host')}); wait for it, stop it, or give another --workspace"
            )
        yield
