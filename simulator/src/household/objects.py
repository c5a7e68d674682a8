"""Kinds of objects: their shape, how they are held, what they can hold or carry.

Frames: a movable object's frame is at its centre, a piece of furniture's on the floor below its middle; z is
up. Lengths in metres, angles in rad.
"""

from collections.abc import Callable
from dataclasses import dataclass

from household.shapes import Vector


@dataclass(frozen=True)
class Grasp:
    """How a hand holds an object.

    Attributes:
        point: middle of the part that fits between the fingers, in the object's frame.
        reach: half-sizes of that part: any of its points may be between the fingertips.
        half_gap: half the distance between fingers that touch it.
        turns: whether the hand turns with the object, so that the fingers close along the object's y axis.
    """

    point: Vector
    reach: Vector
    half_gap: float
    turns: bool = True


@dataclass(frozen=True)
class Cavity:
    """The space inside a container, in its frame: a box, or a cylinder where `radius` is given.

    Attributes:
        low: lowest corner.
        high: highest corner.
        radius: the cylinder's radius, or None.
    """

    low: Vector
    high: Vector
    radius: float | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        geoms: makes the MJCF inside of the body of an object with the given name.
        low: lowest corner of its bounding box, in its frame.
        high: highest corner.
        grasp: how it is held; None for what no hand can pick up.
        free: whether it can move; what cannot stands where the instance puts it.
        cavity: the space inside, for containers.
        top: height of the surface that carries things, in its frame, for supports.
        clearance: height of its underside, for furniture that things can be under.
        button: name of the geom that switches it on when a finger touches it.
        door: name of its door's hinge; 0 is closed.
        mount: point that fits a socket, in its frame.
        fits: category of the objects whose socket its mount fits.
        socket: point where a mount is held.
    """

    geoms: Callable[[str], str]
    low: Vector
    high: Vector
    grasp: Grasp | None = None
    free: bool = False
    cavity: Cavity | None = None
    top: float | None = None
    clearance: float | None = None
    button: str | None = None
    door: str | None = None
    mount: Vector | None = None
    fits: str | None = None
    socket: Vector | None = None


def category(name: str) -> str:
    """The category of an object.

    Args:
        name: BDDL name, for example "can__of__soda.n.01_1".

    Returns:
        For example "can__of__soda.n.01".
    """
    return name.rsplit("_", 1)[0]


def number(name: str) -> int:
    """Which one of its category an object is.

    Args:
        name: BDDL name, for example "can__of__soda.n.01_1".

    Returns:
        For example 1.
    """
    return int(name.rsplit("_", 1)[1])
