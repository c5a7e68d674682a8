"""Compares what our reader takes from a LeRobot dataset with what the lerobot package itself returned.

Run as `python -m benchmarks.golden_lerobot FOLDER`. The folder is a dataset, v2.1 or v3.0, with an
`expected.json` that lists episodes, the first and last values of columns, and per video key some frames:
their mean pixels and their stamps. A stamp is a number that a frame shows as a 4 x 4 grid of dark and bright
blocks; it grows by one from frame to frame, so that every frame is recognised, whether it is decoded by
itself or in sequence. Prints one row per check and exits with 1 if there is a difference.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from pi_behavior.data.lerobot import Clip, Episode, LeRobotDataset
from pi_behavior.data.video import decode, decode_codes, decode_frames

BRIGHT = {"rgb": 128.0, "depth": 3000.0}
"""What a bright block exceeds: of 255 in the first channel, in millimetres."""


class Report:
    """Counts values and differences by check."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.differences: dict[str, list[str]] = {}

    def compare(self, check: str, where: str, ours: Any, theirs: Any, tolerance: float | None = None) -> None:
        """Count one value; without a tolerance it has to be equal."""
        self.counts[check] = self.counts.get(check, 0) + 1
        found = self.differences.setdefault(check, [])
        same = ours == theirs if tolerance is None else _close(ours, theirs, tolerance)
        if not same:
            found.append(f"{where}: {ours}; expected {theirs}")

    def table(self) -> Table:
        """A row per check."""
        table = Table("check", "values", "differences", "first difference")
        for check, found in self.differences.items():
            table.add_row(check, str(self.counts[check]), str(len(found)), found[0][:200] if found else "")
        return table


def _close(ours: Any, theirs: Any, tolerance: float) -> bool:
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    return a.shape == b.shape and bool((np.abs(a - b) <= tolerance).all())


def compare(folder: Path) -> Report:
    """All checks of a folder."""
    dataset, report = LeRobotDataset(folder), Report()
    expected = json.loads((folder / "expected.json").read_text())
    report.compare("episodes", "numbers", [e.index for e in dataset.episodes], _numbers(expected))
    report.compare("episodes", "frames", sum(e.length for e in dataset.episodes), expected["total_frames"])
    episodes = {episode.index: episode for episode in dataset.episodes}
    for theirs in expected["episodes"]:
        episode = episodes.get(theirs["episode_index"])
        if episode is None:
            continue
        _compare_episode(report, dataset, episode, theirs)
        _compare_columns(report, dataset, episode, theirs, expected["tolerance"]["values"])
        for key, camera in theirs["cameras"].items():
            _compare_video(report, dataset, episode, key, camera, expected["tolerance"])
    return report


def _numbers(expected: Mapping[str, Any]) -> list[int]:
    return [episode["episode_index"] for episode in expected["episodes"]]


