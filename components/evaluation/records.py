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
class Efficiency:
    """What the challenge reports beside q and does not rank by, over all prescribed rollouts.

    A rollout without a result counts as 0, and so does one that took all the time there is. Distances are
    human mean / achieved, averaged; None where a part never moved in some rollout, which makes it infinite.
    """

    time: float
    """1 at once, 0 at the time limit: M / (M - 1) - 1 / ((M - 1) normalized_time) with a limit of M times the
    human mean, which is 2 - 1 / normalized_time in 2025 and 3 - 2 / normalized_time in 2026."""
    base: float | None
    """Way of the base."""
    left: float | None
    """Way of the left hand."""
    right: float | None
    """Way of the right hand."""


@dataclass(frozen=True)
class Estimate:
    """The mean of the scores of some tasks, each task weighing the same."""

    q: float
    """Mean q; a rollout that never finished counts as 0."""
    low: float
    """95 % interval of q."""
    high: float
    interval: Literal["stratified bootstrap", "Clopper-Pearson"]
    """How `low` and `high` were computed: by the bootstrap for many rollouts of several tasks."""
    exact_low: float
    """Clopper-Pearson interval of q, 95 %, generalised to sums of partial scores. It takes the rollouts of
    all tasks for one sample, which makes it wider, not narrower, where tasks differ (Hoeffding 1956)."""
    exact_high: float
    bootstrap_low: float
    """Percentile bootstrap interval of q, 95 %, resampled within tasks."""
    bootstrap_high: float
    success: float
    """Share of rollouts with q = 1."""
    n: int
    """Prescribed rollouts."""
    efficiency: Efficiency


@dataclass(frozen=True)
class Overall(Estimate):
    """The score over all tasks."""

    tasks: int


@dataclass(frozen=True)
class Denominators:
    """The overall q as the challenge counts it, in the three ways in use; tasks that were not run count as 0.

    Only the first rollout of the prescribed instances counts.
    """

    rules: float
    """The challenge's rules: sum over the prescribed instances / their number, mean over all tasks."""
    repository: float
    """The scoring script in the challenge's repository: in 2026 it divides by all 20 public instances."""
    leaderboard: float
    """The leaderboard's script: mean over the results that there are of each task, / all tasks."""


@dataclass(frozen=True)
class Score(Estimate):
    """The score of one policy on the rollouts of a single task and split."""

    unfinished: int
    """Of the prescribed rollouts, never finished."""
    success_low: float
    """Clopper-Pearson interval of the success rate, 95 %."""
    success_high: float


@dataclass(frozen=True)
class Gain:
    """How much better than the common policy another one is on a task, by its validation rollouts."""

    seen: float
    """Difference of mean q."""
    shrunk: float
    """The same, shrunk to the policy's mean difference over its tasks; the choice is made on it."""
    low: float
    """95 % interval of `shrunk`."""
    high: float


@dataclass(frozen=True)
class TaskScores:
    """The scores of one task."""

    chosen: str
    """Policy that was chosen on validation."""
    gains: Mapping[str, Gain]
    """Of the policies that could be chosen in place of the common one."""
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
    """SHA-256 of the environment's wrapper, or the dotted name of one of the evaluator's; empty for its
    default."""
    robot_config: str = ""
    """SHA-256 of the robot's configuration; empty for the evaluator's default."""

    @classmethod
    def of(
        cls,
        edition: Edition,
        evaluator: Name,
        image_size: int,
        policy: PolicyConfig,
        wrapper: str,
        files: Mapping[str, Path],
    ) -> "Conditions":
        """Those of an evaluation.

        `wrapper` is a dotted name, and `files` are its wrapper and its robot_config where it has its own.
        """
        return cls(
            edition,
            evaluator,
            image_size if find_evaluator(evaluator, edition).own_options else 0,
            policy.voting == "oracle",
            **{"wrapper": wrapper, **{name: sha256_file(path) for name, path in files.items()}},
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
    denominators: Denominators
    """Of the chosen policies, as the challenge would count them."""
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
