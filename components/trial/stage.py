"""Trial: draw fresh rollouts of a challenger and its rival, if the challenger leads on validation instances.

The rival is the champion. A first champion has to beat its own policy before training, or a stated q where
that was not kept. Policies are chosen on validation instances, so a lead there is a reason to test, and no
evidence. Both sides do the same unseen instances, drawn for this challenger and this champion; which side
comes first is drawn for every block of rounds, and the plan does not say whose policy is whose.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import UserError
from components.evaluation import records
from components.evaluation.champion import Champion, Comparison, challenger_of
from components.evaluation.evaluators import find_evaluator
from components.evaluation.pairs import lead, pair
from components.evaluation.plan import COMMON, CONFIRMATION, OWN, Execution, Job, Plan, Policy
from components.evaluation.records import Reference
from components.evaluation.sequential import Rule
from components.evaluation.timeline import table, timeline, with_measured
from components.evaluation.trial import TRIAL, Trial
from components.runtime.declaration import LOOP
from components.runtime.page import page, paragraph
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from components.store.champion import champion_folder
from components.store.lineage import Dependency
from components.store.making import exclusive
from components.trial.config import DECLARATION, Config, Inputs

_Side = Mapping[str, Policy]
"""Policies by task."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `trial.json`, and `plan.json` with the rollouts."""
    folder, plan = Path(config.champion), Plan.load(inputs.plan.path)
    with exclusive(folder / ".lock", "trial: another challenger is being compared; waiting for it"):
        champion = _champion(folder, inputs.leaderboard)
        challenger = challenger_of(inputs.leaderboard, plan, folder, work.workspace)
        trial, plan = _draw(config, plan, challenger, champion, work.workspace)
        if trial.rule is not None:
            rule = Comparison.begin(folder, trial.challenger, trial.champion, trial.rule)
            trial = dataclasses.replace(trial, rule=rule)
    records.write(work.path / TRIAL, trial)
    with_measured(plan, work.workspace).save(work.path)
    if plan.own:
        shutil.copytree(inputs.plan.path / OWN, work.path / OWN, dirs_exist_ok=True)
    pairs = 0 if trial.rule is None else trial.rule.rounds * len(trial.tasks)
    summary = f"at most {pairs} pairs against the rival: {trial.rival}"
    if trial.rule is None:
        summary = f"no test: {trial.refused or f'not ahead of the champion on validation, {trial.lead}'}"
    return Result(
        metrics={"pairs": pairs},
        metadata={"rival": trial.rival, "pairs": pairs},
        summary=summary,
        html=page("Trial", paragraph(summary)),
    )


def parameters(config: Config, made: Artifact) -> dict[str, Any]:
    """The workers to loop over."""
    return {LOOP: [{"worker": str(number)} for number in range(_workers(config, Plan.load(made.path)))]}


def details(config: Config, made: Artifact) -> str:
    """What the rollouts take if the test goes to its end."""
    plan = Plan.load(made.path)
    return f"{table(plan)}\n{timeline(plan, _workers(config, plan))}" if plan.jobs else ""


def resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
    """Name the champion's folder."""
    return dataclasses.replace(config, champion=str(champion_folder(config.champion, workspace)))


def external(config: Config, inputs: Inputs, workspace: Path) -> tuple[Dependency, ...]:
    """The champion's leaderboard: another champion makes another trial."""
    champion = _champion(Path(config.champion), inputs.leaderboard)
    if champion is None:
        return ()
    board = Artifact.load(workspace / champion.leaderboard.uri)
    return (Dependency.of("champion", board, workspace),)


def _workers(config: Config, plan: Plan) -> int:
    """How many workers there are: one at least, as a pipeline collects what they leave."""
    return max(1, min(config.workers, sum(len(job.instances) for job in plan.jobs[: plan.window])))


def _champion(folder: Path, challenger: Artifact) -> Champion | None:
    """The champion of now; of a challenger that became champion, the one before it: that trial stands."""
    now = Champion.load(folder)
    line = [None, *Champion.former(folder), *([] if now is None else [now])]
    ours = Reference(challenger.uri, challenger.digest)
    for before, one in pairwise(line):
        if one is not None and one.leaderboard == ours:
            return before
    return now


