"""Progress of long work: a bar on a terminal, a line now and then in a log, events for the local runner.

`b1k run` names a file in `B1K_EVENTS` and gets a JSON line per update, from which it draws its tree of tasks:

    {"time": 1760000000.0, "task": "train", "description": "steps", "completed": 1, "total": 9, "left": 80.0,
     "note": ""}

On Kubeflow, Argo names a file in `ARGO_PROGRESS_FILE`; the Workflow has what is in it, such as `120/900`.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

T = TypeVar("T")

EVENTS_VARIABLE = "B1K_EVENTS"
TASK_VARIABLE = "B1K_TASK"
ARGO_VARIABLE = "ARGO_PROGRESS_FILE"


def append_json_line(path: Path, value: object) -> None:
    """Append a JSON line in a single write: whole even when several processes write to the file."""
    line = (json.dumps(value, allow_nan=False) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


class TaskProgress:
    """One line of progress, made by `Progress.task`. Safe to call from several threads.

    Use it as a context manager or call `close`; the last state is always shown.
    """

    def __init__(self, owner: Progress, description: str, total: float | None) -> None:
        self._owner = owner
        self._lock = threading.RLock()
        self._shown = float("-inf")
        self._reported = float("-inf")
        self._closed = False
        self.description = description
        self.total = total
        self.completed: float = 0
        self.note = ""
        self.started = owner.clock()
        self._bar = owner._add_bar(description, total)
        self._publish(last=False)

    def advance(self, count: float = 1, note: str | None = None) -> None:
        """Add to what is done, and replace the note where one is given."""
        with self._lock:
            self.update(self.completed + count, note)

    def update(
        self, completed: float | None = None, note: str | None = None, total: float | None = None
    ) -> None:
        """Set what is given: how much is done, how much there is to do, a note such as the loss."""
        with self._lock:
            self.completed = self.completed if completed is None else completed
            self.total = self.total if total is None else total
            self.note = self.note if note is None else note
            self._publish(last=False)

    def close(self) -> None:
        """Show the last state and take the bar down; further calls do nothing."""
        with self._lock:
            if self._closed:
                return
            self._publish(last=True)
            self._closed = True
        self._owner._remove_bar(self._bar)

    def __enter__(self) -> TaskProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def line(self) -> str:
        """The state in one plain line, such as `steps 120/900 (13%), 3:20 left, loss 0.41`."""
        parts = [f"{self.description} {format_count(self.completed)}"]
        if self.total:
            share = min(1.0, self.completed / self.total)
            parts[0] += f"/{format_count(self.total)} ({share:.0%})"
        left = self.left
        if left is not None:
            parts.append(f"{format_seconds(left)} left")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)

    @property
    def left(self) -> float | None:
        """Seconds until the end at the pace so far; None as long as it cannot be estimated."""
        share = min(1.0, self.completed / self.total) if self.total else 0.0
        elapsed = self._owner.clock() - self.started
        return elapsed * (1 - share) / share if 0 < share < 1 and elapsed > 1 else None

    def _publish(self, *, last: bool) -> None:
        if self._closed:
            return
        now = self._owner.clock()
        if last or now - self._reported >= self._owner.event_interval:
            self._reported = now
            self._owner._write_event(self)
        if self._bar is not None:
            self._owner._update_bar(self._bar, self)
        elif last or now - self._shown >= self._owner.line_interval:
            self._shown = now
            self._owner._write_line(self)


class Progress:
    """Shows the progress of long work.

    Args:
        stream: where bars or lines go; the standard error stream when None.
        line_interval: least seconds between two plain lines of one task.
        event_interval: least seconds between two events of one task.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        line_interval: float = 10.0,
        event_interval: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = os.environ.get(EVENTS_VARIABLE)
        self._task = os.environ.get(TASK_VARIABLE, "")
        self._argo = os.environ.get(ARGO_VARIABLE)
        self._stream = sys.stderr if stream is None else stream
        self._lock = threading.RLock()
        self._rich: RichProgress | None = None
        self._is_terminal = self._stream.isatty()
        self.line_interval = line_interval
        self.event_interval = event_interval
        self.clock = clock

    def task(self, description: str, total: float | None = None) -> TaskProgress:
        """Begin one line of progress; `total` counts what `TaskProgress.advance` counts, None if unknown."""
        return TaskProgress(self, description, total)

    def track(self, items: Collection[T], description: str) -> Iterator[T]:
        """Go through items, one unit of progress each."""
        with self.task(description, len(items)) as handle:
            for item in items:
                yield item
                handle.advance()

    def _write_event(self, task: TaskProgress) -> None:
        if not self._events:
            return
        append_json_line(
            Path(self._events),
            {
                "time": time.time(),
                "task": self._task,
                "description": task.description,
                "completed": task.completed,
                "total": task.total,
                "left": task.left,
                "note": task.note,
            },
        )

    def _write_line(self, task: TaskProgress) -> None:
        with self._lock:
            self._stream.write(task.line() + "\n")
            self._stream.flush()
            if self._argo and task.total:
                path, total = Path(self._argo), math.ceil(task.total)
                with suppress(OSError):  # the work counts, not who is told of it
                    # Argo takes whole numbers, no more than all, and passes over a file that is still empty
                    path.write_text(f"{min(math.floor(task.completed), total)}/{total}\n")
                    path.chmod(0o644)  # who reads it is another user

    def _add_bar(self, description: str, total: float | None) -> TaskID | None:
        if not self._is_terminal:
            return None
        with self._lock:
            if self._rich is None:
                self._rich = RichProgress(
                    TextColumn("{task.description}", markup=False),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeElapsedColumn(),
                    TimeRemainingColumn(),
                    TextColumn("{task.fields[note]}", style="dim", markup=False),
                    console=Console(file=self._stream),
                )
                self._rich.start()
            return self._rich.add_task(description, total=total, note="")

    def _update_bar(self, bar: TaskID, task: TaskProgress) -> None:
        with self._lock:
            if self._rich is not None:
                self._rich.update(bar, completed=task.completed, total=task.total, note=task.note)

    def _remove_bar(self, bar: TaskID | None) -> None:
        if bar is None:
            return
        with self._lock:
            if self._rich is None:
                return
            self._rich.stop_task(bar)
            # ends with its last open task, so that nothing printed later is drawn over
            if all(task.stop_time is not None for task in self._rich.tasks):
                self._rich.stop()
                self._rich = None


def format_count(value: float) -> str:
    """A count without needless decimals: `120`, `12,000`, `0.5`."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.1f}"


def format_seconds(seconds: float) -> str:
    """A duration for people: `0:07`, `3:20`, `1:02:03`."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
