"""What a run will take: GPU hours, storage and evaluation hours, beside the report's own figures.

Everything is computed from the profile's values and from assumptions, which are options and are printed.
Prices are options too: without them there is no column of costs.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from components.errors import UserError
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import REPORTED
from components.plan.config import Config as PlanConfig
from components.plan.shards import Unit, shard
from components.settings.checks import parse, resolve
from components.train.config import Config as TrainConfig
from pi_behavior.challenge import EDITIONS, TASKS
from pi_behavior.config import ModelConfig
from pi_behavior.fast import MAX_TOKENS
from pi_behavior.flops import training_flops
from pipelines.definitions.compiling import Set
from pipelines.definitions.profiles import load_profile
from pipelines.definitions.profiles.profile import Profile, Step

PEAK_TFLOPS: Mapping[str, float] = MappingProxyType({"H200": 989.0, "L40S": 362.0, "RTX-4090": 165.0})
"""Dense bfloat16 TFLOP/s by part of the product's name, from the vendor's data sheets."""
DATASET_GIGABYTES: Mapping[str, float] = MappingProxyType({"2025": 260.0, "2026": 1500.0})
"""Size of the demonstrations by edition: 2025 as 224 x 224 RGB, 2026 as published."""
FPS = 30
_PIPELINE = "train_and_evaluate"
_HOUR = 3600.0
_HOURS_OF_A_MONTH = 730.0
_FLOAT32 = 4
_REPORT_GPUS = 8
_REPORT_DAYS = 15
_REPORT_GROUP_DAYS = 7
_REPORT_EVALUATION_HOURS = 240.0
_REPORT_ROLLOUTS = 500


@dataclass(frozen=True)
class Options:
    """Estimate GPU hours, storage and evaluation hours of a run of train_and_evaluate."""

    profile: str = "h200x8"
    """A profile of a cluster: h200x8 or one_gpu."""
    set: Set = ()
    """Values that differ from the profile's: name=value ..."""
    groups: int = 3
    """Groups that are fine-tuned; best, good and bad in the report, section 6.4."""
    peak_tflops: float | None = None
    """Peak of one training GPU in dense bfloat16 TFLOP/s; by default the data sheet's, of the slowest
    known product that the profile allows."""
    utilisation: float = 0.16
    """Share of the peak that becomes model FLOPs. The default is what the report's run comes to: 2 epochs
    of 1.19e8 frames in a month (section 10) on 8 H200. We have measured none yet."""
    human_seconds: float | None = None
    """Mean human length of a task; by default each task's own, from the challenge's data."""
    time_factor: float | None = None
    """Length of a rollout in human lengths; by default the edition's limit, which failures run up to."""
    steps_per_second: float | None = None
    """Control steps of the simulator per second, policy included; by default the evaluator's in the plan."""
    startup_seconds: float | None = None
    """Time to load a scene; by default the evaluator's in the plan."""
    dataset_gigabytes: float | None = None
    """Size of the demonstrations; by default 260 (2025, 224 x 224 RGB) or 1500 (2026)."""
    dataset_copies: int = 2
    """Copies of them: DVC's cache, and the version in the workspace."""
    video_megabytes_per_minute: float = 10.0
    """Size of a rollout's video."""
    training_gpu_hour: float | None = None
    """Price of an hour of one training GPU, in any currency."""
    evaluation_gpu_hour: float | None = None
    """Price of an hour of one evaluation GPU."""
    gigabyte_month: float | None = None
    """Price of a gigabyte of storage for a month."""
    format: Literal["table", "markdown"] = "table"
    """table for a terminal, markdown for documentation."""

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise UserError(f"--utilisation {self.utilisation}; expected a share above 0, at most 1")
        for name in ("groups", "dataset_copies", "video_megabytes_per_minute"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}; expected 0 or more")
        for name in ("peak_tflops", "human_seconds", "time_factor", "steps_per_second"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}; expected more than 0")


@dataclass(frozen=True)
class Row:
    """One part of a run."""

    what: str
    amount: float
    unit: str
    hours: float | None = None
    """Hours until it is done."""
    report: str = ""
    """The report's own figure, where it is comparable."""
    price: float | None = None
    """Price of one unit."""


@dataclass(frozen=True)
class Estimate:
    """What a run takes."""

    rows: tuple[Row, ...]
    assumptions: Mapping[str, str]
    """Values of the assumptions, by the names of their options."""


def run(options: Options) -> int:
    """Print the estimate; returns exit code 0."""
    result = estimate(options)
    # Markdown has no lines within a cell
    console = Console(highlight=False, width=200 if options.format == "markdown" else None)
    for table in _tables(result, options):
        console.print(table)
    if not any(row.price is not None for row in result.rows):
        console.print(
            "no prices given (--training-gpu-hour, --evaluation-gpu-hour, --gigabyte-month): no money"
        )
    return 0