def _draw(
    config: Config, plan: Plan, challenger: Champion, champion: Champion | None, workspace: Path
) -> tuple[Trial, Plan]:
    """The trial, without its share of the error, and the plan of its rollouts."""
    boards = [one.leaderboard for one in (challenger, champion) if one is not None]
    digest = hashlib.sha256(" ".join(one.digest for one in boards).encode())
    random = np.random.default_rng(int.from_bytes(digest.digest()))
    noise = int(random.integers(2**31))  # not that of the rollouts on which the policies were chosen
    ours = _side(challenger, noise)
    theirs: _Side = {}
    common = plan.policies[COMMON]
    if champion is not None:
        theirs = _side(champion, noise)
    elif (workspace / common.artifact / "initial").is_dir():
        untrained = next(iter(ours.values())).execution
        theirs = dict.fromkeys(ours, Policy(common.artifact, common.digest, "initial", untrained))
    policies = list(dict.fromkeys([*ours.values(), *theirs.values()]))
    numbers = random.permutation(len(policies))
    # of this trial alone, so that rollouts of another one are not taken for its own
    names = {one: f"{digest.hexdigest()[:8]}-{n}" for one, n in zip(policies, numbers, strict=True)}
    trial = Trial(
        challenger=challenger.leaderboard,
        champion=None if champion is None else champion.leaderboard,
        rival="champion" if champion is not None else "untrained" if theirs else "floor",
        floor=config.floor,
        ours={task: names[policy] for task, policy in ours.items()},
        theirs={task: names[policy] for task, policy in theirs.items()},
    )
    if champion is not None:
        trial = _compare(trial, challenger, champion)
    jobs: list[Job] = []
    if not trial.refused and (trial.lead is None or trial.lead.suffices(config.lead)):
        count = find_evaluator(plan.evaluator, plan.edition).splits[CONFIRMATION].count
        trial = dataclasses.replace(
            trial, rule=Rule(config.error, config.gain, config.miss, min(config.rounds, count))
        )
        jobs = _jobs(config, trial, plan, random)
    return trial, dataclasses.replace(
        plan,
        tasks=tuple(trial.tasks),
        rollouts=1,
        policies={name: policy for policy, name in sorted(names.items(), key=lambda item: item[1])},
        jobs=tuple(jobs),
        window=sum(task in side for side in (trial.ours, trial.theirs) for task in trial.tasks),
    )


def _side(record: Champion, noise: int) -> _Side:
    """The policies of a record by task, executed as they were evaluated."""
    execution = Execution(dataclasses.replace(record.policy, seed=noise), record.action_chunk_size)
    return {
        task: Policy(
            one.uri, one.digest, "initial" if Path(one.path).name == "initial" else "checkpoint", execution
        )
        for one in record.checkpoints.values()
        for task in one.tasks
    }


def _compare(trial: Trial, challenger: Champion, champion: Champion) -> Trial:
    """The trial with the challenger's lead, or why there can be none."""
    try:
        champion.check(challenger.conditions)
        return dataclasses.replace(trial, lead=lead(pair(challenger.validation, champion.validation)))
    except UserError as error:  # a person may promote it all the same
        return dataclasses.replace(trial, refused=str(error))


def _jobs(config: Config, trial: Trial, plan: Plan, random: np.random.Generator) -> list[Job]:
    """The rollouts by blocks of rounds; in each the sides are in a random order."""
    assert trial.rule is not None
    pool = find_evaluator(plan.evaluator, plan.edition).splits[CONFIRMATION]
    drawn = {task: (pool.first + random.permutation(pool.count)).tolist() for task in trial.tasks}
    seconds = {job.task: job.seconds / plan.rollouts for job in plan.jobs}
    jobs: dict[Job, None] = {}  # one policy may be on both sides
    for start in range(0, trial.rule.rounds, config.block):
        block = slice(start, min(start + config.block, trial.rule.rounds))
        sides = [trial.ours, trial.theirs]
        for side in (sides[i] for i in random.permutation(2)):
            for task in (task for task in trial.tasks if task in side):
                expected = seconds.get(task, max(seconds.values()))
                jobs[Job(side[task], task, CONFIRMATION, tuple(drawn[task][block]), (), expected)] = None
    return list(jobs)


STAGE = Stage(DECLARATION, run, resolve, external, parameters=parameters, details=details)
