"""Flow matching with correlated noise: noise, interpolation, sampler, correlation-aware inpainting.

Axes: b batch, c chunks (flow samples per observation), o constrained and u free entries of a flat chunk of
30 x 32 = 960 values, row-major (step, then dimension). Source: report, sections 5, 6.2 and 7.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pi_behavior.layout import ACTION_DIM, ACTION_HORIZON, MODEL_DIM
from pi_behavior.network import PiBehavior, Prefix

FLAT = ACTION_HORIZON * MODEL_DIM
INPAINT_UNTIL = 0.3
"""Inpainting corrects at every step whose new time is above this (report, section 7.1.3)."""
LARGEST_CORRECTION = 1.0
"""A correction of the free entries that is larger than this, in normalised units, is left out."""


@struct.dataclass
class Correlation:
    """Matrices that follow from the correlation of the actions, for the sampler."""

    cholesky: Float[Array, "960 960"]
    """Lower factor of the shrunk covariance beta Sigma + (1 - beta) I."""
    correction: Float[Array, "u o"]
    """Sigma_UO Sigma_OO^-1 of the shrunk covariance: how free entries follow constrained ones."""


def constrained_entries(keep: int) -> Int[np.ndarray, " o"]:
    """Flat indices of the first `keep` steps' 23 real dimensions, ascending."""
    return (np.arange(keep)[:, None] * MODEL_DIM + np.arange(ACTION_DIM)).reshape(-1)


def free_entries(keep: int) -> Int[np.ndarray, " u"]:
    """Flat indices of all other entries, padding included, ascending."""
    return np.setdiff1d(np.arange(FLAT), constrained_entries(keep))


def correlated_noise(
    key: PRNGKeyArray, cholesky: Float[Array, "960 960"], batch: tuple[int, ...]
) -> Float[Array, "*batch 30 32"]:
    """Draw noise L z with z standard normal (report, section 5.4)."""
    white = jax.random.normal(key, (*batch, FLAT))
    return (white @ cholesky.T).reshape(*batch, ACTION_HORIZON, MODEL_DIM)


def sample_time(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Flow times from Beta(1.5, 1) * 0.999 + 0.001; 1 is pure noise.

    The distribution function of Beta(a, 1) is x^a, so its inverse gives exact samples without rejection.
    """
    return jax.random.uniform(key, shape) ** (1.0 / 1.5) * 0.999 + 0.001


def flow_loss(
    model: PiBehavior,
    prefix: Prefix,
    actions: Float[Array, "b 30 32"],
    noise: Float[Array, "b c 30 32"],
    time: Float[Array, "b c"],
) -> Float[Array, "b 30 32"]:
    """Squared error of the prediction per step and dimension, mean over the flow samples.

    The target is the velocity noise - actions, or the clean chunk for a network that predicts that. Padding
    counts too: its actions are 0, its noise is not.
    """
    weight = time[..., None, None]
    noisy = weight * noise + (1.0 - weight) * actions[:, None]
    target = noise - actions[:, None] if model.config.prediction == "velocity" else actions[:, None]
    return jnp.square(model.predict(prefix, noisy, time) - target).mean(axis=1)


class Inpainting(NamedTuple):
    """The actions that the last chunk left over for the start of this one."""

    actions: Float[Array, "b k 23"]
    """Normalised actions of the first k steps; anything where `given` is false."""
    given: Bool[Array, " b"]
    """Samples that have such actions."""


def sample(
    model: PiBehavior,
    prefix: Prefix,
    noise: Float[Array, "b 30 32"],
    *,
    steps: int,
    inpainting: Inpainting | None = None,
    correction: Float[Array, "u o"] | None = None,
) -> Float[Array, "b 30 32"]:
    """Integrate the flow from noise (time 1) to actions (time 0) with Euler steps.

    Args:
        model: the network.
        prefix: the prefix pass of the observations.
        noise: the start.
        steps: Euler steps; the network sees the time before each step.
        inpainting: actions that the first steps should be close to.
        correction: the correction matrix, with inpainting.

    Returns:
        Normalised action chunks.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1")
    # by index, since the float sum 1 - 14 / 20 may lie on either side of 0.3
    corrections = sum(1 for i in range(steps) if 1.0 - (i + 1) / steps > INPAINT_UNTIL + 1e-6)

    velocity = model.velocities(prefix, (1.0 - jnp.arange(steps) / steps).astype(jnp.float32))

    def step(index: Array, x: Array) -> Array:
        x = x - velocity(x, index) / steps
        if inpainting is None or correction is None:
            return x
        corrected = _inpaint(x, noise, 1.0 - (index + 1) / steps, inpainting, correction)
        return jnp.where(index < corrections, corrected, x)

    return jax.lax.fori_loop(0, steps, step, noise)


def _inpaint(
    x: Float[Array, "b 30 32"],
    noise: Float[Array, "b 30 32"],
    time: Float[Array, ""],
    inpainting: Inpainting,
    correction: Float[Array, "u o"],
) -> Float[Array, "b 30 32"]:
    """Put the constrained entries where the flow should have them, and let the free ones follow.

    Too large corrections are left out per sample, so that one session does not change the others.
    """
    keep = inpainting.actions.shape[1]
    constrained, free = constrained_entries(keep), free_entries(keep)
    flat = x.reshape(x.shape[0], FLAT)
    desired = (1.0 - time) * inpainting.actions.reshape(x.shape[0], -1)
    desired = desired + time * noise.reshape(x.shape[0], FLAT)[:, constrained]
    follow = (desired - flat[:, constrained]) @ correction.T
    believable = (jnp.abs(follow) <= LARGEST_CORRECTION).all(axis=-1, keepdims=True)
    result = flat.at[:, constrained].set(desired)
    result = result.at[:, free].add(jnp.where(believable, follow, 0.0))
    return jnp.where(inpainting.given[:, None], result, flat).reshape(x.shape)
