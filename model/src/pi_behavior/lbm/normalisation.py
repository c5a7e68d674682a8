"""How states and actions are scaled for the network: by extremes (LeRobot) or by percentiles (TRI).

Axes: k steps of a chunk, d dimensions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

_SMALLEST_RANGE = np.float32(1e-8)
PERCENTILE_LIMIT = 1.5
"""Largest magnitude of a value that was scaled by percentiles."""


@dataclass(frozen=True)
class Range:
    """A linear map that takes `low` to -1 and `high` to 1, per dimension, or per step and dimension."""

    low: Float32[np.ndarray, "*k d"]
    high: Float32[np.ndarray, "*k d"]
    limit: float = np.inf
    """Magnitude that scaled values are clipped to."""

    @property
    def _width(self) -> Float32[np.ndarray, "*k d"]:
        return np.where(self.high == self.low, _SMALLEST_RANGE, self.high - self.low)

    def normalise(self, values: Float[np.ndarray, "*b d"]) -> Float32[np.ndarray, "*b d"]:
        """Scale, in float32.

        A constant dimension gives -1. Where such a dimension changes after all, by 0.001, the original's
        arithmetic gives 200,000: use `safe` in a product.
        """
        x = np.asarray(values, np.float32)
        scaled = np.float32(2.0) * (x - self.low) / self._width - np.float32(1.0)
        return np.clip(scaled, -self.limit, self.limit).astype(np.float32)

    def safe(self, values: Float[np.ndarray, "*b d"]) -> Float32[np.ndarray, "*b d"]:
        """As `normalise`, with -1 for constant dimensions whatever their values."""
        return np.where(self.high == self.low, np.float32(-1.0), self.normalise(values))

    def unnormalise(self, values: Float[np.ndarray, "*b d"]) -> Float32[np.ndarray, "*b d"]:
        """Invert `normalise`, in float32; a constant dimension comes back as its value."""
        x = np.asarray(values, np.float32)
        return ((x + np.float32(1.0)) / np.float32(2.0) * self._width + self.low).astype(np.float32)