def estimate(options: Options) -> Estimate:
    """Compute what a run takes; UserError for wrong values, or a profile that trains without GPUs."""
    profile = load_profile(options.profile)
    train = profile.steps.get("train", Step())
    if not train.gpus:
        raise UserError(
            f"profile {profile.name} trains without GPUs; expected one of a cluster, such as h200x8"
        )
    run = _configurations(options, profile)
    assumed = _assume(options, profile, run["plan"])
    training = list(_training(assumed, profile, run))
    evaluation = list(_evaluation(assumed, profile, run["plan"]))
    hours = sum(row.hours or 0.0 for row in (*training, *evaluation))
    rows = (*training, *evaluation, *_storage(assumed, run, hours))
    return Estimate((*rows, _total(rows, hours)), _describe(assumed))


def _configurations(options: Options, profile: Profile) -> dict[str, Any]:
    """The configurations of all stages: their defaults, the profile's values, those given."""
    given, mistakes = parse(_PIPELINE, (word for group in options.set for word in group))
    return resolve(_PIPELINE, profile.of(_PIPELINE), given, profile.place(complete=False), mistakes)


def _assume(options: Options, profile: Profile, plan: PlanConfig) -> Options:
    """The options with every default filled in that depends on the profile."""
    evaluator = find_evaluator(plan.evaluator, plan.edition)
    edition = EDITIONS[plan.edition]
    defaults: dict[str, Any] = {
        "peak_tflops": options.peak_tflops or _peak(profile.steps["train"]),
        "time_factor": edition.time_limit,
        "steps_per_second": evaluator.steps_per_second,
        "startup_seconds": evaluator.startup_seconds,
        "dataset_gigabytes": DATASET_GIGABYTES[str(edition.year)],
    }
    missing = {name: value for name, value in defaults.items() if getattr(options, name) is None}
    return dataclasses.replace(options, **missing)


def _peak(train: Step) -> float:
    products = (*train.node_labels.values(), *train.gpu_products)
    known = [peak for part, peak in PEAK_TFLOPS.items() for product in products if part in product]
    if not known:
        raise UserError(f"no peak known for {', '.join(products) or 'any GPU'}; give --peak-tflops")
    return min(known)


def _training(assumed: Options, profile: Profile, run: Mapping[str, Any]) -> Iterator[Row]:
    gpus = profile.steps["train"].gpus
    seconds_per_flop = 1.0 / ((assumed.peak_tflops or 0.0) * 1e12 * assumed.utilisation)
    is_report = profile.name == "h200x8"

    def row(what: str, config: TrainConfig, times: int, report_days: int) -> Row:
        samples = config.steps * config.batch_size * times
        tokens = MAX_TOKENS if config.model.fast else 0
        flops = training_flops(config.model, config.flow_samples, tokens)
        gpu_hours = samples * flops * seconds_per_flop / _HOUR
        rounds = math.ceil(times / profile.trainings) / times if times else 0.0
        report = (
            f"{report_days * 24 * _REPORT_GPUS * times:,} ({times} x {report_days} days)" if is_report else ""
        )
        unit, price = "GPU hours", assumed.training_gpu_hour
        return Row(
            f"{what}: {samples / 1e6:,.1f} M samples",
            gpu_hours,
            unit,
            gpu_hours / gpus * rounds,
            report,
            price,
        )

    yield row("train, all tasks", run["train"], 1, _REPORT_DAYS)
    yield row(f"train, {assumed.groups} groups", run["finetune"], assumed.groups, _REPORT_GROUP_DAYS)


def _evaluation(assumed: Options, profile: Profile, plan: PlanConfig) -> Iterator[Row]:
    """The two evaluations of the pipeline, planned as the stage plan does it."""
    edition = EDITIONS[plan.edition]
    names = plan.tasks or [name for name, task in TASKS.items() if task.challenge <= edition.year]
    validation, reported = plan.validation_instances, plan.reported_instances
    plans = {
        "common policy on validation": {"common": validation},
        "all policies": {
            "groups": validation + reported,
            "common": reported,
            **({"untrained": reported} if plan.untrained else {}),
        },
    }
    for what, policies in plans.items():
        units = [
            Unit(policy, name, REPORTED, False, tuple(range(count)), assumed.startup_seconds or 0.0, each)
            for policy, count in policies.items()
            for name in names
            for each in [_rollout_seconds(assumed, plan, name)]
        ]
        shards = shard(units, min(plan.workers, profile.evaluations))
        loads = [sum(unit.seconds for unit in part) / _HOUR for part in shards]
        count = plan.rollouts * sum(policies.values()) * len(names)
        gpu_hours = sum(loads) * profile.steps["evaluate"].gpus
        per = _REPORT_EVALUATION_HOURS / _REPORT_ROLLOUTS * count
        report = f"{per:,.0f} (240 per 500)" if profile.name == "h200x8" else ""
        label = f"evaluate, {what}: {count:,} rollouts"
        yield Row(label, gpu_hours, "GPU hours", max(loads), report, assumed.evaluation_gpu_hour)


