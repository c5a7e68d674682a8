"""The outcome of a rollout, as the challenge's JSON and as changes of the goal's predicates."""

import json
from dataclasses import dataclass, field
from typing import Any

from household import robot
from household.robot import FloatArray
from household.task import Task


@dataclass(frozen=True)
class Outcome:
    """The outcome of a rollout.

    Attributes:
        steps: control steps taken.
        success: whether the goal was reached.
        q: the episode's q.
        distances: [3] paths of base, left and right hand in metres.
        goals: changes of the goal's predicates, by the predicate: steps, and whether it holds from then on.
    """

    steps: int
    success: bool
    q: float
    distances: FloatArray
    goals: dict[str, list[tuple[int, bool]]] = field(default_factory=dict)


def goal_lines(outcome: Outcome) -> str:
    """The changes of the goal's predicates as JSON lines, in the order of the steps.

    Args:
        outcome: an outcome.

    Returns:
        Lines such as {"step": 40, "predicate": "open fridge.n.01_1", "holds": true}.
    """
    rows = sorted((step, name, holds) for name, changes in outcome.goals.items() for step, holds in changes)
    return "".join(
        json.dumps({"step": step, "predicate": name, "holds": holds}) + "\n" for step, name, holds in rows
    )


def outcome_json(task: Task, instance_id: int, rollout_id: int, outcome: Outcome) -> dict[str, Any]:
    """The challenge's JSON (2026) of a rollout.

    Args:
        task: the task.
        instance_id: the instance.
        rollout_id: which rollout of the instance.
        outcome: its outcome.

    Returns:
        Exactly the official keys; normalised values are human mean / achieved, infinite where achieved is 0.
    """
    human = task.human
    means = {
        "base": human.distance_traveled,
        "left": human.left_eef_displacement,
        "right": human.right_eef_displacement,
    }
    achieved = dict(zip(means, map(float, outcome.distances), strict=True))
    normalised = {k: means[k] / v if v > 0 else float("inf") for k, v in achieved.items()}
    return {
        "task": task.name,
        "instance_id": instance_id,
        "rollout_id": rollout_id,
        "steps": outcome.steps,
        "success": outcome.success,
        "agent_distance": achieved,
        "normalized_agent_distance": normalised,
        "q_score": {"final": outcome.q},
        "time": {
            "simulator_steps": outcome.steps,
            "simulator_time": outcome.steps / robot.CONTROL_HZ,
            "normalized_time": human.length / outcome.steps,
        },
    }
