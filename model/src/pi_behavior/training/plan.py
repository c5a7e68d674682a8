"""What a step takes, from the compiled program: nothing is allocated, and no accelerator is needed.

The step is compiled for as many virtual CPU devices as it will have real ones. What they exchange is the
same on any backend. The memory is XLA's own count for the CPU, which computes part of bfloat16 in float32 and
keeps the logits of attention, as cuDNN does not; so it is more than a GPU needs.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pi_behavior.config import NetworkConfig
from pi_behavior.families import family_of
from pi_behavior.fast import MAX_TOKENS
from pi_behavior.layout import CAMERAS, MODEL_DIM
from pi_behavior.observation import Earlier, FastTokens, Observation
from pi_behavior.training.config import TrainConfig
from pi_behavior.training.sharding import batch_sharding, make_mesh, replicated
from pi_behavior.training.state import abstract_state
from pi_behavior.training.step import TrainBatch, make_step

_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""The program is never run: machine code needs no optimisation."""


@dataclass(frozen=True)
class StepPlan:
    """What one step takes; memory and communication are of one device, in bytes."""

    devices: int
    micro_batch: int
    """Samples that a device computes at a time."""
    accumulate: int
    parameters: int
    average: int
    optimizer: int
    batch: int
    activations: int
    """What the forward pass keeps for the backward pass."""
    temporaries: int
    """Everything else: gathered weights, gradients, and what is needed within a layer."""
    sent: Mapping[str, int]
    """What a device sends to others in a ring, by kind of collective."""
    flops: int
    """Model FLOPs of the whole batch, see `flops.py`."""

    @property
    def memory(self) -> int:
        """All of one device's memory."""
        state = self.parameters + self.average + self.optimizer
        return state + self.batch + self.activations + self.temporaries


def abstract_batch(model: NetworkConfig, size: int, sharding: jax.sharding.Sharding | None) -> TrainBatch:
    """Shapes of a batch, with as many FAST tokens as there may be."""

    def array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), dtype, sharding=sharding)

    side, past = model.image_size, model.observation_steps - 1
    earlier: Any = Earlier(
        images={camera: array((past, side, side, 3), jnp.uint8) for camera in CAMERAS},  # type: ignore[misc]
        state=array((past, MODEL_DIM), jnp.float32),  # type: ignore[arg-type]
    )
    observation: Any = Observation(
        images={camera: array((side, side, 3), jnp.uint8) for camera in CAMERAS},  # type: ignore[misc]
        state=array((MODEL_DIM,), jnp.float32),  # type: ignore[arg-type]
        task=array((), jnp.int32),  # type: ignore[arg-type]
        stage=array((), jnp.int32),  # type: ignore[arg-type]
        earlier=earlier if past else None,
    )
    actions: Any = array((model.horizon, MODEL_DIM), jnp.float32)
    fast: Any = None
    if model.fast_tokens:
        fast = FastTokens(array((MAX_TOKENS,), jnp.int32), array((MAX_TOKENS,), jnp.bool_))  # type: ignore[arg-type]
    return TrainBatch(observation, actions, fast)


def compile_step(model: NetworkConfig, config: TrainConfig, devices: int) -> tuple[Any, Any, TrainBatch]:
    """Compile a step for so many devices; returns the program, and the shapes of its state and batch."""
    mesh = make_mesh(config.fsdp, jax.devices()[:devices])
    graph, state = abstract_state(model, config, mesh)
    batch = abstract_batch(model, config.batch_size, batch_sharding(mesh))
    constants = jax.device_put(family_of(model).blank_constants(model), replicated(mesh))
    step: Any = make_step(graph, model, config, constants, state, mesh)
    return step.lower(state, batch).compile(compiler_options=_QUICK), state, batch


def plan_step(model: NetworkConfig, config: TrainConfig, devices: int) -> StepPlan:
    """Compile a step and count what it takes.

    Raises:
        ValueError: the batch or the devices do not divide.
    """
    compiled, state, batch = compile_step(model, config, devices)
    micro_batch = config.batch_size // devices // config.accumulate
    activations = micro_batch * kept_per_sample(model, config)
    sent: dict[str, int] = {}
    for one in collectives(compiled.as_text()):
        sent[one.kind] = sent.get(one.kind, 0) + one.times * one.sent
    return StepPlan(
        devices=devices,
        micro_batch=micro_batch,
        accumulate=config.accumulate,
        parameters=_own_bytes(state.parameters),
        average=_own_bytes(state.average),
        optimizer=_own_bytes(state.optimizer),
        batch=_own_bytes(batch),
        activations=activations,
        temporaries=max(0, compiled.memory_analysis().temp_size_in_bytes - activations),
        sent=sent,
        flops=config.batch_size
        * model.training_flops(config.flow_samples, MAX_TOKENS if model.fast_tokens else 0),
    )


