"""The checkpoints in memory, of several that each serve a group of tasks. Source: report, section 6.4."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pi_behavior.policy.interface import ClosureTable, Predictor
from pi_behavior.policy.mapping import CheckpointEntry

logger = logging.getLogger(__name__)
RETRY_SECONDS = 60.0
"""How long a checkpoint that could not be loaded is not tried again."""


class UnknownTaskError(LookupError):
    """A task without a checkpoint."""


class CheckpointUnavailableError(RuntimeError):
    """A checkpoint could not be loaded."""


@dataclass
class _Held:
    """A checkpoint that is loading or in memory, and who needs it."""

    loading: "asyncio.Task[Predictor]"
    users: int = 0
    failed: float | None = None
    """When loading failed, on the monotonic clock."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def in_memory(self) -> bool:
        return self.loading.done() and self.failed is None


class CheckpointPool:
    """The most recently used checkpoints, in memory. For one event loop.

    Checkpoints load one after the other in a thread of their own, so that sessions with loaded ones continue.
    A checkpoint is removed once it has answered its requests, and before the next one is loaded, so there
    are never more than `capacity` in memory. Requests for one that cannot be loaded fail; loading is tried
    again after `RETRY_SECONDS` at the earliest.
    """

    def __init__(
        self, entries: Sequence[CheckpointEntry], load: Callable[[Path], Predictor], *, capacity: int
    ) -> None:
        """Make an empty pool.

        Args:
            entries: the checkpoints.
            load: reads a checkpoint and compiles its network; called in the loading thread.
            capacity: checkpoints in memory at a time.

        Raises:
            ValueError: the capacity is below 1.
        """
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; expected at least 1 checkpoint in memory")
        self._entries = {entry.name: entry for entry in entries}
        self._load = load
        self._capacity = capacity
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._closures: dict[int, ClosureTable | None] = {}
        self._digests: dict[str, str] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._one = asyncio.Lock()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the checkpoints in memory, the least recently used first."""
        return tuple(name for name, held in self._held.items() if held.in_memory)

    @property
    def description(self) -> dict[str, dict[str, Any]]:
        """Tasks (None is every task) and digest (None before the first use) of every checkpoint."""
        return {
            name: {
                "tasks": None if entry.tasks is None else sorted(entry.tasks),
                "digest": self._digests.get(name),
            }
            for name, entry in self._entries.items()
        }

    async def warm(self) -> None:
        """Load checkpoints in the mapping's order until the pool is full.

        Raises:
            CheckpointUnavailableError: not a single one can be loaded.
        """
        errors = []
        for name in self._entries:
            if len(self.loaded) == self._capacity:
                break
            try:
                await self._hold(name).loading
            except CheckpointUnavailableError as error:
                errors.append(str(error))
        if not self.loaded:
            raise CheckpointUnavailableError("\n".join(errors))

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

    @asynccontextmanager
    async def use(self, task: int) -> AsyncIterator[Predictor]:
        """Hold the network of a task in memory, after loading it where needed.

        Raises:
            UnknownTaskError: no checkpoint serves the task.
            CheckpointUnavailableError: its checkpoint cannot be loaded.
        """
        held = self._hold(self.checkpoint_of(task))
        held.users += 1
        held.idle.clear()
        try:
            predictor = await asyncio.shield(held.loading)
            if task not in self._closures:
                self._closures[task] = predictor.closure(task)
            yield predictor
        finally:
            held.users -= 1
            if not held.users:
                held.idle.set()

    def closure(self, task: int) -> ClosureTable | None:
        """Where a task's demonstrations close the grippers; known once the task was used."""
        return self._closures.get(task)

    def _hold(self, name: str) -> _Held:
        held = self._held.get(name)
        if held and held.failed is not None and time.monotonic() - held.failed > RETRY_SECONDS:
            held = None
        if held is None:
            held = _Held(asyncio.create_task(self._read(name)))
            held.idle.set()
            # if all who waited have gone, nobody reads the error, and asyncio would warn
            held.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._held[name] = held
        self._held.move_to_end(name)
        return held

    async def _read(self, name: str) -> Predictor:
        async with self._one:
            while len(self.loaded) >= self._capacity:
                # requests for it from now on wait until it is loaded again
                leaving = self._held.pop(self.loaded[0])
                await leaving.idle.wait()
                del leaving
            path = self._entries[name].path
            try:
                predictor = await asyncio.get_running_loop().run_in_executor(self._thread, self._load, path)
                self._digests[name] = predictor.digest
                return predictor
            except Exception as error:
                self._held[name].failed = time.monotonic()
                problem = f"{type(error).__name__}: {error}"
                # a ValueError says what is wrong with the folder
                trace = None if isinstance(error, ValueError) else error
                logger.error("checkpoint %s cannot be loaded: %s", name, problem, exc_info=trace)
        # outside of the handler, as the error's frames may hold half a network
        raise CheckpointUnavailableError(f"checkpoint {name!r} at {path} cannot be loaded: {problem}")
