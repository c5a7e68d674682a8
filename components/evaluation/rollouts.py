"""Rollouts: the results that evaluators write as JSON, and the list of an evaluation for later stages."""

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from components.evaluation import records
from components.evaluation.plan import Split

ROLLOUTS = "rollouts.json"
"""In an evaluation's artifact: its prescribed rollouts."""
EPISODES = "episodes.json"
"""In a leaderboard's artifact: all rollouts that it was made from."""
_NAMED = {"task", "instance_id", "rollout_id", "steps", "success"}
_POLICY_FAILED = ("policy_connection_lost", "policy_query_timeout", "policy_error")
"""Reasons for which the organisers' evaluator breaks a rollout off and which are the server's."""


@dataclass(frozen=True, order=True)
class RolloutKey:
    """Which rollout of which policy."""

    policy: str
    split: Split
    task: str
    index: int
    """Index of the instance in the split's mode of the evaluator."""
    rollout: int


class NoResultError(ValueError):
    """A rollout's file is missing or torn: the rollout has to be done again."""


class PolicyFailedError(NoResultError):
    """The evaluator ended the rollout because the policy server failed, and wrote a score of 0 for it."""


@dataclass(frozen=True)
class Distances:
    """Mean human way / way of the robot's parts; None where a part did not move, which makes it infinite."""

    base: float | None
    left: float | None
    right: float | None


@dataclass(frozen=True)
class Outcome:
    """The part of a rollout's JSON that scores are computed from."""

    q: float
    """Score of the episode: 1 on success, otherwise the share of goal predicates reached."""
    success: bool
    steps: int
    normalized_time: float
    """Mean human time / time taken."""
    distances: Distances
    """Mean human way / way."""

    @classmethod
    def read(cls, path: Path, task: str, instance: int, rollout: int) -> "Outcome":
        """Read and check an evaluator's JSON.

        The 2026 evaluator writes task, instance, rollout, steps and success into it; that of 2025 none of the
        five, so that only the file's name says which rollout it is.

        Raises:
            NoResultError: there is none yet.
            ValueError: it is whole, and not what we know, or not about this rollout.
        """
        value = _whole_json(path)
        if value.get("failure_reason") in _POLICY_FAILED:
            raise PolicyFailedError(f"the evaluator says {value['failure_reason']}")
        found = expected = (task, instance, rollout)
        try:
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
            ways = {part: float(way) for part, way in value["normalized_agent_distance"].items()}
        except KeyError as error:
            raise ValueError(f"it has no {error}") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"a value has an unknown form: {error}") from error
        if found != expected:
            raise ValueError(f"it is about {found}; expected {expected}")
        if not isinstance(success, bool) or not 0.0 <= q <= 1.0 or success != (q == 1.0):
            raise ValueError(f"success {success!r} and q {q} do not fit; expected 0 <= q <= 1")
        if steps < 0 or not math.isfinite(time):
            raise ValueError(f"steps {steps} or normalized time {time} cannot be")
        if any(math.isnan(way) or way < 0 for way in ways.values()):
            raise ValueError(f"normalized_agent_distance {ways} cannot be")
        distances = Distances(**{part: way if way < math.inf else None for part, way in ways.items()})
        return cls(q, success, steps, time, distances)


def _whole_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; NoResultError where a writer has not come to its end."""
    try:
        text = path.read_bytes().decode(errors="replace").strip()
    except OSError as error:
        raise NoResultError(f"its JSON is missing: {error.strerror}") from error
    torn = NoResultError("its JSON is torn")
    if not text or "\0" in text:  # a power cut leaves zeros
        raise torn
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text) or error.msg.startswith("Unterminated string") or text[-1] != "}"
        if text[0] == "{" and cut:
            raise torn from error
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}; expected an object")
    return value


def excerpt_of(result: Path) -> Path:
    """Where the end of the evaluator's log lies, beside a rollout's JSON."""
    return result.with_suffix(".log")


def check_video(path: Path) -> None:
    """Read a video's index; NoResultError unless the file holds every frame of it."""
    if not path.is_file():
        raise NoResultError("its video is missing")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            ends = [entry.pos + entry.size for entry in stream.index_entries]
    except (av.FFmpegError, IndexError) as error:
        raise NoResultError("its video is torn") from error
    if not ends or max(ends) > path.stat().st_size:
        raise NoResultError("its video is torn")


@dataclass(frozen=True)
class Rollout:
    """One prescribed rollout and where its files are."""

    key: RolloutKey
    instance: int
    """Instance id, as in the file names."""
    attempts: int
    """How often it was started."""
    json: str | None = None
    """Path of the evaluator's JSON in the evaluation's artifact; None where it never finished."""
    video: str | None = None
    outcome: Outcome | None = None
    folder: str = ""
    """The folder that the paths are relative to, on this machine; empty in files."""
    reruns: tuple[str, ...] = ()
    """Why it was started again, or given up: how each of its earlier starts ended."""
    trace: str | None = None
    """Path of its trace in the evaluation's artifact; None where nothing is known of its course."""

    @property
    def name(self) -> str:
        """TASK_INSTANCE_ROLLOUT, as its files are called."""
        return f"{self.key.task}_{self.instance}_{self.key.rollout}"

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
    """Read a list of rollouts."""
    remedy = "give artifacts of the stages evaluate and leaderboard, or run these stages again"
    found = records.read(path, list[Rollout], remedy)
    return [dataclasses.replace(one, folder=str(path.parent)) for one in found]
