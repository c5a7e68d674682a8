"""The objects that hands pick up or press: their shapes and how they are held. Metres."""

from household.objects import Grasp, Kind, number
from household.shapes import Vector, box, cylinder, ellipsoid, rod

RADIO_BUTTON_RADIUS = 0.055
RADIO_HEIGHT = 0.10
BUTTON_HEIGHT = 0.025
"""How far the button stands above the radio's top."""
CAN_RADIUS = 0.024
CAN_HALF_HEIGHT = 0.055

_VISUAL = 'class="visual"'
_OBJECT = 'class="object"'
_GRIP = 'friction="1 0.02 0.001"'
_NO_ROLLING = 'condim="6" friction="1 0.05 0.02"'


def _radio(name: str) -> str:
    half = RADIO_HEIGHT / 2
    return f"""
    <geom name="radio_body" type="box" size="0.085 0.14 {half}" rgba="0.93 0.90 0.80 1" mass="2.5"
      friction="1 0.05 0.001" {_OBJECT}/>
    <geom type="box" size="0.003 0.125 0.035" pos="-0.085 0 0" rgba="0.30 0.22 0.18 1" mass="0.01" {_VISUAL}/>
    <geom type="cylinder" size="0.026 0.003" pos="-0.089 0.07 0" zaxis="1 0 0" rgba="0.85 0.8 0.6 1"
      mass="0.01" {_VISUAL}/>
    <geom type="cylinder" size="0.026 0.003" pos="-0.089 -0.07 0" zaxis="1 0 0" rgba="0.85 0.8 0.6 1"
      mass="0.01" {_VISUAL}/>
    <geom type="cylinder" size="0.004 0.16" pos="0.07 0.11 0.2" euler="0.35 0 0" rgba="0.6 0.6 0.62 1"
      mass="0.01" {_VISUAL}/>
    <geom name="{name}_button" type="cylinder" size="{RADIO_BUTTON_RADIUS} {BUTTON_HEIGHT / 2}"
      pos="0 0 {half + BUTTON_HEIGHT / 2}" rgba="0.90 0.06 0.06 1" mass="0.02" {_OBJECT}/>"""


def _can(name: str) -> str:
    h, r = CAN_HALF_HEIGHT, CAN_RADIUS
    return f"""
    <geom name="{name}" type="cylinder" size="{r} {h}" rgba="0.90 0.06 0.06 1" mass="0.2"
      friction="1 0.02 0.001" {_OBJECT}/>
    <geom type="cylinder" size="{r + 0.0005} 0.012" pos="0 0 0" rgba="0.97 0.97 0.97 1"
      mass="0.001" {_VISUAL}/>
    <geom type="cylinder" size="{r - 0.003} 0.001" pos="0 0 {h}" rgba="0.8 0.8 0.82 1"
      mass="0.001" {_VISUAL}/>"""


def _pick(name: str, *tints: str) -> str:
    """A colour by the object's number."""
    return tints[(number(name) - 1) % len(tints)]


def _board_game(name: str) -> str:
    tint = _pick(name, "blue", "purple", "green")
    squares = "".join(
        box((0.017, 0.017, 0.001), (-0.05 + 0.034 * i, 0.0175 - 0.035 * (i % 2), 0.03), "yellow")
        for i in range(4)
    )
    return box((0.09, 0.036, 0.03), (0, 0, 0), tint, "object", mass=0.3, extra=_GRIP) + squares


def _jigsaw_puzzle(name: str) -> str:
    tint = _pick(name, "orange", "green")
    pieces = box((0.02, 0.014, 0.001), (0.02, 0.014, 0.025), "sky")
    pieces += box((0.02, 0.014, 0.001), (-0.02, -0.014, 0.025), "white")
    return box((0.06, 0.036, 0.025), (0, 0, 0), tint, "object", mass=0.25, extra=_GRIP) + pieces


def _tennis_ball(name: str) -> str:
    del name
    ball = ellipsoid((0.033,) * 3, (0, 0, 0), "yellow", "object", mass=0.06, extra=_NO_ROLLING)
    return ball + cylinder(0.0335, 0.002, (0, 0, 0), "white", extra='euler="0.6 0 0"')


def _book(name: str) -> str:
    cover = _pick(name, "red", "blue", "green")
    shape = box((0.08, 0.045, 0.02), (0, 0, 0), cover, "object", mass=0.4, extra=_GRIP)
    pages = box((0.001, 0.042, 0.014), (-0.08, 0, 0), "cream") + box(
        (0.077, 0.001, 0.014), (0, -0.045, 0), "cream"
    )
    return shape + pages + box((0.045, 0.02, 0.001), (0.01, 0, 0.02), "yellow")


