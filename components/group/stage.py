"""Group: split the tasks by validation score, so that each group is fine-tuned on its own.

Report, section 6.4: best (highest scores), good (score above 0), bad (about 0). Where the thresholds put
tasks into fewer groups than `minimum`, the tasks are split by rank into that many groups of equal size.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from components.evaluation.plan import COMMON, VALIDATION
from components.evaluation.rollouts import load
from components.runtime.errors import UserError
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact, write_atomic

GROUPS = ("best", "good", "bad")


@dataclass(frozen=True)
class Config:
    """Thresholds."""

    best: float = 0.5
    """A task whose mean q is at least this is in the group best."""
    good: float = 0.0
    """A task whose mean q is above this is otherwise in the group good; the rest are in bad."""
    minimum: int = 1
    """Fewest groups to make, 1 to 3, as far as there are tasks."""

    def __post_init__(self) -> None:
        """Check the order of the thresholds."""
        if not 0 <= self.good < self.best <= 1:
            raise ValueError(f"good is {self.good} and best {self.best}; expected 0 <= good < best <= 1")
        if not 1 <= self.minimum <= len(GROUPS):
            raise ValueError(f"minimum is {self.minimum}; expected 1 to {len(GROUPS)}")


@dataclass(frozen=True)
class Inputs:
    """What grouping reads."""

    rollouts: tuple[Artifact, ...]
    """Evaluations of the common policy, one per worker."""


def split(scores: Mapping[str, float], config: Config) -> tuple[dict[str, list[str]], str]:
    """Split tasks into groups.

    Args:
        scores: mean validation q by task.
        config: thresholds.

    Returns:
        Tasks by group, best first, without empty groups; and the rule that made them: thresholds or rank.
    """
    ranked = sorted(scores, key=lambda task: (-scores[task], task))
    groups: dict[str, list[str]] = {name: [] for name in GROUPS}
    for task in ranked:
        q = scores[task]
        groups["best" if q >= config.best else "good" if q > config.good else "bad"].append(task)
    rule = "thresholds"
    wanted = min(config.minimum, len(ranked))
    if sum(map(bool, groups.values())) < wanted:
        rule = "rank"
        cuts = [round(i * len(ranked) / wanted) for i in range(wanted + 1)]
        groups = {GROUPS[i]: ranked[cuts[i] : cuts[i + 1]] for i in range(wanted)}
    return {name: tasks for name, tasks in groups.items() if tasks}, rule


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `groups.json`; the output parameter `Output` lists the groups."""
    episodes: dict[str, list[float]] = defaultdict(list)
    for artifact in inputs.rollouts:
        for rollout in load(artifact.path):
            if rollout.key.policy == COMMON and rollout.key.split == VALIDATION:
                episodes[rollout.key.task].append(rollout.q)
    if not episodes:
        raise UserError(
            f"the rollouts hold none of the {COMMON} policy on {VALIDATION} instances; "
            f"plan the evaluation with --config.sets {VALIDATION}"
        )
    scores = {task: sum(qs) / len(qs) for task, qs in episodes.items()}
    groups, rule = split(scores, config)
    content = {
        "rule": rule,
        "thresholds": {"best": config.best, "good": config.good},
        "groups": [
            {"name": name, "tasks": tasks, "q": {task: scores[task] for task in tasks}}
            for name, tasks in groups.items()
        ],
        "episodes": {task: len(qs) for task, qs in sorted(episodes.items())},
    }
    write_atomic(work.path / "groups.json", json.dumps(content, indent=2) + "\n")
    return Result(
        metrics={f"q_{task}": q for task, q in sorted(scores.items())},
        parameters={"Output": [{"name": name, "tasks": " ".join(tasks)} for name, tasks in groups.items()]},
        metadata={"groups": " ".join(groups), "rule": rule},
    )


STAGE = Stage("group", Config, Inputs, run, ("components.evaluation.plan", "components.evaluation.rollouts"))
