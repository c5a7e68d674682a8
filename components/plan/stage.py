"""Plan an evaluation: which policies run which instances.

Workers share them as they become free. The plan says how long that is expected to take.

Report, section 8.3. Without groups, the common policy runs all splits. With groups (the second evaluation of
a run), every group's policy runs the splits of its own tasks. The common policy, which has run the validation
instances before, then runs only the reported ones, and so does the untrained policy where it is asked for.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from components.errors import UserError
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import (
    COMMON,
    GROUP,
    REPORTED,
    UNTRAINED,
    VALIDATION,
    Job,
    Plan,
    Policy,
    Split,
)
from components.evaluation.records import TrainRecord
from components.evaluation.timeline import table, timeline, with_measured
from components.plan.config import DECLARATION, Config, Inputs
from components.runtime import page
from components.runtime.declaration import LOOP
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from components.store.lineage import Dependency
from components.store.sums import sha256_file
from pi_behavior.challenge import EDITIONS, task
from pi_behavior.checkpoint_description import CheckpointError, read_config

_FPS = 30


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `plan.json`, and the folder `own` with the wrapper and the robot configuration."""
    common = inputs.common or Artifact.load(config.trained)
    parts = _parts(config, common, inputs.groups, work.workspace)
    lengths = _human_lengths(common)
    plan = Plan(
        edition=config.edition,
        evaluator=config.evaluator,
        tasks=parts[COMMON][1],
        rollouts=config.rollouts,
        image_size=config.image_size,
        action_chunk_size=_chunk_size(config, [common, *inputs.groups]),
        policy=config.policy,
        policies={name: policy for name, (policy, _, _) in parts.items()},
        jobs=tuple(
            _job(config, name, task_name, split, lengths.get(task_name))
            for name, (_, tasks, splits) in parts.items()
            for task_name in tasks
            for split in splits
        ),
        environments=config.environments,
        startup=find_evaluator(config.evaluator, config.edition).startup_seconds,
        wrapper=config.wrapper_name,
        own={what: path.name for what, path in config.files.items()},
    )
    for what, path in plan.files(work.path).items():
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(config.files[what], path)
    if not plan.jobs:
        raise UserError(f"nothing to evaluate: no policy runs the splits {', '.join(config.splits)}")
    plan = with_measured(plan, work.workspace)
    plan.save(work.path)
    rollouts = config.rollouts * sum(len(job.instances) for job in plan.jobs)
    return Result(
        metrics={"rollouts": rollouts},
        metadata={"rollouts": rollouts, "evaluator": config.evaluator},
        summary=f"{rollouts} rollouts on {len(plan.tasks)} tasks",
        html=_page(plan.jobs, config.rollouts),
    )


def _chunk_size(config: Config, artifacts: Sequence[Artifact]) -> int:
    """Actions per request; one for policies that read several observations, so that they see all of them."""
    if not config.action_chunk_size:
        return 0
    try:
        steps = max(read_config(one.path / "checkpoint")[0].observation_steps for one in artifacts)
    except CheckpointError as error:
        raise UserError(str(error)) from error
    if steps == 1:
        return config.action_chunk_size
    print(f"plan: no chunks are replayed: the policy reads {steps} observations at a time", flush=True)
    return 0


