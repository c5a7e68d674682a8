"""Reads a demonstration dataset in the layout of the 2025 challenge (LeRobot v2.1, chunks are tasks).

Only meta files are read when a dataset is opened; columns and videos are read per episode when asked for.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from pi_behavior.challenge import TASKS
from pi_behavior.layout import (
    ACTION_DIM,
    CAMERA_VIDEO_KEYS,
    DATASET_ACTION_KEY,
    DATASET_STATE_KEY,
    PROPRIOCEPTION_DIM,
    state_from_proprioception,
)

CODEBASE_VERSION = "v2.1"
HUMAN_MEASUREMENTS = ("length", "distance_traveled", "left_eef_displacement", "right_eef_displacement")
"""What `episodes.jsonl` says of the demonstrator: steps and metres."""
COLUMN_WIDTHS: Mapping[str, int] = {
    DATASET_ACTION_KEY: ACTION_DIM,
    DATASET_STATE_KEY: PROPRIOCEPTION_DIM,
    "observation.cam_rel_poses": 21,
}
"""Widths of the vector columns that every episode has; `observation.task_info` is privileged, never read."""


class DatasetError(ValueError):
    """A dataset's file is not as expected; the message names the file and what was expected of it."""


@dataclass(frozen=True)
class Episode:
    """One demonstration, as `episodes.jsonl` describes it."""

    index: int
    """task index * 10000 + instance * 10 + demo."""
    task: int
    """Task index."""
    task_name: str
    length: int
    """Number of frames."""
    human: Mapping[str, float]
    """The demonstrator's measurements, see HUMAN_MEASUREMENTS."""

    @property
    def instance(self) -> int:
        """Training instance of the task."""
        return self.index // 10 % 1000


