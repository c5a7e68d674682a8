"""The two Gemma transformers: the prefix (2B at full size) and the action expert (300M).

Axes: b batch, s prefix tokens, c chunks (flow samples), t action tokens, n heads, k head width, g KV heads,
e width. Source: arXiv 2407.07726 (PaliGemma), arXiv 2504.16054 (Pi0.5); report, section 4 and appendix C.
"""

from typing import Any

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

    def fuse(self) -> None:
        """Put all projections into one matrix [e, (n + 2 g) k], for serving."""
        width = self.query.shape[1]
        parts = [self.query[...], *self.key_value[...]]
        self.fused = nnx.Param(
            jnp.concatenate([part.transpose(1, 0, 2).reshape(width, -1) for part in parts], axis=1)
        )
        self.heads, self.kv_heads = self.query.shape[0], self.key_value.shape[1]
        del self.query, self.key_value

    def project(
        self, x: Float[Array, "b s e"], positions: Int[Array, "b s"]
    ) -> tuple[Float[Array, "b s n k"], Float[Array, "b s g k"], Float[Array, "b s g k"]]:
        """Rotated and scaled queries, rotated keys, values."""
        if hasattr(self, "fused"):
            n, g = self.heads, self.kv_heads
            every = x @ self.fused[...].astype(x.dtype)
            every = every.reshape(*x.shape[:2], n + 2 * g, -1)
            query, key, value = jnp.split(every, [n, n + g], axis=2)
        else:
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

    def fuse(self) -> None:
        """Put gate and up into one matrix [e, 2 m], for serving."""
        self.gate_up = nnx.Param(jnp.concatenate(list(self.gate_up[...]), axis=1))

    def __call__(self, x: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
        """Transform each token."""
        weights = self.gate_up[...].astype(x.dtype)
        gate, up = jnp.split(x @ weights, 2, axis=-1) if weights.ndim == 2 else (x @ one for one in weights)
        return (jax.nn.gelu(gate, approximate=True) * up) @ self.down[...].astype(x.dtype)


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
        self, x: Float[Array, "b c t e"], modulation: Float[Array, "#b c m"]
    ) -> tuple[Float[Array, "b c t e"], Float[Array, "#b c 1 e"]]:
        """Returns the normalised tokens, and the gate of the branch that follows.

        Args:
            x: tokens.
            modulation: `self.modulation` of the time's embedding.
        """
        scale, shift, gate = jnp.split(modulation[:, :, None], 3, axis=-1)
        y = normalise_rms(x) * (1.0 + scale.astype(jnp.float32)) + shift.astype(jnp.float32)
        return y.astype(x.dtype), gate