def _own_bytes(tree: Any) -> int:
    """Bytes of a tree's arrays on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def kept_per_sample(model: NetworkConfig, config: TrainConfig) -> int:
    """Bytes that the forward pass keeps of one sample for the backward pass."""
    family = family_of(model)
    graph, parameters = nnx.split(nnx.eval_shape(lambda: family.create(model, nnx.Rngs(0))))
    constants = family.blank_constants(model)

    def kept(size: int) -> int:
        batch = abstract_batch(model, size, None)

        def forward(parameters: Any, keys: jax.Array, batch: TrainBatch) -> Any:
            def loss(parameters: Any) -> Any:
                merged = nnx.merge(graph, parameters)
                return family.loss(
                    merged, config, constants, keys, batch.observation, batch.actions, batch.fast
                )

            return jax.tree.leaves(jax.vjp(loss, parameters, has_aux=True)[1])

        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
        return sum(
            leaf.size * leaf.dtype.itemsize for leaf in jax.eval_shape(forward, parameters, keys, batch)
        )

    # what does not grow with the batch, such as weights, falls out
    return kept(2) - kept(1)


@dataclass(frozen=True)
class Collective:
    """One exchange between devices in a compiled program."""

    kind: str
    shape: str
    size: int
    """Bytes of the whole array: gathered, or before it is scattered."""
    devices: int
    times: int
    """How often a step does it."""

    @property
    def sent(self) -> int:
        """Bytes that each device sends once, in a ring."""
        passes = 2 if self.kind == "all-reduce" else 1
        return passes * self.size * (self.devices - 1) // self.devices


_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
_COLLECTIVE = re.compile(rf" = (.+?) ({_KINDS})(?:-start)?\(")
_CALLED = re.compile(r"(?:body|to_apply|calls|branch_computations)=\{?((?:%?[\w.-]+(?:, )?)+)\}?")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}


def collectives(program: str) -> list[Collective]:
    """The exchanges of a compiled program (the text of its HLO), with loops counted out.

    Raises:
        ValueError: a loop with an exchange does not say how often it runs.
    """
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in program.splitlines():
        if match := _COMPUTATION.match(line):
            name = match[2]
            bodies[name] = []
            entry = name if match[1] else entry
        elif line.startswith("}"):
            name = ""
        elif name:
            bodies[name].append(line)
    found: dict[str, list[Collective]] = {}

    def within(name: str) -> list[Collective]:
        if name not in found:
            found[name] = [one for line in bodies.get(name, ()) for one in _of_line(line, within)]
        return found[name]

    return within(entry)


def _of_line(line: str, within: Callable[[str], list[Collective]]) -> Iterator[Collective]:
    if match := _COLLECTIVE.search(line):
        shape, kind = match[1], match[2]
        devices = _group_size(line)
        size = _size(shape) * (devices if kind == "reduce-scatter" else 1)
        if devices > 1:
            yield Collective(kind, shape, size, devices, 1)
        return
    loop = " while(" in line
    for called in _CALLED.findall(line):
        inner = [one for name in called.split(", ") for one in within(name.strip("%"))]
        trips = _TRIPS.search(line)
        if inner and loop and trips is None:
            raise ValueError(f"a loop with an exchange between devices has no known count: {line[:200]}")
        times = int(trips[1]) if loop and trips else 1
        for one in inner:
            yield Collective(one.kind, one.shape, one.size, one.devices, one.times * times)


def _size(shape: str) -> int:
    """Bytes of an array's type in HLO, or of a tuple's."""
    return sum(
        _BYTES.get(dtype, 4) * math.prod(map(int, filter(None, dims.split(","))))
        for dtype, dims in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    )


def _group_size(line: str) -> int:
    """How many devices exchange with each other."""
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
        sizes = dict(re.findall(r"('\w+')=(\d+)", match[1]))
        # an axis, or a part of one: its size stands behind the number of devices before it
        axes = re.findall(r"('\w+')(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if match := re.search(r"source_target_pairs=\{(.*?)\}\}", line):
        return max(2, match[1].count("{"))
    raise ValueError(f"an exchange without its devices: {line[:200]}")
