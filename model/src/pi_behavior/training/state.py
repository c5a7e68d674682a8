"""The state of a training run: step, parameters, their moving average, optimizer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Int

from pi_behavior.config import NetworkConfig
from pi_behavior.families import family_of
from pi_behavior.network.layers import State
from pi_behavior.training.config import TrainConfig
from pi_behavior.training.sharding import dotted, tree_specs


@struct.dataclass
class TrainState:
    """Everything that a step reads and writes."""

    step: Int[Array, ""]
    parameters: State
    average: State
    """Exponential moving average of the parameters: what is evaluated and saved."""
    optimizer: optax.OptState


def schedule(config: TrainConfig) -> optax.Schedule:
    """The learning rate by step: linear warm-up, then cosine decay."""
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate.peak / (config.warmup_steps + 1),
        peak_value=config.learning_rate.peak,
        warmup_steps=config.warmup_steps,
        decay_steps=max(config.steps, config.warmup_steps + 1),
        end_value=config.learning_rate.final,
    )


def optimizer(config: TrainConfig, model: NetworkConfig) -> optax.GradientTransformation:
    """AdamW with the schedule, clipped by global norm; frozen weights have no moments."""
    adamw = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule(config), b1=0.9, b2=0.95, eps=1e-8, weight_decay=config.weight_decay),
    )

    def label(parameters: State) -> State:
        return jax.tree.map_with_path(
            lambda path, _: "frozen" if model.is_frozen(dotted(path)) else "trained",
            parameters,
        )

    return optax.multi_transform({"trained": adamw, "frozen": optax.set_to_zero()}, label)


def abstract_state(
    model: NetworkConfig, config: TrainConfig, mesh: Mesh
) -> tuple[nnx.GraphDef[nnx.Module], TrainState]:
    """Shapes, types and shardings of a run's state, without its arrays."""
    graph, create = _creation(model, config)
    shapes = jax.eval_shape(create)
    return graph, jax.tree.map(
        lambda a, spec: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, spec)),
        shapes,
        tree_specs(mesh, shapes),
    )


def create_state(
    model: NetworkConfig, config: TrainConfig, mesh: Mesh
) -> tuple[nnx.GraphDef[nnx.Module], TrainState]:
    """Initialise a run with every array created where it will live.

    Shapes come first, then shardings, then memory: the full state never exists on one device.
    """
    _, create = _creation(model, config)
    graph, shapes = abstract_state(model, config, mesh)
    return graph, jax.jit(create, out_shardings=jax.tree.map(lambda a: a.sharding, shapes))()


def _creation(
    model: NetworkConfig, config: TrainConfig
) -> tuple[nnx.GraphDef[nnx.Module], Callable[[], TrainState]]:
    transformation = optimizer(config, model)
    create_network = family_of(model).create
    # the graph has no arrays; it is made outside of jit, whose outputs must be arrays
    graph = nnx.split(nnx.eval_shape(lambda: create_network(model, nnx.Rngs(config.seed))))[0]

    def create() -> TrainState:
        parameters = nnx.split(create_network(model, nnx.Rngs(config.seed)))[1]
        average = jax.tree.map(jnp.copy, parameters)
        return TrainState(jnp.int32(0), parameters, average, transformation.init(parameters))

    return graph, create
