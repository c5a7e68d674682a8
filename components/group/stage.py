"""Group: split the tasks by validation score, so that each group is fine-tuned on its own.

Report, section 6.4: best (highest scores), good (score above 0), bad (about 0). Where the thresholds put
tasks into fewer groups than `minimum`, the tasks are split by rank into that many groups of equal size.
"""

from collections import defaultdict
from collections.abc import Mapping

from components.errors import UserError
from components.evaluation import records
from components.evaluation.plan import COMMON, VALIDATION
from components.evaluation.records import TASK_GROUPS, TaskGroup, TaskGroups
from components.evaluation.rollouts import ROLLOUTS, load
from components.group.config import DECLARATION, GROUPS, Config, Inputs
from components.runtime.declaration import LOOP
from components.runtime.page import page, paragraph, table
from components.runtime.stage import Result, Stage, Work


def split(scores: Mapping[str, float], episodes: Mapping[str, int], config: Config) -> TaskGroups:
    """Split tasks into groups by mean validation q, best first; none is empty."""
    ranked = sorted(scores, key=lambda task: (-scores[task], task))
    groups: dict[str, list[str]] = {name: [] for name in GROUPS}
    for task in ranked:
        q = scores[task]
        groups["best" if q >= config.best else "good" if q > config.good else "bad"].append(task)
    wanted = min(config.minimum, len(ranked))
    by_rank = sum(map(bool, groups.values())) < wanted
    if by_rank:
        cuts = [round(i * len(ranked) / wanted) for i in range(wanted + 1)]
        groups = {GROUPS[i]: ranked[cuts[i] : cuts[i + 1]] for i in range(wanted)}
    return TaskGroups(
        "rank" if by_rank else "thresholds",
        tuple(
            TaskGroup(name, tuple(tasks), {task: scores[task] for task in tasks})
            for name, tasks in groups.items()
            if tasks
        ),
        episodes,
    )


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `groups.json`; the output parameter `Output` lists the groups."""
    episodes: dict[str, list[float]] = defaultdict(list)
    for artifact in inputs.rollouts:
        for rollout in load(artifact.path / ROLLOUTS):
            if rollout.key.policy == COMMON and rollout.key.split == VALIDATION:
                episodes[rollout.key.task].append(rollout.q)
    if not episodes:
        raise UserError(
            f"the rollouts hold none of the {COMMON} policy on {VALIDATION} instances; plan the evaluation "
            f"with the split {VALIDATION}"
        )
    scores = {task: sum(qs) / len(qs) for task, qs in sorted(episodes.items())}
    found = split(scores, {task: len(episodes[task]) for task in scores}, config)
    records.write(work.path / TASK_GROUPS, found)
    rows = [
        (task, one.name, f"{scores[task]:.3f}", len(episodes[task]))
        for one in found.groups
        for task in one.tasks
    ]
    return Result(
        metrics={f"q_{task}": q for task, q in scores.items()},
        parameters={LOOP: [{"name": one.name, "tasks": " ".join(one.tasks)} for one in found.groups]},
        metadata={"groups": " ".join(one.name for one in found.groups), "rule": found.rule},
        summary="; ".join(f"{one.name}: {', '.join(one.tasks)}" for one in found.groups),
        html=page(
            "Groups of tasks",
            paragraph(f"By {found.rule}, from the common policy's mean q on validation instances."),
            table(("task", "group", "mean q", "rollouts"), rows),
        ),
    )


STAGE = Stage(DECLARATION, run)
