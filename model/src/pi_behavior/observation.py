"""Observations and FAST tokens as the network sees them; resizing and augmentation of images.

Axes: b batch, s earlier steps, h height, w width, c colour, d 32 dimensions, t 30 steps, f FAST tokens.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, UInt8

from pi_behavior.layout import CAMERAS


@struct.dataclass
class Earlier:
    """Observations of the steps before, the oldest first; before its start an episode repeats its first."""

    images: dict[str, UInt8[Array, "b s h w 3"]]
    state: Float[Array, "b s 32"]


@struct.dataclass
class Observation:
    """What the policy sees at one control step."""

    images: dict[str, UInt8[Array, "b h w 3"]]
    """RGB images by camera, in layout.CAMERAS."""
    state: Float[Array, "b 32"]
    """Normalised state, zero-padded from 23."""
    task: Int[Array, " b"]
    """Task index."""
    stage: Int[Array, " b"]
    """Stage: the true one in training, the voted one in use."""
    earlier: Earlier | None = None
    """What was seen before, for networks that read several observations."""


@struct.dataclass
class FastTokens:
    """FAST tokens of a chunk, for the auxiliary loss."""

    tokens: Int[Array, "b f"]
    mask: Bool[Array, "b f"]
    """True for tokens, False for padding."""


def image_to_float(image: UInt8[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """Map bytes to [-1, 1]."""
    return image.astype(jnp.float32) / 255.0 * 2.0 - 1.0


def resize_with_padding(image: UInt8[Array, "*b h w 3"], size: int) -> UInt8[Array, "*b s s 3"]:
    """Resize to a square, keeping the aspect ratio, with black padding; no change where the size is right."""
    *batch, height, width, channels = image.shape
    if height == width == size:
        return image
    scale = size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    resized = jax.image.resize(
        image.astype(jnp.float32), (*batch, new_height, new_width, channels), method="linear"
    )
    top, left = (size - new_height) // 2, (size - new_width) // 2
    padding = [(0, 0)] * len(batch) + [
        (top, size - new_height - top),
        (left, size - new_width - left),
        (0, 0),
    ]
    return jnp.pad(jnp.round(resized.clip(0, 255)).astype(jnp.uint8), padding)


def _crop_and_rotate(key: PRNGKeyArray, image: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    """Random 95 % crop resized back, and rotation by up to 5 degrees, as one linear resampling."""
    crop_key, angle_key = jax.random.split(key)
    height, width, _ = image.shape
    keep = 0.95
    shift = jax.random.uniform(crop_key, (2,)) * (1 - keep)
    angle = jax.random.uniform(angle_key, (), minval=-5.0, maxval=5.0) * jnp.pi / 180.0
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    y, x = rows - (height - 1) / 2, columns - (width - 1) / 2
    turned_y = jnp.cos(angle) * y - jnp.sin(angle) * x + (height - 1) / 2
    turned_x = jnp.sin(angle) * y + jnp.cos(angle) * x + (width - 1) / 2
    source = jnp.stack([turned_y * keep + shift[0] * height, turned_x * keep + shift[1] * width])
    sample = jax.vmap(
        lambda channel: jax.scipy.ndimage.map_coordinates(channel, list(source), order=1, mode="nearest"),
        in_axes=-1,
        out_axes=-1,
    )
    return sample(image)


def _jitter_colours(key: PRNGKeyArray, image: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    """Random brightness (0.3), contrast (0.4) and saturation (0.5); image in [0, 1]."""
    brightness, contrast, saturation = 1.0 + jax.random.uniform(key, (3,), minval=-1.0) * jnp.array(
        [0.3, 0.4, 0.5]
    )
    image = image * brightness
    image = (image - image.mean()) * contrast + image.mean()
    grey = image @ jnp.array([0.299, 0.587, 0.114])
    return ((image - grey[..., None]) * saturation + grey[..., None]).clip(0.0, 1.0)


def augment(keys: Key[Array, " b"], observation: Observation) -> Observation:
    """Augment images for training, independently per sample and camera.

    The head camera is cropped to 95 %, resized back and rotated by up to 5 degrees; all cameras change in
    brightness, contrast and saturation; earlier images change as the current one does. Source: the published
    run's settings.

    Args:
        keys: one random key per sample, so that a sample's draws do not depend on the others.
        observation: a batch.
    """

    def one(key: PRNGKeyArray, image: UInt8[Array, "h w 3"], *, crop: bool) -> UInt8[Array, "h w 3"]:
        crop_key, colour_key = jax.random.split(key)
        scaled = image.astype(jnp.float32) / 255.0
        changed = _jitter_colours(colour_key, _crop_and_rotate(crop_key, scaled) if crop else scaled)
        return jnp.round(changed * 255.0).astype(jnp.uint8)

    images, past, earlier = {}, {}, observation.earlier
    for index, camera in enumerate(CAMERAS):
        own = jax.vmap(partial(jax.random.fold_in, data=index))(keys)
        change = partial(one, crop=camera == "head")
        images[camera] = jax.vmap(change)(own, observation.images[camera])
        if earlier is not None:
            past[camera] = jax.vmap(jax.vmap(change, (None, 0)))(own, earlier.images[camera])
    earlier = earlier and replace(earlier, images=past)
    return replace(observation, images=images, earlier=earlier)