class ExpertLayer(nnx.Module):
    """One layer of the action expert: its chunks see the prefix and themselves, not each other."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.attention_norm = AdaptiveNorm(config.expert_width, rngs)
        self.attention = Attention(config, config.expert_width, rngs)
        self.mlp_norm = AdaptiveNorm(config.expert_width, rngs)
        self.mlp = FeedForward(config.expert_width, config.expert_mlp, rngs)

    def modulate(self, time: Float[Array, "*b e"]) -> tuple[Float[Array, "*b m"], Float[Array, "*b m"]]:
        """What the embedding of a time makes of the two norms."""
        return self.attention_norm.modulation(time), self.mlp_norm.modulation(time)

    def __call__(
        self,
        x: Float[Array, "b c t e"],
        modulations: tuple[Float[Array, "#b c m"], Float[Array, "#b c m"]],
        positions: Int[Array, "b t"],
        prefix_keys: Float[Array, "b g s k"],
        prefix_values: Float[Array, "b g s k"],
        prefix_valid: Bool[Array, "b s"],
    ) -> Float[Array, "b c t e"]:
        """Attend to [prefix, own chunk], then transform each token."""
        b, c, t, _ = x.shape
        y, gate = self.attention_norm(x, modulations[0])
        flat = y.reshape(b, c * t, -1)
        query, key, value = self.attention.project(flat, jnp.tile(positions, (1, c)))
        g, k = key.shape[2:]
        # rows in the order head, chunk, step: against the prefix they are one matrix, within a chunk one each
        query = query.reshape(b, c, t, g, -1, k).transpose(0, 3, 4, 1, 2, 5)
        key, value = (a.reshape(b, c, t, g, k).transpose(0, 3, 1, 2, 4) for a in (key, value))
        rows = query.reshape(b, g, -1, k)
        to_prefix = jnp.einsum("bgrk,bgsk->bgrs", rows, prefix_keys, preferred_element_type=jnp.float32)
        to_prefix = jnp.where(prefix_valid[:, None, None, :], to_prefix, MASKED)
        to_chunk = jnp.einsum("bgnctk,bgcuk->bgnctu", query, key, preferred_element_type=jnp.float32)
        logits = jnp.concatenate([to_prefix.reshape(*query.shape[:-1], -1), to_chunk], axis=-1)
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        to_prefix, to_chunk = jnp.split(weights, [prefix_keys.shape[2]], axis=-1)
        mixed = jnp.einsum("bgrs,bgsk->bgrk", to_prefix.reshape(b, g, rows.shape[2], -1), prefix_values)
        mixed = mixed.reshape(query.shape) + jnp.einsum("bgnctu,bgcuk->bgnctk", to_chunk, value)
        mixed = mixed.transpose(0, 3, 4, 1, 2, 5)
        branch = self.attention.combine(mixed.reshape(b, c * t, -1, k)).reshape(x.shape)
        x = x + gate * branch
        y, gate = self.mlp_norm(x, modulations[1])
        return x + gate * self.mlp(y)


class ActionExpert(nnx.Module):
    """The transformer that predicts the flow of action chunks."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.rematerialise = config.rematerialise
        self.layers = stack(lambda r: ExpertLayer(config, r), config.depth, rngs)
        self.final_norm = AdaptiveNorm(config.expert_width, rngs)

    def cache(
        self, keys: Float[Array, "l b s g k"], values: Float[Array, "l b s g k"]
    ) -> tuple[Float[Array, "l b g s k"], Float[Array, "l b g s k"]] | list[tuple[Array, Array]]:
        """The prefix's mixed keys and values as the layers read them; one entry per layer if unstacked."""
        laid_out = keys.swapaxes(2, 3), values.swapaxes(2, 3)
        return list(zip(*laid_out, strict=True)) if isinstance(self.layers, nnx.List) else laid_out

    def __call__(
        self,
        x: Float[Array, "b c t e"],
        time: Float[Array, "b c e"],
        positions: Int[Array, "b t"],
        cache: Any,
        prefix_valid: Bool[Array, "b s"],
    ) -> Float[Array, "b c t e"]:
        """Run all layers; layer l reads the prefix's mixed keys and values l, from `cache`."""
        x, _ = scan_layers(
            self.layers,
            lambda layer, y, one: (layer(y, layer.modulate(time), positions, *one, prefix_valid), None),
            x,
            scanned=cache,
            rematerialise=self.rematerialise,
        )
        return self.final_norm(x, self.final_norm.modulation(time))[0]

    def modulate(self, time: Float[Array, "*b e"]) -> tuple[Any, Float[Array, "*b m"]]:
        """All norms' modulations for embeddings of times: of the layers, [layer, norm, ...], and the last."""
        _, layers = scan_layers(
            self.layers,
            lambda layer, carry, _: (carry, jnp.stack(layer.modulate(time))),
            jnp.zeros(()),
            rematerialise="none",
        )
        return layers, self.final_norm.modulation(time)

    def step(
        self,
        x: Float[Array, "b c t e"],
        modulations: tuple[Float[Array, "l 2 #b c m"], Float[Array, "#b c m"]],
        positions: Int[Array, "b t"],
        cache: Any,
        prefix_valid: Bool[Array, "b s"],
    ) -> Float[Array, "b c t e"]:
        """As a call, with the modulations of `modulate`, which need not be computed in every step."""
        layers, last = modulations
        scanned = list(zip(layers, cache, strict=True)) if isinstance(cache, list) else (layers, cache)
        x, _ = scan_layers(
            self.layers,
            lambda layer, y, one: (layer(y, tuple(one[0]), positions, *one[1], prefix_valid), None),
            x,
            scanned=scanned,
            rematerialise=self.rematerialise,
        )
        return self.final_norm(x, last)[0]
