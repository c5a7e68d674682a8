"""BDDL predicates, decided from the simulation's state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from household import room
from household.simulation import Simulation


@dataclass(frozen=True)
class Object:
    """An object in bddl's scope.

    Attributes:
        name: BDDL name, which is also the body's name in the simulation.
    """

    name: str


UnaryTest = Callable[[Simulation, Object], bool]
BinaryTest = Callable[[Simulation, Object, Object], bool]


def toggled_on(simulation: Simulation, thing: Object) -> bool:
    """Whether a device is on: the radio is, once a finger has touched its button.

    Args:
        simulation: the simulation.
        thing: a radio receiver.

    Returns:
        True when it is on.
    """
    return thing.name.startswith("radio_receiver") and simulation.radio_on


def inside(simulation: Simulation, thing: Object, container: Object) -> bool:
    """Whether an object's centre lies within the ashcan, below its rim.

    Args:
        simulation: the simulation.
        thing: the object.
        container: an ashcan.

    Returns:
        True when it is inside.
    """
    if not container.name.startswith("ashcan"):
        return False
    offset = simulation.object_pose(thing.name)[:3] - simulation.object_pose(container.name)[:3]
    return bool(np.hypot(offset[0], offset[1]) < room.BIN_RADIUS and 0.0 < offset[2] < room.BIN_HEIGHT)


UNARY: Mapping[str, UnaryTest] = MappingProxyType({"toggled_on": toggled_on})
BINARY: Mapping[str, BinaryTest] = MappingProxyType({"inside": inside})
