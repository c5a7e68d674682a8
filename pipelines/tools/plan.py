"""Whether a training fits its devices, and how fast it will be; needs no data and no GPU.

The step is compiled as the training would compile it, for as many virtual devices. Memory is XLA's count for
the CPU, which is more than a GPU needs. Exit code 0 and `fits`, or 1 and what does not fit.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console
from rich.table import Column, Table

from components.errors import UserError
from components.settings.checks import parse, resolve
from components.train.config import Config as TrainConfig
from pipelines.definitions.choosing import Set
from pipelines.definitions.profiles import load_profile
from pipelines.definitions.profiles.profile import Profile

if TYPE_CHECKING:
    from pi_behavior.training.plan import StepPlan

MEMORY_MIB: Mapping[str, int] = MappingProxyType(
    {
        "H200": 143_771,
        "H100": 81_559,
        "A100": 81_920,
        "RTX-PRO-6000-Blackwell": 97_887,
        "RTX-6000-Ada": 49_140,
        "L40": 46_068,
        "RTX-5090": 32_607,
        "RTX-4090": 24_564,
    }
)
"""Memory by part of the product's name, as nvidia-smi shows it."""
SUSTAINED_TFLOPS: Mapping[str, float] = MappingProxyType(
    {"H200": 790.0, "H100": 790.0, "A100": 250.0, "L40S": 290.0, "RTX-4090": 150.0}
)
"""bfloat16 TFLOP/s that large matrix products reach, by part of the product's name: measured for an H200, for
the others about four fifths of the data sheet's peak."""
_GIB = 2**30


