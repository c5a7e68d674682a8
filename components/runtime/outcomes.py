"""What became of the tasks of a run: a small record of each in the workspace, for the message at its end.

Kubeflow tells the last task of a run that it failed, but neither which task nor why.
"""

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from components.runtime import attempts
from components.store.files import write_atomic

_FOLDER = "outcomes"
_NAME = re.compile(r"[\w-]+")
_OTHER = re.compile(r"[^\w-]")


@dataclass(frozen=True)
class Outcome:
    """How a task ended, or that it has begun."""

    stage: str
    detail: str = ""
    """Which of the stage's tasks: the number of a worker, or the name of a policy."""
    code: int | None = None
    """Exit code; None while it runs, and for ever where it was killed."""
    text: str = ""
    """What came out, or the error."""
    attempt: int = 1

    @property
    def name(self) -> str:
        """The task for people."""
        return f"{self.stage} {self.detail}".rstrip()


Recorder = Callable[[int | None, str], None]


def recorder(workspace: Path, run: str, stage: str, detail: str) -> Recorder:
    """A function that records the exit code of a task and what it says; it never fails.

    A pod that replaces a lost one has the same stage and detail, and so has a later task, which begins only
    when the earlier one is done: both replace the record.
    """

    def record(code: int | None, text: str) -> None:
        outcome = Outcome(stage, detail, code, text, attempts.number_of_this())
        with suppress(OSError):  # the task's own error counts
            place = _folder(workspace, run) / f"{stage}-{_OTHER.sub('_', detail)}.json"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(place, msgspec.json.encode(outcome).decode())

    # without Kubeflow there is no ID, and nobody is told
    return record if _NAME.fullmatch(run) else lambda code, text: None


def outcomes(workspace: Path, run: str) -> list[Outcome]:
    """The outcomes of a run's tasks, in the order in which they were recorded last."""
    if not _NAME.fullmatch(run):
        return []
    files = sorted(_folder(workspace, run).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [msgspec.json.decode(path.read_bytes(), type=Outcome) for path in files]


def forget(workspace: Path, run: str) -> None:
    """Remove the records of a run."""
    if _NAME.fullmatch(run):
        shutil.rmtree(_folder(workspace, run), ignore_errors=True)


def _folder(workspace: Path, run: str) -> Path:
    return workspace / _FOLDER / run