def _page(jobs: Sequence[Job], each: int) -> str:
    """Which rollouts there are, by policy, task and split."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for job in jobs:
        counts[job.policy, job.task, job.split] += each * len(job.instances)
    rows = [(*name, n) for name, n in sorted(counts.items())]
    return page.page("Plan of the evaluation", page.table(("policy", "task", "instances", "rollouts"), rows))


def parameters(config: Config, made: Artifact) -> dict[str, Any]:
    """The workers to loop over."""
    return {LOOP: [{"worker": str(number)} for number in range(_workers(config, Plan.load(made.path)))]}


def details(config: Config, made: Artifact) -> str:
    """What the rollouts are expected to take, and what the workers will do."""
    plan = Plan.load(made.path)
    return f"{table(plan)}\n{timeline(plan, _workers(config, plan))}"


def _workers(config: Config, plan: Plan) -> int:
    """How many workers there are: no more than there are instances."""
    return min(config.workers, sum(len(job.instances) for job in plan.jobs))


def external(config: Config, inputs: Inputs, workspace: Path) -> tuple[Dependency, ...]:
    """The policy that the configuration names, where it is not the input; wrapper and robot configuration."""
    if (inputs.common is None) == (not config.trained):
        given = "both are" if inputs.common else "neither is"
        raise UserError(
            f"{given} given of the input common and the folder plan.trained; expected one of them, "
            "an artifact of the stage train"
        )
    for name, path in config.files.items():
        if not path.is_file():
            raise UserError(f"{name} is {path}, which is not a file; expected one for the evaluator")
    files = [Dependency(name, p.as_uri(), {"sha256": sha256_file(p)}) for name, p in config.files.items()]
    trained = [] if inputs.common else [Dependency.of("trained", Artifact.load(config.trained), workspace)]
    return (*trained, *files)


def _parts(
    config: Config, common: Artifact, groups: tuple[Artifact, ...], workspace: Path
) -> dict[str, tuple[Policy, tuple[str, ...], tuple[Split, ...]]]:
    """The policies by name, each with the tasks and splits that it has to do."""
    tasks = config.tasks or TrainRecord.load(common.path).tasks
    if not tasks:
        raise UserError("no tasks: the common policy's record names none; give plan.tasks")
    splits = tuple(split for split in (VALIDATION, REPORTED) if split in config.splits)
    reported = tuple(split for split in splits if split == REPORTED)
    parts = {COMMON: (_policy(common, "checkpoint", workspace), tasks, reported if groups else splits)}
    for artifact in groups:
        record = TrainRecord.load(artifact.path)
        name = GROUP + record.name
        if name in parts:
            raise UserError(f"two policies of groups have the name {record.name}; give every group its own")
        own = tuple(one for one in record.tasks or tasks if one in tasks)
        parts[name] = (_policy(artifact, "checkpoint", workspace), own, splits)
    if config.untrained:
        parts[UNTRAINED] = (_policy(common, "initial", workspace), tasks, reported)
    return parts


def _policy(artifact: Artifact, folder: Literal["checkpoint", "initial"], workspace: Path) -> Policy:
    """A checkpoint of a trained policy; UserError if it is missing, or lies outside of the workspace."""
    if artifact.workspace != workspace:
        raise UserError(f"{artifact.path} lies outside of the workspace {workspace}; expected a policy in it")
    if not (artifact.path / folder).is_dir():
        hint = "train the common policy with keep_initial" if folder == "initial" else "give one of train"
        raise UserError(f"the {artifact.stage} artifact {artifact.path} has no {folder}; {hint}")
    return Policy(artifact.uri, artifact.digest, folder)


def _human_lengths(common: Artifact) -> dict[str, float]:
    """Mean human lengths in steps by task, from the statistics inside the checkpoint."""
    path = common.path / "checkpoint" / "statistics" / "human.json"
    if not path.is_file():
        return {}
    return {name: float(row["length"]) for name, row in json.loads(path.read_text()).items()}


def _job(config: Config, policy: str, name: str, split: Split, length: float | None) -> Job:
    """The rollouts of a policy on a task's instances of a split."""
    evaluator = find_evaluator(config.evaluator, config.edition)
    first = evaluator.splits[split].first
    count = config.validation_instances if split == VALIDATION else config.reported_instances
    instances = tuple(range(first, first + count))
    videos = config.videos if split == REPORTED else 0
    if videos and (not evaluator.own_options or (evaluator.film and policy != UNTRAINED)):
        videos = count
    # a rollout that fails runs to the time limit, and most do
    steps = EDITIONS[config.edition].time_limit * (length or task(name).duration * _FPS or _FPS * 60.0)
    seconds = round(config.rollouts * steps / evaluator.steps_per_second, 1)
    return Job(policy, name, split, instances, instances[:videos], seconds)


STAGE = Stage(DECLARATION, run, external=external, parameters=parameters, details=details)
