"""Replay recorded control loops of the published policy: `python -m benchmarks.control_loop FILE`.

The file holds, per task: proprioception per control step, what the network answered at every call, and the
actions, stages and saved actions that the published policy made of it. Exit code 1 beyond the tolerance.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from pi_behavior.layout import state_from_proprioception
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.control_loop import ControlLoop
from pi_behavior.policy.interface import Prediction

TOLERANCE = 1e-5
PUBLISHED = PolicyConfig(gripper="published", task_rules="published")


@dataclass(frozen=True)
class Difference:
    """How far our replay of one task is from the record."""

    action: float
    """Largest absolute error of an action."""
    stage_steps: int
    """Control steps with another stage."""
    initial_actions: float
    """Largest absolute error of the actions saved for the next call; inf where one side has none."""
    calls: int

    @property
    def within(self) -> bool:
        """Whether the replay agrees."""
        return max(self.action, self.initial_actions) <= TOLERANCE and self.stage_steps == 0


def replay(record: dict[str, np.ndarray], task: int) -> tuple[Difference, dict[str, int]]:
    """Run our control loop on one task's record.

    Args:
        record: the file's arrays.
        task: task index.

    Returns:
        Differences, and how often every rule was applied.
    """
    name = f"task{task}"
    loop = ControlLoop(PUBLISHED, closure=lambda _: None)
    states = state_from_proprioception(record[f"{name}/in/proprio"])
    action_error, initial_error, stages, calls = 0.0, 0.0, 0, 0
    for step, state in enumerate(states):
        loop.begin_step(task)
        if loop.remaining == 0:
            expected = record[f"{name}/out/initial_actions"][calls]
            if loop.saved is None or np.isnan(expected).any():
                same = loop.saved is None and bool(np.isnan(expected).all())
                initial_error = max(initial_error, 0.0 if same else float("inf"))
            else:
                initial_error = max(initial_error, float(np.abs(loop.saved - expected).max()))
            logits = record[f"{name}/in/stage_logits"][calls]
            loop.plan(Prediction(record[f"{name}/in/chunks"][calls], logits), state)
            calls += 1
        error = np.abs(loop.act() - record[f"{name}/out/actions"][step]).max()
        action_error = max(action_error, float(error))
        stages += int(loop.stage != record[f"{name}/out/stage"][step])
    return Difference(action_error, stages, initial_error, calls), dict(loop.counts)


def tasks_in(record: dict[str, np.ndarray]) -> list[int]:
    """Tasks of a file, ascending."""
    return sorted({int(key.split("/")[0].removeprefix("task")) for key in record})


def main(file: Annotated[Path, tyro.conf.Positional]) -> None:
    """Compare our control loop with the published policy's.

    Args:
        file: the recorded control loops (.npz).
    """
    if not file.is_file():
        print(f"{file} is not a file; expected recorded control loops (.npz)", file=sys.stderr)
        sys.exit(2)
    try:
        with np.load(file) as archive:
            record = dict(archive)
        replays = {task: replay(record, task) for task in tasks_in(record)}
    except (OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        print(f"{file} is not a file of recorded control loops: {error!r}", file=sys.stderr)
        sys.exit(2)
    within = bool(replays)
    print("task  largest action error  steps with another stage  largest saved-action error  rules applied")
    for task, (difference, counts) in replays.items():
        within &= difference.within
        rules = ", ".join(f"{rule} {count}" for rule, count in sorted(counts.items()))
        print(
            f"{task:4}  {difference.action:20.2e}  {difference.stage_steps:24}  "
            f"{difference.initial_actions:26.2e}  {rules}"
        )
    sys.exit(0 if within else 1)


if __name__ == "__main__":
    tyro.cli(main)
