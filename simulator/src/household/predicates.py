"""BDDL predicates, decided from the simulation's state.

Definitions follow OmniGibson's where a few shapes allow it: contacts, bounding boxes along the world's axes,
cavities. `docs/household.md` lists them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from household.robot import FloatArray
from household.room import Zone, kind_of
from household.simulation import FLOOR, Simulation

_NEXT_TO_SHARE = 1.0 / 6.0
"""Largest gap between neighbours as a share of the mean edge of their boxes added together (OmniGibson)."""
_OPEN_ANGLE = 0.11
"""A door that is open by more than 5 % of its range counts as open (OmniGibson), in rad."""
_ABOVE = 0.01
"""How far below a surface's height the bottom of what lies on it may be, in metres."""


@dataclass(frozen=True)
class Object:
    """An object in bddl's scope.

    Attributes:
        name: BDDL name, which is also the body's name in the simulation, or the name of a zone.
    """

    name: str


UnaryTest = Callable[[Simulation, Object], bool]
BinaryTest = Callable[[Simulation, Object, Object], bool]


def toggled_on(simulation: Simulation, thing: Object) -> bool:
    """Whether a device is on: it is, once a finger has touched its button."""
    return thing.name in simulation.switched_on


def is_open(simulation: Simulation, thing: Object) -> bool:
    """Whether a door is open by more than 5 % of its range; what has no door is not open."""
    return kind_of(thing.name).door is not None and simulation.door_angle(thing.name) > _OPEN_ANGLE


def inside(simulation: Simulation, thing: Object, container: Object) -> bool:
    """Whether an object's centre lies within a container's cavity."""
    if _zone(simulation, thing) or _zone(simulation, container):
        return False
    cavity = kind_of(container.name).cavity
    if cavity is None:
        return False
    offset = _centre(simulation, thing.name) - simulation.object_pose(container.name)[:3]
    x, y, z = simulation.rotation(container.name).T @ offset
    if cavity.radius is not None:
        within = np.hypot(x, y) < cavity.radius
    else:
        within = cavity.low[0] < x < cavity.high[0] and cavity.low[1] < y < cavity.high[1]
    return bool(within and cavity.low[2] < z < cavity.high[2])


def touching(simulation: Simulation, thing: Object, other: Object) -> bool:
    """Whether two things are in contact; of the floor's parts, with the one below the object."""
    first, second = _zone(simulation, thing), _zone(simulation, other)
    if first is not None or second is not None:
        zone, name = (first, other.name) if first is not None else (second, thing.name)
        both = first is not None and second is not None
        return (
            not both
            and zone is not None
            and simulation.touches(name, FLOOR)
            and _over(simulation, name, zone)
        )
    return simulation.touches(thing.name, other.name)


def ontop(simulation: Simulation, thing: Object, support: Object) -> bool:
    """Whether an object touches a support, its bottom above the support's surface and its centre over it."""
    if _zone(simulation, support) is not None:
        return touching(simulation, thing, support)
    if _zone(simulation, thing) is not None or not simulation.touches(thing.name, support.name):
        return False
    kind = kind_of(support.name)
    if kind.top is None:
        return False
    centre = _centre(simulation, thing.name) - simulation.object_pose(support.name)[:3]
    x, y, _ = simulation.rotation(support.name).T @ centre
    over = kind.low[0] < x < kind.high[0] and kind.low[1] < y < kind.high[1]
    surface = simulation.to_world(support.name, (0, 0, kind.top))[2]
    return bool(over and bounds(simulation, thing.name)[0][2] > surface - _ABOVE)


def nextto(simulation: Simulation, thing: Object, other: Object) -> bool:
    """Whether two boxes at a common height have a small gap, neither's middle being over the other."""
    if _zone(simulation, thing) or _zone(simulation, other):
        return False
    (low_a, high_a), (low_b, high_b) = bounds(simulation, thing.name), bounds(simulation, other.name)
    gaps = np.maximum(0.0, np.maximum(low_a - high_b, low_b - high_a))
    limit = _NEXT_TO_SHARE * float(np.mean(high_a - low_a + high_b - low_b))
    apart = not _within((low_a + high_a) / 2, low_b, high_b) and not _within(
        (low_b + high_b) / 2, low_a, high_a
    )
    return bool(gaps[2] == 0.0 and apart and np.linalg.norm(gaps) <= limit)


def under(simulation: Simulation, thing: Object, other: Object) -> bool:
    """Whether an object's centre is below furniture and its top below the furniture's underside."""
    if _zone(simulation, thing) or _zone(simulation, other):
        return False
    clearance = kind_of(other.name).clearance
    if clearance is None:
        return False
    low, high = bounds(simulation, other.name)
    centre = _centre(simulation, thing.name)
    return _within(centre, low, high) and bool(bounds(simulation, thing.name)[1][2] < low[2] + clearance)


def attached(simulation: Simulation, thing: Object, other: Object) -> bool:
    """Whether an object's mount is held by the other's socket."""
    return (thing.name, other.name) in simulation.mounts.attached


def bounds(simulation: Simulation, name: str) -> tuple[FloatArray, FloatArray]:
    """An object's bounding box along the world's axes.

    Args:
        simulation: the simulation.
        name: BDDL name of an object.

    Returns:
        Its lowest and its highest corner, [3] each, in metres.
    """
    kind = kind_of(name)
    half = (np.array(kind.high) - np.array(kind.low)) / 2
    middle = _centre(simulation, name)
    reach = np.abs(simulation.rotation(name)) @ half
    return middle - reach, middle + reach


def _centre(simulation: Simulation, name: str) -> FloatArray:
    kind = kind_of(name)
    return simulation.to_world(name, (np.array(kind.low) + np.array(kind.high)) / 2)


def _within(point: FloatArray, low: FloatArray, high: FloatArray) -> bool:
    """Whether a point is over or under a box."""
    return bool((low[:2] < point[:2]).all() and (point[:2] < high[:2]).all())


def _zone(simulation: Simulation, thing: Object) -> Zone | None:
    return next((zone for zone in simulation.task.zones if zone.name == thing.name), None)


def _over(simulation: Simulation, name: str, zone: Zone) -> bool:
    offset = np.abs(_centre(simulation, name)[:2] - np.array(zone.centre))
    return bool((offset < np.array(zone.half)).all())


UNARY: Mapping[str, UnaryTest] = MappingProxyType({"toggled_on": toggled_on, "open": is_open})
BINARY: Mapping[str, BinaryTest] = MappingProxyType(
    {
        "inside": inside,
        "touching": touching,
        "ontop": ontop,
        "nextto": nextto,
        "under": under,
        "attached": attached,
    }
)
