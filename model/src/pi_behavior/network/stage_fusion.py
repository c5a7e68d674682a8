"""Task and stage tokens (report, section 4.2 and appendix A).

Axes: b batch, e width of the prefix transformer, h half of it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from pi_behavior.config import ModelConfig
from pi_behavior.network.layers import Dense, normal, sincos


class StageFusion(nnx.Module):
    """Fuses a task's embedding with its stage into four tokens."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        width, half = config.width, config.width // 2
        self.stage_counts = config.stage_counts
        self.stage_embeddings = normal(rngs, (sum(config.stage_counts), half), half)
        self.gate_task = Dense(2 * width, width, rngs)
        self.gate_sincos = Dense(2 * width, half, rngs)
        self.gate_stage = Dense(2 * width, half, rngs)
        self.balanced_0 = Dense(2 * width, 2 * width, rngs)
        self.balanced_1 = Dense(2 * width, width, rngs)
        self.stage_projection = Dense(width, width, rngs)

    def encode_stage(self, task: Int[Array, " b"], stage: Int[Array, " b"]) -> Float[Array, "b h"]:
        """Sine-cosine encoding of the stage scaled to [0, 1] within its task."""
        counts = jnp.asarray(self.stage_counts)[task]
        scaled = stage / jnp.maximum(counts - 1, 1)
        return sincos(scaled.astype(jnp.float32), self.stage_embeddings.shape[-1], 1e-3, 1.0)

    def __call__(
        self, task_embedding: Float[Array, "b e"], task: Int[Array, " b"], stage: Int[Array, " b"]
    ) -> Float[Array, "b 4 e"]:
        """The tokens task-gated, balanced, stage-dominant and pure stage, in this order."""
        dtype = task_embedding.dtype
        offsets = np.concatenate([[0], np.cumsum(self.stage_counts)[:-1]])
        encoded = self.encode_stage(task, stage).astype(dtype)
        learned = self.stage_embeddings[...][jnp.asarray(offsets)[task] + stage].astype(dtype)
        everything = jnp.concatenate([task_embedding, encoded, learned], axis=-1)
        stage_vector = jnp.concatenate(
            [
                encoded * jax.nn.sigmoid(self.gate_sincos(everything)),
                learned * jax.nn.sigmoid(self.gate_stage(everything)),
            ],
            axis=-1,
        )
        tokens = [
            task_embedding * jax.nn.sigmoid(self.gate_task(everything)),
            self.balanced_1(jax.nn.relu(self.balanced_0(everything))),
            self.stage_projection(stage_vector),
            jnp.concatenate([encoded, learned], axis=-1),
        ]
        return jnp.stack(tokens, axis=1)
