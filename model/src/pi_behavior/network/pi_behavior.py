"""The whole policy network (report, figure 1).

Axes: b batch, s prefix tokens, f FAST tokens, c chunks (flow samples per observation), e width.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int

from pi_behavior.challenge import MAX_STAGES
from pi_behavior.config import ModelConfig
from pi_behavior.layout import ACTION_HORIZON, CAMERAS, MODEL_DIM
from pi_behavior.network.gemma import ActionExpert, PrefixTransformer
from pi_behavior.network.kv_mix import KVMix
from pi_behavior.network.layers import Dense, normal, sincos, unstack
from pi_behavior.network.masks import prefix_blocks, prefix_mask
from pi_behavior.network.siglip import SigLIP
from pi_behavior.network.stage_fusion import StageFusion
from pi_behavior.observation import FastTokens, Observation, resize_with_padding

STATE_BINS = 256


@struct.dataclass
class Prefix:
    """The prefix pass of one batch: what the action expert and the heads read."""

    output: Float[Array, "b s e"]
    keys: Float[Array, "l b p g k"]
    """Mixed keys of the tokens before FAST, per expert layer."""
    values: Float[Array, "l b p g k"]
    valid: Bool[Array, "b p"]
    stage_logits: Float[Array, "b 15"]
    """Logits of the stages, -inf beyond the task's count; float32."""
    fast_logits: Float[Array, "b f v"] | None


