"""From camera bytes to the vision encoder's input: normalise, then resize, then crop.

Axes: b batch, s observation steps, c cameras, h rows, w columns. Also the colour jitter of TRI's training.
"""

import logging
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from pi_behavior.layout import ACTION_DIM, CAMERAS
from pi_behavior.lbm.config import LbmConfig
from pi_behavior.observation import Observation

logger = logging.getLogger(__name__)

PIXELS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and deviation of the colours, of bytes / 255."""
JITTER = {"brightness": (0.8, 1.2), "contrast": (0.6, 1.4), "saturation": (0.8, 1.2)}
"""Ranges of the factors of TRI's colour jitter; the hue turns by up to HUE of a full circle."""
HUE = 0.05


def windows(observation: Observation) -> tuple[UInt8[Array, "b s c h w 3"], Float[Array, "b s 23"]]:
    """Images of all cameras and states, the oldest step first."""
    earlier = observation.earlier
    images = jnp.stack([observation.images[camera] for camera in CAMERAS], axis=1)[:, None]
    state = observation.state[:, None]
    if earlier is not None:
        before = jnp.stack([earlier.images[camera] for camera in CAMERAS], axis=2)
        images = jnp.concatenate([before, images], axis=1)
        state = jnp.concatenate([earlier.state, state], axis=1)
    return images, state[..., :ACTION_DIM]


def normalise_pixels(
    images: UInt8[Array, "*b h w 3"] | Float[Array, "*b h w 3"], kind: Literal["imagenet", "clip"]
) -> Float[Array, "*b h w 3"]:
    """Scale bytes, or floats in [0, 255], to about zero mean and unit deviation."""
    mean, std = (jnp.array(values, jnp.float32) for values in PIXELS[kind])
    return (images.astype(jnp.float32) / 255.0 - mean) / (std + 1e-8)


def resize(images: Float[Array, "*b h w 3"], size: tuple[int, ...]) -> Float[Array, "*b r c 3"]:
    """Resize to rows and columns, without keeping the aspect ratio; antialiased where it shrinks."""
    shape = (*images.shape[:-3], *size, 3)
    if not size or shape == images.shape:
        return images
    return jax.image.resize(images, shape, method="bilinear", antialias=True)


def crop(
    images: Float[Array, "*b h w 3"],
    size: tuple[int, ...],
    offset: Int[Array, " 2"] | None = None,
) -> Float[Array, "*b r c 3"]:
    """Cut out rows and columns; where they do not fit, the images stay whole.

    Args:
        images: of any size.
        size: rows and columns; empty for none.
        offset: top and left; None takes the centre, with halves rounded to even numbers.
    """
    height, width = images.shape[-3:-1]
    if not size:
        return images
    if size[0] > height or size[1] > width:
        logger.warning("images of %d x %d are smaller than the crop %d x %d", height, width, *size)
        return images
    if offset is None:
        offset = jnp.array([round((height - size[0]) / 2), round((width - size[1]) / 2)])
    axis = images.ndim - 3
    rows = jax.lax.dynamic_slice_in_dim(images, offset[0], size[0], axis)
    return jax.lax.dynamic_slice_in_dim(rows, offset[1], size[1], axis + 1)


def random_offset(key: PRNGKeyArray, height: int, width: int, size: tuple[int, ...]) -> Int[Array, " 2"]:
    """A place for a crop, uniform over all places where it fits, first and last included."""
    rows, columns = size or (height, width)
    most = jnp.array([max(height - rows, 0), max(width - columns, 0)])
    return jax.random.randint(key, (2,), 0, most + 1)


def preprocess(
    config: LbmConfig,
    images: UInt8[Array, "*b h w 3"] | Float[Array, "*b h w 3"],
    *,
    offset: Int[Array, " 2"] | None = None,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "*b r c 3"]:
    """What the vision encoder reads.

    Args:
        config: the policy.
        images: bytes, or floats in [0, 255].
        offset: top and left of the crop.
        key: without an offset, for one that is drawn for the whole call; None takes the centre.

    Raises:
        ValueError: the result does not have the vision encoder's size.
    """
    resized = resize(normalise_pixels(images, config.pixels), config.resize)
    if offset is None and key is not None and config.random_crop:
        height, width = resized.shape[-3:-1]
        offset = random_offset(key, height, width, config.crop)
    result = crop(resized, config.crop, offset)
    side = config.vision.image_size
    if result.shape[-3:-1] != (side, side):
        raise ValueError(
            f"images of {images.shape[-3]} x {images.shape[-2]} become {result.shape[-3]} x "
            f"{result.shape[-2]}; the vision encoder expects {side} x {side}: set resize and crop for that"
        )
    return result


def jitter(key: PRNGKeyArray, image: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
    """Change brightness, contrast, saturation and hue of an image in [0, 1] at random."""
    keys = jax.random.split(key, 4)
    brightness, contrast, saturation = (
        jax.random.uniform(k, (), minval=low, maxval=high)
        for k, (low, high) in zip(keys, JITTER.values(), strict=False)
    )
    grey = jnp.array([0.299, 0.587, 0.114])
    image = (image * brightness).clip(0.0, 1.0)
    mean = (image @ grey).mean()
    image = ((image - mean) * contrast + mean).clip(0.0, 1.0)
    level = (image @ grey)[..., None]
    image = ((image - level) * saturation + level).clip(0.0, 1.0)
    return _turn_hue(image, jax.random.uniform(keys[3], (), minval=-HUE, maxval=HUE))


def _turn_hue(image: Float[Array, "h w 3"], turn: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Turn colours about the grey axis in the YIQ space, by a share of the full circle."""
    to_yiq = jnp.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    angle = 2 * jnp.pi * turn
    zero, one = jnp.zeros(()), jnp.ones(())
    rotation = jnp.array(
        [[one, zero, zero], [zero, jnp.cos(angle), -jnp.sin(angle)], [zero, jnp.sin(angle), jnp.cos(angle)]]
    )
    return (image @ (jnp.linalg.inv(to_yiq) @ rotation @ to_yiq).T).clip(0.0, 1.0)
