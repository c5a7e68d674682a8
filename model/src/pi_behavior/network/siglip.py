"""SigLIP vision transformer (So400m/14 at full size): images to prefix tokens.

Axes: i images, h height, w width, s tokens, e width. Source: arXiv 2303.15343; report, section 3.1.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from pi_behavior.config import ModelConfig
from pi_behavior.network.layers import attend, normal, scan_layers, stack
from pi_behavior.observation import image_to_float


def _layer_norm(
    x: Float[Array, "*b e"], scale: Float[Array, " e"], bias: Float[Array, " e"]
) -> Float[Array, "*b e"]:
    y = x.astype(jnp.float32)
    y = (y - y.mean(-1, keepdims=True)) * jax.lax.rsqrt(y.var(-1, keepdims=True) + 1e-6)
    return (y * scale + bias).astype(x.dtype)


class EncoderBlock(nnx.Module):
    """One pre-norm transformer layer."""

    def __init__(self, model: ModelConfig, rngs: nnx.Rngs) -> None:
        config = model.vision
        self.kind = model.attention
        e, n, k, m = config.width, config.heads, config.width // config.heads, config.mlp
        self.norm_0_scale = nnx.Param(jnp.ones(e))
        self.norm_0_bias = nnx.Param(jnp.zeros(e))
        self.norm_1_scale = nnx.Param(jnp.ones(e))
        self.norm_1_bias = nnx.Param(jnp.zeros(e))
        self.query_kernel = normal(rngs, (e, n, k), e)
        self.query_bias = nnx.Param(jnp.zeros((n, k)))
        self.key_kernel = normal(rngs, (e, n, k), e)
        self.key_bias = nnx.Param(jnp.zeros((n, k)))
        self.value_kernel = normal(rngs, (e, n, k), e)
        self.value_bias = nnx.Param(jnp.zeros((n, k)))
        self.out_kernel = normal(rngs, (n, k, e), e)
        self.out_bias = nnx.Param(jnp.zeros(e))
        self.mlp_0_kernel = normal(rngs, (e, m), e)
        self.mlp_0_bias = nnx.Param(jnp.zeros(m))
        self.mlp_1_kernel = normal(rngs, (m, e), m)
        self.mlp_1_bias = nnx.Param(jnp.zeros(e))

    def __call__(self, x: Float[Array, "i s e"]) -> Float[Array, "i s e"]:
        """Attend, then transform each token."""
        dtype = x.dtype
        y = _layer_norm(x, self.norm_0_scale[...], self.norm_0_bias[...])
        q, k, v = (
            jnp.einsum("ise,enk->isnk", y, kernel[...].astype(dtype)) + bias[...].astype(dtype)
            for kernel, bias in (
                (self.query_kernel, self.query_bias),
                (self.key_kernel, self.key_bias),
                (self.value_kernel, self.value_bias),
            )
        )
        y = attend(q, k, v, kind=self.kind, scale=q.shape[-1] ** -0.5)
        x = (
            x
            + jnp.einsum("isnk,nke->ise", y, self.out_kernel[...].astype(dtype))
            + self.out_bias[...].astype(dtype)
        )
        y = _layer_norm(x, self.norm_1_scale[...], self.norm_1_bias[...])
        y = jax.nn.gelu(
            y @ self.mlp_0_kernel[...].astype(dtype) + self.mlp_0_bias[...].astype(dtype), approximate=True
        )
        return x + y @ self.mlp_1_kernel[...].astype(dtype) + self.mlp_1_bias[...].astype(dtype)


class SigLIP(nnx.Module):
    """The vision encoder with the linear map to the prefix transformer's width."""

    def __init__(self, model: ModelConfig, rngs: nnx.Rngs) -> None:
        config = model.vision
        self.dtype = jnp.dtype(model.dtype)
        self.rematerialise = model.rematerialise
        self.patch = config.patch
        e, p = config.width, config.patch
        self.patch_kernel = normal(rngs, (p, p, 3, e), p * p * 3)
        self.patch_bias = nnx.Param(jnp.zeros(e))
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, config.tokens, e)))
        self.blocks = stack(lambda r: EncoderBlock(model, r), config.depth, rngs)
        self.norm_scale = nnx.Param(jnp.ones(e))
        self.norm_bias = nnx.Param(jnp.zeros(e))
        self.head_kernel = normal(rngs, (e, model.width), e)
        self.head_bias = nnx.Param(jnp.zeros(model.width))

    def __call__(self, images: UInt8[Array, "i h w 3"]) -> Float[Array, "i s o"]:
        """Encode images: stride-14 patches in row-major order, plus learned positions."""
        count, height, width, _ = images.shape
        p = self.patch
        x = image_to_float(images).reshape(count, height // p, p, width // p, p, 3)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(count, -1, p * p * 3)
        kernel = self.patch_kernel[...].reshape(p * p * 3, -1)
        x = (x @ kernel + self.patch_bias[...] + self.positions[...]).astype(self.dtype)
        x, _ = scan_layers(
            self.blocks, lambda block, y, _: (block(y), None), x, rematerialise=self.rematerialise
        )
        x = _layer_norm(x, self.norm_scale[...], self.norm_bias[...])
        return x @ self.head_kernel[...].astype(self.dtype) + self.head_bias[...].astype(self.dtype)
