"""Reads demonstrations for the statistics: in processes, task by task, without reading anything twice.

What a task's demonstrations add up to is kept in the workspace, with the digests of the files that are in it.
A later revision adds the demonstrations that are new.
"""

import hashlib
import json
import multiprocessing
import os
import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from components.statistics.tokenizer import ChunkSample
from components.store.files import write_atomic
from pi_behavior.accumulators import DatasetAccumulator
from pi_behavior.challenge import TASKS_BY_INDEX
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.meta import Episode
from pi_behavior.processes import begin_worker

_JOB = 64
"""Demonstrations that a worker process reads at a time, at most."""


@dataclass
class Sums:
    """What demonstrations add up to."""

    accumulator: DatasetAccumulator
    sample: ChunkSample
    episodes: frozenset[str] = frozenset()
    """Keys of the demonstrations that are in it."""

    @classmethod
    def empty(cls, *, absolute: bool) -> "Sums":
        """Of no demonstration."""
        return cls(DatasetAccumulator(absolute_actions=absolute), ChunkSample(absolute_actions=absolute))

    def merge(self, other: "Sums") -> None:
        """Add other demonstrations."""
        self.accumulator.merge(other.accumulator)
        self.sample.merge(other.sample)
        self.episodes |= other.episodes


@dataclass(frozen=True)
class Cache:
    """Sums of tasks, kept in a folder.

    Made anew where the code that makes them is another, whose digest names the files.
    """

    folder: Path
    code: str

    def find(self, task: int, wanted: frozenset[str], *, absolute: bool) -> Sums:
        """The largest sum of some of the wanted demonstrations of a task."""
        best, found = frozenset[str](), None
        for path in self.folder.glob(f"{self._name(task, absolute=absolute)}-*.keys"):
            keys = frozenset(json.loads(path.read_text()))
            sums = path.with_suffix(".sums")
            if best < keys <= wanted and sums.is_file():
                best, found = keys, sums
        if found is None:
            return Sums.empty(absolute=absolute)
        for path in (found, found.with_suffix(".keys")):
            os.utime(path)  # `b1k gc` leaves alone what is in use
        result = pickle.loads(found.read_bytes())  # noqa: S301 - written below, in our own workspace
        assert isinstance(result, Sums)
        return result

    def keep(self, task: int, sums: Sums, *, absolute: bool) -> None:
        """Keep the sum of a task's demonstrations, instead of smaller ones that are part of it."""
        keys = sorted(sums.episodes)
        digest = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        name = self._name(task, absolute=absolute)
        write_atomic(self.folder / f"{name}-{digest}.sums", pickle.dumps(sums))
        write_atomic(self.folder / f"{name}-{digest}.keys", json.dumps(keys))
        for path in self.folder.glob(f"task-{task:04d}-*.keys"):
            if frozenset(json.loads(path.read_text())) < sums.episodes or self.code not in path.name:
                path.unlink(missing_ok=True)
                path.with_suffix(".sums").unlink(missing_ok=True)

    def _name(self, task: int, *, absolute: bool) -> str:
        return f"task-{task:04d}-{'absolute' if absolute else 'delta'}-{self.code}"


def read_all(
    dataset: LeRobotDataset,
    episodes: Mapping[Episode, str],
    kept: Cache,
    *,
    absolute: bool,
    processes: int,
    on_frames: Callable[[int, int], None],
) -> Sums:
    """Read demonstrations, given with keys that stand for their content.

    Args:
        dataset: the dataset.
        episodes: which of its demonstrations.
        kept: sums of earlier calls.
        absolute: leave actions absolute.
        processes: how many read at the same time.
        on_frames: is told how many frames are read, of how many.

    Raises:
        ValueError: data that are not as expected.
    """
    tasks: dict[int, list[Episode]] = {}
    for episode in episodes:
        tasks.setdefault(episode.task, []).append(episode)
    total, done = sum(e.length for e in episodes), 0
    everything = Sums.empty(absolute=absolute)
    # spawned: a fork of a process with threads may deadlock
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, begin_worker) if processes > 1 else None
    try:
        for task, group in sorted(tasks.items()):
            sums = kept.find(task, frozenset(episodes[e] for e in group), absolute=absolute)
            new = [e for e in group if episodes[e] not in sums.episodes]
            done += sum(e.length for e in group if episodes[e] in sums.episodes)
            on_frames(done, total)
            size = min(_JOB, -(-len(new) // processes)) if new else 1
            parts = [new[i : i + size] for i in range(0, len(new), size)]
            if pool is None:
                read = (read_part(dataset.root, part, absolute=absolute) for part in parts)
            else:
                jobs = [pool.submit(read_part, dataset.root, part, absolute=absolute) for part in parts]
                read = (job.result() for job in as_completed(jobs))
            for part in read:
                sums.merge(part)
                done += part.accumulator.moments.frames
                on_frames(done, total)
            if new:
                sums.episodes = frozenset(episodes[e] for e in group)
                kept.keep(task, sums, absolute=absolute)
            everything.merge(sums)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
    return everything


def read_part(root: Path, episodes: Sequence[Episode], *, absolute: bool) -> Sums:
    """Read some demonstrations, in this process."""
    dataset, sums = _open(root), Sums.empty(absolute=absolute)
    for episode in episodes:
        state, actions = dataset.state_and_actions(episode)
        stages = TASKS_BY_INDEX[episode.task].stages
        what = episode.task, episode.task_name, stages
        sums.accumulator.update(*what, state, actions, episode.human, episode.skills)
        number = zlib.crc32(episode.folder.encode()) << 32 | episode.index
        sums.sample.update(number, state, actions)
    return sums


_open = cache(LeRobotDataset)
