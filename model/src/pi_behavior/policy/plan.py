"""How much memory of a GPU serving takes: nothing is allocated, and no GPU is needed.

Weights are counted by size. The rest is what XLA counts for the program that computes in float32 on a CPU;
in bfloat16 a GPU needs no more. Source of the GPUs' sizes: the challenge lets a policy have one GPU of 24 GB.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from rich.console import Console
from rich.table import Column, Table

from pi_behavior.config import ModelConfig, NumberType
from pi_behavior.flow import FLAT, Correlation, Inpainting
from pi_behavior.layout import ACTION_DIM, CAMERAS, MODEL_DIM
from pi_behavior.network import PiBehavior
from pi_behavior.observation import Observation
from pi_behavior.policy.config import PolicyConfig, Serving
from pi_behavior.policy.program import Structure, infer, number_types

_USABLE = 0.92
"""Share of a GPU's memory that the server gets, which is what images/policy.Dockerfile sets as
XLA_PYTHON_CLIENT_MEM_FRACTION."""
_QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""The program is never run: machine code needs no optimisation."""
_GIB = 2**30


@dataclass(frozen=True)
class Need:
    """What one batch size needs on one kind of GPU, in bytes."""

    computes: NumberType
    batch: int
    weights: int
    working: int
    """Everything else, with weights that are copied into the type of the computation."""

    @property
    def memory(self) -> int:
        """All of it."""
        return self.weights + self.working


def usable(gibibytes: float) -> float:
    """Bytes that a server gets of a GPU with so many GiB."""
    return gibibytes * _GIB * _USABLE


def needs(serving: Serving, policy: PolicyConfig) -> list[Need]:
    """What the largest of the networks needs, on GPUs with bfloat16 and on those without.

    Compiles a program for every batch size: tens of seconds for a network of full size.
    """
    jax.config.update("jax_platforms", "cpu")
    model = max(serving.networks.values(), key=_parameters)
    working = {batch: _working(model, policy, batch) for batch in sorted({*serving.batch_sizes})}
    kinds = {
        number_types(model.dtype, serving.parameters, serving.compute, is_gpu=True, has_bfloat16=newer): None
        for newer in (True, False)
    }
    count, found = _parameters(model), []
    for held, computed in kinds:
        weights = min(serving.max_loaded, len(serving.networks)) * count * jnp.dtype(held).itemsize
        copies = count * jnp.dtype(computed).itemsize if held != computed else 0
        found += [Need(computed, batch, weights, copies + own) for batch, own in working.items()]
    return found


def run(serving: Serving, policy: PolicyConfig, gibibytes: float) -> int:
    """Print what serving needs; 0 if it fits into a GPU of so many GiB, else 1."""
    names = ("weights, GiB", "batch", "working, GiB", "all, GiB")
    table = Table("computes in", *(Column(name, justify="right") for name in names), "fits")
    limit, found = usable(gibibytes), needs(serving, policy)
    for need in found:
        shown = [f"{size / _GIB:.1f}" for size in (need.weights, need.working, need.memory)]
        fits = "yes" if need.memory <= limit else "no"
        table.add_row(need.computes, shown[0], str(need.batch), *shown[1:], fits)
    Console(soft_wrap=True).print(table)
    print(f"{limit / _GIB:.1f} of the GPU's {gibibytes:g} GiB are usable. GPUs without bfloat16, which are")
    print(
        "those before compute capability 8.0, such as TITAN RTX, compute in float32; float16 is not offered."
    )
    if all(need.memory <= limit for need in found):
        print("fits")
        return 0
    print("does not fit; try smaller --batch-sizes, --max-loaded 1 or --parameters bfloat16")
    return 1


def _abstract(model: ModelConfig) -> PiBehavior:
    def make() -> PiBehavior:
        network = PiBehavior(model, nnx.Rngs(0))
        network.prepare_for_serving()
        return network

    network: PiBehavior = nnx.eval_shape(make)
    return network


def _parameters(model: ModelConfig) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(_abstract(model))))


def _working(model: ModelConfig, policy: PolicyConfig, batch: int) -> int:
    """Bytes that a call of the network needs besides the weights, for so many environments."""
    graph, state = nnx.split(_abstract(replace(model, dtype="float32", attention="xla")))
    weights, tree = jax.tree.flatten(state)

    side, keep = model.vision.image_size, policy.kept
    kept = keep * ACTION_DIM

    def program(
        weights: Any, pixels: Any, state: Any, task: Any, saved: Any, ids: Any, *matrices: Any
    ) -> Any:
        return infer(
            Structure(graph, tree),
            weights,
            Correlation(*matrices),
            Observation(dict(zip(CAMERAS, pixels, strict=True)), state, task, task),
            Inpainting(saved, task >= 0) if keep else None,
            jnp.uint32(0),
            ids,
            steps=policy.num_steps,
        )

    def array(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    lowered = jax.jit(program).lower(
        weights,
        [array(batch, side, side, 3, dtype=jnp.uint8) for _ in CAMERAS],
        array(batch, MODEL_DIM),
        array(batch, dtype=jnp.int32),
        array(batch, keep, ACTION_DIM),
        array(batch, 3, dtype=jnp.uint32),
        array(FLAT, FLAT),
        array(FLAT - kept if keep else 0, kept),
    )
    compiled: Any = lowered.compile(compiler_options=_QUICK)
    return int(compiled.memory_analysis().temp_size_in_bytes)
