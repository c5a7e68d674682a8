"""Checks of the JSONs in a submission: their names, their form, and what they say of each other."""

import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluation.rollouts import Outcome
from pi_behavior.challenge import TASKS

_NAME = re.compile(r"(?P<task>[a-z0-9_]+)_(?P<instance>\d+)_(?P<rollout>\d+)\.json")
_TOLERANCE = 0.02
"""Relative difference of values that are rounded."""
_STEPS_PER_SECOND = 30
_PARTS = ("base", "left", "right")
_GROUPS = "agent_distance", "normalized_agent_distance"


@dataclass(frozen=True)
class Result:
    """A rollout's JSON that could be read."""

    task: str
    instance: int
    rollout: int
    outcome: Outcome
    document: dict[str, Any]

    @property
    def name(self) -> str:
        """TASK_INSTANCE_ROLLOUT, as its file is called."""
        return f"{self.task}_{self.instance}_{self.rollout}"


def read_results(folder: Path, edition: str) -> tuple[list[Result], list[str]]:
    """The results in a folder, and what is wrong with the others, a line each."""
    results, faults = [], []
    if not folder.is_dir():
        return [], ["the folder json is missing"]
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is None or not path.is_file():
            faults.append(f"json/{path.name} is not called TASK_INSTANCE_ROLLOUT.json")
        elif match["task"] not in TASKS:
            faults.append(f"json/{path.name}: there is no task {match['task']}")
        elif path.name != f"{match['task']}_{int(match['instance'])}_{int(match['rollout'])}.json":
            faults.append(f"json/{path.name}: its numbers have leading zeros")
        else:
            try:
                results.append(_read(path, match["task"], int(match["instance"]), int(match["rollout"])))
            except ValueError as error:
                faults.append(f"json/{path.name}: {error}")
            else:
                is_2025 = "success" not in results[-1].document
                if is_2025 != (edition == "2025"):
                    faults.append(f"json/{path.name} has the form of the other edition's evaluator")
    return results, faults


def _read(path: Path, task: str, instance: int, rollout: int) -> Result:
    outcome = Outcome.read(path, task, instance, rollout)
    return Result(task, instance, rollout, outcome, json.loads(path.read_text()))


def contradictions(results: Sequence[Result], time_limit: float) -> Iterator[str]:
    """What results say that cannot be true, alone or together, a line each.

    `time_limit` is a multiple of the mean human length. The human means are the same for all rollouts of a
    task: where they come out different, a value was changed.
    """
    by_task: dict[str, list[Result]] = defaultdict(list)
    for one in results:
        by_task[one.task].append(one)
        for text in _alone(one, time_limit):
            yield f"{one.name}: {text}"
    for ones in by_task.values():
        # those that the evaluator broke off have values by rule
        whole = [one for one in ones if not one.document.get("failure_reason")]
        yield from _means(whole)
        yield from _copies(whole)


def _alone(one: Result, time_limit: float) -> Iterator[str]:
    document, outcome = one.document, one.outcome
    time = document["time"]
    steps = time.get("simulator_steps")
    if steps != outcome.steps:
        yield f"steps is {outcome.steps} and time.simulator_steps {steps}"
    seconds = time.get("simulator_time")
    expected = outcome.steps / _STEPS_PER_SECOND
    if not isinstance(seconds, int | float) or abs(seconds - expected) > max(0.05, 1e-3 * expected):
        yield f"{outcome.steps} steps take {expected:.2f} s; time.simulator_time is {seconds}"
    if document.get("failure_reason"):
        if outcome.q > 0:
            yield f"it broke off ({document['failure_reason']}), and q is {outcome.q}"
        return
    if outcome.normalized_time * time_limit < 1 - _TOLERANCE:
        yield (
            f"normalized_time {outcome.normalized_time:.3f} is below 1 / {time_limit:g}: it took longer than "
            "the time limit"
        )
    for part in _PARTS:
        achieved, normal = document["agent_distance"][part], document["normalized_agent_distance"][part]
        if not all(isinstance(value, int | float) for value in (achieved, normal)):
            yield f"the distances of {part} are no numbers: {achieved!r} and {normal!r}"
        elif achieved < 0 or normal < 0 or (achieved == 0) != (normal == math.inf):
            yield f"the distances of {part} contradict each other: {achieved} and normalised {normal}"


def _means(ones: Sequence[Result]) -> Iterator[str]:
    """Human means that come out different from those of most rollouts of the task."""
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for one in ones:
        found["time"].append((one.name, one.outcome.normalized_time * one.outcome.steps))
        for part in _PARTS:
            values = [one.document[group][part] for group in _GROUPS]
            if all(isinstance(value, int | float) for value in values) and values[0] > 0:
                found[part].append((one.name, values[0] * values[1]))
    for what, means in found.items():
        if len(means) < 3:
            continue  # of two nobody knows which is wrong
        middle = statistics.median(mean for _, mean in means)
        for name, mean in means:
            if abs(mean - middle) > _TOLERANCE * middle:
                yield (
                    f"{name}: the human mean of {what} comes out as {mean:.2f}, and as {middle:.2f} from the "
                    "task's other results"
                )


def _copies(ones: Sequence[Result]) -> Iterator[str]:
    seen: dict[tuple[float, ...], str] = {}
    for one in ones:
        distances = [one.document["agent_distance"][part] for part in _PARTS]
        if not all(isinstance(value, float) and value > 0 for value in distances):
            continue
        key = (one.outcome.steps, one.outcome.q, *distances)
        if key in seen:
            yield f"{one.name}: steps, q and all distances are those of {seen[key]}: is it a copy?"
        seen.setdefault(key, one.name)
