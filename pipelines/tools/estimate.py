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
from rich.table import Column, Table

from components.errors import UserError
from components.evaluation.evaluators import find_evaluator
from components.evaluation.forecast import Work, forecast
from components.evaluation.plan import CONFIRMATION
from components.evaluation.schedule import Rules
from components.plan.config import Config as PlanConfig
from components.settings.checks import parse, resolve
from components.train.config import Config as TrainConfig
from components.trial.config import Config as TrialConfig
from pi_behavior.challenge import EDITIONS, TASKS
from pi_behavior.config import NetworkConfig
from pi_behavior.fast import MAX_TOKENS
from pipelines.definitions.choosing import Set
from pipelines.definitions.profiles import load_profile
from pipelines.definitions.profiles.profile import Profile, Step

PEAK_TFLOPS: Mapping[str, float] = MappingProxyType({"H200": 989.0, "L40S": 362.0, "RTX-4090": 165.0})
"""Dense bfloat16 TFLOP/s by part of the product's name, from the vendor's data sheets."""
FPS = 30
_PIPELINE = "train_and_evaluate"
_REPORT_PROFILE = "h200x8"
"""The profile whose run is comparable with the report's."""
_NOT_ASSUMED = (
    "set",
    "format",
    "profile",
    "queue",
    "training_gpu_hour",
    "evaluation_gpu_hour",
    "gigabyte_month",
)
"""Options that are no assumptions."""
_HOUR = 3600.0
_HOURS_OF_A_MONTH = 730.0
_FLOAT32 = 4
_REPORT_GPUS = 8
_REPORT_DAYS = 15
_REPORT_GROUP_DAYS = 7
_REPORT_ROLLOUT_HOURS = 240 / 500


