"""CLIP's two transformers: images to features, instructions to a feature.

Axes: i images, h rows, w columns, b batch, s tokens, e width. Source: arXiv 2103.00020.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from pi_behavior.config import AttentionKind
from pi_behavior.lbm.config import ClipTextConfig, ClipVisionConfig, LbmConfig
from pi_behavior.lbm.layers import LayerNorm, Linear
from pi_behavior.network.layers import attend, scan_layers, stack


class ClipLayer(nnx.Module):
    """One pre-norm transformer layer."""

    def __init__(
        self, config: ClipVisionConfig | ClipTextConfig, kind: AttentionKind, rngs: nnx.Rngs
    ) -> None:
        self.kind: AttentionKind = kind
        self.heads = config.heads
        e = config.width
        self.norm1 = LayerNorm(e)
        self.query = Linear(e, e, rngs)
        self.key = Linear(e, e, rngs)
        self.value = Linear(e, e, rngs)
        self.attn_out = Linear(e, e, rngs)
        self.norm2 = LayerNorm(e)
        self.mlp_in = Linear(e, config.mlp, rngs)
        self.mlp_out = Linear(config.mlp, e, rngs)

    def __call__(
        self, x: Float[Array, "i s e"], mask: Bool[Array, "i s s"] | None = None
    ) -> Float[Array, "i s e"]:
        """Attend, then transform each token."""
        y = self.norm1(x)
        parts = (part(y).reshape(*y.shape[:2], self.heads, -1) for part in (self.query, self.key, self.value))
        query, key, value = parts
        mixed = attend(query, key, value, mask, kind=self.kind, scale=query.shape[-1] ** -0.5)
        x = x + self.attn_out(mixed.reshape(x.shape))
        y = self.mlp_in(self.norm2(x))
        return x + self.mlp_out(y * jax.nn.sigmoid(1.702 * y))


class ClipVision(nnx.Module):
    """The vision transformer: the class token after the last layer, without a norm or projection."""

    def __init__(self, model: LbmConfig, rngs: nnx.Rngs) -> None:
        config = model.vision
        self.dtype = jnp.dtype(model.dtype)
        self.rematerialise = model.rematerialise
        self.patch_size = config.patch
        e, p = config.width, config.patch
        tokens = 1 + (config.image_size // p) ** 2
        self.class_token = nnx.Param(jax.random.normal(rngs.params(), (e,)) * e**-0.5)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (tokens, e)))
        self.patch = nnx.Param(jax.random.normal(rngs.params(), (p, p, 3, e)) * (p * p * 3) ** -0.5)
        self.pre_norm = LayerNorm(e)
        self.layers = stack(lambda r: ClipLayer(config, model.attention, r), config.depth, rngs)
        self.post_norm = LayerNorm(e)
        """Part of every checkpoint, and used by nothing here."""

    def embed(self, images: Float[Array, "i h w 3"]) -> Float[Array, "i s e"]:
        """The class token and the patches in row-major order, with positions, before the first norm."""
        count, height, width, _ = images.shape
        p = self.patch_size
        x = images.reshape(count, height // p, p, width // p, p, 3).transpose(0, 1, 3, 2, 4, 5)
        patches = x.reshape(count, -1, p * p * 3) @ self.patch[...].reshape(p * p * 3, -1)
        first = jnp.broadcast_to(self.class_token[...], (count, 1, patches.shape[-1]))
        return jnp.concatenate([first, patches], axis=1) + self.position[...]

    def transform(self, embedded: Float[Array, "i s e"]) -> Float[Array, "i s e"]:
        """All tokens after the last layer."""
        x, _ = scan_layers(
            self.layers,
            lambda layer, y, _: (layer(y), None),
            self.pre_norm(embedded).astype(self.dtype),
            rematerialise=self.rematerialise,
        )
        return x

    def __call__(self, images: Float[Array, "i h w 3"]) -> Float[Array, "i e"]:
        """Encode normalised images of the transformer's size."""
        return self.transform(self.embed(images))[:, 0]


class ClipText(nnx.Module):
    """The text transformer, with the linear map that follows it here."""

    def __init__(self, model: LbmConfig, rngs: nnx.Rngs) -> None:
        config = model.text
        self.dtype = jnp.dtype(model.dtype)
        self.rematerialise = model.rematerialise
        self.frozen = model.freeze_text
        e = config.width
        self.token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (config.vocabulary, e)))
        self.position = nnx.Param(0.01 * jax.random.normal(rngs.params(), (config.length, e)))
        self.layers = stack(lambda r: ClipLayer(config, model.attention, r), config.depth, rngs)
        self.final_norm = LayerNorm(e)
        self.projection = Linear(e, model.width, rngs)

    def hidden(self, tokens: Int[Array, "b s"], mask: Bool[Array, "b s"]) -> Float[Array, "b s e"]:
        """All tokens after the last norm; those of padding mean nothing."""
        length = tokens.shape[1]
        x = (self.token[...][tokens] + self.position[...][:length]).astype(self.dtype)
        sees = jnp.tril(jnp.ones((length, length), bool)) & mask[:, None, :]
        x, _ = scan_layers(
            self.layers,
            lambda layer, y, _: (layer(y, sees), None),
            x,
            rematerialise=self.rematerialise,
        )
        return self.final_norm(x)

    def pooled(self, tokens: Int[Array, "b s"], hidden: Float[Array, "b s e"]) -> Float[Array, "b e"]:
        """The row of the first end of text, whose number is the highest."""
        return jnp.take_along_axis(hidden, jnp.argmax(tokens, axis=1)[:, None, None], axis=1)[:, 0]

    def __call__(self, tokens: Int[Array, "b s"], mask: Bool[Array, "b s"]) -> Float[Array, "b o"]:
        """The text feature; a frozen transformer gets no gradient, its projection does."""
        pooled = self.pooled(tokens, self.hidden(tokens, mask))
        return self.projection(jax.lax.stop_gradient(pooled) if self.frozen else pooled)
