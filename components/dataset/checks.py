"""Checks of a dataset, episode by episode, for what would otherwise fail hours into a training."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pi_behavior.data.columns import VECTOR_WIDTHS
from pi_behavior.data.lerobot import DatasetError, Episode, LeRobotDataset
from pi_behavior.data.video import VideoError, count_decoded, decode_frames, frame_times
from pi_behavior.layout import (
    ACTION_HIGH,
    ACTION_LOW,
    CAMERAS,
    DATASET_ACTION_KEY,
    DATASET_STATE_KEY,
    state_from_proprioception,
)

CHECKS = {
    "schema": "columns have the challenge's names and widths, and belong to the episode",
    "frames": "every file has the frames of its episodes, at the dataset's rate",
    "videos": "videos decode",
    "finite": "states and actions are finite numbers",
    "limits": "actions and measured joints are within the robot's limits",
}
_SCALARS = ("timestamp", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class Finding:
    """Something wrong in an episode."""

    check: str
    """A key of CHECKS."""
    message: str
    """The file, what it holds, and what was expected."""


@dataclass(frozen=True)
class File:
    """A file that training reads, and the episodes in it."""

    path: Path
    camera: str | None
    """Whose video it is; None for a table."""
    episodes: list[Episode]


def dataset_files(dataset: LeRobotDataset) -> list[File]:
    """All tables and RGB videos, in the order of their first episodes."""
    files: dict[Path, File] = {}
    for episode in dataset.episodes:
        videos = [(camera, dataset.camera_clip(episode, camera).path) for camera in CAMERAS]
        for camera, path in ((None, dataset.data_path(episode)), *videos):
            files.setdefault(path, File(path, camera, [])).episodes.append(episode)
    return list(files.values())


def check_complete(dataset: LeRobotDataset) -> None:
    """Refuse a dataset of which only a part was downloaded.

    Raises:
        DatasetError: an episode's table or video is missing.
    """
    files = dataset_files(dataset)
    missing = [file for file in files if not file.path.is_file()]
    if missing:
        tasks = ", ".join(dict.fromkeys(e.task_name for file in missing for e in file.episodes))
        raise DatasetError(
            f"{len(missing)} of {len(files)} files are missing, such as "
            f"{missing[0].path.relative_to(dataset.root)}; they are of the tasks {tasks}. Download them, or "
            "take their episodes out of the list of episodes in meta/"
        )


def check_dataset(
    dataset: LeRobotDataset,
    *,
    decode_all: bool,
    tolerance: float,
    on_file: Callable[[], None],
) -> list[Finding]:
    """Check all files, on all cores.

    Args:
        dataset: the dataset.
        decode_all: decode every frame; otherwise the first and the last of every video.
        tolerance: how far values may be outside the robot's limits.
        on_file: called after each of `dataset_files`.
    """

    def check(file: File) -> list[Finding]:
        if file.camera is not None:
            return list(_check_video(dataset, file, file.camera, decode_all))
        return [f for episode in file.episodes for f in _check_columns(dataset, episode, tolerance)]

    findings: list[Finding] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for found in pool.map(check, dataset_files(dataset)):
            findings.extend(found)
            on_file()
    return findings


def _check_columns(dataset: LeRobotDataset, episode: Episode, tolerance: float) -> list[Finding]:
    path = f"{dataset.data_path(episode)}, episode {episode.index}"
    try:
        columns = dataset.read(episode, (*VECTOR_WIDTHS, *_SCALARS))
    except DatasetError as error:
        return [Finding("schema", str(error))]
    findings = []
    for name, expected in (("episode_index", episode.index), ("task_index", episode.task_column)):
        if (columns[name] != expected).any():
            findings.append(Finding("schema", f"{path}: {name} is not {expected} in all rows"))
    late = np.abs(columns["timestamp"] - np.arange(episode.length) / dataset.fps).max()
    if not late < 0.5 / dataset.fps:
        findings.append(
            Finding("frames", f"{path}: timestamps are off by {late:.3f} s from {dataset.fps:g} fps")
        )
    vectors = [name for name in VECTOR_WIDTHS if name in columns]
    if broken := [name for name in vectors if not np.isfinite(columns[name]).all()]:
        return [*findings, Finding("finite", f"{path}: {', '.join(broken)} hold values that are not finite")]
    state = state_from_proprioception(columns[DATASET_STATE_KEY])
    for name, values in ((DATASET_ACTION_KEY, columns[DATASET_ACTION_KEY]), (DATASET_STATE_KEY, state)):
        # a measured base velocity may exceed the commanded one, so it has no limit
        first = 0 if name == DATASET_ACTION_KEY else 3
        findings += _check_limits(f"{path}: {name}", values, first, tolerance)
    return findings


def _check_limits(name: str, values: np.ndarray, first: int, tolerance: float) -> Sequence[Finding]:
    excess = np.maximum(ACTION_LOW - values, values - ACTION_HIGH)
    excess[:, :first] = 0.0
    frame, dimension = np.unravel_index(excess.argmax(), excess.shape)
    if excess[frame, dimension] <= tolerance:
        return ()
    return (
        Finding(
            "limits",
            f"{name} at frame {frame}, dimension {dimension} is {values[frame, dimension]:.4f}; expected "
            f"{ACTION_LOW[dimension]:.4f} to {ACTION_HIGH[dimension]:.4f} (tolerance {tolerance:g})",
        ),
    )


def _check_video(dataset: LeRobotDataset, file: File, camera: str, decode_all: bool) -> Iterator[Finding]:
    path, expected = file.path, 0
    try:
        times = frame_times(path)
        frames = len(times)
        if decode_all:
            frames = count_decoded(path)
        else:
            decode_frames(path, (0, frames - 1))
        clips = [(episode, dataset.camera_clip(episode, camera)) for episode in file.episodes]
    except VideoError as error:
        yield Finding("videos", str(error))
        return
    for episode, clip in clips:
        expected = max(expected, clip.start + clip.frames)
        if clip.frames != episode.length:
            where = f"{path}: episode {episode.index} has {clip.frames} frames here"
            yield Finding("frames", f"{where}; expected {episode.length}, the length in the same table")
    # a file of several episodes may hold more than those that meta/ lists
    if frames < expected or (frames > expected and not dataset.several_per_file):
        yield Finding("frames", f"{path}: {frames} frames; expected {expected}")
    late = np.abs(times - np.arange(len(times)) / dataset.fps) >= 0.5 / dataset.fps
    if late.any():
        at = int(late.argmax())
        yield Finding(
            "frames",
            f"{path}: the time stamp of frame {at} is {times[at]:.3f} s; expected {at / dataset.fps:.3f} s, "
            f"as its position says at {dataset.fps:g} fps",
        )
