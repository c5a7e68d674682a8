"""Parts shared by the transformers of the Large Behavior Model."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class LayerNorm(nnx.Module):
    """Normalisation by mean and biased variance, in float32, with scale and bias."""

    def __init__(self, width: int) -> None:
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
        """Normalise each token; epsilon 1e-5, as CLIP has it."""
        return (standardise(x, 1e-5) * self.scale[...] + self.bias[...]).astype(x.dtype)


def standardise(x: Float[Array, "*b e"], epsilon: float) -> Float[Array, "*b e"]:
    """Subtract the mean and divide by the deviation; the result is float32."""
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    return y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + epsilon)


class Linear(nnx.Module):
    """An affine map with float32 parameters, computed in the type of its input.

    Kernel and bias start uniform in +-1 / sqrt(inputs).
    """

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> None:
        bound = inputs**-0.5
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), (inputs, outputs), minval=-bound, maxval=bound)
        )
        self.bias = nnx.Param(jax.random.uniform(rngs.params(), (outputs,), minval=-bound, maxval=bound))

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        """Compute x W + bias."""
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)
