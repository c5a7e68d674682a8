"""The Large Behavior Model as a family; see `families.Family`.

It is trained on the same batches as the winner's policy, delta actions and task indices in place of text, but
may read several observations. Axes: b batch, s observation steps, c cameras, k steps of the chunk.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from pi_behavior.layout import ACTION_DIM
from pi_behavior.lbm.config import LbmConfig
from pi_behavior.lbm.images import windows
from pi_behavior.lbm.language import task_tokens, tokenizer_of
from pi_behavior.lbm.network import LargeBehaviorModel
from pi_behavior.lbm.normalisation import PERCENTILE_LIMIT
from pi_behavior.lbm.objectives import diffusion_loss, draw_flow_times, flow_loss
from pi_behavior.lbm.predictor import LbmPredictor
from pi_behavior.lbm.statistics import TrainedFiles, action_range
from pi_behavior.observation import FastTokens, Observation
from pi_behavior.statistics import Statistics
from pi_behavior.training.config import TrainConfig


@struct.dataclass
class Constants:
    """What the loss needs besides weights and batches."""

    tokens: Int[Array, "t p n"]
    mask: Bool[Array, "t p n"]
    low: Float[Array, "k 23"]
    high: Float[Array, "k 23"]


def create(config: LbmConfig, rngs: nnx.Rngs) -> LargeBehaviorModel:
    """A network with random weights."""
    return LargeBehaviorModel(config, rngs)


def prepare(config: LbmConfig, statistics: Statistics, start: Path | None) -> tuple[Constants, TrainedFiles]:
    """The constants of the loss, and what goes into the checkpoint besides weights."""
    tokenizer = tokenizer_of(config, start)
    tokens, mask = task_tokens(tokenizer)
    scale = action_range(config, statistics)
    arrays = (tokens, mask, scale.low, scale.high)
    return Constants(*map(jnp.asarray, arrays)), TrainedFiles(statistics, tokenizer)


def blank_constants(config: LbmConfig) -> Constants:
    """The tokens of a new training, and scales of one."""
    ones = jnp.ones((config.horizon, config.action_dim))
    tokens, mask = task_tokens(tokenizer_of(config, None))
    return Constants(jnp.asarray(tokens), jnp.asarray(mask), -ones, ones)


def loss(
    network: LargeBehaviorModel,
    config: TrainConfig,
    constants: Constants,
    keys: Key[Array, " b"],
    observation: Observation,
    actions: Float[Array, "b k 32"],
    fast: FastTokens | None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The error of the objective; each sample is told its task in one of several wordings.

    With several flow samples, pairs of time and noise share the encoders' pass. Crop and dropout are drawn
    for each sample, where the original draws one crop for a batch: what a sample sees then does not depend
    on the devices that the batch is spread over.
    """
    model, samples = network.config, config.flow_samples
    # of the program itself, not of a mesh: a device that works by itself may not index what others share
    constants = jax.tree.map(lambda array: jnp.asarray(np.asarray(array)), constants)
    word, noise, time, dropout, crop = jax.vmap(partial(_draw, model, samples, constants.tokens.shape[1]))(
        keys
    )
    images, state = windows(observation)
    cropped = jax.vmap(lambda image, key: network.preprocess(image[None], key=key)[0])(images, crop)
    conditioning = network.conditioning(
        state,
        network.image_features(cropped),
        network.text(constants.tokens[observation.task, word], constants.mask[observation.task, word]),
    )
    width = constants.high - constants.low
    target = 2.0 * (actions[..., :ACTION_DIM] - constants.low) / width - 1.0
    target = jnp.repeat(jnp.clip(target, -PERCENTILE_LIMIT, PERCENTILE_LIMIT), samples, axis=0)
    conditioning = jnp.repeat(conditioning, samples, axis=0)
    noise, time, dropout = noise.reshape(target.shape), time.reshape(-1), dropout.reshape(-1)

    def predict(noisy: Array, time: Array) -> Array:
        if not model.dropout:
            return network.predict(noisy, time, conditioning)
        one = jax.vmap(lambda n, t, c, key: network.predict(n[None], t[None], c[None], key)[0])
        return one(noisy, time, conditioning, dropout)

    if model.objective == "flow":
        error = flow_loss(predict, model.flow, target, noise, time)
    else:
        error = diffusion_loss(predict, model.diffusion, target, noise, time)
    return error, {"loss": error, "action_loss": error}


def _draw(
    model: LbmConfig, samples: int, wordings: int, key: PRNGKeyArray
) -> tuple[Int[Array, ""], Array, Array, Key[Array, " c"], Key[Array, ""]]:
    """Of one sample: which wording it reads, its noises and times, and keys of dropout and crop."""
    word_key, noise_key, time_key, dropout_key, crop_key = jax.random.split(key, 5)
    noise = jax.random.normal(noise_key, (samples, model.horizon, model.action_dim))
    if model.objective == "flow":
        time = draw_flow_times(time_key, model.flow, (samples,))
    else:
        time = jax.random.randint(time_key, (samples,), 0, model.diffusion.train_steps)
    word = jax.random.randint(word_key, (), 0, wordings)
    return word, noise, time, jax.random.split(dropout_key, samples), crop_key


load_predictor = LbmPredictor.load
