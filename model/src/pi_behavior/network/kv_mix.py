"""Mixed-layer attention: every expert layer reads a learned mix of all prefix layers (report, section 4.3).

Axes: l layers of the prefix, j layers of the expert, b batch, s tokens, n KV heads, k head width.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pi_behavior.config import ModelConfig


class KVMix(nnx.Module):
    """Linear combinations of the cached keys and values; starts as the identity, Pi0.5's own pairing."""

    def __init__(self, config: ModelConfig) -> None:
        bias = (config.depth, config.kv_heads, config.head_dim)
        self.key_coefficients = nnx.Param(jnp.eye(config.depth))
        self.key_bias = nnx.Param(jnp.zeros(bias))
        self.value_coefficients = nnx.Param(jnp.eye(config.depth))
        self.value_bias = nnx.Param(jnp.zeros(bias))

    def __call__(
        self, keys: Float[Array, "l b s n k"], values: Float[Array, "l b s n k"]
    ) -> tuple[Float[Array, "j b s n k"], Float[Array, "j b s n k"]]:
        """Mix keys, as cached after their rotation, and values, each with weights of its own."""

        def mix(cache: Array, coefficients: Array, bias: Array) -> Array:
            mixed = jnp.einsum("lbsnk,jl->jbsnk", cache, coefficients.astype(cache.dtype))
            return mixed + bias[:, None, None].astype(cache.dtype)

        return (
            mix(keys, self.key_coefficients[...], self.key_bias[...]),
            mix(values, self.value_coefficients[...], self.value_bias[...]),
        )
