"""The diffusion transformer: a noisy chunk, a time and a conditioning vector to a prediction.

Axes: b batch, h steps of the chunk, a action dimensions, e width, c width of the conditioning. Sources:
arXiv 2212.09748 (adaptive layer norm), arXiv 2104.09864 (rotary positions).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pi_behavior.lbm.config import LbmConfig
from pi_behavior.lbm.layers import Linear, standardise
from pi_behavior.network.layers import rotate, scan_layers, stack

_EPSILON = 1e-6


def time_sinusoid(time: Float[Array, " b"] | Int[Array, " b"], width: int) -> Float[Array, "b e"]:
    """All sines, then all cosines, of the time; frequencies from 1 to 1/10,000, both included."""
    half = width // 2
    frequencies = jnp.exp(-math.log(10_000.0) / (half - 1) * jnp.arange(half, dtype=jnp.float32))
    angles = time.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class DiffusionBlock(nnx.Module):
    """Attention and MLP, each with scale, shift and gate from the conditioning; starts as the identity."""

    def __init__(self, config: LbmConfig, rngs: nnx.Rngs) -> None:
        self.heads, self.dropout = config.heads, config.dropout
        self.rotary_base = config.rotary_base if config.rotary else None
        e = config.width
        self.adaln = Linear(config.time_width + config.conditioning_width, 6 * e, rngs)
        self.adaln.kernel[...] = jnp.zeros_like(self.adaln.kernel[...])
        self.adaln.bias[...] = jnp.zeros_like(self.adaln.bias[...])
        self.qkv = Linear(e, 3 * e, rngs)
        self.attn_out = Linear(e, e, rngs)
        if not config.rotary:  # the original's other attention module has other initial values
            bound = math.sqrt(6.0 / (4 * e))
            self.qkv.kernel[...] = jax.random.uniform(rngs.params(), (e, 3 * e), minval=-bound, maxval=bound)
            self.qkv.bias[...] = jnp.zeros(3 * e)
            self.attn_out.bias[...] = jnp.zeros(e)
        self.mlp_in = Linear(e, 4 * e, rngs)
        self.mlp_out = Linear(4 * e, e, rngs)

    def modulation(self, condition: Float[Array, "b c"]) -> Float[Array, "b m"]:
        """Shift, scale and gate of the attention, then those of the MLP, one after the other."""
        return self.adaln(jax.nn.silu(condition))

    def attend(self, x: Float[Array, "b h e"], key: PRNGKeyArray | None = None) -> Float[Array, "b h e"]:
        """Bidirectional attention over the chunk; with a random key, some weights are dropped."""
        b, h, e = x.shape
        query, keys, value = (
            part.reshape(b, h, self.heads, -1) for part in jnp.split(self.qkv(x), 3, axis=-1)
        )
        if self.rotary_base is not None:
            positions = jnp.broadcast_to(jnp.arange(h), (b, h))
            query, keys = (rotate(part, positions, self.rotary_base) for part in (query, keys))
        logits = jnp.einsum("bqnk,bsnk->bnqs", query, keys, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits * query.shape[-1] ** -0.5, axis=-1)
        if key is not None and self.dropout:
            kept = jax.random.bernoulli(key, 1.0 - self.dropout, weights.shape)
            weights = jnp.where(kept, weights / (1.0 - self.dropout), 0.0)
        mixed = jnp.einsum("bnqs,bsnk->bqnk", weights.astype(x.dtype), value)
        return self.attn_out(mixed.reshape(b, h, e))

    def attention_branch(
        self, x: Float[Array, "b h e"], modulation: Float[Array, "b m"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "b h e"]:
        """The attention's output before its gate."""
        shift, scale = jnp.split(modulation[:, None], 6, axis=-1)[:2]
        return self.attend(_modulated(x, shift, scale), key)

    def __call__(
        self, x: Float[Array, "b h e"], condition: Float[Array, "b c"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "b h e"]:
        """Attend over the chunk, then transform each step."""
        modulation = self.modulation(condition)
        _, _, gate, shift, scale, mlp_gate = jnp.split(modulation[:, None], 6, axis=-1)
        x = x + gate * self.attention_branch(x, modulation, key)
        y = jax.nn.gelu(self.mlp_in(_modulated(x, shift, scale)), approximate=True)
        return x + mlp_gate * self.mlp_out(y)


def _modulated(
    x: Float[Array, "b h e"], shift: Float[Array, "b 1 e"], scale: Float[Array, "b 1 e"]
) -> Float[Array, "b h e"]:
    y = standardise(x, _EPSILON) * (1.0 + scale.astype(jnp.float32)) + shift.astype(jnp.float32)
    return y.astype(x.dtype)


class Denoiser(nnx.Module):
    """The noise predictor; also predicts clean chunks or velocities, as it is trained."""

    def __init__(self, config: LbmConfig, rngs: nnx.Rngs) -> None:
        self.dtype = jnp.dtype(config.dtype)
        self.rematerialise = config.rematerialise
        self.time_width, e = config.time_width, config.width
        self.time_in = Linear(config.time_width, 2 * config.time_width, rngs)
        self.time_out = Linear(2 * config.time_width, config.time_width, rngs)
        self.input_proj = Linear(config.action_dim, e, rngs)
        self.position_table = config.position_table
        if config.position_table:
            self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (config.horizon, e)))
        self.depth = config.depth
        self.blocks = stack(lambda r: DiffusionBlock(config, r), config.depth, rngs)
        self.output_proj = Linear(e, config.action_dim, rngs)

    def embed_time(self, sinusoid: Float[Array, "b e"]) -> Float[Array, "b e"]:
        """The time's embedding; a second activation ends it, and both are exact."""
        hidden = jax.nn.gelu(self.time_in(sinusoid), approximate=False)
        return jax.nn.gelu(self.time_out(hidden), approximate=False)

    def condition(
        self, time: Float[Array, " b"] | Int[Array, " b"], conditioning: Float[Array, "b d"]
    ) -> Float[Array, "b c"]:
        """What modulates the blocks: the time's embedding, then the conditioning."""
        embedded = self.embed_time(time_sinusoid(time, self.time_width))
        return jnp.concatenate([embedded, conditioning.astype(jnp.float32)], axis=-1).astype(self.dtype)

    def embed(self, noisy: Float[Array, "b h a"]) -> Float[Array, "b h e"]:
        """The blocks' input."""
        x = self.input_proj(noisy.astype(self.dtype))
        return x + self.position[...].astype(x.dtype) if self.position_table else x

    def __call__(
        self,
        noisy: Float[Array, "b h a"],
        time: Float[Array, " b"] | Int[Array, " b"],
        conditioning: Float[Array, "b d"],
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "b h a"]:
        """Predict, in float32.

        Args:
            noisy: chunks with noise.
            time: the diffusion step as a whole number, or the flow's time in [0, 1].
            conditioning: of the observations.
            key: for dropout; None turns it off.
        """
        condition = self.condition(time, conditioning)
        keys = None if key is None else jax.random.split(key, self.depth)
        x, _ = scan_layers(
            self.blocks,
            lambda block, y, k: (block(y, condition, k), None),
            self.embed(noisy),
            scanned=keys,
            rematerialise=self.rematerialise,
        )
        return self.output_proj(x).astype(jnp.float32)
