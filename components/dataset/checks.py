"""Checks of a dataset, episode by episode, for what would otherwise fail hours into a training."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from pi_behavior.data.lerobot import COLUMN_WIDTHS, DatasetError, Episode, LeRobotDataset
from pi_behavior.data.video import VideoError, count_frames, decode_frames
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
    "frames": "every file of an episode has its number of frames, at the dataset's rate",
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


def check_complete(dataset: LeRobotDataset) -> None:
    """Refuse a dataset of which only a part was downloaded: DatasetError if a table or video is missing."""
    files = {
        path: episode.task_name
        for episode in dataset.episodes
        for path in (dataset.data_path(episode), *(dataset.video_path(episode, name) for name in CAMERAS))
    }
    missing = [path for path in files if not path.is_file()]
    if missing:
        tasks = ", ".join(dict.fromkeys(files[path] for path in missing))
        raise DatasetError(
            f"{len(missing)} of {len(files)} files are missing, such as "
            f"{missing[0].relative_to(dataset.root)}; they are of the tasks {tasks}. Download them, or take "
            "the lines of their episodes out of meta/episodes.jsonl"
        )


def check_dataset(
    dataset: LeRobotDataset,
    *,
    decode_all: bool,
    tolerance: float,
    on_episode: Callable[[], None],
) -> list[Finding]:
    """Check all episodes, on all cores; `decode_all` and `tolerance` are as in the stage's `Config`."""
    check = partial(check_episode, dataset, decode_all=decode_all, tolerance=tolerance)
    findings: list[Finding] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for found in pool.map(check, dataset.episodes):
            findings.extend(found)
            on_episode()
    return findings


def check_episode(
    dataset: LeRobotDataset, episode: Episode, *, decode_all: bool, tolerance: float
) -> list[Finding]:
    """Check one episode; see `check_dataset`."""
    findings = _check_columns(dataset, episode, tolerance)
    for camera in CAMERAS:
        findings += _check_video(dataset, episode, camera, decode_all)
    return findings


def _check_columns(dataset: LeRobotDataset, episode: Episode, tolerance: float) -> list[Finding]:
    path = dataset.data_path(episode)
    try:
        columns = dataset.read(episode, (*COLUMN_WIDTHS, *_SCALARS))
    except DatasetError as error:
        return [Finding("schema", str(error))]
    findings = []
    for name, expected in (("episode_index", episode.index), ("task_index", episode.task)):
        if (columns[name] != expected).any():
            findings.append(Finding("schema", f"{path}: {name} is not {expected} in all rows"))
    late = np.abs(columns["timestamp"] - np.arange(episode.length) / dataset.fps).max()
    if not late < 0.5 / dataset.fps:
        findings.append(
            Finding("frames", f"{path}: timestamps are off by {late:.3f} s from {dataset.fps:g} fps")
        )
    if broken := [name for name in COLUMN_WIDTHS if not np.isfinite(columns[name]).all()]:
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


def _check_video(
    dataset: LeRobotDataset, episode: Episode, camera: str, decode_all: bool
) -> Sequence[Finding]:
    path = dataset.video_path(episode, camera)
    try:
        if decode_all:
            frames = count_frames(path, decoded=True)
        else:
            frames = count_frames(path)
            decode_frames(path, (0, frames - 1))
    except VideoError as error:
        return (Finding("videos", str(error)),)
    if frames != episode.length:
        return (Finding("frames", f"{path}: {frames} frames; expected {episode.length}"),)
    return ()
