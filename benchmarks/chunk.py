"""One chunk of actions, as the policy server computes it, beside the plain form of the same sampler.

Run as `python -m benchmarks.chunk`; on a GPU with `--size full --batches 1 32`. Two ways to the same chunk:

plain    weights stacked by layer, and every Euler step asks the network for the velocity at its time.
served   the server's: a layer's weights are arrays of their own, products of the same tokens are one matrix,
         what the times make of the norms is computed before the loop, and the prefix's keys and values are
         laid out there.

Time is the median of interleaved runs, from observation to chunk. Exits with 1 if the chunks differ, and with
--check also if `served` is not faster by the stated ratio.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from jaxtyping import Array
from rich.console import Console
from rich.table import Table

from benchmarks.flow_step import random_observation
from pi_behavior.config import ModelConfig
from pi_behavior.flow import sample
from pi_behavior.network import PiBehavior
from pi_behavior.observation import Observation


@dataclass(frozen=True)
class Options:
    """Compare two ways to compute a chunk."""

    size: str = "small"
    """Size of the network: tiny, small or full."""
    batches: tuple[int, ...] = (1, 4)
    """Sessions that are answered together."""
    steps: int = 20
    """Euler steps."""
    repeats: int = 7
    """Timed runs of each way."""
    check: bool = False
    """Exit with 1 where served is less than `ratio` times as fast."""
    ratio: float = 1.1
    """What --check asks for, at the first batch."""


def plain(model: PiBehavior, observation: Observation, noise: Array, steps: int) -> Array:
    """The sampler as the report writes it."""
    prefix = model.encode(observation)

    def step(index: Array, x: Array) -> Array:
        time = jnp.full((x.shape[0], 1), 1.0 - index / steps, jnp.float32)
        return x - model.velocity(prefix, x[:, None], time)[:, 0] / steps

    chunk: Array = jax.lax.fori_loop(0, steps, step, noise)
    return chunk


def served(model: PiBehavior, observation: Observation, noise: Array, steps: int) -> Array:
    """The sampler of the policy server."""
    return sample(model, model.encode(observation), noise, steps=steps)


def _random_network(config: ModelConfig) -> PiBehavior:
    """A network with random weights, the large ones in the type of the computation, as on a server's GPU."""
    graph, shapes = nnx.split(nnx.eval_shape(lambda: PiBehavior(config, nnx.Rngs(0))))
    rng = np.random.default_rng(0)

    def draw(shape: jax.ShapeDtypeStruct) -> Array:
        values = rng.standard_normal(shape.shape, np.float32) * max(shape.shape[-2:][0], 16) ** -0.5
        return jnp.asarray(values, config.dtype if values.size > 2**16 else jnp.float32)

    return nnx.merge(graph, jax.tree.map(draw, shapes))


def _compiled(model: PiBehavior, function: Callable[..., Array]) -> Callable[[Observation, Array], Array]:
    """The function with a network's weights as arguments of the program, and not as its constants."""
    graph, state = nnx.split(model)
    leaves, tree = jax.tree.flatten(state)

    @jax.jit
    def call(leaves: list[Array], observation: Observation, noise: Array) -> Array:
        return function(nnx.merge(graph, jax.tree.unflatten(tree, leaves)), observation, noise)

    return lambda observation, noise: call(leaves, observation, noise)


def measure(options: Options, batch: int) -> tuple[dict[str, float], float]:
    """Median seconds of both ways, and the largest relative difference of their chunks."""
    config = ModelConfig.presets[options.size]
    stacked = _random_network(config)
    rearranged = nnx.clone(stacked)
    rearranged.prepare_for_serving()
    observation = random_observation(config, batch)
    noise = jax.random.normal(jax.random.key(1), (batch, 30, 32))
    calls = {}
    for way, model, function in (("plain", stacked, plain), ("served", rearranged, served)):
        calls[way] = _compiled(model, partial(function, steps=options.steps))
    seconds: dict[str, list[float]] = {way: [] for way in calls}
    chunks: dict[str, np.ndarray] = {}
    for turn in range(options.repeats + 1):
        for way, call in calls.items():
            start = time.perf_counter()
            chunks[way] = np.asarray(call(observation, noise))
            if turn:  # the first run compiles
                seconds[way].append(time.perf_counter() - start)
    error = float(np.abs(chunks["served"] - chunks["plain"]).max() / np.abs(chunks["plain"]).max())
    return {way: statistics.median(times) for way, times in seconds.items()}, error


def main(options: Options) -> None:
    """Measure and print."""
    config = ModelConfig.presets[options.size]
    title = f"{options.size}, {options.steps} steps, {config.dtype}, {jax.devices()[0].device_kind}"
    table = Table(title=title)
    for name in ("batch", "plain ms", "served ms", "plain / served", "chunks/s", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    tolerance = 1e-4 if config.dtype == "float32" else 5e-2
    ratios, equal = [], True
    for batch in options.batches:
        seconds, error = measure(options, batch)
        ratios.append(seconds["plain"] / seconds["served"])
        equal &= error <= tolerance
        table.add_row(
            str(batch),
            *(f"{1e3 * seconds[way]:.1f}" for way in ("plain", "served")),
            f"x {ratios[-1]:.2f}",
            f"{batch / seconds['served']:.1f}",
            f"{error:.1e}",
        )
    Console(width=100).print(table)
    if not equal:
        print("the two ways differ")
    if options.check and ratios[0] < options.ratio:
        print(f"served is x {ratios[0]:.2f} as fast; expected at least x {options.ratio}")
    sys.exit(not equal or (options.check and ratios[0] < options.ratio))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
