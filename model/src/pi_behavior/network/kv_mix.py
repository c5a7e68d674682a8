"""Mixed-layer attention: every expert layer reads a mix of the prefix layers (report, sections 2.1 and 4.3).

Axes: l layers of the prefix, j layers of the expert, b batch, s tokens, n KV heads, k head width.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from pi_behavior.config import KVSource, ModelConfig


def source_layers(source: KVSource, depth: int) -> Int[np.ndarray, " j"]:
    """The prefix layer that each expert layer reads where the pairing is fixed.

    layerwise: its own number (Pi0.5). last: the last one (GR00T's encoder-decoder). lower_half: two
    expert layers read each layer of the lower half of the prefix (as SmolVLA uses half of the language
    model's layers).
    """
    own = np.arange(depth)
    return {"layerwise": own, "last": np.full(depth, depth - 1), "lower_half": own // 2}[source]


class KVMix(nnx.Module):
    """What an expert layer reads of the prefix: a learned combination of all layers, or a fixed choice.

    A learned mix starts as a fixed one, by default the identity; a fixed one has no weights.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.fixed: tuple[int, ...] | None = None
        if config.kv_mix != "learned":
            self.fixed = tuple(source_layers(config.kv_mix, config.depth).tolist())
            return
        start = jnp.eye(config.depth)[source_layers(config.kv_mix_start, config.depth)]
        bias = (config.depth, config.kv_heads, config.head_dim)
        self.key_coefficients = nnx.Param(start)
        self.key_bias = nnx.Param(jnp.zeros(bias))
        self.value_coefficients = nnx.Param(jnp.copy(start))
        self.value_bias = nnx.Param(jnp.zeros(bias))

    def __call__(
        self, keys: Float[Array, "l b s n k"], values: Float[Array, "l b s n k"]
    ) -> tuple[Float[Array, "j b s n k"], Float[Array, "j b s n k"]]:
        """Mix keys, as cached after their rotation, and values, each with weights of its own."""
        if self.fixed is not None:
            chosen = np.array(self.fixed)
            return keys[chosen], values[chosen]

        def mix(cache: Array, coefficients: Array, bias: Array) -> Array:
            mixed = jnp.einsum("lbsnk,jl->jbsnk", cache, coefficients.astype(cache.dtype))
            return mixed + bias[:, None, None].astype(cache.dtype)

        return (
            mix(keys, self.key_coefficients[...], self.key_bias[...]),
            mix(values, self.value_coefficients[...], self.value_bias[...]),
        )
