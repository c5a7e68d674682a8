"""The hierarchical attention mask of the prefix (report, section 4.4 and figure 4).

Axes: b batch, s tokens of the prefix.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from pi_behavior.config import ModelConfig


def prefix_blocks(config: ModelConfig, fast_tokens: int) -> Int[np.ndarray, " s"]:
    """The block of each prefix token; a token sees the tokens of its own and of earlier blocks.

    Images and the task token, the most reliable inputs, form block 0 and do not see the others. Stage and
    state tokens form block 1. Every FAST token is a block of its own, which makes them causal.
    """
    reliable = np.zeros(config.image_tokens + 1, np.int32)
    later = np.ones(config.stage_tokens + config.state_tokens, np.int32)
    return np.concatenate([reliable, later, 2 + np.arange(fast_tokens, dtype=np.int32)])


def prefix_mask(blocks: Int[np.ndarray | Array, " s"], valid: Bool[Array, "b s"]) -> Bool[Array, "b s s"]:
    """Which token (second axis) sees which (third axis): the block rule, and both are valid."""
    allowed = jnp.asarray(blocks)[None, :] <= jnp.asarray(blocks)[:, None]
    return allowed[None] & valid[:, :, None] & valid[:, None, :]
