"""Placement of arrays on devices: a mesh (data, fsdp); a single device is the mesh (1, 1).

The batch is split over all devices. Large parameters, their average and the optimizer's moments are split
over the fsdp devices; every data row of the mesh holds all of them. The loss and its gradient run per device
(`jax.shard_map`) on its own samples: what devices exchange is weights, gradients and a few scalars, never
activations, however large the batch is.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pi_behavior.network.layers import Shard, State, gather, reduce_scatter
from pi_behavior.network.pi_behavior import STATE_BINS

DATA, FSDP = "data", "fsdp"
ALL = (DATA, FSDP)
SMALLEST_SHARDED = 2**20
"""Arrays with fewer elements are replicated: gathering them would cost more than it saves."""


@dataclass(frozen=True)
class Rule:
    """How the parameters whose names match a pattern are split and gathered."""

    pattern: str
    axes: tuple[int, ...]
    """Axes that may be split; the first that the fsdp devices divide is."""
    by_layer: bool = False
    """Gather one layer at a time, inside of `scan_layers`, instead of the whole before the loss."""
    rows: int | None = None
    """The network reads only so many of the first rows: no others are gathered."""


RULES = (
    Rule(r"(^|\.)(layers|blocks)\.", (1, 2, 3, 4), by_layer=True),
    Rule(r"(^|\.)token_embeddings$", (1,), rows=STATE_BINS),
    Rule(r"", (0, 1, 2, 3)),
)
"""For every parameter the first rule whose pattern is found in its dotted name."""


def rule_of(name: str) -> Rule:
    """The rule for a parameter."""
    return next(rule for rule in RULES if re.search(rule.pattern, name))


def make_mesh(fsdp: int, devices: list[jax.Device] | None = None) -> Mesh:
    """Arrange devices as (data, fsdp).

    Raises:
        ValueError: the number of devices is not a multiple of fsdp.
    """
    found = jax.devices() if devices is None else devices
    if len(found) % fsdp:
        raise ValueError(
            f"fsdp is {fsdp}, which does not divide the {len(found)} devices here; choose a divisor"
        )
    return Mesh(np.array(found).reshape(-1, fsdp), ALL)


def split_axis(mesh: Mesh, name: str, shape: tuple[int, ...]) -> int | None:
    """The axis along which a parameter is split over the fsdp devices; None if each has all of it."""
    devices = mesh.shape[FSDP]
    if devices == 1 or int(np.prod(shape)) < SMALLEST_SHARDED:
        return None
    fitting = (axis for axis in rule_of(name).axes if axis < len(shape) and shape[axis] % devices == 0)
    return next(fitting, None)


def spec(mesh: Mesh, name: str, shape: tuple[int, ...]) -> PartitionSpec:
    """Which axis of a parameter is split over which devices."""
    axis = split_axis(mesh, name, shape)
    return PartitionSpec(*(FSDP if i == axis else None for i in range(len(shape))))


def tree_specs(mesh: Mesh, tree: Any) -> Any:
    """`spec` for every array of a tree that holds parameters, or what an optimizer keeps for each."""
    return jax.tree.map_with_path(lambda path, leaf: spec(mesh, dotted(path), leaf.shape), tree)


def dotted(path: tuple[Any, ...]) -> str:
    """The name of a leaf, or of what a path leads to, in a tree of parameters."""
    parts = [str(getattr(part, "key", getattr(part, "name", ""))) for part in path]
    return ".".join(part for part in parts if part != "value")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Shard the batch over all devices: fsdp devices share parameters, not samples."""
    return NamedSharding(mesh, PartitionSpec(ALL))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on all devices."""
    return NamedSharding(mesh, PartitionSpec())


class Parts:
    """The parts of the parameters that one device holds, inside of `jax.shard_map`.

    Args:
        mesh: the mesh.
        parameters: shapes of the whole parameters.
        dtype: type of the computation.
        by_layer: leave the layers in parts, which `scan_layers` gathers one at a time, twice if its backward
            pass computes activations again. Otherwise all weights are gathered once.
    """

    def __init__(self, mesh: Mesh, parameters: State, dtype: str, *, by_layer: bool) -> None:
        self._rules: dict[str, Rule] = {}
        self._shards: dict[str, Shard] = {}
        self._rows: dict[str, int] = {}
        self._later: set[str] = set()
        self._mesh = mesh
        for name, parameter in _named(parameters):
            self._rules[name] = rule = rule_of(name)
            axis = split_axis(mesh, name, parameter.shape)
            if axis is None:
                continue
            # what is outside of the layers is small, and some of it is computed in float32
            self._shards[name] = Shard(FSDP, axis, dtype if rule.by_layer else "float32")
            if rule.rows is not None and axis > 0:
                self._rows[name] = parameter.shape[0]
            if rule.by_layer and by_layer:
                self._later.add(name)

    def weights(self, parameters: State) -> dict[str, jax.Array]:
        """What the network computes with, by name: whole weights, but for the layers left in parts."""
        found = {name: parameter.get_value() for name, parameter in _named(parameters)}
        for name in self._shards.keys() - self._later:
            part = found[name][: self._rules[name].rows] if name in self._rows else found[name]
            found[name] = gather(part, self._shards[name])
        return found

    def state(self, like: State, weights: Mapping[str, jax.Array]) -> State:
        """Weights as the network's state, with the mark on what is still in parts."""
        flat = [
            (path, parameter.replace(weights[name], shard=self._shards[name]))
            if (name := ".".join(map(str, path))) in self._later
            else (path, parameter.replace(weights[name]))
            for path, parameter in nnx.to_flat_state(like)
        ]
        return nnx.from_flat_state(flat)

    def reduce(self, gradients: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Mean over all devices of the gradients of `weights`, in the parts of the parameters."""
        return {name: self._reduced(name, gradient) for name, gradient in gradients.items()}

    def _reduced(self, name: str, gradient: jax.Array) -> jax.Array:
        gradient = gradient.astype(jnp.float32)
        if name not in self._shards:
            return self._sum(gradient, ALL) / self._mesh.size
        if name not in self._later:
            gradient = reduce_scatter(gradient, self._shards[name])
        gradient = self._sum(gradient, (DATA,)) / self._mesh.size
        if name in self._rows:
            unread = self._rows[name] - gradient.shape[0]
            gradient = jnp.pad(gradient, [(0, unread), *[(0, 0)] * (gradient.ndim - 1)])
        return gradient

    def _sum(self, gradient: jax.Array, axes: tuple[str, ...]) -> jax.Array:
        spread = tuple(axis for axis in axes if self._mesh.shape[axis] > 1)
        return jax.lax.psum(gradient, spread) if spread else gradient


def _named(parameters: State) -> Iterator[tuple[str, Any]]:
    for path, parameter in nnx.to_flat_state(parameters):
        yield ".".join(map(str, path)), parameter
