"""The training loss and its metrics (report, section 6.3). Axes: b batch, f FAST tokens, v vocabulary."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from pi_behavior.flow import correlated_noise, flow_loss, sample_time
from pi_behavior.layout import ACTION_DIM, ACTION_GROUPS
from pi_behavior.network import PiBehavior
from pi_behavior.observation import FastTokens, Observation
from pi_behavior.training.config import TrainConfig


def stage_loss(logits: Float[Array, "b 15"], stage: Int[Array, " b"]) -> Float[Array, " b"]:
    """Cross-entropy of the stage; logits are -inf beyond the task's stages."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, stage)


def fast_loss(logits: Float[Array, "b f v"], fast: FastTokens) -> Float[Array, " b"]:
    """Cross-entropy of the FAST tokens, mean over the valid ones; 0 for a row of padding."""
    errors = optax.softmax_cross_entropy_with_integer_labels(logits, fast.tokens)
    return (errors * fast.mask).sum(axis=1) / jnp.maximum(fast.mask.sum(axis=1), 1)


def total_loss(
    model: PiBehavior,
    config: TrainConfig,
    cholesky: Float[Array, "960 960"],
    keys: Key[Array, " b"],
    observation: Observation,
    actions: Float[Array, "b 30 32"],
    fast: FastTokens | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Action loss + 0.1 stage loss + 0.05 FAST loss, on one prefix pass per observation.

    Args:
        model: the network.
        config: weights of the losses, and the number of flow samples.
        cholesky: factor of the noise covariance.
        keys: one random key per sample.
        observation: a batch, with the true stages.
        actions: normalised action chunks.
        fast: FAST tokens of the chunks, where the auxiliary loss is used.

    Returns:
        The loss and its parts, each a mean over the samples: action loss, also per group of actuators, stage
        loss and accuracy, FAST loss and accuracy.
    """

    def draw(key: PRNGKeyArray) -> tuple[Float[Array, "c 30 32"], Float[Array, " c"]]:
        noise_key, time_key = jax.random.split(key)
        count = (config.flow_samples,)
        return correlated_noise(noise_key, cholesky, count), sample_time(time_key, count)

    prefix = model.encode(observation, fast)
    errors = flow_loss(model, prefix, actions, *jax.vmap(draw)(keys))
    stage = stage_loss(prefix.stage_logits, observation.stage).mean()
    right = jnp.argmax(prefix.stage_logits, axis=-1) == observation.stage
    by_dimension = errors[..., :ACTION_DIM].mean(axis=(0, 1))
    metrics = {
        "action_loss": errors.mean(),
        "stage_loss": stage,
        "stage_accuracy": right.mean(),
        **{f"action_loss_{name}": by_dimension[jnp.array(d)].mean() for name, d in ACTION_GROUPS.items()},
    }
    loss = metrics["action_loss"] + config.stage_weight * stage
    if fast is not None and prefix.fast_logits is not None:
        metrics["fast_loss"] = fast_loss(prefix.fast_logits, fast).mean()
        hits = (jnp.argmax(prefix.fast_logits, axis=-1) == fast.tokens) & fast.mask
        metrics["fast_accuracy"] = (hits.sum(axis=1) / jnp.maximum(fast.mask.sum(axis=1), 1)).mean()
        loss = loss + config.fast_weight * metrics["fast_loss"]
    return loss, {"loss": loss, **metrics}
