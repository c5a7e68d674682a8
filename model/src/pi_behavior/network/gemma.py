"""The two Gemma transformers: the prefix (2B at full size) and the action expert (300M).

Axes: b batch, s prefix tokens, c chunks (flow samples), t action tokens, n heads, k head width, g KV heads,
e width. Source: arXiv 2407.07726 (PaliGemma), arXiv 2504.16054 (Pi0.5); report, section 4 and appendix C.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from pi_behavior.config import ModelConfig
from pi_behavior.network.layers import Dense, attend, normal, normalise_rms, rotate, scan_layers, stack

MASKED = -2.3819763e38
"""Logit of a forbidden key: finite, so that a row without any allowed key is uniform and not NaN."""


class Attention(nnx.Module):
    """The projections of grouped-query attention; the two transformers attend differently."""

    def __init__(self, config: ModelConfig, width: int, rngs: nnx.Rngs) -> None:
        n, g, k = config.heads, config.kv_heads, config.head_dim
        self.query = normal(rngs, (n, width, k), width)
        self.key_value = normal(rngs, (2, g, width, k), width)
        self.output = normal(rngs, (n, k, width), n * k)

    def project(
        self, x: Float[Array, "b s e"], positions: Int[Array, "b s"]
    ) -> tuple[Float[Array, "b s n k"], Float[Array, "b s g k"], Float[Array, "b s g k"]]:
        """Rotated and scaled queries, rotated keys, values."""
        query = jnp.einsum("bse,nek->bsnk", x, self.query[...].astype(x.dtype))
        key, value = jnp.einsum("bse,cgek->cbsgk", x, self.key_value[...].astype(x.dtype))
        query = rotate(query, positions) * query.shape[-1] ** -0.5
        return query, rotate(key, positions), value

    def combine(self, x: Float[Array, "b s n k"]) -> Float[Array, "b s e"]:
        """Map the heads' outputs back to the width."""
        return jnp.einsum("bsnk,nke->bse", x, self.output[...].astype(x.dtype))


