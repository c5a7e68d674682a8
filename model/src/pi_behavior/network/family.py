"""The winner's policy as a family; see `families.Family`."""

from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from pi_behavior.config import ModelConfig
from pi_behavior.flow import FLAT
from pi_behavior.losses import total_loss
from pi_behavior.network import PiBehavior
from pi_behavior.observation import FastTokens, Observation
from pi_behavior.policy.predictor import JaxPredictor
from pi_behavior.statistics import Statistics
from pi_behavior.training.config import TrainConfig


def create(config: ModelConfig, rngs: nnx.Rngs) -> PiBehavior:
    """A network with random weights."""
    return PiBehavior(config, rngs)


def prepare(
    config: ModelConfig, statistics: Statistics, start: Path | None
) -> tuple[Float[Array, "960 960"], Statistics]:
    """Lower factor of the noise covariance; and the statistics."""
    return jnp.asarray(statistics.regularised_cholesky(config.noise_beta), jnp.float32), statistics


def blank_constants(config: ModelConfig) -> Float[Array, "960 960"]:
    """The factor of white noise."""
    return jnp.eye(FLAT)


def loss(
    network: PiBehavior,
    config: TrainConfig,
    constants: Float[Array, "960 960"],
    keys: Key[Array, " b"],
    observation: Observation,
    actions: Float[Array, "b 30 32"],
    fast: FastTokens | None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """See `losses.total_loss`."""
    return total_loss(network, config, constants, keys, observation, actions, fast)


load_predictor = JaxPredictor.load