def _rollout_seconds(assumed: Options, plan: PlanConfig, name: str) -> float:
    """Seconds of the rollouts of one instance."""
    known = [task.duration for task in TASKS.values() if task.duration]
    human = assumed.human_seconds or TASKS[name].duration or sum(known) / len(known)
    steps = human * FPS * (assumed.time_factor or 1.0)
    return plan.rollouts * steps / (assumed.steps_per_second or 1.0)


def _storage(assumed: Options, run: Mapping[str, Any], hours: float) -> Iterator[Row]:
    plan: PlanConfig = run["plan"]
    trained, frozen = parameters(run["train"].model)
    policy = (trained + frozen) * _FLOAT32 / 1e9
    # a saved state: parameters, their average and two moments; it is kept until the next one is whole
    state = 2 * (4 * trained + 2 * frozen) * _FLOAT32 / 1e9
    policies = 1 + assumed.groups + plan.untrained
    tasks = len(plan.tasks) or EDITIONS[plan.edition].tasks
    videos = tasks * plan.videos * (2 + plan.untrained)
    minutes = videos * _rollout_minutes(assumed)
    month = assumed.gigabyte_month
    price = None if month is None else month * hours / _HOURS_OF_A_MONTH
    for what, gigabytes in (
        (
            f"demonstrations, {assumed.dataset_copies} copies",
            (assumed.dataset_gigabytes or 0.0) * assumed.dataset_copies,
        ),
        (f"{policies} policies of {(trained + frozen) / 1e6:,.0f} M parameters", policies * policy),
        ("state of the training that runs", state),
        (f"{videos} videos", minutes * assumed.video_megabytes_per_minute / 1e3),
    ):
        yield Row(f"store, {what}", gigabytes, "GB", None, "", price)


def _rollout_minutes(assumed: Options) -> float:
    known = [task.duration for task in TASKS.values() if task.duration]
    return (assumed.human_seconds or sum(known) / len(known)) * (assumed.time_factor or 1.0) / 60


def parameters(model: ModelConfig) -> tuple[int, int]:
    """Number of parameters that are trained, and that are frozen; counted on the network's shapes."""
    from flax import nnx  # seconds of imports that `--help` should not wait for

    from pi_behavior.network import PiBehavior
    from pi_behavior.tensors import flat_parameters

    network = nnx.eval_shape(lambda: PiBehavior(model, nnx.Rngs(0)))
    sizes = {
        name: math.prod(leaf.shape) for name, leaf in flat_parameters(nnx.state(network, nnx.Param)).items()
    }
    frozen = sum(n for name, n in sizes.items() if model.freeze_vision and name.startswith("vision."))
    return sum(sizes.values()) - frozen, frozen


def _total(rows: tuple[Row, ...], hours: float) -> Row:
    gpu_hours = sum(row.amount for row in rows if row.unit == "GPU hours")
    return Row("all GPUs, stages one after the other", gpu_hours, "GPU hours", hours)


def _describe(assumed: Options) -> dict[str, str]:
    skip = ("set", "format", "profile", "training_gpu_hour", "evaluation_gpu_hour", "gigabyte_month")
    return {
        f"--{field.name.replace('_', '-')}": f"{getattr(assumed, field.name):g}"
        if getattr(assumed, field.name) is not None
        else "each task's own"
        for field in dataclasses.fields(assumed)
        if field.name not in skip
    }


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _tables(result: Estimate, options: Options) -> Iterator[Table]:
    style = box.MARKDOWN if options.format == "markdown" else box.SIMPLE
    priced = any(row.price is not None for row in result.rows)
    table = Table(box=style)
    table.add_column("what")
    for name in ("amount", "hours", "the report", *(["cost"] if priced else [])):
        table.add_column(name, justify="right")
    for row in result.rows:
        cells = [row.what, f"{_figure(row.amount)} {row.unit}"]
        cells += [_figure(row.hours) if row.hours is not None else "", row.report]
        if priced:
            cells.append(_figure(row.amount * row.price) if row.price is not None else "")
        table.add_row(*cells)
    if priced:
        total = sum(row.amount * row.price for row in result.rows if row.price is not None)
        table.add_row("sum of what has a price", "", "", "", _figure(total))
    yield table
    assumptions = Table(box=style)
    assumptions.add_column("assumption")
    assumptions.add_column("value", justify="right")
    for name, value in result.assumptions.items():
        assumptions.add_row(name, value)
    yield assumptions
