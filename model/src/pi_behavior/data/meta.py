"""What both layouts of LeRobot datasets share: episodes, clips, and readers of their meta files."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from pi_behavior.challenge import TASKS, TASKS_BY_INDEX

HUMAN_MEASUREMENTS = ("length", "distance_traveled", "left_eef_displacement", "right_eef_displacement")
"""What a dataset may say of the demonstrator: steps and metres."""


class DatasetError(ValueError):
    """A dataset's file is not as expected; the message names the file and what was expected of it."""


class Clip(NamedTuple):
    """The part of a video file that shows one episode."""

    path: Path
    start: int
    """Position of the episode's first frame in the file."""
    frames: int
    """Number of frames, as the meta files say."""


@dataclass(frozen=True)
class Episode:
    """One demonstration, as the meta files describe it."""

    index: int
    """Number in its dataset; in v2.1 task index * 10000 + instance * 10 + demo."""
    task: int
    """Task index of the challenge."""
    task_name: str
    length: int
    """Number of frames."""
    human: Mapping[str, float] = field(hash=False)
    """The demonstrator's measurements: those of HUMAN_MEASUREMENTS that the dataset has."""
    instance: int | None
    """Training instance of the task, where the dataset says it."""
    task_column: int
    """What the column task_index holds: the task's number in the dataset."""
    folder: str = ""
    """The folder of its task, where a dataset has one folder per task."""
    before: int = 0
    """Frames of the recording that are left out before it."""
    after: int = 0
    """Frames of the recording that are left out behind it."""
    skills: tuple[int, ...] = ()
    """First frame of every annotated skill, ascending, where they were read."""


def select(root: Path, episodes: Sequence[Episode], tasks: Collection[int]) -> tuple[Episode, ...]:
    """Demonstrations of some tasks; of all tasks if none is named.

    Raises:
        DatasetError: there is no demonstration of a task that was asked for.
    """
    have = {e.task for e in episodes}
    if missing := sorted(set(tasks) - have):
        raise DatasetError(f"{root} has no demonstrations of task {missing}; it has tasks {sorted(have)}")
    return tuple(e for e in episodes if not tasks or e.task in tasks)


class Layout(Protocol):
    """A dataset of one version of LeRobot's format: where an episode's rows and frames are."""

    several_per_file: bool
    """Whether a table holds the rows of several episodes."""
    task_names: dict[int, str]
    """By task index of the challenge."""

    @property
    def episodes(self) -> list[Episode]:
        """All demonstrations, by index."""

    def data_path(self, episode: Episode) -> Path:
        """The parquet file with the episode's rows."""

    def clip(self, episode: Episode, key: str) -> Clip:
        """The episode's frames of a video key."""

    def annotation_path(self, episode: Episode) -> Path | None:
        """Where the episode's annotation is, if the dataset names a place."""


class Info:
    """`meta/info.json` of a dataset.

    Args:
        root: the folder that holds `meta/`, `data/` and `videos/`.

    Raises:
        DatasetError: the file is missing or not as expected.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / "meta" / "info.json"
        document = _json(self.path)
        for key, kind in (
            ("data_path", str),
            ("video_path", str),
            ("chunks_size", int),
            ("fps", (int, float)),
        ):
            if not isinstance(document.get(key), kind):
                raise DatasetError(
                    f"{self.path}: {key} is {document.get(key)!r}; expected {_kind_name(kind)}, as in the "
                    "meta data of a LeRobot dataset"
                )
        self.version = document.get("codebase_version")
        self.chunks_size, self.fps = int(document["chunks_size"]), float(document["fps"])
        self.features: Mapping[str, Any] = document.get("features") or {}
        self._document = document

    def fill(self, template: str, **names: int | str) -> Path | None:
        """The path that a template, such as `data_path`, gives; None where the dataset has no such."""
        if template not in self._document:
            return None
        try:
            return self.root / self._document[template].format(**names)
        except (AttributeError, LookupError, ValueError) as error:
            raise DatasetError(
                f"{self.path}: {template} is {self._document[template]!r}; expected a template with some of "
                f"{', '.join(names)}"
            ) from error

    def file(self, template: str, **names: int | str) -> Path:
        """As `fill`, for templates that every dataset has."""
        path = self.fill(template, **names)
        assert path is not None
        return path


def challenge_task(where: str, name: str, index: int, *, own_numbers: bool = False) -> int:
    """The challenge's index of a task.

    Args:
        where: the place that names the task, for errors.
        name: the task's name.
        index: its number in the dataset.
        own_numbers: whether the dataset may number tasks in its own way.

    Raises:
        DatasetError: the challenge has no such task, or has it under another index.
    """
    known = TASKS[name].index if name in TASKS else None
    if known is None or (known != index and not own_numbers and known >= 0):
        expected = "no such name" if known is None else f"index {known}"
        raise DatasetError(f"{where}: task {name!r} has index {index}; the challenge has {expected}")
    if known < 0 and index in TASKS_BY_INDEX:
        raise DatasetError(
            f"{where}: task {name!r} has index {index}; the challenge has "
            f"{TASKS_BY_INDEX[index].name!r} there"
        )
    return known if known >= 0 else index


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a file with one JSON object per line, with line numbers; empty lines are passed over.

    Raises:
        DatasetError: the file is missing, or a line is no JSON object.
    """
    for number, line in enumerate(_text(path, "one JSON object per line").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {number}: expected a JSON object")
        yield number, row


def skill_starts(path: Path) -> tuple[int, ...]:
    """First frame of every skill of an annotation file, ascending.

    A skill that is done in several pieces begins with its first one.

    Raises:
        DatasetError: the file has no skills with the frames that they take.
    """
    try:
        skills = _json(path)["skill_annotation"]
        starts = sorted(int(np.min(skill["frame_duration"])) for skill in skills)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path}: {type(error).__name__} {error}; expected skill_annotation, a list with frame_duration "
            "[start, end)"
        ) from error
    return tuple(starts)


def entry(path: Path, line: int, row: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """A value of a row.

    Raises:
        DatasetError: the row has no such key, or a value of another type.
    """
    if not isinstance(row.get(key), kind):
        raise DatasetError(f"{path}, line {line}: {key} is {row.get(key)!r}; expected {_kind_name(kind)}")
    return row[key]


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(_text(path, "the root of a LeRobot dataset, v2.1 or v3.0"))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path} holds a {type(document).__name__}; expected a JSON object")
    return document


def _text(path: Path, expected: str) -> str:
    try:
        # editors on Windows put a byte-order mark in front
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); expected {expected}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not text in UTF-8: {error}") from error


def _kind_name(kind: type | tuple[type, ...]) -> str:
    return "a number" if isinstance(kind, tuple) else {int: "an integer", str: "a string"}[kind]