@dataclass(frozen=True)
class Options:
    """Estimate GPU hours, storage and evaluation hours of a run of train_and_evaluate."""

    profile: str = "h200x8"
    """A profile of a cluster: h200x8, h200x8_2026 or one_gpu."""
    set: Set = ()
    """Values that differ from the profile's: name=value ..."""
    queue: int | None = None
    """GPUs that a queue lets evaluation have at a time; by default what the profile's workers ask for."""
    groups: int = 3
    """Groups that are fine-tuned; best, good and bad in the report, section 6.4."""
    peak_tflops: float | None = None
    """Peak of one training GPU in dense bfloat16 TFLOP/s; by default the data sheet's, of the slowest
    known product that the profile allows."""
    utilisation: float = 0.16
    """Share of the peak that becomes model FLOPs. The default is what the report's run comes to: 2 epochs
    of 1.19e8 frames in a month (section 10) on 8 H200. No whole run has been measured yet."""
    human_seconds: float | None = None
    """Mean human length of a task; by default each task's own, from the challenge's data."""
    time_factor: float | None = None
    """Length of a rollout in human lengths; by default the edition's limit, which failures run up to."""
    steps_per_second: float | None = None
    """Control steps of the simulator per second, policy included; by default the evaluator's in the plan."""
    startup_seconds: float | None = None
    """Time to load a scene; by default the evaluator's in the plan."""
    dataset_gigabytes: float | None = None
    """Size of the demonstrations; by default 260 (2025, 224 x 224 RGB) or 1077 (2026, RGB)."""
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
                raise UserError(f"{_option(name)} {getattr(self, name)}; expected 0 or more")
        for name in ("queue", "peak_tflops", "human_seconds", "time_factor", "steps_per_second"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{_option(name)} {value}; expected more than 0")


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


@dataclass(frozen=True)
class Row:
    """One part of a run."""

    what: str
    amount: float
    unit: str = "GPU hours"
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
    assumed: Options
    """The options with every default filled in that depends on the profile."""


def run(options: Options) -> int:
    """Print the estimate; returns exit code 0."""
    result = estimate(options)
    # Markdown has no lines within a cell
    console = Console(highlight=False, width=200 if options.format == "markdown" else None)
    style = box.MARKDOWN if options.format == "markdown" else box.SIMPLE
    priced = [row.amount * row.price for row in result.rows if row.price is not None]
    figures = ("amount", "hours", "the report", *(["cost"] if priced else []))
    table = Table("what", *(Column(name, justify="right") for name in figures), box=style)
    for row in result.rows:
        cost = "" if row.price is None else _figure(row.amount * row.price)
        hours = "" if row.hours is None else _figure(row.hours)
        amount = f"{_figure(row.amount)} {row.unit}"
        table.add_row(row.what, amount, hours, row.report, *([cost] if priced else []))
    if priced:
        table.add_row("sum of what has a price", "", "", "", _figure(sum(priced)))
    console.print(table)
    assumptions = Table("assumption", Column("value", justify="right"), box=style)
    for name, value in vars(result.assumed).items():
        if name not in _NOT_ASSUMED:
            assumptions.add_row(_option(name), "each task's own" if value is None else f"{value:g}")
    console.print(assumptions)
    if result.assumed.queue is not None:
        days = sum(row.hours or 0.0 for row in result.rows if row.what.startswith("evaluate")) / 24
        console.print(f"evaluation in a queue with {result.assumed.queue} GPUs: {days:.1f} days")
    if not priced:
        prices = "--training-gpu-hour, --evaluation-gpu-hour, --gigabyte-month"
        console.print(f"no prices given ({prices}): no money")
    return 0


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def estimate(options: Options) -> Estimate:
    """Compute what a run takes; UserError for wrong values, or a profile that trains without GPUs."""
    profile = load_profile(options.profile)
    if not profile.steps.get("train", Step()).gpus:
        raise UserError(
            f"profile {profile.name} trains without GPUs; expected one of a cluster, such as h200x8"
        )
    given, mistakes = parse(_PIPELINE, (word for group in options.set for word in group))
    run = resolve(_PIPELINE, profile.of(_PIPELINE), given, profile.place(complete=False), mistakes)
    assumed = _assume(options, profile, run["plan"])
    rows = [*_training(assumed, profile, run), *_evaluation(assumed, profile, run["plan"], run["trial"])]
    hours = sum(row.hours or 0.0 for row in rows)
    gpu_hours = sum(row.amount for row in rows)
    total = Row("all GPUs, stages one after the other", gpu_hours, hours=hours)
    return Estimate((*rows, *_storage(assumed, run, hours), total), assumed)


def _assume(options: Options, profile: Profile, plan: PlanConfig) -> Options:
    """The options with every default filled in that depends on the profile."""
    evaluator = find_evaluator(plan.evaluator, plan.edition)
    edition = EDITIONS[plan.edition]
    defaults: dict[str, Any] = {
        "peak_tflops": options.peak_tflops or _peak(profile.steps["train"]),
        "time_factor": edition.time_limit,
        "steps_per_second": evaluator.steps_per_second,
        "startup_seconds": evaluator.startup_seconds,
        "dataset_gigabytes": edition.dataset_gigabytes,
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
    flops_per_second = (assumed.peak_tflops or 0.0) * 1e12 * assumed.utilisation
    for what, section, times, days in (
        ("all tasks", "train", 1, _REPORT_DAYS),
        (f"{assumed.groups} groups", "finetune", assumed.groups, _REPORT_GROUP_DAYS),
    ):
        config: TrainConfig = run[section]
        samples = config.steps * config.batch_size * times
        tokens = MAX_TOKENS if config.model.fast_tokens else 0
        flops = config.model.training_flops(config.flow_samples, tokens)
        gpu_hours = samples * flops / flops_per_second / _HOUR
        rounds = math.ceil(times / profile.trainings) / times if times else 0.0
        said = f"{days * 24 * _REPORT_GPUS * times:,} ({times} x {days} days)"
        yield Row(
            f"train, {what}: {samples / 1e6:,.1f} M samples",
            gpu_hours,
            hours=gpu_hours / gpus * rounds,
            report=said if profile.name == _REPORT_PROFILE else "",
            price=assumed.training_gpu_hour,
        )


def _evaluation(assumed: Options, profile: Profile, plan: PlanConfig, trial: TrialConfig) -> Iterator[Row]:
    """The evaluations of the pipeline, played through as the stages plan and trial do it."""
    names = plan.tasks or EDITIONS[plan.edition].task_names
    startup = assumed.startup_seconds or 0.0
    pace = FPS / (assumed.steps_per_second or 1.0)
    seconds = {name: pace * _rollout_seconds(assumed, TASKS[name].duration) for name in names}
    validation, reported = plan.validation_instances, plan.reported_instances
    everything = {"groups": validation + reported, "common": reported}
    if plan.untrained:
        everything["untrained"] = reported
    workers, gpus = min(plan.workers, profile.evaluations), profile.steps["evaluate"].gpus
    if assumed.queue is not None:
        if assumed.queue < gpus:
            raise UserError(
                f"--queue {assumed.queue}; a worker of the profile {profile.name} asks for {gpus} GPUs"
            )
        workers = min(workers, assumed.queue // gpus)
    rules = Rules(startup, plan.environments, in_order=not plan.environments and plan.rollouts == 1)

    def row(what: str, policies: Mapping[str, int], each: int, blocks: int = 1, report: str = "") -> Row:
        """Blocks of rollouts one after the other, `each` of an instance, by policies and their instances."""
        work = [
            Work(policy, count, each * seconds[name]) for policy, count in policies.items() for name in names
        ]
        spans = forecast(work, workers, rules)
        count = blocks * each * sum(policies.values()) * len(names)
        return Row(
            f"evaluate, {what}: {count:,} rollouts",
            blocks * sum(span.end - span.begin for span in spans) / _HOUR * gpus,
            hours=blocks * max(span.end for span in spans) / _HOUR,
            report=report.format(_REPORT_ROLLOUT_HOURS * count) if profile.name == _REPORT_PROFILE else "",
            price=assumed.evaluation_gpu_hour,
        )

    said = "{:,.0f} (240 per 500)"
    yield row("common policy on validation", {"common": validation}, plan.rollouts, report=said)
    yield row("all policies", everything, plan.rollouts, report=said)
    confirmation = find_evaluator(plan.evaluator, plan.edition).splits[CONFIRMATION].count
    rounds = min(trial.rounds, confirmation)
    sides = dict.fromkeys(("challenger", "rival"), min(trial.block, rounds))
    yield row("confirmation at most", sides, 1, blocks=math.ceil(rounds / trial.block))


def _rollout_seconds(assumed: Options, human: float | None = None) -> float:
    """Length of a rollout in the simulator's time, of a task with the mean length where none is given."""
    known = [task.duration for task in TASKS.values() if task.duration]
    return (assumed.human_seconds or human or sum(known) / len(known)) * (assumed.time_factor or 1.0)


def _storage(assumed: Options, run: Mapping[str, Any], hours: float) -> Iterator[Row]:
    plan: PlanConfig = run["plan"]
    trained, frozen = parameters(run["train"].model)
    policy = (trained + frozen) * _FLOAT32 / 1e9
    # a saved state: parameters, their average and two moments; it is kept until the next one is whole
    state = 2 * (4 * trained + 2 * frozen) * _FLOAT32 / 1e9
    policies = 1 + assumed.groups + plan.untrained
    copies = assumed.dataset_copies
    videos = (len(plan.tasks) or EDITIONS[plan.edition].tasks) * plan.videos * (2 + plan.untrained)
    megabytes = videos * _rollout_seconds(assumed) / 60 * assumed.video_megabytes_per_minute
    month = assumed.gigabyte_month
    price = None if month is None else month * hours / _HOURS_OF_A_MONTH
    for what, gigabytes in (
        (f"demonstrations, {copies} copies", (assumed.dataset_gigabytes or 0.0) * copies),
        (f"{policies} policies of {(trained + frozen) / 1e6:,.0f} M parameters", policies * policy),
        ("state of the training that runs", state),
        (f"{videos} videos", megabytes / 1e3),
    ):
        yield Row(f"store, {what}", gigabytes, "GB", price=price)


def parameters(model: NetworkConfig) -> tuple[int, int]:
    """Number of parameters that are trained, and that are frozen; counted on the network's shapes."""
    # seconds of imports that `--help` should not wait for
    from pi_behavior.published_layout import network_shapes

    counts = {name: math.prod(shape) for name, shape in network_shapes(model).items()}
    frozen = sum(n for name, n in counts.items() if model.is_frozen(name))
    return sum(counts.values()) - frozen, frozen
