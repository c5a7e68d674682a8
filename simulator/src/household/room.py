"""The rooms as MJCF: their shells, the objects of a task, the robot.

World frame: the robot starts near the origin and looks along +x; z is up; metres. Floors that a goal names
are zones: marked rectangles of the only floor.
"""

from dataclasses import dataclass
from importlib import resources

from household.furnishings import FURNISHINGS
from household.movables import MOVABLES
from household.objects import Kind, category
from household.robot import SIDES
from household.robot_model import robot_actuators, robot_body
from household.shapes import box, colour, cylinder, rod

TABLE_HEIGHT = 0.45
"""Height of the living room's own table."""
KINDS: dict[str, Kind] = {**MOVABLES, **FURNISHINGS}
"""Kinds of objects by category."""


@dataclass(frozen=True)
class Zone:
    """A named part of the floor.

    Attributes:
        name: BDDL name, for example "floor.n.01_2".
        centre: x, y in metres.
        half: half-sizes in x and y.
        tint: colour of the mat that marks it; None where it is the whole room's floor.
    """

    name: str
    centre: tuple[float, float] = (0.0, 0.0)
    half: tuple[float, float] = (4.0, 4.0)
    tint: str | None = None


def kind_of(name: str) -> Kind:
    """The kind of an object.

    Args:
        name: BDDL name.

    Returns:
        Its kind.

    Raises:
        KeyError: the simulator has no such kind.
    """
    return KINDS[category(name)]


@dataclass(frozen=True)
class _Shell:
    """Colours of a room's floor (two, a checkerboard) and walls, and what decorates it."""

    floor: tuple[str, str]
    walls: str
    decoration: str = ""


def _garden() -> str:
    fence = "".join(
        box((0.02, 0.07, 0.4), (2.2, y / 5, 0.4), "pine") + box((0.02, 0.07, 0.4), (2.2, -y / 5, 0.4), "pine")
        for y in range(13)
    )
    rails = box((0.015, 2.6, 0.04), (2.23, 0, 0.6), "wood") + box((0.015, 2.6, 0.04), (2.23, 0, 0.2), "wood")
    flowers = "".join(
        rod((1.9, y, 0), (1.9, y, 0.22), 0.008, "leaf") + cylinder(0.04, 0.01, (1.9, y, 0.23), tint)
        for y, tint in ((-1.3, "red"), (-1.1, "yellow"), (-0.9, "pink"), (1.0, "purple"), (1.2, "red"))
    )
    return fence + rails + flowers


def _window() -> str:
    frame = box((0.01, 0.36, 0.36), (2.24, 0.1, 1.5), "white") + box(
        (0.01, 0.31, 0.31), (2.23, 0.1, 1.5), "sky"
    )
    return frame + box((0.01, 0.012, 0.31), (2.225, 0.1, 1.5), "white")


_SHELLS = {
    "childs_room": _Shell(("0.86 0.80 0.66", "0.82 0.76 0.62"), "0.93 0.86 0.70", _window()),
    "bedroom": _Shell(("0.62 0.58 0.66", "0.60 0.56 0.64"), "0.82 0.84 0.90", _window()),
    "study": _Shell(("0.50 0.36 0.24", "0.47 0.33 0.22"), "0.74 0.80 0.74", _window()),
    "bathroom": _Shell(("0.86 0.90 0.92", "0.66 0.76 0.82"), "0.80 0.90 0.92"),
    "kitchen": _Shell(("0.90 0.88 0.84", "0.52 0.50 0.50"), "0.92 0.88 0.76"),
    "corridor": _Shell(("0.58 0.44 0.30", "0.54 0.41 0.28"), "0.88 0.82 0.76"),
    "garage": _Shell(("0.62 0.62 0.62", "0.60 0.60 0.60"), "0.76 0.76 0.74"),
    "garden": _Shell(("0.36 0.58 0.26", "0.33 0.55 0.24"), "0.60 0.78 0.94", _garden()),
}
LIVING_ROOM = "living_room"
ROOMS = (LIVING_ROOM, *_SHELLS)
"""Rooms that a task may be in."""


def _living_room() -> str:
    """Floor, walls, rug, table, sofa, shelf and plant; they never change, so they are in a file."""
    text = resources.files("household").joinpath("furniture.xml").read_text(encoding="utf-8")
    return text[text.index("<furniture>") + len("<furniture>") : text.index("</furniture>")]


def _shell(room: str) -> str:
    if room == LIVING_ROOM:
        return _living_room()
    shell = _SHELLS[room]
    walls = "".join(
        f'<geom type="box" size="{size}" pos="{at}" rgba="{shell.walls} 1" class="visual"/>'
        for size, at in (
            ("0.05 3 1.4", "2.3 0 1.4"),
            ("3 0.05 1.4", "0.5 2.6 1.4"),
            ("3 0.05 1.4", "0.5 -2.6 1.4"),
        )
    )
    return (
        '<geom name="floor" type="plane" size="4 4 0.1" material="floor" class="solid"/>'
        + walls
        + shell.decoration
    )


