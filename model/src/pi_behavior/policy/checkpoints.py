"""Which checkpoint serves which task, and the checkpoints in memory.

Source: the published mapping file; report, section 6.4: several checkpoints, each for a group of tasks.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pi_behavior.policy.interface import ClosureTable, Prediction, Predictor, Request


@dataclass(frozen=True)
class CheckpointEntry:
    """One checkpoint and its tasks."""

    name: str
    path: Path
    tasks: frozenset[int] | None
    """Task indices; None serves every task."""


def read_mapping(file: Path) -> list[CheckpointEntry]:
    """Read a mapping file: {"checkpoints": {"NAME": {"path": "...", "tasks": [...]}}}.

    Relative paths are relative to the file.

    Raises:
        ValueError: the file is missing or malformed, a task has two checkpoints, or a path does not exist.
    """
    expected = 'expected {"checkpoints": {"NAME": {"path": "...", "tasks": [...]}}}'
    try:
        rows = json.loads(file.read_text())["checkpoints"]
        entries = [
            CheckpointEntry(name, file.parent / row["path"], frozenset(map(int, row["tasks"])))
            for name, row in rows.items()
        ]
    except OSError as error:
        raise ValueError(f"cannot read the mapping {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not a mapping ({type(error).__name__}: {error}); {expected}") from error
    if not entries:
        raise ValueError(f"{file} has no checkpoints; {expected}")
    owner: dict[int, str] = {}
    for entry in entries:
        if not entry.path.is_dir():
            raise ValueError(f"{file}: checkpoint {entry.name!r} is at {entry.path}, which is not a folder")
        for task in entry.tasks or ():
            if task in owner:
                raise ValueError(f"{file}: task {task} has two checkpoints, {owner[task]} and {entry.name}")
            owner[task] = entry.name
    return entries


class UnknownTaskError(LookupError):
    """A task without a checkpoint."""


class CheckpointPool:
    """Answers requests with the checkpoint of their task; keeps the most recently used ones in memory.

    `predict` is for one thread. `closure` may be called from another: it only reads what was loaded.
    """

    def __init__(
        self, entries: Sequence[CheckpointEntry], load: Callable[[Path], Predictor], *, capacity: int
    ) -> None:
        """Make an empty pool.

        Args:
            entries: the checkpoints.
            load: reads a checkpoint and compiles its network.
            capacity: checkpoints in memory at a time.

        Raises:
            ValueError: the capacity is below 1.
        """
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; expected at least 1 checkpoint in memory")
        self._entries = {entry.name: entry for entry in entries}
        self._load = load
        self._capacity = capacity
        self._loaded: OrderedDict[str, Predictor] = OrderedDict()
        self._closures: dict[int, ClosureTable | None] = {}

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the checkpoints in memory, the least recently used first."""
        return tuple(self._loaded)

    @property
    def tasks(self) -> Mapping[str, list[int] | None]:
        """Tasks by checkpoint; None is every task."""
        return {
            name: None if entry.tasks is None else sorted(entry.tasks)
            for name, entry in self._entries.items()
        }

    def warm(self) -> None:
        """Load checkpoints in the mapping's order until the pool is full."""
        for name in list(self._entries)[: self._capacity]:
            self._get(name)

    def checkpoint_of(self, task: int) -> str:
        """Name of the checkpoint that serves a task.

        Raises:
            UnknownTaskError: none does.
        """
        for entry in self._entries.values():
            if entry.tasks is None or task in entry.tasks:
                return entry.name
        known = sorted(task for entry in self._entries.values() for task in entry.tasks or ())
        raise UnknownTaskError(f"no checkpoint serves task {task}; this server has the tasks {known}")

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer requests of any tasks and any number, in order."""
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(self.checkpoint_of(request.task), []).append(index)
        answers: dict[int, Prediction] = {}
        for name, indices in groups.items():
            predictor = self._get(name)
            largest = predictor.batch_sizes[-1]
            for start in range(0, len(indices), largest):
                part = indices[start : start + largest]
                answers.update(zip(part, predictor.predict([requests[i] for i in part]), strict=True))
            for task in {requests[index].task for index in indices}:
                if task not in self._closures:
                    self._closures[task] = predictor.closure(task)
        return [answers[index] for index in range(len(requests))]

    def closure(self, task: int) -> ClosureTable | None:
        """Where a task's demonstrations close the grippers; known once the task was predicted."""
        return self._closures.get(task)

    def _get(self, name: str) -> Predictor:
        if name not in self._loaded:
            while len(self._loaded) >= self._capacity:
                # before loading, so that two networks need not fit where one does
                self._loaded.popitem(last=False)
            self._loaded[name] = self._load(self._entries[name].path)
        self._loaded.move_to_end(name)
        return self._loaded[name]