def _plywood(name: str) -> str:
    del name
    shape = box((0.17, 0.036, 0.011), (0, 0, 0), "pine", "object", mass=0.5, extra=_GRIP)
    grain = (box((0.165, 0.003, 0.0005), (0, y, 0.011), "wood") for y in (-0.02, 0.004, 0.024))
    return shape + "".join(grain)


def _easter_egg(name: str) -> str:
    # The shell only shows; a short cylinder inside keeps the egg from rolling away.
    body = cylinder(0.02, 0.028, (0, 0, 0), _pick(name, "pink", "sky", "yellow"), "object", mass=0.06)
    shell = ellipsoid((0.026, 0.026, 0.034), (0, 0, 0.004), _pick(name, "pink", "sky", "yellow"))
    return body + shell + cylinder(0.0265, 0.004, (0, 0, 0.004), _pick(name, "purple", "red", "blue"))


def _mousetrap(name: str) -> str:
    del name
    base = box((0.055, 0.03, 0.01), (0, 0, 0), "pine", "object", mass=0.12, extra=_GRIP)
    spring = rod((0, -0.024, 0.012), (0, 0.024, 0.012), 0.004, "steel")
    bail = rod((0.045, -0.024, 0.012), (0.045, 0.024, 0.012), 0.003, "steel")
    arms = rod((0, 0.024, 0.012), (0.045, 0.024, 0.012), 0.003, "steel")
    arms += rod((0, -0.024, 0.012), (0.045, -0.024, 0.012), 0.003, "steel")
    return base + spring + bail + arms + box((0.012, 0.012, 0.002), (-0.035, 0, 0.011), "yellow")


def _sandal(name: str) -> str:
    del name
    sole = box((0.10, 0.037, 0.015), (0, 0, 0), "wood", "object", mass=0.2, extra=_GRIP)
    top = box((0.095, 0.033, 0.002), (0, 0, 0.015), "straw")
    straps = box((0.014, 0.036, 0.004), (0.045, 0, 0.032), "walnut")
    straps += box((0.012, 0.036, 0.004), (-0.05, 0, 0.032), "walnut")
    sides = "".join(
        box((0.012, 0.003, 0.012), (x, y, 0.022), "walnut") for x in (0.045, -0.05) for y in (0.035, -0.035)
    )
    return sole + top + straps + sides


def _gym_shoe(name: str) -> str:
    del name
    sole = box((0.105, 0.038, 0.012), (0, 0, -0.028), "white", "object", mass=0.3, extra=_GRIP)
    toe = ellipsoid((0.05, 0.036, 0.035), (0.055, 0, -0.016), "red")
    heel = box((0.055, 0.034, 0.032), (-0.045, 0, 0.008), "red")
    opening = box((0.04, 0.024, 0.001), (-0.05, 0, 0.04), "dark")
    laces = (box((0.006, 0.022, 0.004), (x, 0, 0.016), "white") for x in (0.02, 0.04))
    return sole + toe + heel + opening + "".join(laces)


def _storage_container(name: str) -> str:
    tint = _pick(name, "blue", "orange")
    body = box((0.13, 0.10, 0.08), (0, 0, 0), tint, "object", mass=0.8, extra=_GRIP)
    lid = box((0.133, 0.103, 0.012), (0, 0, 0.062), "white")
    # The handle is a bar over a recess in the lid, flush with it, so that containers stack.
    recess = box((0.055, 0.04, 0.001), (0, 0, 0.0795), "dark")
    handle = box((0.055, 0.011, 0.001), (0, 0, 0.0805), "steel")
    return body + lid + recess + handle


def _bottle(name: str) -> str:
    del name
    body = cylinder(0.033, 0.07, (0, 0, -0.035), "sky", "object", mass=0.4, extra=_GRIP)
    label = cylinder(0.0335, 0.02, (0, 0, -0.03), "white")
    neck = cylinder(0.018, 0.02, (0, 0, 0.055), "sky")
    shoulder = ellipsoid((0.033, 0.033, 0.02), (0, 0, 0.035), "sky")
    return body + label + neck + shoulder + cylinder(0.02, 0.012, (0, 0, 0.085), "blue")


def _digital_camera(name: str) -> str:
    del name
    body = box((0.032, 0.045, 0.035), (0, 0, 0), "dark", "object", mass=0.3, extra=_GRIP)
    lens = cylinder(0.026, 0.014, (0.042, 0, 0), "grey", extra='zaxis="1 0 0"')
    glass = cylinder(0.018, 0.002, (0.056, 0, 0), "sky", extra='zaxis="1 0 0"')
    shutter = cylinder(0.008, 0.004, (0, -0.03, 0.038), "red")
    return body + lens + glass + shutter + box((0.002, 0.03, 0.02), (-0.033, 0, 0), "sky")


