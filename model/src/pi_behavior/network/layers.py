"""Parts shared by the transformers: initialisation, stacked layers, norms, rotary positions.

Axes: b batch, s tokens, n heads, k head width, e width, l layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
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


def unstack(blocks: nnx.Module) -> Any:
    """Layers from `stack` as one module each: a scan copies the weights of a layer before it uses them."""
    graph, parameters = nnx.split(blocks)
    depth = jax.tree.leaves(parameters)[0].shape[0]
    return nnx.List(
        [nnx.merge(graph, jax.tree.map(lambda a, i=index: a[i], parameters)) for index in range(depth)]
    )


@dataclass(frozen=True)
class Shard:
    """How a parameter is split, for one of which each device holds an equal part."""

    mesh_axis: str
    """Axis of the mesh whose devices hold the parts."""
    axis: int
    """Axis of the array that is split."""
    dtype: str
    """Type that the parts are put together in, which is that of the computation."""


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def gather(part: Array, shard: Shard) -> Array:
    """Put a parameter together from the devices' parts, in the type of the computation.

    Its gradient is reduce-scattered, in float32: each device gets the sum for its own part.
    """
    own = part.astype(shard.dtype)
    # as integers: a backend without bfloat16, such as the CPU's, would send float32 instead
    bits = jax.lax.bitcast_convert_type(own, jnp.dtype(f"uint{8 * own.dtype.itemsize}"))
    whole = jax.lax.all_gather(bits, shard.mesh_axis, axis=shard.axis, tiled=True)
    return jax.lax.bitcast_convert_type(whole, own.dtype)


def reduce_scatter(gradient: Array, shard: Shard) -> Array:
    """Sum a gradient over the devices, in float32; each gets its own part of the sum."""
    return jax.lax.psum_scatter(
        gradient.astype(jnp.float32), shard.mesh_axis, scatter_dimension=shard.axis, tiled=True
    )


gather.defvjp(
    lambda part, shard: (gather(part, shard), None),
    lambda shard, _, gradient: (reduce_scatter(gradient, shard),),
)


def _whole_layer(parameters: State) -> State:
    """Gather one layer's parameters, where they are marked as parts by the metadata `shard`."""

    def whole(parameter: Any) -> Any:
        shard: Shard | None = parameter.get_metadata().get("shard")
        if shard is None:
            return parameter
        # the mark counts the layers' axis, which the scan has taken off
        one = replace(shard, axis=shard.axis - 1)
        return parameter.replace(gather(parameter.get_value(), one), shard=None)

    return jax.tree.map(whole, parameters, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def scan_layers(
    blocks: nnx.Module,
    apply: Callable[[Any, Carry, Any], tuple[Carry, Any]],
    carry: Carry,
    *,
    scanned: Any = None,
    rematerialise: Rematerialise,
) -> tuple[Carry, Any]:
    """Apply layers in order.

    Args:
        blocks: layers from `stack`, or from `unstack`.
        apply: calls one layer: (layer, carry, this layer's slice of `scanned`) to (carry, output).
        carry: what is passed from layer to layer.
        scanned: arrays with a leading layer axis, or a list with an entry for each layer.
        rematerialise: what the backward pass computes again instead of storing it.

    Returns:
        The last carry, and the outputs stacked along a leading layer axis.
    """
    if isinstance(blocks, nnx.List):
        outputs = []
        for index, block in enumerate(blocks):
            rest = (
                scanned[index]
                if isinstance(scanned, list)
                else jax.tree.map(lambda a, i=index: a[i], scanned)
            )
            carry, output = apply(block, carry, rest)
            outputs.append(output)
        return carry, jax.tree.map(lambda *each: jnp.stack(each), *outputs)
    graph, parameters = nnx.split(blocks)

    def layer(carry: Carry, parts: tuple[State, Any]) -> tuple[Carry, Any]:
        parameter, rest = parts
        return apply(nnx.merge(graph, _whole_layer(parameter)), carry, rest)

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
