"""One training step: a pure function of state and batch."""

from collections.abc import Callable

import jax
import optax
from flax import nnx, struct
from jax.sharding import Mesh
from jaxtyping import Array, Float

from pi_behavior.config import ModelConfig
from pi_behavior.losses import total_loss
from pi_behavior.network import PiBehavior
from pi_behavior.network.layers import State
from pi_behavior.observation import FastTokens, Observation, augment
from pi_behavior.training.config import TrainConfig
from pi_behavior.training.sharding import batch_sharding
from pi_behavior.training.state import TrainState, optimizer


@struct.dataclass
class TrainBatch:
    """One batch on the devices."""

    observation: Observation
    actions: Float[Array, "b 30 32"]
    fast: FastTokens | None = None


Metrics = dict[str, Float[Array, ""]]
StepFunction = Callable[[TrainState, TrainBatch], tuple[TrainState, Metrics]]


def make_step(
    graph: nnx.GraphDef[PiBehavior],
    model: ModelConfig,
    config: TrainConfig,
    cholesky: Float[Array, "960 960"],
    state: TrainState,
    mesh: Mesh,
) -> StepFunction:
    """Compile the step for a state's shardings.

    The random key of a step depends on the seed and the step alone, so a resumed run draws the same numbers.
    """
    transformation = optimizer(config, model)
    key = jax.random.key(config.seed)

    def step(state: TrainState, batch: TrainBatch) -> tuple[TrainState, Metrics]:
        augment_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        observation = augment(augment_key, batch.observation) if config.augment else batch.observation

        def loss(parameters: State) -> tuple[Array, Metrics]:
            network = nnx.merge(graph, parameters)
            return total_loss(network, config, cholesky, loss_key, observation, batch.actions, batch.fast)

        gradients, metrics = jax.grad(loss, has_aux=True)(state.parameters)
        updates, moments = transformation.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        average = optax.incremental_update(parameters, state.average, 1.0 - config.ema_decay)
        metrics = {**metrics, "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, parameters, average, moments), metrics

    shardings = jax.tree.map(lambda a: a.sharding, state)
    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, None),
        donate_argnums=0,
    )