def _compare_episode(
    report: Report, dataset: LeRobotDataset, episode: Episode, theirs: Mapping[str, Any]
) -> None:
    where = f"episode {episode.index}"
    report.compare("length", where, episode.length, theirs["length"])
    report.compare("task", where, episode.task, theirs["task_index"])
    report.compare("task", where, episode.task_name, theirs.get("task_name", theirs.get("task")))
    if "annotation_path" in theirs:
        path = dataset.annotation_path(episode)
        name = path and path.relative_to(dataset.root).as_posix()
        report.compare("annotation", where, name, theirs["annotation_path"])
    if "raw_episode_id" in theirs:
        report.compare("instance", where, episode.instance, theirs["raw_episode_id"] // 10 % 1000)


def _compare_columns(
    report: Report, dataset: LeRobotDataset, episode: Episode, theirs: Mapping[str, Any], tolerance: float
) -> None:
    names = {"action": "action", "state": "observation.state", "timestamp": "timestamp"}
    names |= {"next.terminated": "next.terminated"}
    wanted = {}
    for short, column in names.items():
        for place, row in (("first", 0), ("last", -1)):
            if f"{short}_{place}" in theirs:
                wanted[column, row] = theirs[f"{short}_{place}"]
    for camera, pose in theirs.get("robot2cam_pose_last", {}).items():
        wanted[f"observation.robot2cam_pose.{camera}", -1] = pose
    if "dataset_from_index" in theirs:
        wanted["index", 0] = theirs["dataset_from_index"]
    columns = dataset.read(episode, {column for column, _ in wanted})
    for (column, row), values in wanted.items():
        ours = columns[column][row].tolist() if column in columns else None
        report.compare(f"column {column}", f"episode {episode.index}, row {row}", ours, values, tolerance)


def _compare_video(
    report: Report,
    dataset: LeRobotDataset,
    episode: Episode,
    key: str,
    theirs: Mapping[str, Any],
    tolerance: Mapping[str, float],
) -> None:
    where, clip = f"episode {episode.index}", dataset.clip(episode, key)
    report.compare("video file", f"{where}, {key}", _name(dataset, clip), theirs["file"])
    if "first_frame_in_file" in theirs:
        report.compare("first frame", f"{where}, {key}", clip.start, theirs["first_frame_in_file"])
    positions = range(clip.start, clip.start + episode.length)
    kind = "depth" if "depth_mm_mean" in theirs["frames"][0] else "rgb"
    if kind == "depth":
        scale = dataset.depth_scale(key)
        sequence = scale.metres(decode_codes(clip.path, positions)) * 1000
    else:
        sequence = decode(clip.path, frames=episode.length, start=clip.start)
    first = theirs["frames"][0]
    for number in Random(0).sample(range(episode.length), episode.length):
        place, stamp = f"{where}, frame {number}", first["stamp"] + number - first["frame_index"]
        if kind == "depth":
            single = scale.metres(decode_codes(clip.path, [positions[number]]))[0] * 1000
        else:
            single = decode_frames(clip.path, [positions[number]])[0]
        report.compare(f"{key}: in sequence", place, _stamp(sequence[number], kind), stamp % 65536)
        report.compare(f"{key}: one by one", place, _stamp(single, kind), stamp % 65536)
        report.compare(f"{key}: same pixels", place, bool((single == sequence[number]).all()), True)
    for frame in theirs["frames"]:
        picture, place = sequence[frame["frame_index"]], f"{where}, frame {frame['frame_index']}"
        for name, limit, ours in _summaries(picture, kind, tolerance):
            report.compare(f"{key}: {name}", place, ours, frame[name], limit)


def _name(dataset: LeRobotDataset, clip: Clip) -> str:
    return clip.path.relative_to(dataset.root).as_posix()


def _summaries(
    picture: np.ndarray, kind: str, tolerance: Mapping[str, float]
) -> list[tuple[str, float, list[float] | float]]:
    if kind == "rgb":
        return [("rgb_mean", tolerance["rgb_mean"], picture.mean(axis=(0, 1)).tolist())]
    values = {"mean": picture.mean(), "min": picture.min(), "max": picture.max()}
    return [(f"depth_mm_{name}", tolerance["depth_mm"], float(value)) for name, value in values.items()]


def _stamp(picture: np.ndarray, kind: str) -> int:
    """The number in a picture: bit b is the block in row b // 4, column b % 4, without its edges."""
    values = picture[..., 0] if kind == "rgb" else picture
    height, width = values.shape[0] // 4, values.shape[1] // 4
    blocks = values[: 4 * height, : 4 * width].reshape(4, height, 4, width)
    inner = blocks[:, height // 4 : -(height // 4), :, width // 4 : -(width // 4)].mean(axis=(1, 3))
    return sum(1 << int(bit) for bit in np.flatnonzero(inner.reshape(-1) > BRIGHT[kind]))


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Compare FOLDER with its expected.json.

    Args:
        folder: a dataset with expected.json.
    """
    report = compare(folder)
    Console(width=200).print(report.table())
    sys.exit(any(report.differences.values()))


if __name__ == "__main__":
    tyro.cli(main)
