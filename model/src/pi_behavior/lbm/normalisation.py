"""How states and actions are scaled for the network: by extremes (LeRobot) or by percentiles (TRI).

Axes: k steps of a chunk, d dimensions.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from pi_behavior.files import write_atomic

RANGES = "ranges.json"

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


@dataclass(frozen=True)
class Ranges:
    """The scales of states and actions: what a policy needs of the demonstrations besides its weights."""

    state: Range
    action: Range

    def save(self, folder: Path) -> None:
        """Write `ranges.json`; it appears whole or not at all."""
        text = json.dumps({name: _document(getattr(self, name)) for name in ("state", "action")})
        write_atomic(folder / RANGES, text)

    @classmethod
    def load(cls, folder: Path) -> "Ranges":
        """Read what `save` wrote.

        Raises:
            ValueError: the file cannot be read, or an entry is missing or of the wrong shape.
        """
        file = folder / RANGES
        try:
            document = json.loads(file.read_text())
            return cls(**{name: _range(document[name]) for name in ("state", "action")})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"cannot read the scales of state and action from {file}: {error}") from error


def _document(scale: Range) -> dict[str, Any]:
    limit = None if np.isinf(scale.limit) else scale.limit
    return {"low": scale.low.tolist(), "high": scale.high.tolist(), "limit": limit}


def _range(document: dict[str, Any]) -> Range:
    low, high = (np.array(document[name], np.float32) for name in ("low", "high"))
    if low.shape != high.shape or not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
        raise ValueError(f"low and high, of shapes {low.shape} and {high.shape}, are no ranges")
    limit = document.get("limit")
    return Range(low, high, np.inf if limit is None else float(limit))
