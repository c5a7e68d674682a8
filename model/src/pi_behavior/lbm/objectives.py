"""Training objectives and samplers: diffusion (DDPM, DDIM) and flow matching.

Axes: b batch, h steps of the chunk, a action dimensions, n sampling steps. Sources: arXiv 2006.11239 (DDPM),
2010.02502 (DDIM), 2102.09672 (the schedule), 2210.02747 (flow matching).
"""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, PRNGKeyArray

from pi_behavior.lbm.config import DiffusionConfig, FlowConfig

Chunk = Float[Array, "b h a"]
Predict = Callable[[Chunk, Array], Chunk]
"""The network for fixed observations: noisy chunks and times [b] to predictions."""
_SMALLEST_VARIANCE = 1e-20


@cache
def betas(steps: int) -> Float32[np.ndarray, " t"]:
    """Variance that each diffusion step adds, by the squared cosine; computed in double precision."""

    def level(u: np.ndarray) -> np.ndarray:
        return np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2

    edges = level(np.arange(steps + 1) / steps)
    return np.minimum(1.0 - edges[1:] / edges[:-1], 0.999).astype(np.float32)


@cache
def alphas_cumprod(steps: int) -> Float32[np.ndarray, " t"]:
    """Share of the data's variance that is left after each diffusion step."""
    return np.cumprod(1.0 - betas(steps), dtype=np.float32)


def sampling_steps(config: DiffusionConfig) -> Int[np.ndarray, " n"]:
    """Diffusion steps that the sampler visits, the noisiest first; the last one is 0."""
    count = config.steps or config.train_steps
    return np.arange(count)[::-1] * (config.train_steps // count)


def add_noise(config: DiffusionConfig, actions: Chunk, noise: Chunk, time: Int[Array, " b"]) -> Chunk:
    """Chunks after a number of diffusion steps."""
    left = jnp.asarray(alphas_cumprod(config.train_steps))[time][:, None, None]
    return jnp.sqrt(left) * actions + jnp.sqrt(1.0 - left) * noise


def mean_square(error: Chunk, padding: Bool[Array, "b h"] | None) -> Float[Array, ""]:
    """Mean squared error, over steps that are no padding where padding is given."""
    if padding is None:
        return jnp.square(error).mean()
    valid = ~padding
    count = jnp.maximum(error.shape[-1] * valid.sum(), 1)
    return (jnp.square(error) * valid[..., None]).sum() / count


def diffusion_loss(
    predict: Predict,
    config: DiffusionConfig,
    actions: Chunk,
    noise: Chunk,
    time: Int[Array, " b"],
    padding: Bool[Array, "b h"] | None = None,
) -> Float[Array, ""]:
    """The error of the predicted noise, or of the predicted clean chunk."""
    target = noise if config.prediction == "epsilon" else actions
    return mean_square(predict(add_noise(config, actions, noise, time), time) - target, padding)


def flow_loss(
    predict: Predict,
    config: FlowConfig,
    actions: Chunk,
    noise: Chunk,
    time: Float[Array, " b"],
    padding: Bool[Array, "b h"] | None = None,
) -> Float[Array, ""]:
    """The error of the predicted velocity from noise to data."""
    weight = time[:, None, None]
    noisy = weight * actions + (1.0 - (1.0 - config.sigma) * weight) * noise
    return mean_square(predict(noisy, time) - (actions - (1.0 - config.sigma) * noise), padding)


def flow_times_from_draws(config: FlowConfig, draws: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Times from draws of the distribution Beta(beta_a, beta_b): most near 0, where the noise is."""
    return config.beta_scale * (1.0 - draws)


def draw_flow_times(key: PRNGKeyArray, config: FlowConfig, shape: tuple[int, ...]) -> Float[Array, "*b"]:
    """Times of training."""
    if config.times == "uniform":
        return jax.random.uniform(key, shape)
    return flow_times_from_draws(config, jax.random.beta(key, config.beta_a, config.beta_b, shape))


def sample_diffusion(
    predict: Predict,
    config: DiffusionConfig,
    initial: Chunk,
    step_noise: Float[Array, "m b h a"] | None = None,
) -> tuple[Chunk, Float[Array, "n b h a"]]:
    """Chunks from noise.

    Args:
        predict: the network.
        config: schedule and sampler.
        initial: the noise to start from.
        step_noise: for the sampler ddpm, the noise of all steps but the last, in the order of use.

    Returns:
        The chunks, and what they were after every step.
    """
    times = sampling_steps(config)
    levels = alphas_cumprod(config.train_steps)
    left, next_left = levels[times], np.append(levels[times[1:]], np.float32(1.0))
    if config.sampler == "ddim":
        new = jnp.zeros((len(times), *(1 for _ in initial.shape)))
    else:
        assert step_noise is not None
        new = jnp.concatenate([step_noise, jnp.zeros_like(initial)[None]])

    def step(x: Array, parts: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        time, now, after, noise = parts
        output = predict(x, jnp.full(x.shape[0], time))
        clean, direction = output, output
        if config.prediction == "epsilon":
            clean = (x - jnp.sqrt(1.0 - now) * output) / jnp.sqrt(now)
        else:
            direction = (x - jnp.sqrt(now) * output) / jnp.sqrt(1.0 - now)
        if config.clip:
            clean = jnp.clip(clean, -config.clip_range, config.clip_range)
        if config.sampler == "ddim":
            x = jnp.sqrt(after) * clean + jnp.sqrt(1.0 - after) * direction
        else:
            kept = now / after
            to_clean = jnp.sqrt(after) * (1.0 - kept) / (1.0 - now)
            to_now = jnp.sqrt(kept) * (1.0 - after) / (1.0 - now)
            variance = jnp.maximum((1.0 - after) / (1.0 - now) * (1.0 - kept), _SMALLEST_VARIANCE)
            x = to_clean * clean + to_now * x + jnp.sqrt(variance) * noise
        return x, x

    return jax.lax.scan(
        step, initial, (jnp.asarray(times, jnp.int32), jnp.asarray(left), jnp.asarray(next_left), new)
    )


def sample_flow(predict: Predict, config: FlowConfig, initial: Chunk) -> Chunk:
    """Integrate the flow from noise (time 0) to data (time 1) in equal steps."""
    size = 1.0 / config.steps

    def velocity(x: Array, time: Array) -> Array:
        return predict(x, jnp.full(x.shape[0], time, jnp.float32))

    def step(index: Array, x: Array) -> Array:
        time = index * size
        first = velocity(x, time)
        if config.solver == "euler":
            return x + size * first
        second = velocity(x + size / 2 * first, time + size / 2)
        third = velocity(x + size / 2 * second, time + size / 2)
        fourth = velocity(x + size * third, time + size)
        return x + size / 6 * (first + 2 * second + 2 * third + fourth)

    return jax.lax.fori_loop(0, config.steps, step, initial)
