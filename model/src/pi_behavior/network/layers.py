"""Parts shared by the transformers: initialisation, stacked layers, norms, rotary positions.

Axes: b batch, s tokens, n heads, k head width, e width, l layers.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from pi_behavior.config import AttentionKind, Rematerialise

M = TypeVar("M", bound=nnx.Module)
Carry = TypeVar("Carry")
State = nnx.State[Any, Any]
"""Parameters of a module, separate from its structure."""


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> nnx.Param[Array]:
    """A parameter drawn from a normal distribution with variance 1 / fan_in."""
    return nnx.Param(jax.random.normal(rngs.params(), shape) * fan_in**-0.5)


def stack(create: Callable[[nnx.Rngs], M], layers: int, rngs: nnx.Rngs) -> M:
    """Create layers whose parameters are stacked along a leading axis, for a scan."""
    make = nnx.vmap(create, in_axes=0, out_axes=0)
    return nnx.split_rngs(splits=layers)(make)(rngs)


def scan_layers(
    blocks: nnx.Module,
    apply: Callable[[Any, Carry, Any], tuple[Carry, Any]],
    carry: Carry,
    *,
    scanned: Any = None,
    rematerialise: Rematerialise,
) -> tuple[Carry, Any]:
    """Apply stacked layers in order.

    Args:
        blocks: layers from `stack`.
        apply: calls one layer: (layer, carry, this layer's slice of `scanned`) to (carry, output).
        carry: what is passed from layer to layer.
        scanned: arrays with a leading layer axis.
        rematerialise: what the backward pass computes again instead of storing it.

    Returns:
        The last carry, and the outputs stacked along a leading layer axis.
    """
    graph, parameters = nnx.split(blocks)

    def layer(carry: Carry, parts: tuple[State, Any]) -> tuple[Carry, Any]:
        parameter, rest = parts
        return apply(nnx.merge(graph, parameter), carry, rest)

    if rematerialise == "none":
        # small networks run faster unrolled; large ones compile one layer and save memory
        return jax.lax.scan(layer, carry, (parameters, scanned), unroll=True)
    policies = jax.checkpoint_policies
    policy = policies.dots_with_no_batch_dims_saveable if rematerialise == "dots" else None
    # a scan keeps the two passes apart by itself, so common subexpressions need no barrier
    body = jax.checkpoint(layer, policy=policy, prevent_cse=False)
    return jax.lax.scan(body, carry, (parameters, scanned))


class Dense(nnx.Module):
    """An affine map with float32 parameters, computed in the type of its input."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> None:
        self.kernel = normal(rngs, (inputs, outputs), inputs)
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        """Compute x W + bias."""
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


def attend(
    query: Float[Array, "b t n k"],
    key: Float[Array, "b s g k"],
    value: Float[Array, "b s g k"],
    mask: Bool[Array, "b t s"] | None = None,
    *,
    kind: AttentionKind,
    scale: float,
) -> Float[Array, "b t n k"]:
    """Grouped-query attention, logits and softmax in float32.

    Args:
        query: queries; every n / g heads share a key.
        key: keys.
        value: values.
        mask: whether a query sees a key; a row without any key is uniform.
        kind: implementation; auto takes cuDNN where it can run, on a GPU in bfloat16.
        scale: factor of the logits.
    """
    if kind == "auto":
        on_gpu = jax.default_backend() == "gpu" and query.dtype == jnp.bfloat16
        kind = "cudnn" if on_gpu else "xla"
    length, keys = query.shape[1], key.shape[1]
    if kind == "cudnn" and mask is not None:
        # with a mask, cuDNN's backward pass takes even lengths only
        query = jnp.pad(query, ((0, 0), (0, length % 2), (0, 0), (0, 0)))
        key, value = (jnp.pad(x, ((0, 0), (0, keys % 2), (0, 0), (0, 0))) for x in (key, value))
        mask = jnp.pad(mask, ((0, 0), (0, length % 2), (0, keys % 2)))
    result = jax.nn.dot_product_attention(
        query, key, value, mask=None if mask is None else mask[:, None], scale=scale, implementation=kind
    )
    return result[:, :length]


def normalise_rms(x: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
    """Divide by the root mean square, computed in float32 with epsilon 1e-6; the result is float32."""
    y = x.astype(jnp.float32)
    return y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + 1e-6)


def rotate(
    x: Float[Array, "b s n k"], positions: Int[Array, "b s"], base: float = 10_000.0
) -> Float[Array, "b s n k"]:
    """Rotary position encoding: halves a, b become [a cos - b sin, b cos + a sin]."""
    half = x.shape[-1] // 2
    periods = base ** (jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None, None].astype(jnp.float32) / periods
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [a * jnp.cos(angles) - b * jnp.sin(angles), b * jnp.cos(angles) + a * jnp.sin(angles)]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def sincos(x: Float[Array, " *b"], width: int, low: float, high: float) -> Float[Array, "*b e"]:
    """Sine-cosine encoding: all sines, then all cosines, of 2 pi x / period.

    The periods go from low to high in geometric steps. This exact float32 form is part of the published
    weights' meaning: it is ill-conditioned, and other forms differ by up to 2e-3.
    """
    periods = low * (high / low) ** jnp.linspace(0.0, 1.0, width // 2, dtype=jnp.float32)
    angles = x[..., None].astype(jnp.float32) * (1.0 / periods * 2 * jnp.pi)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