class PiBehavior(nnx.Module):
    """Images, state, task and stage to action chunks and stages."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        width, expert = config.width, config.expert_width
        self.vision = SigLIP(config, rngs)
        self.task_embeddings = normal(rngs, (config.tasks, width), width)
        if config.stage_conditioning:
            self.stage_fusion = StageFusion(config, rngs)
        if config.state_encoding == "digitised":
            self.token_embeddings = normal(rngs, (config.vocabulary, width), width)
        else:
            self.state_projection = Dense(MODEL_DIM, width, rngs)
        self.prefix = PrefixTransformer(config, rngs)
        self.stage_head = Dense(width, MAX_STAGES, rngs)
        if config.fast:
            self.fast_embeddings = normal(rngs, (config.fast_vocabulary, width), width)
            self.fast_head = Dense(width, config.fast_vocabulary, rngs)
        self.kv_mix = KVMix(config)
        self.time_in = Dense(expert, expert, rngs)
        self.time_out = Dense(expert, expert, rngs)
        self.action_in = Dense(MODEL_DIM * config.steps_per_token, expert, rngs)
        self.expert = ActionExpert(config, rngs)
        self.action_out = Dense(expert, MODEL_DIM * config.steps_per_token, rngs)

    def embed_prefix(
        self, observation: Observation, fast: FastTokens | None = None
    ) -> tuple[Float[Array, "b s e"], Bool[Array, "b s"]]:
        """Tokens of images, task, stage fusion, state and FAST, and which of them are valid."""
        dtype = jnp.dtype(self.config.dtype)
        size = self.config.vision.image_size
        images = jnp.stack([resize_with_padding(observation.images[c], size) for c in CAMERAS], axis=1)
        batch = images.shape[0]
        vision = self.vision(images.reshape(-1, size, size, 3))
        if self.config.freeze_vision:
            vision = jax.lax.stop_gradient(vision)
        vision = vision.reshape(batch, self.config.image_tokens, self.config.width)
        task = self.task_embeddings[...][observation.task].astype(dtype)
        parts = [vision, task[:, None]]
        if self.config.stage_conditioning:
            parts.append(self.stage_fusion(task, observation.task, observation.stage))
        parts.append(self._embed_state(observation.state).astype(dtype))
        valid = [jnp.ones((batch, self.config.prefix_tokens), bool)]
        if fast is not None:
            # the first input is row 0; input i is target i - 1
            tokens = jnp.pad(fast.tokens[:, :-1], ((0, 0), (1, 0)))
            parts.append(self.fast_embeddings[...][tokens].astype(dtype))
            valid.append(jnp.pad(fast.mask[:, :-1], ((0, 0), (1, 0)), constant_values=True))
        return jnp.concatenate(parts, axis=1), jnp.concatenate(valid, axis=1)

    def _embed_state(self, state: Float[Array, "b 32"]) -> Float[Array, "b s e"]:
        if self.config.state_encoding == "projected":
            return self.state_projection(state)[:, None]
        edges = jnp.linspace(-1.0, 1.0, STATE_BINS + 1, dtype=jnp.float32)[:-1]
        bins = jnp.clip(jnp.digitize(state, edges) - 1, 0, STATE_BINS - 1)
        return self.token_embeddings[...][bins] * jnp.sqrt(jnp.float32(self.config.width))

    def encode(self, observation: Observation, fast: FastTokens | None = None) -> Prefix:
        """Run the prefix once: keys and values for the action expert, stage and FAST logits."""
        tokens, valid = self.embed_prefix(observation, fast)
        length = self.config.prefix_tokens
        mask = prefix_mask(prefix_blocks(self.config, tokens.shape[1] - length), valid)
        positions = jnp.cumsum(valid, axis=1) - 1
        output, keys, values = self.prefix(tokens, positions, mask)
        keys, values = keys[:, :, :length], values[:, :, :length]
        if self.config.knowledge_insulation:
            # before the mix, whose own weights the action loss still trains
            keys, values = jax.lax.stop_gradient((keys, values))
        keys, values = self.kv_mix(keys, values)
        return Prefix(
            output=output,
            keys=keys,
            values=values,
            valid=valid[:, :length],
            stage_logits=self._stage_logits(output, observation.task),
            fast_logits=None if fast is None else self.fast_head(output[:, length:]).astype(jnp.float32),
        )

    def _stage_logits(self, output: Float[Array, "b s e"], task: Int[Array, " b"]) -> Float[Array, "b 15"]:
        logits = self.stage_head(output[:, self.config.image_tokens]).astype(jnp.float32)
        counts = jnp.asarray(self.config.stage_counts)[task]
        return jnp.where(jnp.arange(MAX_STAGES) < counts[:, None], logits, -jnp.inf)

    def predict(
        self, prefix: Prefix, noisy: Float[Array, "b c 30 32"], time: Float[Array, "b c"]
    ) -> Float[Array, "b c 30 32"]:
        """Predict the flow's velocity, or the clean chunk where the configuration says so, in float32.

        All chunks of an observation read the same prefix and do not see each other.
        """
        cache = self.expert.cache(prefix.keys, prefix.values)
        tokens, positions = self._action_tokens(prefix, noisy)
        return self._actions(self.expert(tokens, self._embed_time(time), positions, cache, prefix.valid))

    def velocities(
        self, prefix: Prefix, times: Float[Array, " n"]
    ) -> Callable[[Float[Array, "b 30 32"], Int[Array, ""]], Float[Array, "b 30 32"]]:
        """The flow's velocity at times that are known before the loop that asks for it, as a sampler's are.

        Everything that does not depend on the noisy actions is computed here, once: what the times make of
        the norms, and the prefix's keys and values as the expert reads them.

        Returns:
            Maps noisy actions and the index of their time to velocities.
        """
        cache = self.expert.cache(prefix.keys, prefix.values)
        layers, last = self.expert.modulate(self._embed_time(times)[:, None, None])

        def velocity(noisy: Float[Array, "b 30 32"], index: Int[Array, ""]) -> Float[Array, "b 30 32"]:
            tokens, positions = self._action_tokens(prefix, noisy[:, None])
            modulations = layers[:, :, index], last[index]
            hidden = self.expert.step(tokens, modulations, positions, cache, prefix.valid)
            predicted = self._actions(hidden)[:, 0]
            if self.config.prediction == "velocity":
                return predicted
            return (noisy - predicted) / times[index]

        return velocity

    def _embed_time(self, time: Float[Array, "*b"]) -> Float[Array, "*b e"]:
        embedded = sincos(time, self.config.expert_width, 4e-3, 4.0).astype(jnp.dtype(self.config.dtype))
        return jax.nn.swish(self.time_out(jax.nn.swish(self.time_in(embedded))))

    def _action_tokens(
        self, prefix: Prefix, noisy: Float[Array, "b c 30 32"]
    ) -> tuple[Float[Array, "b c t e"], Int[Array, "b t"]]:
        """The expert's tokens, and their positions."""
        count = self.config.action_tokens
        tokens = noisy.reshape(*noisy.shape[:2], count, -1).astype(jnp.dtype(self.config.dtype))
        return self.action_in(tokens), prefix.valid.sum(axis=1)[:, None] + jnp.arange(count)

    def _actions(self, hidden: Float[Array, "b c t e"]) -> Float[Array, "b c 30 32"]:
        actions = self.action_out(hidden).astype(jnp.float32)
        return actions.reshape(*hidden.shape[:2], ACTION_HORIZON, MODEL_DIM)

    def velocity(
        self, prefix: Prefix, noisy: Float[Array, "b c 30 32"], time: Float[Array, "b c"]
    ) -> Float[Array, "b c 30 32"]:
        """The flow's velocity, noise - actions, at the given times."""
        predicted = self.predict(prefix, noisy, time)
        if self.config.prediction == "velocity":
            return predicted
        return (noisy - predicted) / time[..., None, None]

    def prepare_for_serving(self) -> None:
        """Rearrange the weights, in place, so that no step copies them.

        Every layer gets arrays of its own, and what multiplies the same tokens becomes one matrix. Results
        are the same up to rounding; the names of the parameters are not, so that it cannot be saved.
        """
        if isinstance(self.vision.blocks, nnx.List):
            return
        self.vision.blocks = unstack(self.vision.blocks)
        for transformer in (self.prefix, self.expert):
            layers = unstack(transformer.layers)
            transformer.layers = layers
            for layer in layers:
                layer.attention.fuse()
                layer.mlp.fuse()
