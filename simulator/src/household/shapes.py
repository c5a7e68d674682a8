"""MJCF text of simple shapes, for the makers of objects and furniture. Lengths in metres, angles in rad."""

from typing import Literal

Vector = tuple[float, float, float]
Collision = Literal["visual", "solid", "object"]
"""visual: collides with nothing. solid: stops hands and objects. object: also stops other objects."""


def colour(name: str) -> str:
    """Look a colour up.

    Args:
        name: one of the palette's names.

    Returns:
        "r g b 1" for MJCF.
    """
    return f"{_PALETTE[name]} 1"


_PALETTE = {
    "red": "0.85 0.12 0.10",
    "orange": "0.95 0.55 0.12",
    "yellow": "0.95 0.82 0.20",
    "green": "0.20 0.60 0.25",
    "leaf": "0.16 0.42 0.18",
    "blue": "0.15 0.35 0.80",
    "sky": "0.45 0.70 0.92",
    "purple": "0.50 0.25 0.60",
    "pink": "0.95 0.55 0.70",
    "white": "0.95 0.95 0.94",
    "cream": "0.92 0.87 0.74",
    "grey": "0.60 0.62 0.65",
    "steel": "0.75 0.77 0.80",
    "dark": "0.15 0.16 0.18",
    "wood": "0.55 0.38 0.24",
    "pine": "0.78 0.60 0.38",
    "walnut": "0.35 0.23 0.14",
    "cardboard": "0.74 0.56 0.36",
    "straw": "0.80 0.66 0.40",
}


def box(
    half: Vector,
    at: Vector,
    tint: str,
    collision: Collision = "visual",
    *,
    mass: float = 0.0,
    name: str = "",
    extra: str = "",
) -> str:
    """A box.

    Args:
        half: half-sizes.
        at: centre in the body's frame.
        tint: name of a colour.
        collision: what it collides with.
        mass: kilograms; only free bodies need one.
        name: name of the geom, or nothing.
        extra: further MJCF attributes.

    Returns:
        MJCF text.
    """
    return _geom("box", half, at, tint, collision, mass, name, extra)


def cylinder(
    radius: float,
    half: float,
    at: Vector,
    tint: str,
    collision: Collision = "visual",
    *,
    mass: float = 0.0,
    name: str = "",
    extra: str = "",
) -> str:
    """A cylinder along z: radius and half-height; the rest as `box`."""
    return _geom("cylinder", (radius, half), at, tint, collision, mass, name, extra)


def ellipsoid(
    half: Vector,
    at: Vector,
    tint: str,
    collision: Collision = "visual",
    *,
    mass: float = 0.0,
    extra: str = "",
) -> str:
    """An ellipsoid: half-axes; the rest as `box`."""
    return _geom("ellipsoid", half, at, tint, collision, mass, "", extra)


def rod(start: Vector, end: Vector, radius: float, tint: str, collision: Collision = "visual") -> str:
    """A rod with round ends from one point to another."""
    ends = " ".join(f"{v:g}" for v in (*start, *end))
    return (
        f'<geom type="capsule" size="{radius:g}" fromto="{ends}" rgba="{colour(tint)}" mass="0"'
        f' class="{collision}"/>'
    )


def tray(half: tuple[float, float], height: float, wall: float, tint: str) -> str:
    """An open box on the floor of its frame: a bottom and four solid walls.

    Args:
        half: inner half-sizes.
        height: height of the rim.
        wall: half-thickness of the walls.
        tint: name of a colour.

    Returns:
        MJCF text.
    """
    x, y = half
    middle = height / 2
    return "".join(
        [
            box((x, y, 0.006), (0, 0, 0.006), tint, "solid"),
            box((wall, y + 2 * wall, middle), (x + wall, 0, middle), tint, "solid"),
            box((wall, y + 2 * wall, middle), (-x - wall, 0, middle), tint, "solid"),
            box((x, wall, middle), (0, y + wall, middle), tint, "solid"),
            box((x, wall, middle), (0, -y - wall, middle), tint, "solid"),
        ]
    )


def _geom(
    shape: str,
    size: tuple[float, ...],
    at: Vector,
    tint: str,
    collision: Collision,
    mass: float,
    name: str,
    extra: str,
) -> str:
    sizes, centre = (" ".join(f"{v:g}" for v in values) for values in (size, at))
    label = f'name="{name}" ' if name else ""
    return (
        f'<geom {label}type="{shape}" size="{sizes}" pos="{centre}" rgba="{colour(tint)}" mass="{mass:g}"'
        f' class="{collision}" {extra}/>'
    )