@dataclass(frozen=True)
class Options:
    """Plan the training of a profile: memory, communication and time of a step, and whether it fits."""

    profile: str = "h200x8"
    """The profile whose training is planned."""
    set: Set = ()
    """Values that differ from the profile's: name=value ..."""
    section: Literal["train", "finetune"] = "train"
    """The training of all tasks, or of a group."""
    find_batch: bool = False
    """Find the smallest `accumulate` with which the batch fits; each try is a compilation."""
    devices: int | None = None
    """Devices; by default the profile's GPUs, or one."""
    memory_gib: float | None = None
    """Memory of a device; by default that of the smallest known product that the profile allows."""
    usable: float = 0.92
    """Share of the memory that the training gets, which is what the profiles set as
    XLA_PYTHON_CLIENT_MEM_FRACTION."""
    peak_tflops: float | None = None
    """TFLOP/s that matrix products reach on a device; by default known for some GPUs."""
    utilisation: float = 0.5
    """Share of it that becomes model FLOPs; 0.5 was measured on one H200 at batch 32."""
    link_gigabytes: float = 300.0
    """GB/s that a device sends to others; the default is two thirds of NVLink 4's 450."""
    format: Literal["table", "markdown"] = "table"
    """table for a terminal, markdown for documentation."""

    def __post_init__(self) -> None:
        for name in ("usable", "utilisation"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"--{name} {getattr(self, name)}; expected a share above 0, at most 1")
        for name in ("devices", "memory_gib", "peak_tflops", "link_gigabytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"--{name.replace('_', '-')} {value}; expected more than 0")


def run(options: Options) -> int:
    """Print the plan; 0 if the training fits, else 1."""
    profile = load_profile(options.profile)
    given, mistakes = parse("train_and_evaluate", (word for group in options.set for word in group))
    place = profile.place(complete=False)
    config: TrainConfig = resolve(
        "train_and_evaluate", profile.of("train_and_evaluate"), given, place, mistakes
    )[options.section]
    devices = options.devices or max(1, profile.steps["train"].gpus)
    memory = _memory(options, profile)
    peak = options.peak_tflops or _known(SUSTAINED_TFLOPS, profile)
    tries: list[StepPlan] = []
    for one in _candidates(config, devices) if options.find_batch else [config]:
        plan = _compiled(one, devices)
        tries.append(plan)
        if _fits(plan, memory):
            break
    _print(options, tries, memory, peak, config)
    best = tries[-1]
    if _fits(best, memory):
        print(
            f"fits: {devices} x {best.micro_batch} samples at a time, accumulate {best.accumulate}, "
            f"{best.memory / _GIB:.1f} of {memory / _GIB:.1f} GiB"
            if memory
            else "fits"
        )
        return 0
    print(
        f"does not fit: {best.memory / _GIB:.1f} GiB per device, {_largest(best)} most of it; "
        f"{(memory or 0) / _GIB:.1f} GiB are usable. "
        + (
            "No accumulation helps: use more devices (train.fsdp), or a smaller network"
            if options.find_batch
            else "--find-batch finds the smallest train.accumulate that fits"
        )
    )
    return 1


def _compiled(config: TrainConfig, devices: int) -> "StepPlan":
    """Compile for virtual devices, which have to be asked for before JAX starts."""
    import jax

    from pi_behavior.training.loop import check_batch
    from pi_behavior.training.plan import plan_step

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    try:
        check_batch(config, devices)
        print(
            f"compiling for {devices} devices: batch {config.batch_size}, accumulate {config.accumulate} ...",
            flush=True,
        )
        start = time.monotonic()
        plan = plan_step(config.model, config, devices)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(f"compiled in {time.monotonic() - start:.0f} s", flush=True)
    return plan


def _candidates(config: TrainConfig, devices: int) -> Iterator[TrainConfig]:
    """The configuration with ever smaller parts of the batch."""
    own = config.batch_size // devices
    for count in range(1, own + 1):
        if own % count == 0:
            yield dataclasses.replace(config, accumulate=count)


def _known(table: Mapping[str, float], profile: Profile) -> float | None:
    """The smallest known value of the products that the training may run on."""
    step = profile.steps["train"]
    products = (*step.node_labels.values(), *step.gpu_products)
    found = [value for part, value in table.items() for product in products if part in product]
    return min(found, default=None)


def _memory(options: Options, profile: Profile) -> float | None:
    """Usable bytes of a device; None where nothing is known, as of a machine without GPUs."""
    if options.memory_gib is not None:
        return options.memory_gib * _GIB * options.usable
    known = _known(MEMORY_MIB, profile)
    if known is None and profile.steps["train"].gpus:
        raise UserError(f"the memory of profile {profile.name}'s GPUs is not known; give --memory-gib")
    return None if known is None else known * 2**20 * options.usable


def _fits(plan: "StepPlan", memory: float | None) -> bool:
    return memory is None or plan.memory <= memory


_PARTS = ("parameters", "average", "optimizer", "batch", "activations", "temporaries")


def _largest(plan: "StepPlan") -> str:
    return max(_PARTS, key=lambda name: getattr(plan, name))


def _seconds(options: Options, plan: "StepPlan", peak: float) -> float:
    """Of one step; communication is counted as if nothing were computed meanwhile."""
    computing = plan.flops / plan.devices / (peak * 1e12 * options.utilisation)
    return computing + sum(plan.sent.values()) / (options.link_gigabytes * 1e9)


def _print(
    options: Options, tries: list["StepPlan"], memory: float | None, peak: float | None, config: TrainConfig
) -> None:
    style = box.MARKDOWN if options.format == "markdown" else box.SIMPLE
    console = Console(highlight=False, width=200 if options.format == "markdown" else None)
    columns = [Column(f"accumulate {plan.accumulate}", justify="right") for plan in tries]
    table = Table("of one device", *columns, box=style)
    table.add_row("samples at a time", *(str(plan.micro_batch) for plan in tries))
    for name in _PARTS:
        table.add_row(f"{name}, GiB", *(f"{getattr(plan, name) / _GIB:.1f}" for plan in tries))
    table.add_row("memory, GiB", *(f"{plan.memory / _GIB:.1f}" for plan in tries))
    usable = "unknown" if memory is None else f"{memory / _GIB:.1f}"
    table.add_row("usable memory, GiB", *(usable for _ in tries))
    table.add_row("TFLOPs of a step", *(f"{plan.flops / plan.devices / 1e12:,.0f}" for plan in tries))
    for kind in sorted({kind for plan in tries for kind in plan.sent}):
        table.add_row(f"sent, {kind}, GB", *(f"{plan.sent.get(kind, 0) / 1e9:.2f}" for plan in tries))
    if peak is not None:
        seconds = [_seconds(options, plan, peak) for plan in tries]
        table.add_row("seconds of a step", *(f"{one:.2f}" for one in seconds))
        table.add_row("samples/s, all devices", *(f"{config.batch_size / one:.0f}" for one in seconds))
        table.add_row("hours of the training", *(f"{one * config.steps / 3600:.0f}" for one in seconds))
    console.print(table)
    if peak is not None:
        print(
            f"time: {peak:.0f} TFLOP/s (--peak-tflops), of which {options.utilisation:g} becomes model FLOPs"
        )
        print(f"(--utilisation), and {options.link_gigabytes:g} GB/s between devices (--link-gigabytes)")
