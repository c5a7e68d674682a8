"""What stages record for each other about an evaluation, as typed values in JSON files."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from components.errors import UserError
from components.evaluation.evaluators import Edition, Name, find_evaluator
from components.store.files import write_atomic
from components.store.sums import sha256_file
from pi_behavior.policy.config import PolicyConfig

T = TypeVar("T")
TRAIN_RECORD = "record.json"
TASK_GROUPS = "groups.json"
SCORES = "scores.json"


def write(path: Path, value: object) -> None:
    """Write a record."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


def read(path: Path, kind: type[T], remedy: str) -> T:
    """Read a record; UserError with the `remedy` if it is missing, damaged, or of another version."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged or of another version ({error}); {remedy}") from error


@dataclass(frozen=True)
class Renormalised:
    """Dimensions that a fine-tuning normalises by its own demonstrations, as they never moved before."""

    state: tuple[int, ...] = ()
    action: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrainRecord:
    """What a trained policy is."""

    name: str
    """common, or the task group that it was fine-tuned for."""
    tasks: tuple[str, ...]
    """Tasks that it was trained on; none means all of the dataset."""
    statistics_of: Literal["demonstrations", "initial"]
    """Where its normalisation, correlation and tokenizer come from: the demonstrations that it was trained
    on, or the policy that it started from."""
    renormalised: Renormalised = Renormalised()

    @classmethod
    def load(cls, folder: Path) -> "TrainRecord":
        """Read it from an artifact of the stage train."""
        return read(folder / TRAIN_RECORD, cls, "give an artifact of the stage train")


@dataclass(frozen=True)
class TaskGroup:
    """Tasks that share a fine-tuned policy."""

    name: str
    tasks: tuple[str, ...]
    q: Mapping[str, float]
    """Mean validation q of the common policy by task."""


@dataclass(frozen=True)
class TaskGroups:
    """How the tasks were split."""

    rule: Literal["thresholds", "rank"]
    groups: tuple[TaskGroup, ...]
    episodes: Mapping[str, int]
    """Validation rollouts by task."""


@dataclass(frozen=True)
class Estimate:
    """The mean of the scores of some tasks, each task weighing the same."""

    q: float
    """Mean q; a rollout that never finished counts as 0."""
    low: float
    """Clopper-Pearson interval of q, 95 %, generalised to sums of partial scores. It takes the rollouts of
    all tasks for one sample, which makes it wider, not narrower, where tasks differ (Hoeffding 1956)."""
    high: float
    success: float
    """Share of rollouts with q = 1."""
    bootstrap_low: float
    """Percentile bootstrap interval of q, 95 %, resampled within tasks."""
    bootstrap_high: float
    n: int
    """Prescribed rollouts."""


@dataclass(frozen=True)
class Overall(Estimate):
    """The score over all tasks."""

    tasks: int


@dataclass(frozen=True)
class Score(Estimate):
    """The score of one policy on the rollouts of a single task and split."""

    unfinished: int
    """Of the prescribed rollouts, never finished."""
    success_low: float
    """Clopper-Pearson interval of the success rate, 95 %."""
    success_high: float
    time: float | None
    """Mean of 2 - time taken / human time over successful rollouts (not ranked); None without success."""


@dataclass(frozen=True)
class TaskScores:
    """The scores of one task."""

    chosen: str
    """Policy that was chosen on validation."""
    policies: Mapping[str, Mapping[str, Score]]
    """By policy and split."""


@dataclass(frozen=True)
class Conditions:
    """How rollouts were made. Scores that were made otherwise say nothing about each other."""

    edition: str
    evaluator: str
    image_size: int
    """Height and width of the policy's images in pixels; 0 where the evaluator decides it."""
    true_stage: bool
    """Whether the evaluator told the policy the true stage."""
    wrapper: str = ""
    """SHA-256 of the environment's wrapper; empty for the evaluator's default."""
    robot_config: str = ""
    """SHA-256 of the robot's configuration; empty for the evaluator's default."""

    @classmethod
    def of(
        cls,
        edition: Edition,
        evaluator: Name,
        image_size: int,
        policy: PolicyConfig,
        files: Mapping[str, Path],
    ) -> "Conditions":
        """Those of an evaluation; `files` are its wrapper and its robot_config where it has its own."""
        return cls(
            edition,
            evaluator,
            image_size if find_evaluator(evaluator, edition).own_options else 0,
            policy.voting == "oracle",
            **{name: sha256_file(path) for name, path in files.items()},
        )

    def differences(self, other: "Conditions", this: str, that: str) -> list[str]:
        """What is different, in words, of `this` and `that`."""
        return [
            f"{name.replace('_', ' ')} is {mine or 'the default'} for {this} and {yours or 'the default'} "
            f"for {that}"
            for name, mine in asdict(self).items()
            if mine != (yours := getattr(other, name))
        ]


@dataclass(frozen=True)
class Scores:
    """A leaderboard."""

    conditions: Conditions
    """How its rollouts were made."""
    overall: Overall
    """Of the chosen policies on the reported instances."""
    policies: Mapping[str, Overall]
    """Of policies that ran the reported instances of all tasks."""
    tasks: Mapping[str, TaskScores]

    @property
    def chosen(self) -> dict[str, str]:
        """Chosen policy by task."""
        return {task: scores.chosen for task, scores in self.tasks.items()}

    @classmethod
    def load(cls, folder: Path) -> "Scores":
        """Read them from an artifact of the stage leaderboard."""
        return read(folder / SCORES, cls, "give an artifact of the stage leaderboard, or make it again")


@dataclass(frozen=True)
class Reference:
    """An artifact of the workspace."""

    uri: str
    digest: str


@dataclass(frozen=True)
class ServedPolicy:
    """A policy of the champion."""

    path: str
    """Its checkpoint, relative to the champion's folder where that lies in the workspace."""
    tasks: tuple[str, ...]
    """Tasks that it was chosen for."""
    uri: str
    """Its artifact, relative to the workspace."""
    digest: str
