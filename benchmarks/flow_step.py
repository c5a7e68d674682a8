"""What the shared prefix saves: one training step (loss and gradient) with N flow samples per observation.

Run as `python -m benchmarks.flow_step`. The report draws 15 pairs of time and noise per observation on one
prefix pass (section 6.2). Three ways to compute the same loss and the same gradient:

shared     ours: the N chunks are more queries against one prefix cache, block-diagonal among themselves.
repeated   one prefix pass, its cache repeated N times, a batch of N times as many observations in the expert.
separate   N prefix passes, one per flow sample.

Time is the median of interleaved runs, memory what XLA allocates for the compiled step besides its inputs and
outputs. Exits with 1 if losses or gradients differ.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from jaxtyping import Array
from rich.console import Console
from rich.table import Table

from pi_behavior.config import ModelConfig
from pi_behavior.flops import training_flops
from pi_behavior.flow import FLAT, correlated_noise, flow_loss, sample_time
from pi_behavior.layout import CAMERAS
from pi_behavior.losses import stage_loss
from pi_behavior.network import PiBehavior, Prefix
from pi_behavior.network.layers import State
from pi_behavior.observation import Observation
from pi_behavior.training.config import TrainConfig

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "RTX 4090": 165.0}
"""Dense bfloat16 TFLOP/s by part of the device's name, from the vendor's data sheets."""
Way = Literal["shared", "repeated", "separate"]
Step = Callable[[State], tuple[Array, State]]


@dataclass(frozen=True)
class Options:
    """Compare three ways to compute a training step with several flow samples."""

    size: str = "small"
    """Size of the network: tiny, small or full."""
    batch: int = 8
    """Observations per step."""
    flow_samples: int = 15
    """Flow samples per observation."""
    repeats: int = 5
    """Timed runs of each way."""
    ways: tuple[Way, ...] = ("shared", "repeated", "separate")
    """Which ways to run; the first is compared with the others."""
    peak_tflops: float | None = None
    """Peak of the device in TFLOP/s, for the utilisation; known for some GPUs."""


@dataclass(frozen=True)
class Measured:
    """One way's figures."""

    seconds: float
    memory: float
    """Bytes."""
    loss: float
    gradient: State


def random_observation(config: ModelConfig, batch: int) -> Observation:
    """A batch of noise images and states."""
    rng = np.random.default_rng(0)
    size = config.vision.image_size
    images = {c: jnp.asarray(rng.integers(0, 256, (batch, size, size, 3), np.uint8)) for c in CAMERAS}
    state = jnp.asarray(rng.normal(size=(batch, 32)), jnp.float32)
    task = jnp.asarray(rng.integers(0, config.tasks, batch), jnp.int32)
    return Observation(images=images, state=state, task=task, stage=jnp.zeros(batch, jnp.int32))


def _repeat_cache(prefix: Prefix, times: int) -> Prefix:
    """The prefix as if every observation stood there several times."""
    return replace(
        prefix,
        keys=jnp.repeat(prefix.keys, times, axis=1),
        values=jnp.repeat(prefix.values, times, axis=1),
        valid=jnp.repeat(prefix.valid, times, axis=0),
    )


def make_step(
    graph: nnx.GraphDef[PiBehavior], way: Way, observation: Observation, options: Options
) -> tuple[Step, Callable[[State], float]]:
    """Compile loss and gradient in one of the ways; returns the step, and its memory in bytes."""
    batch, samples = options.batch, options.flow_samples
    noise_key, time_key = jax.random.split(jax.random.key(1))
    noise = correlated_noise(noise_key, jnp.eye(FLAT), (batch, samples))
    times = sample_time(time_key, (batch, samples))
    actions = 0.1 * jnp.ones((batch, 30, 32))
    weight = TrainConfig().stage_weight

    def loss(parameters: State) -> Array:
        model = nnx.merge(graph, parameters)
        if way == "separate":
            seen = jax.tree.map(lambda a: jnp.repeat(a, samples, axis=0), observation)
            prefix = model.encode(seen)
        else:
            seen = observation
            prefix = model.encode(seen)
        stage = stage_loss(prefix.stage_logits, seen.stage).mean()
        if way == "shared":
            return flow_loss(model, prefix, actions, noise, times).mean() + weight * stage
        if way == "repeated":
            prefix = _repeat_cache(prefix, samples)
        flat = flow_loss(
            model,
            prefix,
            jnp.repeat(actions, samples, axis=0),
            noise.reshape(batch * samples, 1, 30, 32),
            times.reshape(batch * samples, 1),
        )
        return flat.mean() + weight * stage

    step = jax.jit(jax.value_and_grad(loss))

    def memory(parameters: State) -> float:
        planned: Any = step.lower(parameters).compile().memory_analysis()
        return float(planned.temp_size_in_bytes)

    return step, memory


