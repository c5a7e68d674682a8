"""The challenge's editions and tasks as data.

Sources: the challenge's rules of 2025 and 2026; report, section 8.1.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from types import MappingProxyType

MAX_STAGES = 15
"""Stages of the longest task: the width of the stage head."""


@dataclass(frozen=True)
class Task:
    """One household task."""

    index: int
    """The task id of the dataset and of the policy's task embedding. -1 where no index is published."""
    name: str
    challenge: int
    """The year of the edition that introduced it."""
    stages: int
    """Number of stages: mean demonstration length in frames / 900, from 5 to 15."""
    duration: float
    """Mean duration of the demonstrations, in seconds."""
    instruction: str


@dataclass(frozen=True)
class Edition:
    """The rules of one year's challenge that scheduling and packaging read."""

    year: int
    tasks: int
    """Number of tasks that the overall score averages over."""
    instances: int
    """Reported instances per task: evaluator indices 0 to instances - 1."""
    rollouts: int
    """Rollouts per instance."""
    time_limit: float
    """Time limit as a multiple of the mean human length."""


EDITIONS: Mapping[str, Edition] = MappingProxyType(
    {
        "2025": Edition(2025, tasks=50, instances=10, rollouts=1, time_limit=2.0),
        "2026": Edition(2026, tasks=100, instances=10, rollouts=1, time_limit=1.5),
    }
)


def _read_tasks() -> dict[str, Task]:
    lines = files(__package__).joinpath("tasks.jsonl").read_text().splitlines()
    tasks = {}
    for row in map(json.loads, lines):
        tasks[row["id"]] = Task(
            index=-1 if row["index"] is None else row["index"],
            name=row["id"],
            challenge=row["challenge"],
            stages=row["stages"] or 0,
            duration=row["example_duration_s"] or 0.0,
            instruction=row["instruction"] or "",
        )
    return tasks


TASKS: Mapping[str, Task] = MappingProxyType(_read_tasks())
"""All known tasks by name."""
TASKS_BY_INDEX: Mapping[int, Task] = MappingProxyType({t.index: t for t in TASKS.values() if t.index >= 0})
"""The tasks with a published index."""
STAGE_COUNTS: tuple[int, ...] = tuple(TASKS_BY_INDEX[i].stages for i in range(50))
"""Stages per task index of the 2025 edition; their sum, 596, is the number of learned stage embeddings."""


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