class LeRobotDataset:
    """A dataset on disk.

    Args:
        root: the folder that holds `meta/`, `data/` and `videos/`.

    Raises:
        DatasetError: a meta file is missing or not as expected.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        path = self.root / "meta" / "info.json"
        self.info = _json(path)
        version = self.info.get("codebase_version")
        if version != CODEBASE_VERSION:
            raise DatasetError(
                f"{path}: codebase_version is {version!r}; expected {CODEBASE_VERSION!r}, as the 2025 demos"
            )
        for key in ("data_path", "video_path", "chunks_size", "fps"):
            if key not in self.info:
                raise DatasetError(
                    f"{path}: no entry {key!r}; expected the meta data of a LeRobot v2.1 dataset"
                )
        self.fps = float(self.info["fps"])
        self.task_names = self._read_tasks()

    def _read_tasks(self) -> dict[int, str]:
        path = self.root / "meta" / "tasks.jsonl"
        names: dict[int, str] = {}
        for line, row in _json_lines(path):
            index, name = (
                _entry(path, line, row, "task_index", int),
                _entry(path, line, row, "task_name", str),
            )
            if name not in TASKS or TASKS[name].index != index:
                known = f"index {TASKS[name].index}" if name in TASKS else "no such name"
                raise DatasetError(
                    f"{path}, line {line}: task {name!r} has index {index}; the challenge has {known}"
                )
            names[index] = name
        return names

    @cached_property
    def episodes(self) -> tuple[Episode, ...]:
        """All demonstrations, by index."""
        path = self.root / "meta" / "episodes.jsonl"
        found: dict[int, Episode] = {}
        for line, row in _json_lines(path):
            index, length = (_entry(path, line, row, key, int) for key in ("episode_index", "length"))
            human = {key: float(_entry(path, line, row, key, (int, float))) for key in HUMAN_MEASUREMENTS}
            task = index // int(self.info["chunks_size"])
            if task not in self.task_names:
                raise DatasetError(
                    f"{path}, line {line}: episode {index} is of task {task}; meta/tasks.jsonl has "
                    f"{', '.join(map(str, self.task_names))}"
                )
            if index in found or length < 1:
                raise DatasetError(
                    f"{path}, line {line}: episode {index} with {length} frames; expected each episode once, "
                    "with at least one frame"
                )
            found[index] = Episode(index, task, self.task_names[task], length, human)
        return tuple(found[index] for index in sorted(found))

    def select(self, tasks: Collection[int] = ()) -> tuple[Episode, ...]:
        """Demonstrations of some tasks; of all tasks if none is named.

        Raises:
            DatasetError: there is no demonstration of a task that was asked for.
        """
        have = {e.task for e in self.episodes}
        if missing := sorted(set(tasks) - have):
            raise DatasetError(
                f"{self.root} has no demonstrations of task {missing}; it has tasks {sorted(have)}"
            )
        return tuple(e for e in self.episodes if not tasks or e.task in tasks)

    def _path(self, template: str, episode: Episode, **names: str) -> Path:
        return self.root / template.format(episode_chunk=episode.task, episode_index=episode.index, **names)

    def data_path(self, episode: Episode) -> Path:
        """The episode's parquet file."""
        return self._path(self.info["data_path"], episode)

    def video_path(self, episode: Episode, camera: str) -> Path:
        """The episode's RGB video of a camera in layout.CAMERAS."""
        return self._path(self.info["video_path"], episode, video_key=CAMERA_VIDEO_KEYS[camera])

    def annotation_path(self, episode: Episode) -> Path | None:
        """The episode's annotation, which a part of the tasks has."""
        if "annotation_path" not in self.info:
            return None
        path = self._path(self.info["annotation_path"], episode)
        return path if path.is_file() else None

    def read(self, episode: Episode, columns: Collection[str]) -> dict[str, np.ndarray]:
        """Read columns of an episode.

        Args:
            episode: the episode.
            columns: names; vector columns become [frames, width].

        Raises:
            DatasetError: the file or a column is missing, or lengths or widths are not as expected.
        """
        path = self.data_path(episode)
        try:
            # ParquetFile: read_table opens a whole dataset, which costs more than the read for short episodes
            with pq.ParquetFile(path) as file:
                table = file.read(columns=list(columns), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{path}: cannot be read as parquet: {error}") from error
        if missing := sorted(set(columns) - set(table.column_names)):
            raise DatasetError(f"{path}: no column {', '.join(missing)}; expected the 2025 demos' columns")
        if table.num_rows != episode.length:
            raise DatasetError(
                f"{path}: {table.num_rows} rows; expected {episode.length}, as meta/episodes.jsonl says"
            )
        return {name: _to_numpy(path, name, table.column(name)) for name in columns}

    def state_and_actions(
        self, episode: Episode
    ) -> tuple[Float32[np.ndarray, "n 23"], Float32[np.ndarray, "n 23"]]:
        """The policy's state and the demonstrator's absolute actions at every frame."""
        columns = self.read(episode, (DATASET_STATE_KEY, DATASET_ACTION_KEY))
        actions = columns[DATASET_ACTION_KEY].astype(np.float32, copy=False)
        return state_from_proprioception(columns[DATASET_STATE_KEY]), actions


def _to_numpy(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    if column.null_count:
        raise DatasetError(f"{path}: column {name} has {column.null_count} empty values; expected none")
    if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
        return np.asarray(column.to_numpy())
    rows = len(column)
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    width = COLUMN_WIDTHS.get(name, values.size // max(rows, 1))
    if values.size != rows * width:
        raise DatasetError(
            f"{path}: column {name} holds {values.size} values in {rows} rows; expected {width} each"
        )
    return np.asarray(values).reshape(rows, width)


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read ({error.strerror}); expected the root of a LeRobot v2.1 dataset"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path} holds a {type(document).__name__}; expected a JSON object")
    return document


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text()
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror}; expected one JSON object per line"
        ) from error
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {number}: expected a JSON object")
        yield number, row


def _entry(path: Path, line: int, row: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(row.get(key), kind):
        raise DatasetError(f"{path}, line {line}: {key} is {row.get(key)!r}; expected {_kind_name(kind)}")
    return row[key]


def _kind_name(kind: type | tuple[type, ...]) -> str:
    return "a number" if isinstance(kind, tuple) else {int: "an integer", str: "a string"}[kind]
