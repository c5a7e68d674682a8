"""Depth videos: a logarithmic code in one channel, as the demonstrations of 2026 have it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt16

from pi_behavior.data.meta import DatasetError


@dataclass(frozen=True)
class DepthScale:
    """How codes become metres."""

    minimum: float
    """Metres of code 0."""
    maximum: float
    """Metres of the largest code."""
    shift: float
    """Metres that are added before the logarithm."""
    largest: int
    """The largest code."""

    @classmethod
    def from_feature(cls, where: str, feature: Mapping[str, Any]) -> "DepthScale":
        """Read a feature of `meta/info.json`.

        Raises:
            DatasetError: the feature is no depth video with a logarithmic code.
        """
        info = feature.get("info") or {}
        bits = {"gray12le": 12, "gray10le": 10, "gray16le": 16}.get(str(info.get("video.pix_fmt")))
        names = ("video.depth_min", "video.depth_max", "video.shift")
        if bits is None or not info.get("video.use_log") or any(info.get(name) is None for name in names):
            raise DatasetError(
                f"{where}: {info}; expected a depth video with {', '.join(names)}, video.use_log true and "
                "video.pix_fmt gray12le"
            )
        minimum, maximum, shift = (float(info[name]) for name in names)
        return cls(minimum, maximum, shift, 2**bits - 1)

    def metres(self, codes: UInt16[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """Metres, from the minimum to the maximum."""
        low, high = log(self.minimum + self.shift), log(self.maximum + self.shift)
        depth = np.exp(codes * ((high - low) / self.largest) + low) - self.shift
        return np.clip(depth, self.minimum, self.maximum).astype(np.float32)
