"""Plan an evaluation: which policies run which instances, spread evenly over workers.

Report, section 8.3. Without groups, the common policy runs all splits. With groups (the second evaluation of
a run), every group's policy runs the splits of its own tasks, and the common policy, whose validation was run
before, only the reported instances; so does the untrained policy where it is asked for.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from components.evaluation.evaluators import EVALUATORS, Evaluator, find_evaluator
from components.evaluation.plan import (
    COMMON,
    GROUP,
    REPORTED,
    UNTRAINED,
    VALIDATION,
    Job,
    Plan,
    PolicySettings,
)
from components.plan.shards import Unit, shard
from components.runtime.errors import UserError
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from pi_behavior.challenge import EDITIONS, task
from pi_behavior.policy.config import PolicyConfig

CHECKPOINT = "checkpoint"
INITIAL = "initial"
_FPS = 30
_CHOICES = {
    name: get_args(hint) for name, hint in get_type_hints(PolicyConfig).items() if get_origin(hint) is Literal
}
"""What PolicyConfig's fields of text may be."""


@dataclass(frozen=True)
class Config:
    """An evaluation."""

    tasks: tuple[str, ...] = ()
    """Tasks to evaluate; none means the tasks that the common policy was trained on."""
    edition: str = "2026"
    """Challenge edition whose rules count."""
    sets: tuple[str, ...] = (VALIDATION, REPORTED)
    """Which instances: validation, reported or both."""
    validation_instances: int = 10
    """Validation instances per task: checkpoints are chosen on them."""
    reported_instances: int = 10
    """Reported instances per task: scores are computed on them."""
    rollouts: int = 1
    """Rollouts per instance."""
    workers: int = 1
    """Most evaluation workers."""
    untrained: bool = False
    """Also run the reported instances with the parameters of step 0, for comparison."""
    videos: int = 2
    """Videos per task and policy, of the first reported instances."""
    evaluator: str = "household"
    """household or omnigibson."""
    image_size: int = 224
    """Side of the policy's pictures in pixels, where the evaluator lets us choose it."""
    action_chunk_size: int = 0
    """Actions per request, where the evaluator lets us choose it; 0 asks for one."""
    execute: int = 20
    """Actions executed per chunk."""
    compress_from: int = 26
    """Predicted steps that are compressed to the executed ones."""
    num_steps: int = 20
    """Euler steps of the flow."""
    voting: str = "published"
    """Stage tracking: published (vote of three predictions), off (the last prediction) or oracle (told by the
    simulator, household only)."""
    gripper: str = "data"
    """Gripper rule: data (table from the demonstrations), published (made by hand) or off."""
    task_rules: str = "off"
    """Rules for single tasks: published or off."""
    inpainting: str = "soft"
    """How a chunk starts with what the last one left over: soft, hard or off."""
    seed: int = 0
    """Seed of the policy's noise."""

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        for name in ("validation_instances", "reported_instances", "rollouts", "workers", "image_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("videos", "action_chunk_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not self.sets or set(self.sets) - {VALIDATION, REPORTED}:
            raise ValueError(f"sets is {self.sets}; expected {VALIDATION}, {REPORTED} or both")
        evaluator = find_evaluator(self.evaluator, self.edition)
        if self.settings().oracle_stage and not evaluator.oracle:
            able = ", ".join(name for name in EVALUATORS if find_evaluator(name, self.edition).oracle)
            raise ValueError(
                f"voting is 'oracle', but the evaluator {self.evaluator} cannot tell the true stage; "
                f"expected the evaluator {able} or another voting"
            )
        for split in self.sets:
            asked = getattr(self, f"{split}_instances")
            if asked > evaluator.count(split):
                raise ValueError(
                    f"{split}_instances is {asked}; expected at most {evaluator.count(split)}, the {split} "
                    f"instances of the evaluator {self.evaluator} in {self.edition}"
                )
        if self.rollouts > 1 and not evaluator.repeats:
            raise ValueError(
                f"rollouts is {self.rollouts}; expected 1: the evaluator {self.evaluator} of {self.edition} "
                "rolls each instance out once"
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}")
        PolicyConfig(**dataclasses.asdict(self.settings()))
        for name in self.tasks:
            task(name)

    def settings(self) -> PolicySettings:
        """The part that the policy server reads."""
        names = (f.name for f in dataclasses.fields(PolicySettings))
        return PolicySettings(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Inputs:
    """What a plan is made from."""

    models: tuple[Artifact, ...]
    """Trained policies: the common one first, then those of the groups."""
    groups: Artifact | None = None
    """The task groups that the further policies were trained for."""


@dataclass(frozen=True)
class _Policy:
    name: str
    model: Artifact
    folder: str
    tasks: tuple[str, ...]
    splits: tuple[str, ...]

    @property
    def checkpoint(self) -> str:
        """The checkpoint's place relative to the workspace."""
        return f"{self.model.uri}/{self.folder}"


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `plan.json`; the output parameter `Output` lists the workers."""
    policies = _policies(config, inputs)
    lengths = _human_lengths(inputs.models[0].path / CHECKPOINT)
    evaluator = find_evaluator(config.evaluator, config.edition)
    units = [
        unit
        for policy in policies
        for name in policy.tasks
        for split in policy.splits
        for unit in _units(config, evaluator, policy, name, split, lengths.get(name))
    ]
    if not units:
        raise UserError(f"nothing to evaluate: no policy runs the sets {config.sets}")
    shards = shard(units, config.workers)
    jobs = tuple(
        Job(
            worker=number,
            policy=unit.policy,
            checkpoint=unit.checkpoint,
            task=unit.task,
            task_index=unit.task_index,
            split=unit.split,
            instances=unit.instances,
            video=unit.video,
            seconds=round(unit.seconds, 1),
        )
        for number, part in enumerate(shards)
        for unit in part
    )
    Plan(
        edition=config.edition,
        evaluator=config.evaluator,
        tasks=policies[0].tasks,
        rollouts=config.rollouts,
        image_size=config.image_size,
        action_chunk_size=config.action_chunk_size,
        settings=config.settings(),
        jobs=jobs,
    ).save(work.path)
    rollouts = config.rollouts * sum(len(job.instances) for job in jobs)
    seconds = [sum(job.seconds for job in jobs if job.worker == n) for n in range(len(shards))]
    return Result(
        metrics={"rollouts": rollouts, "longest_worker_seconds": max(seconds)},
        parameters={"Output": [{"worker": str(number)} for number in range(len(shards))]},
        metadata={"rollouts": rollouts, "workers": len(shards), "evaluator": config.evaluator},
    )


def _policies(config: Config, inputs: Inputs) -> list[_Policy]:
    if not inputs.models:
        raise UserError("no model given; --inputs.models takes artifacts of the stage train")
    common, *grouped = inputs.models
    tasks = config.tasks or tuple(_record(common)["tasks"])
    if not tasks:
        raise UserError("no tasks: the common policy's record names none; give --config.tasks")
    splits = tuple(s for s in (VALIDATION, REPORTED) if s in config.sets)
    reported = tuple(s for s in splits if s == REPORTED)
    policies = [_Policy(COMMON, common, CHECKPOINT, tasks, reported if grouped else splits)]
    groups = {} if inputs.groups is None else _groups(inputs.groups)
    for model in grouped:
        record = _record(model)
        name = str(record["name"])
        own = groups.get(name, tuple(record["tasks"])) or tasks
        policies.append(_Policy(GROUP + name, model, CHECKPOINT, tuple(t for t in own if t in tasks), splits))
    names = [policy.name for policy in policies]
    if len(set(names)) != len(names):
        raise UserError(f"two models have the same name: {', '.join(names)}; give every group its own")
    if config.untrained:
        if not (common.path / INITIAL).is_dir():
            raise UserError(
                f"{common.path} has no initial checkpoint; train the common policy with keep_initial"
            )
        policies.append(_Policy(UNTRAINED, common, INITIAL, tasks, reported))
    return policies


def _record(model: Artifact) -> dict[str, list[str]]:
    path = model.path / "record.json"
    if not path.is_file():
        raise UserError(
            f"{model.path} has no record.json; --inputs.models takes artifacts of the stage train"
        )
    record: dict[str, list[str]] = json.loads(path.read_text())
    return record


def _groups(groups: Artifact) -> dict[str, tuple[str, ...]]:
    listed = json.loads((groups.path / "groups.json").read_text())["groups"]
    return {group["name"]: tuple(group["tasks"]) for group in listed}


def _human_lengths(checkpoint: Path) -> dict[str, float]:
    """Mean human lengths in steps by task, from the statistics inside a checkpoint."""
    path = checkpoint / "statistics" / "human.json"
    if not path.is_file():
        return {}
    return {name: float(row["length"]) for name, row in json.loads(path.read_text()).items()}


def _units(
    config: Config,
    evaluator: Evaluator,
    policy: _Policy,
    name: str,
    split: str,
    length: float | None,
) -> list[Unit]:
    first = evaluator.first_index(split)
    count = config.validation_instances if split == VALIDATION else config.reported_instances
    indices = tuple(range(first, first + count))
    videos = config.videos if split == REPORTED else 0
    steps = length or task(name).duration * _FPS or _FPS * 60.0
    # a rollout that fails runs to the time limit, and most do
    limit = EDITIONS[config.edition].time_limit
    parts = ((indices[:videos], True), (indices[videos:], False))
    return [
        Unit(
            policy=policy.name,
            checkpoint=policy.checkpoint,
            task=name,
            task_index=task(name).index,
            split=split,
            video=video,
            instances=part,
            startup=evaluator.startup_seconds,
            each=config.rollouts * limit * steps / evaluator.steps_per_second,
        )
        for part, video in parts
        if part
    ]


STAGE = Stage("plan", Config, Inputs, run, ("pi_behavior.challenge", "pi_behavior.policy.config"))