def _floor_colours(room: str) -> tuple[str, str]:
    return ("0.72 0.58 0.42", "0.68 0.54 0.39") if room == LIVING_ROOM else _SHELLS[room].floor


def _object(name: str) -> str:
    kind = kind_of(name)
    joint = f'<freejoint name="{name}"/>' if kind.free else ""
    return f'<body name="{name}">{joint}{kind.geoms(name)}</body>'


def _mat(zone: Zone) -> str:
    if zone.tint is None:
        return ""
    (x, y), (hx, hy) = zone.centre, zone.half
    return (
        f'<geom type="box" size="{hx} {hy} 0.0015" pos="{x} {y} 0.0015" rgba="{colour(zone.tint)}"'
        ' class="visual"/>'
    )


def grasp_weld(side: str, name: str) -> str:
    """Name of the constraint that holds an object in a hand.

    Args:
        side: "left" or "right".
        name: the object.

    Returns:
        The equality constraint's name.
    """
    return f"{side}_holds_{name}"


def mount_weld(child: str, parent: str) -> str:
    """Name of the constraint that holds an object on another's socket.

    Args:
        child: the object with the mount.
        parent: the object with the socket.

    Returns:
        The equality constraint's name.
    """
    return f"{child}_on_{parent}"


def mountable(objects: tuple[str, ...]) -> list[tuple[str, str]]:
    """Which objects can be attached to which.

    Args:
        objects: names of the objects that are present.

    Returns:
        Pairs (object with the mount, object with the socket that it fits).
    """
    return [(a, b) for a in objects for b in objects if kind_of(a).fits == category(b)]


def _constraints(objects: tuple[str, ...]) -> str:
    """Inactive welds for grasps and attachments; fingers do not collide with what they can hold."""
    held = [name for name in objects if kind_of(name).grasp is not None]
    welds = [
        f'<weld name="{grasp_weld(side, name)}" body1="{side}_hand" body2="{name}" active="false"'
        f' solref="0.01 1" torquescale="0.3"/>'
        for name in held
        for side in SIDES
    ]
    welds += [
        f'<weld name="{mount_weld(child, parent)}" body1="{parent}" body2="{child}" active="false"'
        f' solref="0.02 1"/>'
        for child, parent in mountable(objects)
    ]
    # The assisted grasp holds the object; fingers that also collided with it would first tip it over.
    pairs = [(f"{side}_finger{i}", name) for name in held for side in SIDES for i in (1, 2)]
    excluded = "".join(f'<exclude body1="{a}" body2="{b}"/>' for a, b in pairs)
    if not welds:
        return ""
    return f"<equality>{''.join(welds)}</equality><contact>{excluded}</contact>"


def scene_xml(room: str, objects: tuple[str, ...], zones: tuple[Zone, ...]) -> str:
    """Write the whole scene.

    Args:
        room: one of `ROOMS`.
        objects: BDDL names of the task's objects to place in the room.
        zones: named parts of the floor.

    Returns:
        MJCF text.
    """
    first, second = _floor_colours(room)
    return f"""
<mujoco model="household">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{1 / 120}" integrator="implicitfast" cone="elliptic" impratio="5"/>
  <visual>
    <quality shadowsize="0" offsamples="0"/>
    <map znear="0.01" zfar="20"/>
    <headlight ambient="0.45 0.45 0.45" diffuse="0.35 0.35 0.35" specular="0.05 0.05 0.05"/>
    <global offwidth="512" offheight="512"/>
  </visual>
  <default>
    <default class="visual"><geom contype="0" conaffinity="0"/></default>
    <default class="solid"><geom contype="2" conaffinity="1"/></default>
    <default class="object"><geom contype="3" conaffinity="3"/></default>
    <default class="hand"><geom contype="1" conaffinity="1" friction="1.5 0.05 0.001" condim="4"/></default>
  </default>
  <asset>
    <texture name="floor" type="2d" builtin="checker" rgb1="{first}" rgb2="{second}"
      width="128" height="128"/>
    <material name="floor" texture="floor" texrepeat="10 10" reflectance="0"/>
    <material name="wood" rgba="0.55 0.38 0.24 1" specular="0.1" shininess="0.1"/>
  </asset>
  <worldbody>
    <light pos="0.2 0.8 3" dir="0.2 -0.2 -1" directional="true"
      diffuse="0.45 0.45 0.42" specular="0.1 0.1 0.1"/>
    {_shell(room)}
    {"".join(_mat(zone) for zone in zones)}
    {"".join(_object(name) for name in objects)}
    {robot_body()}
  </worldbody>
  {_constraints(objects)}
  <actuator>{robot_actuators()}</actuator>
</mujoco>"""
