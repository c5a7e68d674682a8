"""Runs the checks over all files of a dataset: in processes, and only where content was not checked before.

What the check of a content gave is kept in the workspace, so that a killed check continues, and a new
revision costs what is new.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import msgspec

from components.dataset.check_table import check_table
from components.dataset.check_video import check_video
from components.dataset.check_whole import check_whole
from components.dataset.findings import Checked, Finding
from pi_behavior.data.curation import name_of
from pi_behavior.data.lerobot import DatasetError, Episode, LeRobotDataset
from pi_behavior.layout import CAMERAS
from pi_behavior.processes import begin_worker

_FEW = 3000
"""Frames: checking fewer takes less time than starting processes."""


@dataclass(frozen=True)
class File:
    """A file that training reads, and the episodes in it."""

    path: Path
    camera: str | None
    """Whose video it is; None for a table."""
    episodes: list[Episode]


@dataclass(frozen=True)
class Options:
    """How files are checked."""

    decode_all: bool = True
    tolerance: float = 0.05
    """How far base commands and grippers may be outside the robot's limits."""
    joint_tolerance: float = 0.4
    """How far joints may be, in rad."""
    idle: float = 0.0
    """See `check_table.used_part`."""


class Memory:
    """What checks gave, by content: a file of JSON lines that grows.

    Args:
        path: the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._known = path, dict[str, Checked]()
        if path is not None and path.exists():
            os.utime(path)  # `b1k gc` leaves alone what is in use
            for line in path.read_bytes().splitlines():
                with suppress(msgspec.MsgspecError):  # the last line of a killed check may be cut short
                    key, checked = msgspec.json.decode(line, type=tuple[str, Checked])
                    self._known[key] = checked

    def get(self, key: str) -> Checked | None:
        """What a check gave."""
        return self._known.get(key)

    def keep(self, key: str, checked: Checked) -> None:
        """Remember it."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                # a line break before it ends what a killed check left
                file.write(b"\n" + msgspec.json.encode((key, checked)) + b"\n")


def dataset_files(dataset: LeRobotDataset, cameras: Sequence[str] = CAMERAS) -> list[File]:
    """All tables and RGB videos of used episodes, in the order of their first episodes."""
    files: dict[Path, File] = {}
    for episode in dataset.episodes:
        videos = [(camera, dataset.camera_clip(episode, camera).path) for camera in cameras]
        for camera, path in ((None, dataset.data_path(episode)), *videos):
            files.setdefault(path, File(path, camera, [])).episodes.append(episode)
    return list(files.values())


def missing_files(files: Sequence[File]) -> list[Finding]:
    """Files that are not there: where only a part of a dataset was downloaded."""
    missing = [file for file in files if not file.path.is_file()]
    return [
        Finding("files", f"{file.path.name} is missing", tuple(map(name_of, file.episodes)))
        for file in missing
    ]


def check_complete(dataset: LeRobotDataset, files: Sequence[File]) -> None:
    """Refuse a dataset of which only a part was downloaded.

    Raises:
        DatasetError: an episode's table or video is missing.
    """
    missing = [file for file in files if not file.path.is_file()]
    if missing:
        tasks = ", ".join(dict.fromkeys(e.task_name for file in missing for e in file.episodes))
        raise DatasetError(
            f"{len(missing)} of {len(files)} files are missing, such as "
            f"{missing[0].path.relative_to(dataset.root)}; they are of the tasks {tasks}. Download them, "
            "choose other tasks, or leave the episodes out by quarantine"
        )


def check_dataset(
    dataset: LeRobotDataset,
    files: Sequence[File],
    options: Options,
    *,
    digests: Mapping[Path, str] | None = None,
    memory: Memory | None = None,
    processes: int = 1,
    on_file: Callable[[], None] = lambda: None,
) -> tuple[list[Finding], dict[str, tuple[int, int]]]:
    """Check all files that are there.

    Args:
        dataset: the dataset.
        files: its files, see `dataset_files`.
        options: how.
        digests: what stands for the content of a file; not given, nothing is remembered.
        memory: what earlier checks gave.
        processes: how many check at the same time.
        on_file: called after each file.

    Returns:
        What was found, and first frame and end of the part of every episode that is not idle.
    """
    digests, memory = digests or {}, memory or Memory(None)
    there = [file for file in files if file.path.is_file()]
    keys = [_key(dataset, file, options, digests.get(file.path)) for file in there]
    results = [None if key is None else memory.get(key) for key in keys]
    new = [number for number, result in enumerate(results) if result is None]
    for _ in range(len(there) - len(new)):
        on_file()
    for place, result in _check(dataset, [there[n] for n in new], options, processes):
        results[number := new[place]] = result
        if (key := keys[number]) is not None:
            memory.keep(key, result)
        on_file()
    findings: list[Finding] = []
    measured: dict[str, dict[str, list[float]]] = {}
    for one in results:
        assert one is not None
        findings += one.findings
        for name, numbers in one.measured.items():
            measured.setdefault(name, {}).update(numbers)
    findings += check_whole(dataset, dataset.episodes, measured)
    used = {
        name: (int(one["used"][0]), int(one["used"][1])) for name, one in measured.items() if "used" in one
    }
    return findings, used


def check_file(dataset: LeRobotDataset, file: File, options: Options) -> Checked:
    """Check a file, in this process."""
    if file.camera is not None:
        found, measured = check_video(dataset, file.path, file.camera, file.episodes, options.decode_all)
        return Checked(tuple(found), measured)
    findings: list[Finding] = []
    tables = {}
    for episode in file.episodes:
        more, tables[name_of(episode)] = check_table(
            dataset, episode, options.tolerance, options.joint_tolerance, options.idle
        )
        findings += more
    return Checked(tuple(findings), tables)


def _check(
    dataset: LeRobotDataset, files: Sequence[File], options: Options, processes: int
) -> Iterator[tuple[int, Checked]]:
    """Check files; yields each one's number and what came out as soon as it is done."""
    if processes == 1 or sum(e.length for file in files for e in file.episodes) < _FEW:
        yield from ((number, check_file(dataset, file, options)) for number, file in enumerate(files))
        return
    # spawned: a fork of a process with threads may deadlock
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(files)), context, begin_worker)
    try:
        jobs = {pool.submit(_work, dataset.root, file, options): n for n, file in enumerate(files)}
        yield from ((jobs[job], job.result()) for job in as_completed(jobs))
    finally:
        pool.shutdown(cancel_futures=True)


def _work(root: Path, file: File, options: Options) -> Checked:
    return check_file(_open(root), file, options)


_open = cache(LeRobotDataset)


def _key(dataset: LeRobotDataset, file: File, options: Options, digest: str | None) -> str | None:
    """Digest of all that the check of a file depends on, besides the code."""
    if digest is None:
        return None
    rows: list[object] = []
    for e in file.episodes:
        place = () if file.camera is None else tuple(dataset.camera_clip(e, file.camera))[1:]
        annotation = dataset.annotation_path(e) if file.camera is None else None
        notes = "" if annotation is None else hashlib.sha256(annotation.read_bytes()).hexdigest()
        rows.append([name_of(e), e.length, e.task, e.task_column, place, notes])
    name = file.path.relative_to(dataset.root).as_posix()
    text = json.dumps([digest, name, file.camera, dataset.fps, asdict(options), rows])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
