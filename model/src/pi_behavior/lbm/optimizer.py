"""The schedule of the learning rate."""

import numpy as np
from jaxtyping import Float, Int


def rate_factor(step: Int[np.ndarray, "*b"], steps: int, warmup: int) -> Float[np.ndarray, "*b"]:
    """Factor of the learning rate: linear warm-up from 0, then a cosine from 1 down to 0 at the last step."""
    cosine = 0.5 * (1.0 + np.cos(np.pi * (step - warmup) / max(steps - warmup, 1)))
    found: np.ndarray = np.where(step < warmup, step / max(warmup, 1), cosine)
    return found
