"""A trial: fresh rollouts of a challenger and its rival on the same instances, until a test has an answer.

In the trial's plan the policies have numbers for names, and this record alone says whose they are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from components.evaluation import records
from components.evaluation.plan import Plan
from components.evaluation.records import Reference
from components.evaluation.rollouts import Rollout
from components.evaluation.sequential import Rounds, Rule, judge

TRIAL = "trial.json"


@dataclass(frozen=True)
class Lead:
    """How far the challenger is ahead on validation instances."""

    difference: float
    """Mean difference in q, tasks weighing the same."""
    error: float
    """Its standard error."""
    pairs: int

    def suffices(self, errors: float) -> bool:
        """Whether it is more than a number of standard errors, and above 0."""
        return self.difference > errors * self.error and self.difference > 0

    def __str__(self) -> str:
        return f"difference in q {self.difference:+.3f}, standard error {self.error:.3f}, {self.pairs} pairs"


@dataclass(frozen=True)
class Trial:
    """What is compared, and how."""

    challenger: Reference
    """Its leaderboard."""
    champion: Reference | None
    """That of the champion; None where there is none yet."""
    rival: Literal["champion", "untrained", "floor"]
    """A first champion's rival is its own policy before training, or else a stated q."""
    floor: float
    """This q, for every rollout of a rival that is none."""
    ours: Mapping[str, str]
    """The challenger's policies by task, as the plan calls them."""
    theirs: Mapping[str, str]
    """The rival's."""
    lead: Lead | None = None
    """On validation instances; None where the rival has none."""
    refused: str = ""
    """Why the two cannot be compared; empty where they can."""
    rule: Rule | None = None
    """The test; None where nothing is rolled out: the comparison is refused, or the lead does not suffice."""

    @property
    def tasks(self) -> list[str]:
        """The tasks that count: the rival's."""
        return sorted(self.theirs or self.ours)

    @property
    def missing(self) -> list[str]:
        """Tasks of the rival that the challenger lacks; they count as 0."""
        return [task for task in self.tasks if task not in self.ours]

    @classmethod
    def find(cls, folder: Path) -> "Trial | None":
        """Read `trial.json` from the artifact of a plan; None if it is not that of a trial."""
        return cls.load(folder) if (folder / TRIAL).exists() else None

    @classmethod
    def load(cls, folder: Path) -> "Trial":
        """Read `trial.json` from a folder."""
        return records.read(folder / TRIAL, cls, "give an artifact of the stage trial, or make it again")

    def differences(self, plan: Plan, rollouts: Iterable[Rollout]) -> Rounds:
        """Differences in q by round and task, of whole rounds, as far as they go without a gap."""
        found = {(one.key.policy, one.key.task, one.key.index): one.q for one in rollouts}

        def scores(policies: Mapping[str, str], task: str, otherwise: float) -> NDArray[np.float64]:
            policy = policies.get(task)
            if policy is None:
                return np.full(0 if self.rule is None else self.rule.rounds, otherwise)
            jobs = (job for job in plan.jobs if (job.policy, job.task) == (policy, task))
            return np.array([found.get((policy, task, i), np.nan) for job in jobs for i in job.instances])

        columns = [scores(self.ours, one, 0.0) - scores(self.theirs, one, self.floor) for one in self.tasks]
        rounds: Rounds = np.stack(columns, axis=1)
        gaps = np.flatnonzero(np.isnan(rounds).any(axis=1))
        return rounds[: gaps[0]] if gaps.size else rounds

    def is_decided(self, plan: Plan, rollouts: Iterable[Rollout]) -> bool:
        """Whether the test has an answer, so that more rollouts would be for nothing."""
        if self.rule is None or not (differences := self.differences(plan, rollouts)).size:
            return False
        return judge(differences, self.rule).answer != "go on"
