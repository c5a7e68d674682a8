"""The challenge's editions and tasks as data: one JSON file per edition, in `editions/`.

An edition extends an earlier one, whose tasks it keeps, with the same indices, before its own. The folder
that the environment variable B1K_EDITIONS names may hold files of further editions.

Sources: the challenge's rules and evaluators of 2025 and 2026; report, section 8.1.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

MAX_STAGES = 15
"""Stages of the longest task: the width of the stage head."""
DEFAULT_EDITION = "2026"
EDITIONS_VARIABLE = "B1K_EDITIONS"
BaseVelocity = Literal["world", "robot"]
"""The base's velocity in the proprioception: in the world's frame, and near 0 (2025), or in the robot's own
frame (2026)."""


@dataclass(frozen=True)
class Task:
    """One household task."""

    index: int
    """The task id of the dataset, of the wire protocol, and of the policy's task embedding."""
    name: str
    challenge: int
    """The year of the edition that introduced it."""
    stages: int
    """Number of stages: mean demonstration length in frames / 900, from 5 to 15."""
    duration: float
    """Mean duration of the demonstrations in seconds, rounded: for planning. The evaluator takes its time
    limit from metadata of its own."""
    instruction: str
    """The sentence of the edition that introduced the task; see `Edition.instructions`."""
    scene: str


@dataclass(frozen=True)
class Proprioception:
    """Layout of the robot's proprioception, on the wire and in the dataset's `observation.state`."""

    length: int
    """Number of values; it tells the layouts apart."""
    base_velocity: BaseVelocity
    values: Mapping[str, slice]


@dataclass(frozen=True)
class Edition:
    """The rules of one year's challenge."""

    year: int
    task_names: tuple[str, ...]
    """Its tasks, in the order of their indices."""
    evaluator: str
    """The edition whose evaluator's command line and result files it uses."""
    instances: int
    """Reported instances per task: evaluator indices 0 to instances - 1."""
    rollouts: int
    """Rollouts per instance."""
    time_limit: float
    """Time limit as a multiple of the mean human length."""
    denominators: Mapping[str, int]
    """What scripts divide a task's sum of q by: rules, the prescribed rollouts; repository, the organisers'
    scoring script."""
    instructions: Mapping[str, str]
    """The sentence of every task in this edition."""
    proprioception: Proprioception
    dataset_gigabytes: float
    """Size of the RGB demonstrations that training reads."""
    stage_counts: tuple[int, ...]
    """Stages per task index: what a network for this edition is made for."""

    @property
    def tasks(self) -> int:
        """Number of tasks that the overall score averages over."""
        return len(self.task_names)


