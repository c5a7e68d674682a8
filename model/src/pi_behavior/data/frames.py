"""Where a batch's images come from: a cache of decoded frames on disk, or the videos themselves.

The cache needs frames x 3 cameras x size^2 x 3 bytes (28 kB per frame at 56 pixels, 450 kB at 224), so it is
for datasets of some thousand frames to some million; beyond that videos are decoded as training needs them.
"""

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from pi_behavior.data.lerobot import Episode, LeRobotDataset
from pi_behavior.data.video import decode, decode_frames
from pi_behavior.files import NoSpaceError
from pi_behavior.layout import CAMERAS

Images = dict[str, UInt8[np.ndarray, "b h w 3"]]
OnProgress = Callable[[str, int, int], None]
"""Called with a name of the work, the number of items done, and their total."""


@runtime_checkable
class Frames(Protocol):
    """A source of images."""

    def gather(self, episode: Int[np.ndarray, " b"], frame: Int[np.ndarray, " b"]) -> Images:
        """Images by camera, for positions in the list of episodes and frame numbers."""


class CachedFrames:
    """Frames decoded once into one memory-mapped file per task.

    A file appears when it is whole; processes that share the folder build each file once. Its name holds a
    digest of the episodes, so that it is never used for other ones.

    Args:
        dataset: the dataset.
        episodes: the episodes that `gather` indexes.
        size: height and width of the frames.
        folder: the cache; its files may be deleted at any time when no training runs.
        on_progress: called after each decoded episode.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        episodes: Sequence[Episode],
        size: int,
        folder: Path,
        on_progress: OnProgress | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tasks = sorted({e.task for e in episodes})
        # a cache file holds all episodes of its task, whatever part of them this training uses
        groups = {task: dataset.select((task,)) for task in tasks}
        paths = {task: folder / _name(task, size, group) for task, group in groups.items()}
        with _exclusive(folder / "lock"):
            missing = [task for task in tasks if not paths[task].exists()]
            total, done = sum(len(groups[task]) for task in missing), 0
            for task in missing:
                _build(paths[task], dataset, groups[task], size, partial(_report, on_progress, done, total))
                done += len(groups[task])
        self._files = [np.load(paths[task], mmap_mode="r") for task in tasks]
        self._file = np.array([tasks.index(e.task) for e in episodes])
        starts = {e: start for group in groups.values() for e, start in _starts(group)}
        self._start = np.array([starts[e] for e in episodes])

    def gather(self, episode: Int[np.ndarray, " b"], frame: Int[np.ndarray, " b"]) -> Images:
        """Images by camera, copied from the memory map."""
        file, row = self._file[episode], self._start[episode] + frame
        size = self._files[0].shape[2]
        images = {camera: np.empty((len(row), size, size, 3), np.uint8) for camera in CAMERAS}
        for number, frames in enumerate(self._files):
            chosen = np.flatnonzero(file == number)
            for column, camera in enumerate(CAMERAS):
                images[camera][chosen] = frames[row[chosen], column]
        return images


class DecodedFrames:
    """Frames decoded from the videos when asked for, on all cores.

    Args:
        dataset: the dataset.
        episodes: the episodes that `gather` indexes.
        size: height and width of the frames.
    """

    def __init__(self, dataset: LeRobotDataset, episodes: Sequence[Episode], size: int) -> None:
        self._size = size
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")
        numbers: dict[Path, int] = {}
        clips = [[dataset.camera_clip(episode, camera) for camera in CAMERAS] for episode in episodes]
        self._file = np.array([[numbers.setdefault(c.path, len(numbers)) for c in row] for row in clips])
        self._start = np.array([[clip.start for clip in row] for row in clips])
        self._paths = list(numbers)

    def gather(self, episode: Int[np.ndarray, " b"], frame: Int[np.ndarray, " b"]) -> Images:
        """Images by camera; each video file is opened once per call."""
        images = {camera: np.empty((len(frame), self._size, self._size, 3), np.uint8) for camera in CAMERAS}

        def fill(camera: str, path: Path, rows: np.ndarray, positions: np.ndarray) -> None:
            images[camera][rows] = decode_frames(path, positions.tolist(), self._size)

        jobs = []
        for column, camera in enumerate(CAMERAS):
            files, positions = self._file[episode, column], self._start[episode, column] + frame
            for file in np.unique(files):
                rows = np.flatnonzero(files == file)
                jobs.append(self._pool.submit(fill, camera, self._paths[file], rows, positions[rows]))
        for job in jobs:
            job.result()
        return images


def _name(task: int, size: int, episodes: Sequence[Episode]) -> str:
    key = json.dumps([(e.folder, e.index, e.length) for e in episodes])
    return f"task-{task:04d}.{size}px.{hashlib.sha256(key.encode()).hexdigest()[:12]}.npy"


def _starts(episodes: Sequence[Episode]) -> Iterator[tuple[Episode, int]]:
    start = 0
    for episode in episodes:
        yield episode, start
        start += episode.length


def _build(
    path: Path,
    dataset: LeRobotDataset,
    episodes: Sequence[Episode],
    size: int,
    report: Callable[[int], None],
) -> None:
    # the lock is held, so a file of this name was left by a killed process
    aside = path.with_name(f".{path.name}.partial")
    shape = (sum(e.length for e in episodes), len(CAMERAS), size, size, 3)
    # a full disk would kill the process at a write to the memory map
    aside.unlink(missing_ok=True)
    free = shutil.disk_usage(path.parent).free
    if math.prod(shape) > free:
        raise NoSpaceError(
            f"the frame cache {path} needs {math.prod(shape):,} bytes, {free:,} are free; make space, or "
            "train without a frame cache"
        )
    frames = np.lib.format.open_memmap(aside, "w+", np.uint8, shape)

    def fill(episode: Episode, start: int) -> None:
        for column, camera in enumerate(CAMERAS):
            clip = dataset.camera_clip(episode, camera)
            frames[start : start + episode.length, column] = decode(
                clip.path, size, episode.length, clip.start
            )

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        jobs = [pool.submit(fill, episode, start) for episode, start in _starts(episodes)]
        try:
            for done, job in enumerate(jobs, start=1):
                job.result()
                report(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    frames.flush()
    del frames
    aside.rename(path)


def _report(on_progress: OnProgress | None, before: int, total: int, done: int) -> None:
    if on_progress is not None:
        on_progress("decoding episodes", before + done, total)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
