"""One training step: a pure function of state and batch."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pi_behavior.config import NetworkConfig
from pi_behavior.families import family_of
from pi_behavior.network.layers import State
from pi_behavior.observation import FastTokens, Observation, augment
from pi_behavior.training.config import TrainConfig
from pi_behavior.training.sharding import ALL, Parts, batch_sharding, tree_specs
from pi_behavior.training.state import TrainState, optimizer, schedule


@struct.dataclass
class TrainBatch:
    """One batch on the devices."""

    observation: Observation
    actions: Float[Array, "b k 32"]
    fast: FastTokens | None = None


Metrics = dict[str, Float[Array, ""]]
Weights = dict[str, Array]
StepFunction = Callable[[TrainState, TrainBatch], tuple[TrainState, Metrics]]
Evaluation = Callable[[State, TrainBatch, int], Metrics]


def make_step(
    graph: nnx.GraphDef[nnx.Module],
    model: NetworkConfig,
    config: TrainConfig,
    constants: Any,
    state: TrainState,
    mesh: Mesh,
) -> StepFunction:
    """Compile the step for a state's shardings; the state may be shapes alone.

    The random keys of a step depend on the seed, the step and the sample's place in the batch alone, so a
    resumed run draws the same numbers, on whatever devices.
    """
    transformation = optimizer(config, model)
    gradient = make_gradient(graph, model, config, constants, state.parameters, mesh)
    seed, rate = jax.random.key(config.seed), schedule(config)

    def step(state: TrainState, batch: TrainBatch) -> tuple[TrainState, Metrics]:
        keys = jax.random.split(jax.random.fold_in(seed, state.step), config.batch_size)
        gradients, metrics = gradient(state.parameters, keys, batch)
        updates, moments = transformation.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        average = optax.incremental_update(parameters, state.average, 1.0 - config.ema_decay)
        metrics = {
            **metrics,
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": jnp.asarray(rate(state.step), jnp.float32),
        }
        return TrainState(state.step + 1, parameters, average, moments), metrics

    shardings = jax.tree.map(lambda a: a.sharding, state)
    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, None),
        donate_argnums=0,
    )


def make_gradient(
    graph: nnx.GraphDef[nnx.Module],
    model: NetworkConfig,
    config: TrainConfig,
    constants: Any,
    parameters: State,
    mesh: Mesh,
) -> Callable[[State, PRNGKeyArray, TrainBatch], tuple[State, Metrics]]:
    """The gradient of the mean loss of a batch, and the means of its metrics.

    Each device computes the gradient of its own samples, in `config.accumulate` parts one after the other,
    and the devices add them up once. Without accumulation that happens layer by layer, as the backward pass
    reaches it; with it, all weights are gathered before the first part and reduced after the last.
    """
    once, family = config.accumulate > 1, family_of(model)
    parts = Parts(mesh, parameters, model.dtype, by_layer=not once)

    def loss(
        trained: Weights, frozen: Weights, like: State, keys: PRNGKeyArray, batch: TrainBatch
    ) -> tuple[Array, Metrics]:
        network = nnx.merge(graph, parts.state(like, {**trained, **frozen}))
        augment_keys, loss_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        observation = augment(augment_keys, batch.observation) if config.augment else batch.observation
        return family.loss(network, config, constants, loss_keys, observation, batch.actions, batch.fast)

    def on_device(own: State, keys: PRNGKeyArray, batch: TrainBatch) -> tuple[State, Metrics]:
        weights = parts.weights(own)
        trained = {name: w for name, w in weights.items() if not model.is_frozen(name)}
        frozen = {name: w for name, w in weights.items() if name not in trained}

        def part(keys: PRNGKeyArray, batch: TrainBatch) -> tuple[Weights, Metrics]:
            return jax.grad(loss, has_aux=True)(trained, frozen, own, keys, batch)

        gradients, metrics = _accumulated(part, config.accumulate, keys, batch) if once else part(keys, batch)
        reduced = parts.reduce(gradients)
        return _gradient_state(own, reduced), jax.tree.map(lambda m: jax.lax.pmean(m, ALL), metrics)

    specs = tree_specs(mesh, parameters)
    # replication is not checked: gradients are reduced by hand, once, and not where JAX would
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(specs, PartitionSpec(ALL), PartitionSpec(ALL)),
        out_specs=(specs, PartitionSpec()),
        check_vma=False,
    )


def make_evaluation(
    graph: nnx.GraphDef[nnx.Module],
    model: NetworkConfig,
    config: TrainConfig,
    constants: Any,
    parameters: State,
    mesh: Mesh,
) -> Evaluation:
    """Compile the means of a batch's metrics without a gradient, for batches that are not trained on.

    What it draws depends on the seed and the batch's number alone: the same batches measure two states alike.
    """
    family, parts = family_of(model), Parts(mesh, parameters, model.dtype, by_layer=True)

    def on_device(own: State, keys: PRNGKeyArray, batch: TrainBatch) -> Metrics:
        network = nnx.merge(graph, parts.state(own, parts.weights(own)))
        _, metrics = family.loss(
            network, config, constants, keys, batch.observation, batch.actions, batch.fast
        )
        return jax.tree.map(lambda m: jax.lax.pmean(m, ALL), metrics)

    mapped = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(tree_specs(mesh, parameters), PartitionSpec(ALL), PartitionSpec(ALL)),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    seed = jax.random.key(config.seed)

    @jax.jit
    def evaluate(state: State, batch: TrainBatch, number: Int[Array, ""]) -> Metrics:
        # no step of the training has such a number
        keys = jax.random.split(jax.random.fold_in(seed, -1 - number), config.batch_size)
        return mapped(state, keys, batch)

    return evaluate


def _accumulated(
    part: Callable[[PRNGKeyArray, TrainBatch], tuple[Weights, Metrics]],
    count: int,
    keys: PRNGKeyArray,
    batch: TrainBatch,
) -> tuple[Weights, Metrics]:
    """Mean of gradients and metrics over equal parts of a device's samples, in float32."""
    split = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), (keys, batch))

    def add(total: Any, one: tuple[PRNGKeyArray, TrainBatch]) -> tuple[Any, None]:
        return jax.tree.map(lambda t, g: t + g.astype(jnp.float32) / count, total, part(*one)), None

    first = jax.tree.map(lambda a: a[0], split)
    shapes = jax.eval_shape(part, *first)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, jnp.float32), shapes)
    total: tuple[Weights, Metrics] = jax.lax.scan(add, zeros, split)[0]
    return total


def _gradient_state(like: State, gradients: Mapping[str, Array]) -> State:
    """Gradients as a state; those of frozen parameters are zero."""
    flat = [
        (
            path,
            parameter.replace(gradients.get(".".join(map(str, path)), jnp.zeros_like(parameter.get_value()))),
        )
        for path, parameter in nnx.to_flat_state(like)
    ]
    return nnx.from_flat_state(flat)
