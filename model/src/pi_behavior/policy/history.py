"""The last observations of an episode, for policies that read several."""

from collections import deque
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T", bound=np.ndarray)


class History(Generic[T]):
    """The last few values of something that changes with every control step.

    The first value counts for all steps before it.

    Args:
        steps: how many values to keep.
    """

    def __init__(self, steps: int) -> None:
        self._values: deque[T] = deque(maxlen=steps)

    def append(self, value: T) -> None:
        """Take the value of a new step."""
        if not self._values:
            self._values.extend([value] * ((self._values.maxlen or 1) - 1))
        self._values.append(value)

    def window(self) -> np.ndarray:
        """The kept values, the oldest first, stacked along a new leading axis."""
        return np.stack(list(self._values))
