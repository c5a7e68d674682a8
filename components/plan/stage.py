"""Plan an evaluation: which policies run which instances, spread evenly over workers.

Report, section 8.3. Without groups, the common policy runs all splits. With groups (the second evaluation of
a run), every group's policy runs the splits of its own tasks. The common policy, which has run the validation
instances before, then runs only the reported ones, and so does the untrained policy where it is asked for.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

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
from components.plan.config import DECLARATION, Config, Inputs
from components.plan.shards import Unit, shard
from components.runtime.declaration import LOOP
from components.runtime.page import page, table
from components.runtime.progress import format_seconds
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from components.store.lineage import Dependency
from pi_behavior.challenge import EDITIONS, task

_FPS = 30


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `plan.json`; the output parameter `Output` lists the workers."""
    common = inputs.common or Artifact.load(config.trained)
    parts = _parts(config, common, inputs.groups, work.workspace)
    lengths = _human_lengths(common)
    units = [
        unit
        for name, (_, tasks, splits) in parts.items()
        for task_name in tasks
        for split in splits
        for unit in _units(config, name, task_name, split, lengths.get(task_name))
    ]
    if not units:
        raise UserError(f"nothing to evaluate: no policy runs the splits {', '.join(config.splits)}")
    shards = shard(units, config.workers)
    jobs = tuple(
        Job(number, unit.policy, unit.task, unit.split, unit.instances, unit.video, round(unit.seconds, 1))
        for number, part in enumerate(shards)
        for unit in part
    )
    Plan(
        edition=config.edition,
        evaluator=config.evaluator,
        tasks=parts[COMMON][1],
        rollouts=config.rollouts,
        image_size=config.image_size,
        action_chunk_size=config.action_chunk_size,
        policy=config.policy,
        policies={name: policy for name, (policy, _, _) in parts.items()},
        jobs=jobs,
    ).save(work.path)
    rollouts = config.rollouts * sum(len(job.instances) for job in jobs)
    longest = max(sum(unit.seconds for unit in part) for part in shards)
    return Result(
        metrics={"rollouts": rollouts, "longest_worker_seconds": longest},
        parameters={LOOP: [{"worker": str(number)} for number in range(len(shards))]},
        metadata={"rollouts": rollouts, "workers": len(shards), "evaluator": config.evaluator},
        summary=f"{rollouts} rollouts over {len(shards)} workers, about {format_seconds(longest)}",
        html=_page(jobs, config.rollouts),
    )


def _page(jobs: Sequence[Job], each: int) -> str:
    """Who rolls out what, and the load of the workers."""
    counts: Counter[tuple[str, str, str]] = Counter()
    loads: Counter[int] = Counter()
    seconds: Counter[int] = Counter()
    for job in jobs:
        rollouts = each * len(job.instances)
        counts[job.policy, job.task, job.split] += rollouts
        loads[job.worker] += rollouts
        seconds[job.worker] += round(job.seconds)
    workers = [(one, loads[one], format_seconds(seconds[one])) for one in sorted(loads)]
    return page(
        "Plan of the evaluation",
        table(
            ("policy", "task", "instances", "rollouts"), [(*name, n) for name, n in sorted(counts.items())]
        ),
        "<h2>Workers</h2>",
        table(("worker", "rollouts", "expected time"), workers),
    )


def external(config: Config, inputs: Inputs, workspace: Path) -> tuple[Dependency, ...]:
    """The policy that the configuration names, where it is not the input."""
    if (inputs.common is None) == (not config.trained):
        given = "both are" if inputs.common else "neither is"
        raise UserError(
            f"{given} given of the input common and the folder plan.trained; expected one of them, "
            "an artifact of the stage train"
        )
    return () if inputs.common else (Dependency.of("trained", Artifact.load(config.trained), workspace),)


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


def _units(config: Config, policy: str, name: str, split: Split, length: float | None) -> Iterator[Unit]:
    """The rollouts of a policy on a task's instances of a split, those with videos apart."""
    evaluator = find_evaluator(config.evaluator, config.edition)
    first = evaluator.splits[split].first
    count = config.validation_instances if split == VALIDATION else config.reported_instances
    videos = min(config.videos, count) if split == REPORTED else 0
    if videos and evaluator.film and policy != UNTRAINED:
        videos = count
    # a rollout that fails runs to the time limit, and most do
    steps = EDITIONS[config.edition].time_limit * (length or task(name).duration * _FPS or _FPS * 60.0)
    each = config.rollouts * steps / evaluator.steps_per_second
    for indices, video in ((range(videos), True), (range(videos, count), False)):
        if indices:
            instances = tuple(first + index for index in indices)
            yield Unit(policy, name, split, video, instances, evaluator.startup_seconds, each)


STAGE = Stage(DECLARATION, run, external=external)
