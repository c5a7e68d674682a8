"""Makes training copies: in worker processes, pack by pack, continuing where a killed run left off."""

import hashlib
import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.meta import DatasetError, Episode
from pi_behavior.data.pack_writer import aside, count_done, write_pack
from pi_behavior.data.training_copy import (
    PACKS,
    VERSION,
    CopyOptions,
    Manifest,
    PackedEpisode,
    TrainingCopy,
)
from pi_behavior.data.video import VideoError
from pi_behavior.files import NoSpaceError
from pi_behavior.layout import ACTION_DIM
from pi_behavior.processes import begin_worker

PACK = 32
"""Most episodes of a pack: 10,000 demonstrations make some thousand files."""
_BYTES = 3000
"""Of a compressed picture of 224 pixels, for the look at free space."""
OnFrames = Callable[[int, int], None]
"""Called with the number of frames that are packed, and their total."""


@dataclass(frozen=True)
class _Job:
    """A pack to make."""

    folder: Path
    episodes: tuple[Episode, ...]
    options: CopyOptions
    cameras: tuple[str, ...]


def make_copy(
    dataset: LeRobotDataset,
    root: Path,
    options: CopyOptions,
    *,
    cameras: tuple[str, ...],
    digest: Callable[[Path], str],
    earlier: Sequence[Path] = (),
    processes: int = 1,
    on_frames: OnFrames = lambda done, total: None,
) -> Manifest:
    """Copy all demonstrations of a dataset. Called again after a kill, it continues.

    Args:
        dataset: the dataset.
        root: the copy's folder.
        options: what the copy holds.
        cameras: whose pictures; none for states and actions alone.
        digest: what stands for the content of a file of the dataset.
        earlier: copies whose packs are linked where they hold what this one needs.
        processes: how many encode at the same time.
        on_frames: is told how far it is.

    Raises:
        DatasetError, VideoError: a file is not as expected.
        NoSpaceError: the copy would not fit on the disk.
    """
    root.mkdir(parents=True, exist_ok=True)
    keys = {e: _key(dataset, e, cameras, digest) for e in dataset.episodes}
    known = _link_earlier(root, set(keys.values()), options, cameras, earlier)
    jobs = [
        _Job(root / PACKS / name, episodes, options, cameras)
        for name, episodes in _packs(keys, known, options, cameras)
    ]
    for job in jobs:
        row = 0
        for episode in job.episodes:
            known[keys[episode]] = (job.folder.name, row)
            row += episode.length
    _pack_all(dataset.root, jobs, processes, on_frames)
    names = tuple(sorted({known[key][0] for key in keys.values()}))
    numbers = {name: number for number, name in enumerate(names)}
    places = [
        PackedEpisode(_annotated(dataset, e), k, numbers[known[k][0]], known[k][1]) for e, k in keys.items()
    ]
    manifest = Manifest(VERSION, options, cameras, names, tuple(places))
    manifest.save(root)
    return manifest


def _annotated(dataset: LeRobotDataset, episode: Episode) -> Episode:
    try:
        return dataset.with_skills(episode)
    except DatasetError:  # whoever wants stages from skills hears of it from the stage statistics
        return episode


def _key(
    dataset: LeRobotDataset, episode: Episode, cameras: Sequence[str], digest: Callable[[Path], str]
) -> str:
    """Digest of what an episode's rows and pictures are made from."""
    clips = [dataset.camera_clip(episode, camera) for camera in cameras]
    parts = [digest(dataset.data_path(episode)), episode.index, episode.before, episode.length]
    parts += [[digest(clip.path), clip.start] for clip in clips]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _link_earlier(
    root: Path, wanted: set[str], options: CopyOptions, cameras: tuple[str, ...], earlier: Sequence[Path]
) -> dict[str, tuple[str, int]]:
    """Link packs of earlier copies; returns the packs and first rows of what they hold, by key."""
    known: dict[str, tuple[str, int]] = {}
    for other in earlier:
        try:
            manifest = TrainingCopy(other).manifest
        except DatasetError:  # of another version
            continue
        if (manifest.options, manifest.cameras) != (options, cameras):
            continue
        for one in manifest.episodes:
            if one.key not in wanted or one.key in known:
                continue
            name = manifest.packs[one.pack]
            if not (root / PACKS / name).exists():
                work = aside(root / PACKS / name)
                shutil.rmtree(work, ignore_errors=True)  # of a run that was killed here
                shutil.copytree(other / PACKS / name, work, copy_function=os.link)
                work.rename(root / PACKS / name)
            known[one.key] = (name, one.row)
    return known


def _packs(
    keys: Mapping[Episode, str],
    known: Mapping[str, object],
    options: CopyOptions,
    cameras: tuple[str, ...],
) -> Iterator[tuple[str, tuple[Episode, ...]]]:
    """New packs by name, which stands for their content: episodes of one task that no earlier one has."""
    new = sorted((e for e in keys if keys[e] not in known), key=lambda e: (e.task, e.folder, e.index))
    for task, group in groupby(new, key=lambda e: e.task):
        episodes = tuple(group)
        for first in range(0, len(episodes), PACK):
            part = episodes[first : first + PACK]
            content = [VERSION, asdict(options), cameras, [keys[e] for e in part]]
            name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
            yield f"task-{task:04d}-{name}", part


def _pack_all(dataset: Path, jobs: Sequence[_Job], processes: int, on_frames: OnFrames) -> None:
    """Make packs, or continue each after its last whole episode."""

    def done() -> int:
        return sum(count_done(job.folder, job.episodes) for job in jobs)

    missing = [job for job in jobs if not job.folder.exists()]
    if not missing:
        return
    total = sum(e.length for job in jobs for e in job.episodes)
    _check_space(missing, total - done())
    # the largest first, so that the processes end together
    missing.sort(key=lambda job: -sum(e.length for e in job.episodes))
    # spawned: a fork of a process with threads, such as JAX's, may deadlock
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(missing)), context, begin_worker) as pool:
        try:
            pending = {pool.submit(_pack, dataset, job) for job in missing}
            while pending:
                finished, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                on_frames(done(), total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _check_space(jobs: Sequence[_Job], frames: int) -> None:
    job = jobs[0]
    pixels = job.options.image_size**2
    picture = _BYTES * math.ceil(pixels / 224**2) if job.options.compress else 3 * pixels
    needed = frames * (len(job.cameras) * picture + 2 * 4 * ACTION_DIM)
    folder = next(path for path in job.folder.parents if path.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpaceError(
            f"the training copy {job.folder.parents[1]} needs {needed:,} bytes, {free:,} are free; make "
            "space, or choose smaller or compressed pictures"
        )


def _pack(dataset: Path, job: _Job) -> None:
    write_pack(_open(dataset), job.folder, job.episodes, job.options, job.cameras)


_open = cache(LeRobotDataset)


__all__ = ["DatasetError", "NoSpaceError", "VideoError", "make_copy"]
