"""The whole network: encoders, conditioning, diffusion transformer.

Axes: b batch, s observation steps, c cameras, n tokens, h steps of the chunk, a action dimensions.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from pi_behavior.lbm.clip import ClipText, ClipVision
from pi_behavior.lbm.config import LbmConfig
from pi_behavior.lbm.denoiser import Denoiser
from pi_behavior.lbm.images import preprocess
from pi_behavior.network.layers import stack


class LargeBehaviorModel(nnx.Module):
    """Images, states and an instruction to the prediction of a noisy chunk."""

    def __init__(self, config: LbmConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        if config.separate_vision:
            self.vision = stack(lambda r: ClipVision(config, r), len(config.cameras), rngs)
        else:
            self.vision = ClipVision(config, rngs)
        self.text = ClipText(config, rngs)
        self.dit = Denoiser(config, rngs)

    def preprocess(
        self,
        images: UInt8[Array, "b s c h w 3"],
        *,
        offset: Int[Array, " 2"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "b s c r r 3"]:
        """Normalised, resized and cropped images; see `images.preprocess`.

        With one encoder for each camera, each camera's crop is drawn for itself.
        """
        if key is None or not self.config.separate_vision:
            return preprocess(self.config, images, offset=offset, key=key)
        keys = jax.random.split(key, images.shape[2])
        cameras = [preprocess(self.config, images[:, :, c], key=k) for c, k in enumerate(keys)]
        return jnp.stack(cameras, axis=2)

    def image_features(self, images: Float[Array, "b s c r r 3"]) -> Float[Array, "b s c v"]:
        """Encode preprocessed images, each by itself."""
        b, s, c = images.shape[:3]
        if not self.config.separate_vision:
            return self.vision(images.reshape(-1, *images.shape[3:])).reshape(b, s, c, -1)
        graph, parameters = nnx.split(self.vision)
        by_camera = jnp.moveaxis(images, 2, 0).reshape(c, b * s, *images.shape[3:])
        encode = jax.vmap(lambda parameter, image: nnx.merge(graph, parameter)(image))
        return jnp.moveaxis(encode(parameters, by_camera).reshape(c, b, s, -1), 0, 2)

    def conditioning(
        self,
        state: Float[Array, "b s p"],
        image_features: Float[Array, "b s c v"],
        text_features: Float[Array, "b w"],
    ) -> Float[Array, "b d"]:
        """State, image features and text feature of every step, the oldest step first; float32."""
        b, s = state.shape[:2]
        text = jnp.broadcast_to(text_features[:, None], (b, s, text_features.shape[-1]))
        parts = [state, image_features.reshape(b, s, -1), text]
        joined = jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=-1)
        return joined.reshape(b, -1)

    def encode(
        self,
        images: UInt8[Array, "b s c h w 3"],
        state: Float[Array, "b s p"],
        tokens: Int[Array, "b n"],
        token_mask: Bool[Array, "b n"],
        *,
        offset: Int[Array, " 2"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "b d"]:
        """The conditioning vector of observations.

        Args:
            images: bytes, or floats in [0, 255]; cameras in the order of the configuration.
            state: normalised.
            tokens: of the instruction.
            token_mask: False for padding.
            offset: top and left of the crop.
            key: for a random crop, in training.
        """
        features = self.image_features(self.preprocess(images, offset=offset, key=key))
        return self.conditioning(state, features, self.text(tokens, token_mask))

    def predict(
        self,
        noisy: Float[Array, "b h a"],
        time: Float[Array, " b"] | Int[Array, " b"],
        conditioning: Float[Array, "b d"],
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "b h a"]:
        """What the diffusion transformer predicts; see `Denoiser`."""
        return self.dit(noisy, time, conditioning, key)