class FeedForward(nnx.Module):
    """Gated MLP: (gelu(x W0) * (x W1)) W2."""

    def __init__(self, width: int, mlp: int, rngs: nnx.Rngs) -> None:
        self.gate_up = normal(rngs, (2, width, mlp), width)
        self.down = normal(rngs, (mlp, width), mlp)

    def __call__(self, x: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
        """Transform each token."""
        gate, up = self.gate_up[...].astype(x.dtype)
        return (jax.nn.gelu(x @ gate, approximate=True) * (x @ up)) @ self.down[...].astype(x.dtype)


class PrefixLayer(nnx.Module):
    """One layer of the prefix transformer."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.kind = config.attention
        self.attention_norm = nnx.Param(jnp.zeros(config.width))
        self.attention = Attention(config, config.width, rngs)
        self.mlp_norm = nnx.Param(jnp.zeros(config.width))
        self.mlp = FeedForward(config.width, config.mlp, rngs)

    def __call__(
        self, x: Float[Array, "b s e"], positions: Int[Array, "b s"], mask: Bool[Array, "b s s"]
    ) -> tuple[Float[Array, "b s e"], tuple[Float[Array, "b s g k"], Float[Array, "b s g k"]]]:
        """Returns the new tokens, and the rotated keys and the values for the action expert."""
        y = _rms_norm(x, self.attention_norm[...])
        query, key, value = self.attention.project(y, positions)
        mixed = attend(query, key, value, mask, kind=self.kind, scale=1.0)
        x = x + self.attention.combine(mixed)
        return x + self.mlp(_rms_norm(x, self.mlp_norm[...])), (key, value)


def _rms_norm(x: Float[Array, "*b e"], scale: Float[Array, " e"]) -> Float[Array, "*b e"]:
    return (normalise_rms(x) * (1.0 + scale)).astype(x.dtype)


class PrefixTransformer(nnx.Module):
    """The language model's transformer over the prefix."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.rematerialise = config.rematerialise
        self.layers = stack(lambda r: PrefixLayer(config, r), config.depth, rngs)
        self.final_norm = nnx.Param(jnp.zeros(config.width))

    def __call__(
        self, x: Float[Array, "b s e"], positions: Int[Array, "b s"], mask: Bool[Array, "b s s"]
    ) -> tuple[Float[Array, "b s e"], Float[Array, "l b s g k"], Float[Array, "l b s g k"]]:
        """Returns the normalised output, and every layer's keys and values."""
        x, (keys, values) = scan_layers(
            self.layers,
            lambda layer, y, _: layer(y, positions, mask),
            x,
            rematerialise=self.rematerialise,
        )
        return _rms_norm(x, self.final_norm[...]), keys, values


class AdaptiveNorm(nnx.Module):
    """RMS normalisation with scale, shift and gate from the flow's time (report, appendix C)."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.modulation = Dense(width, 3 * width, rngs)
        # adaLN-zero: without pretrained weights every layer starts as the identity (arXiv 2212.09748)
        self.modulation.kernel[...] = jnp.zeros((width, 3 * width))

    def __call__(
        self, x: Float[Array, "b c t e"], time: Float[Array, "b c e"]
    ) -> tuple[Float[Array, "b c t e"], Float[Array, "b c 1 e"]]:
        """Returns the normalised tokens, and the gate of the branch that follows."""
        scale, shift, gate = jnp.split(self.modulation(time)[:, :, None], 3, axis=-1)
        y = normalise_rms(x) * (1.0 + scale.astype(jnp.float32)) + shift.astype(jnp.float32)
        return y.astype(x.dtype), gate


class ExpertLayer(nnx.Module):
    """One layer of the action expert: its chunks see the prefix and themselves, not each other."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.attention_norm = AdaptiveNorm(config.expert_width, rngs)
        self.attention = Attention(config, config.expert_width, rngs)
        self.mlp_norm = AdaptiveNorm(config.expert_width, rngs)
        self.mlp = FeedForward(config.expert_width, config.expert_mlp, rngs)

    def __call__(
        self,
        x: Float[Array, "b c t e"],
        time: Float[Array, "b c e"],
        positions: Int[Array, "b t"],
        prefix_keys: Float[Array, "b s g k"],
        prefix_values: Float[Array, "b s g k"],
        prefix_valid: Bool[Array, "b s"],
    ) -> Float[Array, "b c t e"]:
        """Attend to [prefix, own chunk], then transform each token."""
        b, c, t, _ = x.shape
        y, gate = self.attention_norm(x, time)
        flat = y.reshape(b, c * t, -1)
        query, key, value = self.attention.project(flat, jnp.tile(positions, (1, c)))
        g, k = key.shape[2:]
        # rows in the order head, chunk, step: against the prefix they are one matrix, within a chunk one each
        query = query.reshape(b, c, t, g, -1, k).transpose(0, 3, 4, 1, 2, 5)
        key, value = (a.reshape(b, c, t, g, k).transpose(0, 3, 1, 2, 4) for a in (key, value))
        rows = query.reshape(b, g, -1, k)
        to_prefix = jnp.einsum("bgrk,bsgk->bgrs", rows, prefix_keys, preferred_element_type=jnp.float32)
        to_prefix = jnp.where(prefix_valid[:, None, None, :], to_prefix, MASKED)
        to_chunk = jnp.einsum("bgnctk,bgcuk->bgnctu", query, key, preferred_element_type=jnp.float32)
        logits = jnp.concatenate([to_prefix.reshape(*query.shape[:-1], -1), to_chunk], axis=-1)
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        to_prefix, to_chunk = jnp.split(weights, [prefix_keys.shape[1]], axis=-1)
        mixed = jnp.einsum("bgrs,bsgk->bgrk", to_prefix.reshape(b, g, rows.shape[2], -1), prefix_values)
        mixed = mixed.reshape(query.shape) + jnp.einsum("bgnctu,bgcuk->bgnctk", to_chunk, value)
        mixed = mixed.transpose(0, 3, 4, 1, 2, 5)
        branch = self.attention.combine(mixed.reshape(b, c * t, -1, k)).reshape(x.shape)
        x = x + gate * branch
        y, gate = self.mlp_norm(x, time)
        return x + gate * self.mlp(y)


class ActionExpert(nnx.Module):
    """The transformer that predicts the flow of action chunks."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.rematerialise = config.rematerialise
        self.layers = stack(lambda r: ExpertLayer(config, r), config.depth, rngs)
        self.final_norm = AdaptiveNorm(config.expert_width, rngs)

    def __call__(
        self,
        x: Float[Array, "b c t e"],
        time: Float[Array, "b c e"],
        positions: Int[Array, "b t"],
        prefix_keys: Float[Array, "l b s g k"],
        prefix_values: Float[Array, "l b s g k"],
        prefix_valid: Bool[Array, "b s"],
    ) -> Float[Array, "b c t e"]:
        """Run all layers; layer l reads the prefix's mixed keys and values l."""
        x, _ = scan_layers(
            self.layers,
            lambda layer, y, cache: (layer(y, time, positions, *cache, prefix_valid), None),
            x,
            scanned=(prefix_keys, prefix_values),
            rematerialise=self.rematerialise,
        )
        return self.final_norm(x, time)[0]