def _timed(step: Step, parameters: State) -> tuple[float, float, State]:
    start = time.perf_counter()
    loss, gradient = jax.block_until_ready(step(parameters))
    return time.perf_counter() - start, float(loss), gradient


def measure(options: Options) -> tuple[ModelConfig, dict[Way, Measured]]:
    """Run all ways in turns."""
    config = ModelConfig.presets[options.size]
    graph, parameters = nnx.split(PiBehavior(config, nnx.Rngs(0)))
    observation = random_observation(config, options.batch)
    steps: dict[Way, Step] = {}
    memory: dict[Way, float] = {}
    for way in options.ways:
        print(f"compiling {way} ...", file=sys.stderr)
        steps[way], planned = make_step(graph, way, observation, options)
        memory[way] = planned(parameters)
    seconds: dict[Way, list[float]] = {way: [] for way in options.ways}
    last: dict[Way, tuple[float, State]] = {}
    for turn in range(options.repeats + 1):
        for way, step in steps.items():
            taken, loss, gradient = _timed(step, parameters)
            if turn:  # the first run warms up
                seconds[way].append(taken)
            last[way] = (loss, jax.tree.map(np.asarray, gradient))
    return config, {
        way: Measured(statistics.median(seconds[way]), memory[way], *last[way]) for way in options.ways
    }


def gradient_error(a: State, b: State) -> float:
    """Norm of the difference of two gradients, relative to the norm of the second."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    difference = sum(float(np.sum(np.square(x - y, dtype=np.float64))) for x, y in pairs)
    norm = sum(float(np.sum(np.square(y, dtype=np.float64))) for _, y in pairs)
    return float(np.sqrt(difference / max(norm, 1e-30)))


def main(options: Options) -> None:
    """Measure and print."""
    config, results = measure(options)
    first = results[options.ways[0]]
    flops = training_flops(config, options.flow_samples) * options.batch
    device = jax.devices()[0]
    peak = options.peak_tflops or next((v for k, v in PEAK_TFLOPS.items() if k in device.device_kind), None)
    table = Table(
        title=f"{options.size}, batch {options.batch}, N = {options.flow_samples}, {device.device_kind}"
    )
    for name in ("way", "s/step", "samples/s", "time ratio", "memory MB", "memory ratio", "gradient error"):
        table.add_column(name, justify="left" if name == "way" else "right", no_wrap=True)
    tolerance = 1e-4 if config.dtype == "float32" else 5e-2
    agree = True
    for way, result in results.items():
        error = gradient_error(result.gradient, first.gradient)
        agree &= error <= tolerance and abs(result.loss - first.loss) <= tolerance * abs(first.loss)
        table.add_row(
            way,
            f"{result.seconds:.3f}",
            f"{options.batch / result.seconds:.2f}",
            f"x {result.seconds / first.seconds:.2f}",
            f"{result.memory / 1e6:.0f}",
            f"x {result.memory / first.memory:.2f}",
            f"{error:.1e}",
        )
    Console(width=100).print(table)
    rate = flops / first.seconds / 1e12
    print(f"model FLOPs of the {options.ways[0]} step: {flops:.3e}, {rate:.3f} TFLOP/s", end="")
    print(f", {rate / peak:.1%} of {peak:.0f} TFLOP/s" if peak else "")
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
