"""How long rollouts took: measured by workers, and expected by the next plan."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from components.evaluation import records
from components.evaluation.plan import CONFIRMATION, UNTRAINED, Plan

TIMES = "times.json"
DURATIONS = "durations.json"
"""In an artifact of the stage evaluate: its durations."""


@dataclass(frozen=True)
class Times:
    """When a rollout was done."""

    worker: int
    begin: float
    """POSIX time by the worker's clock; where it was the first of a process, the start of that."""
    end: float
    startup: float
    """Seconds of that which the process took to its first step."""
    together: int
    """Environments that were simulated together."""
    number: int
    """Of the process, among those that the worker started."""
    logs: str = ""
    """The folder of the worker's logs."""


@dataclass(frozen=True)
class Duration:
    """A finished rollout."""

    policy: str
    task: str
    split: str
    index: int
    rollout: int
    times: Times

    @property
    def seconds(self) -> float:
        """Without the start of a process."""
        return self.times.end - self.times.begin - self.times.startup


@dataclass(frozen=True)
class Durations:
    """The rollouts of an evaluation, and what they depend on."""

    edition: str
    evaluator: str
    environments: int
    image_size: int
    rollouts: tuple[Duration, ...]


@dataclass(frozen=True)
class Measured:
    """Seconds that earlier evaluations took."""

    rollouts: Mapping[tuple[str, bool], float]
    """Mean per rollout, by task and whether the policy was untrained."""
    startup: float | None
    """Mean of what processes took to their first step; None where nothing was measured."""


def measured(plan: Plan, workspace: Path) -> Measured:
    """What the last evaluation of each task took that was done in the same way."""
    files = sorted(workspace.glob(f"artifacts/evaluate/*/{DURATIONS}"), key=lambda path: path.stat().st_mtime)
    means: dict[tuple[str, bool], float] = {}
    startups: list[float] = []
    for path in files:
        try:
            found = records.read(path, Durations, "")
        except UserError:  # of another version
            continue
        same = (found.edition, found.evaluator, found.environments, found.image_size)
        if same != (plan.edition, plan.evaluator, plan.environments, plan.image_size):
            continue
        means |= _means(found.rollouts)
        startups = [one.times.startup for one in found.rollouts if one.times.startup] or startups
    return Measured(means, sum(startups) / len(startups) if startups else None)


def _means(rollouts: Iterable[Duration]) -> dict[tuple[str, bool], float]:
    seconds: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for one in rollouts:
        if one.seconds > 0 and one.split != CONFIRMATION:  # whether a policy there was trained is not said
            seconds[one.task, one.policy == UNTRAINED].append(one.seconds)
    return {key: sum(each) / len(each) for key, each in seconds.items()}