class _TaskRow(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    index: int
    stages: int
    mean_duration_s: float
    scene: str
    instruction: str


class _Layout(msgspec.Struct, forbid_unknown_fields=True):
    length: int
    base_velocity: BaseVelocity
    values: dict[str, tuple[int, int]]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """An edition's file. `instructions` has the sentences of earlier tasks that changed."""

    year: int
    extends: str | None
    evaluator: str
    instances: int
    rollouts: int
    time_limit: float
    denominators: dict[str, int]
    dataset_gigabytes: float
    proprioception: _Layout | None
    """None: as in the edition that it extends."""
    instructions: dict[str, str]
    tasks: list[_TaskRow]


STATE_PARTS = MappingProxyType(
    {
        "base_qvel": 3,
        "trunk_qpos": 4,
        "arm_left_qpos": 7,
        "gripper_left_qpos": 2,
        "arm_right_qpos": 7,
        "gripper_right_qpos": 2,
    }
)
"""The proprioception's parts that the policy's state is made of, and their widths."""


def read_editions(paths: Iterable[Path]) -> tuple[dict[str, Edition], dict[str, Task]]:
    """Read editions, and the tasks of all of them.

    Args:
        paths: an edition's file each; the name without its suffix is the edition's.

    Returns:
        Editions by name, in the order of their years, and tasks by name, in the order of their indices.

    Raises:
        ValueError: a file is malformed, or does not fit the others; the message names it.
    """
    read: dict[str, _File] = {}
    for path in paths:
        try:
            read[path.stem] = msgspec.json.decode(path.read_bytes(), type=_File)
        except (OSError, msgspec.MsgspecError) as error:
            raise ValueError(f"{path} is not an edition of the challenge: {error}") from error
    editions: dict[str, Edition] = {}
    tasks: dict[str, Task] = {}
    layouts: dict[int, Proprioception] = {}
    for name, file in sorted(read.items(), key=lambda item: item[1].year):
        before = editions.get(file.extends or "")
        problems = [*_problems(file, before), *_task_problems(file, before, tasks)]
        if file.extends is not None and before is None:
            problems = [f"it extends {file.extends!r}; expected an earlier edition: {', '.join(editions)}"]
        if problems:
            raise ValueError(f"the edition {name} is malformed: " + "; ".join(problems))
        for row in file.tasks:
            tasks[row.id] = Task(
                row.index, row.id, file.year, row.stages, row.mean_duration_s, row.instruction, row.scene
            )
        names = (*(before.task_names if before else ()), *(row.id for row in file.tasks))
        sentences = {task: tasks[task].instruction for task in names}
        layout = before.proprioception if before else None
        if (own := file.proprioception) is not None:
            values = {part: slice(*ends) for part, ends in own.values.items()}
            layout = Proprioception(own.length, own.base_velocity, MappingProxyType(values))
        assert layout is not None
        if layouts.setdefault(layout.length, layout) != layout:
            raise ValueError(
                f"the edition {name} has another layout of {layout.length} values than an earlier one; "
                "expected another length, as the length tells layouts apart"
            )
        editions[name] = Edition(
            year=file.year,
            task_names=names,
            evaluator=file.evaluator,
            instances=file.instances,
            rollouts=file.rollouts,
            time_limit=file.time_limit,
            denominators=MappingProxyType(file.denominators),
            instructions=MappingProxyType(
                sentences | (dict(before.instructions) if before else {}) | file.instructions
            ),
            proprioception=layout,
            dataset_gigabytes=file.dataset_gigabytes,
            stage_counts=tuple(tasks[task].stages for task in names),
        )
    return editions, tasks


def _problems(file: _File, before: Edition | None) -> list[str]:
    """What is wrong with an edition's numbers."""
    problems = [
        f"{name} is {getattr(file, name)}; expected more than 0"
        for name in ("instances", "rollouts", "time_limit", "dataset_gigabytes")
        if getattr(file, name) <= 0
    ]
    problems += [f"the denominator {name} is {n}" for name, n in file.denominators.items() if n < 1]
    layout = file.proprioception
    if layout is None:
        return problems if before else [*problems, "it has no proprioception"]
    for name, (start, stop) in layout.values.items():
        if not 0 <= start < stop <= layout.length:
            problems.append(f"{name} is at {start} to {stop} of {layout.length} values")
    for name, width in STATE_PARTS.items():
        start, stop = layout.values.get(name, (0, 0))
        if stop - start != width:
            problems.append(f"{name} has {stop - start} values in the proprioception; expected {width}")
    return problems


def _task_problems(file: _File, before: Edition | None, known: Mapping[str, Task]) -> list[str]:
    """What is wrong with an edition's tasks."""
    first = before.tasks if before else 0
    numbers = [first - 1, *(row.index for row in file.tasks)]
    problems = []
    if any(b != a + 1 for a, b in pairwise(numbers)):
        problems.append(f"its tasks are not numbered from {first} without gaps")
    numbered = {task.index: task.name for task in known.values()}
    problems += [f"the task {row.id} is in another edition too" for row in file.tasks if row.id in known]
    problems += [
        f"the task {row.id} has index {row.index}, as {numbered[row.index]} has"
        for row in file.tasks
        if row.index in numbered
    ]
    problems += [
        f"the task {row.id} has {row.stages} stages; expected 1 to {MAX_STAGES}"
        for row in file.tasks
        if not 1 <= row.stages <= MAX_STAGES
    ]
    names = {*(before.task_names if before else ()), *(row.id for row in file.tasks)}
    problems += [
        f"there is an instruction for {name}, no task of it" for name in file.instructions.keys() - names
    ]
    return problems


def _files() -> list[Path]:
    folders = [Path(str(files(__package__).joinpath("editions")))]
    if more := os.environ.get(EDITIONS_VARIABLE):
        folders.append(Path(more))
    return [path for folder in folders for path in sorted(folder.glob("*.json"))]


_EDITIONS, _TASKS = read_editions(_files())
EDITIONS: Mapping[str, Edition] = MappingProxyType(_EDITIONS)
"""All editions by name, in the order of their years."""
TASKS: Mapping[str, Task] = MappingProxyType(_TASKS)
"""All known tasks by name."""
TASKS_BY_INDEX: Mapping[int, Task] = MappingProxyType({t.index: t for t in TASKS.values()})
STAGE_COUNTS: tuple[int, ...] = EDITIONS["2025"].stage_counts
"""Stages per task index of the 2025 edition; their sum, 596, is the number of learned stage embeddings."""


def edition(name: str) -> Edition:
    """Look an edition up by name.

    Raises:
        ValueError: there is no such edition.
    """
    if name not in EDITIONS:
        raise ValueError(f"unknown edition {name!r}; expected one of {', '.join(EDITIONS)}")
    return EDITIONS[name]


def edition_of_tasks(tasks: int) -> str | None:
    """The first edition that has so many tasks, which a network with so many embeddings is for."""
    return next((name for name, edition in EDITIONS.items() if edition.tasks == tasks), None)


def task(name: str) -> Task:
    """Look a task up by name.

    Raises:
        ValueError: the name is unknown; the message suggests the closest one.
    """
    if name not in TASKS:
        close = get_close_matches(name, TASKS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"unknown task {name!r}: expected one of the challenge's {len(TASKS)} task names{hint}"
        )
    return TASKS[name]


def check_tasks(names: Iterable[str]) -> list[tuple[bool, str]]:
    """Requirements of a configuration (see `config.require`): all names are tasks of the challenge."""
    checked = []
    for name in names:
        try:
            task(name)
        except ValueError as error:
            checked.append((False, f"tasks: {error}"))
    return checked
