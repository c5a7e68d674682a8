"""Faults on demand, to test what supervises evaluators: real ones crash, hang and leak memory.

HOUSEHOLD_FAULTS lists them with spaces between: `crash@12` ends the process at control step 12 of a rollout,
as a segmentation fault of a simulator would; `hang@12` stops it there forever; `leak=50` allocates 50 MB more
after every rollout. With HOUSEHOLD_FAULT_MARKER, the path of a file, crash and hang happen once: the
file is made just before, and where it exists nothing happens.
"""

import os
import re
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from household.files import write_text

_FAULT = re.compile(r"(crash|hang)@(\d+)|leak=(\d+)")
_SEGMENTATION_FAULT = 139


class Faults:
    """The faults that the environment asks for; none where it asks for none.

    Raises:
        ValueError: HOUSEHOLD_FAULTS cannot be read.
    """

    def __init__(self) -> None:
        self._at: dict[int, str] = {}
        self._leak = 0
        self._leaked: list[npt.NDArray[np.uint8]] = []
        self._marker = os.environ.get("HOUSEHOLD_FAULT_MARKER", "")
        for word in os.environ.get("HOUSEHOLD_FAULTS", "").split():
            match = _FAULT.fullmatch(word)
            if match is None:
                raise ValueError(
                    f"HOUSEHOLD_FAULTS has {word!r}; expected crash@STEP, hang@STEP or leak=MEGABYTES"
                )
            if match[1]:
                self._at[int(match[2])] = match[1]
            else:
                self._leak = int(match[3])

    def step(self, number: int) -> None:
        """Crash or hang here, if that is due.

        Args:
            number: control step of the rollout, from 1.
        """
        fault = self._at.get(number)
        if fault is None or (self._marker and Path(self._marker).exists()):
            return
        if self._marker:
            write_text(Path(self._marker), f"{fault} at step {number}\n")
        if fault == "crash":
            os._exit(_SEGMENTATION_FAULT)
        while True:
            time.sleep(3600)

    def rollout(self) -> None:
        """Leak after a rollout, if that is due."""
        if self._leak:
            # written to, so that the memory is really taken
            self._leaked.append(np.ones(self._leak * 2**20, np.uint8))