def _poster(name: str) -> str:
    del name
    frame = box((0.016, 0.09, 0.12), (0, 0, 0), "walnut", "object", mass=0.3, extra=_GRIP)
    picture = box((0.001, 0.078, 0.108), (-0.016, 0, 0), "sky")
    sun = cylinder(0.022, 0.001, (-0.017, 0.03, 0.05), "yellow", extra='zaxis="1 0 0"')
    hill = box((0.001, 0.078, 0.035), (-0.0165, 0, -0.073), "green")
    hanger = box((0.004, 0.011, 0.015), (0, 0, 0.135), "steel")
    return frame + picture + sun + hill + hanger


def _held(point: Vector, reach: Vector, half_gap: float, *, turns: bool = True) -> Grasp:
    return Grasp(point, reach, half_gap, turns)


MOVABLES: dict[str, Kind] = {
    "radio_receiver.n.01": Kind(
        _radio, (-0.085, -0.14, -0.05), (0.085, 0.14, 0.075), free=True, button="button"
    ),
    "can__of__soda.n.01": Kind(
        _can,
        (-CAN_RADIUS, -CAN_RADIUS, -CAN_HALF_HEIGHT),
        (CAN_RADIUS, CAN_RADIUS, CAN_HALF_HEIGHT),
        _held((0, 0, 0), (0, 0, CAN_HALF_HEIGHT), CAN_RADIUS, turns=False),
        free=True,
    ),
    "board_game.n.01": Kind(
        _board_game,
        (-0.09, -0.036, -0.03),
        (0.09, 0.036, 0.03),
        _held((0, 0, 0.01), (0.05, 0, 0.015), 0.036),
        free=True,
    ),
    "jigsaw_puzzle.n.01": Kind(
        _jigsaw_puzzle,
        (-0.06, -0.036, -0.025),
        (0.06, 0.036, 0.025),
        _held((0, 0, 0.01), (0.03, 0, 0.01), 0.036),
        free=True,
    ),
    "tennis_ball.n.01": Kind(
        _tennis_ball,
        (-0.033,) * 3,
        (0.033,) * 3,
        _held((0, 0, 0.005), (0, 0, 0), 0.032, turns=False),
        free=True,
    ),
    "book.n.02": Kind(
        _book,
        (-0.08, -0.045, -0.02),
        (0.08, 0.045, 0.02),
        _held((0, 0, 0.008), (0.04, 0, 0.01), 0.045),
        free=True,
    ),
    "plywood.n.01": Kind(
        _plywood,
        (-0.17, -0.036, -0.011),
        (0.17, 0.036, 0.011),
        _held((0, 0, 0.01), (0.05, 0, 0), 0.036),
        free=True,
    ),
    "easter_egg.n.01": Kind(
        _easter_egg,
        (-0.026, -0.026, -0.028),
        (0.026, 0.026, 0.038),
        _held((0, 0, 0.008), (0, 0, 0.01), 0.026, turns=False),
        free=True,
    ),
    "mousetrap.n.01": Kind(
        _mousetrap,
        (-0.055, -0.03, -0.01),
        (0.055, 0.03, 0.016),
        _held((0, 0, 0.01), (0.02, 0, 0), 0.03),
        free=True,
    ),
    "sandal.n.01": Kind(
        _sandal,
        (-0.10, -0.037, -0.015),
        (0.10, 0.037, 0.036),
        _held((0, 0, 0.015), (0.04, 0, 0.01), 0.037),
        free=True,
    ),
    "gym_shoe.n.01": Kind(
        _gym_shoe,
        (-0.105, -0.038, -0.04),
        (0.105, 0.038, 0.04),
        _held((-0.02, 0, 0.02), (0.03, 0, 0.01), 0.034),
        free=True,
    ),
    "storage_container.n.01": Kind(
        _storage_container,
        (-0.133, -0.103, -0.08),
        (0.133, 0.103, 0.08),
        _held((0, 0, 0.072), (0.03, 0, 0), 0.011),
        free=True,
        top=0.08,
    ),
    "bottle.n.01": Kind(
        _bottle,
        (-0.033, -0.033, -0.105),
        (0.033, 0.033, 0.097),
        _held((0, 0, 0.0), (0, 0, 0.03), 0.033, turns=False),
        free=True,
    ),
    "digital_camera.n.01": Kind(
        _digital_camera,
        (-0.035, -0.045, -0.035),
        (0.056, 0.045, 0.042),
        _held((0, 0, 0.012), (0, 0, 0.01), 0.045),
        free=True,
        mount=(0, 0, -0.035),
        fits="camera_tripod.n.01",
    ),
    "poster.n.01": Kind(
        _poster,
        (-0.017, -0.09, -0.12),
        (0.017, 0.09, 0.12),
        _held((0, 0, 0.135), (0, 0, 0.01), 0.011, turns=False),
        free=True,
        mount=(0.016, 0, 0.10),
        fits="wall_nail.n.01",
    ),
}
"""Kinds by category."""
