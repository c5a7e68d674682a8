"""The program that a server runs for a batch: the network, the sampler, and the types that it computes in."""

from functools import partial
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, UInt32

from pi_behavior.config import NumberType
from pi_behavior.flow import Correlation, Inpainting, correlated_noise, sample
from pi_behavior.network import PiBehavior
from pi_behavior.observation import Observation
from pi_behavior.policy.config import FloatType

_FIRST_WITH_BFLOAT16 = 8.0
"""Compute capability of the first NVIDIA GPUs that compute in bfloat16, Ampere."""


class Structure:
    """A network without its arrays, as jit's static argument; hashed once, and not at every call."""

    def __init__(self, graph: "nnx.GraphDef[PiBehavior]", tree: Any) -> None:
        self.graph, self.tree = graph, tree
        self._hash = hash((graph, tree))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Structure) and (self.graph, self.tree) == (other.graph, other.tree)


@partial(jax.jit, static_argnames=("structure", "steps"))
def infer(
    structure: Structure,
    weights: "list[Array]",
    correlation: Correlation,
    observation: Observation,
    inpainting: Inpainting | None,
    seed: UInt32[Array, ""],
    noise_ids: UInt32[Array, "b 3"],
    *,
    steps: int,
) -> tuple[Float[Array, "b 30 32"], Float[Array, "b 15"]]:
    """Normalised chunks and stage logits; compiled per network, batch size and settings."""

    def noise(identity: UInt32[Array, " 3"]) -> Float[Array, "30 32"]:
        key = jax.random.key(seed)
        for part in identity:
            key = jax.random.fold_in(key, part)
        return correlated_noise(key, correlation.cholesky, ())

    model = nnx.merge(structure.graph, jax.tree.unflatten(structure.tree, weights))
    prefix = model.encode(observation)
    chunk = sample(
        model,
        prefix,
        jax.vmap(noise)(noise_ids),
        steps=steps,
        inpainting=inpainting,
        correction=correlation.correction,
    )
    return chunk, prefix.stage_logits


def has_bfloat16(device: jax.Device) -> bool:
    """Whether a device computes in bfloat16 without going through float32; a CPU counts as if it did."""
    capability = getattr(device, "compute_capability", None)
    return capability is None or float(capability) >= _FIRST_WITH_BFLOAT16


def number_types(
    own: NumberType,
    parameters: FloatType,
    compute: FloatType,
    *,
    is_gpu: bool,
    has_bfloat16: bool,
) -> tuple[NumberType, NumberType]:
    """The types of the weights in memory and of the computation.

    Args:
        own: what the network computes in.
        parameters: see `ServerConfig`.
        compute: see `ServerConfig`.
        is_gpu: whether it computes on a GPU.
        has_bfloat16: whether that computes in bfloat16.
    """
    if compute == "auto":
        compute = own if has_bfloat16 else "float32"
    if parameters == "auto":
        parameters = compute if is_gpu else "float32"
    return parameters, compute
