"""Rollouts: what an evaluator's JSON says, and the list that a worker leaves for the next stages."""

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluation import records
from components.evaluation.plan import Split

ROLLOUTS = "rollouts.json"
"""In the artifact of a worker: all that it was to do."""
EPISODES = "episodes.json"
"""In a leaderboard: all rollouts that it was made from."""
_NAMED = {"task", "instance_id", "rollout_id", "steps", "success"}


@dataclass(frozen=True, order=True)
class RolloutKey:
    """Which rollout of which policy."""

    policy: str
    split: Split
    task: str
    index: int
    """Index of the instance in the split's mode of the evaluator."""
    rollout: int


@dataclass(frozen=True)
class Outcome:
    """The part of a rollout's JSON that scores are made of."""

    q: float
    """Score of the episode: 1 on success, otherwise the share of goal predicates reached."""
    success: bool
    steps: int
    normalized_time: float
    """Mean human time / time taken."""

    @classmethod
    def read(cls, path: Path, task: str, instance: int | None, rollout: int) -> "Outcome":
        """Read and check an evaluator's JSON.

        The 2026 evaluator's says which rollout it is about, its steps, and success; that of 2025 has none of
        the five, and only its name tells.

        Raises:
            ValueError: it is not whole, or is not about this rollout; the message says what is wrong.
        """
        found = expected = (task, instance, rollout)
        try:
            value: dict[str, Any] = json.loads(path.read_text())
            q = float(value["q_score"]["final"])
            time = float(value["time"]["normalized_time"])
            if _NAMED & set(value):
                found = (value["task"], value["instance_id"], value["rollout_id"])
                steps, success = int(value["steps"]), value["success"]
            else:
                steps, success = int(value["time"]["simulator_steps"]), q == 1.0
            for group in ("agent_distance", "normalized_agent_distance"):
                if set(value[group]) != {"base", "left", "right"}:
                    raise ValueError(f"{group} has the keys {sorted(value[group])}")
        except OSError as error:
            raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name} is not a whole result: {type(error).__name__}: {error}") from error
        if found != expected:
            raise ValueError(f"{path.name} is about {found}; expected {expected}")
        if not isinstance(success, bool) or not 0.0 <= q <= 1.0 or success != (q == 1.0):
            raise ValueError(f"{path.name}: success {success!r} and q {q} do not fit; expected 0 <= q <= 1")
        if steps < 0 or not math.isfinite(time):
            raise ValueError(f"{path.name}: steps {steps} or normalized time {time} cannot be")
        return cls(q, success, steps, time)


@dataclass(frozen=True)
class Rollout:
    """One prescribed rollout and where its files are."""

    key: RolloutKey
    instance: int | None
    """Instance id, as in the file names; None where no worker got as far as to know it."""
    attempts: int
    """How often it was started."""
    json: str | None = None
    """Path of the evaluator's JSON in the worker's artifact; None where it never finished."""
    video: str | None = None
    outcome: Outcome | None = None
    folder: str = ""
    """The folder that the paths are relative to, on this machine; empty in files."""

    @property
    def name(self) -> str:
        """TASK_INSTANCE_ROLLOUT, as its files are called."""
        instance = f"index-{self.key.index}" if self.instance is None else self.instance
        return f"{self.key.task}_{instance}_{self.key.rollout}"

    @property
    def q(self) -> float:
        """Score; a rollout that never finished counts as 0 (rules of the challenge)."""
        return 0.0 if self.outcome is None else self.outcome.q

    @property
    def success(self) -> bool:
        """Whether all of the goal was reached."""
        return self.outcome is not None and self.outcome.success


def save(rollouts: Iterable[Rollout], path: Path) -> None:
    """Write a list of rollouts."""
    records.write(path, [dataclasses.replace(one, folder="") for one in rollouts])


def load(path: Path) -> list[Rollout]:
    """Read a list of rollouts.

    Raises:
        UserError: it is missing, or of another version.
    """
    remedy = "give artifacts of the stages evaluate and leaderboard, or run these stages again"
    found = records.read(path, list[Rollout], remedy)
    return [dataclasses.replace(one, folder=str(path.parent)) for one in found]
