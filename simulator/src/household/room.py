"""The living room and the objects of the tasks as MJCF, with the dimensions that predicates need.

World frame: the robot starts near the origin and looks along +x at a coffee table; z is up; metres.
"""

from importlib import resources

from household.robot_model import robot_actuators, robot_body

TABLE_HEIGHT = 0.45
RADIO_BUTTON_RADIUS = 0.055
RADIO_HEIGHT = 0.10
BUTTON_HEIGHT = 0.025
"""How far the button stands above the radio's top."""
CAN_RADIUS = 0.024
CAN_HALF_HEIGHT = 0.055
BIN_RADIUS = 0.17
"""Inner radius of the ashcan."""
BIN_HEIGHT = 0.34

_VISUAL = 'class="visual"'
_SOLID = 'class="solid"'
_OBJECT = 'class="object"'


def _furniture() -> str:
    """Floor, walls, rug, table, sofa, shelf and plant; they never change, so they lie in a file."""
    text = resources.files("household").joinpath("furniture.xml").read_text(encoding="utf-8")
    return text[text.index("<furniture>") + len("<furniture>") : text.index("</furniture>")]


def _radio() -> str:
    half = RADIO_HEIGHT / 2
    return f"""
  <body name="radio_receiver.n.01_1" pos="0.6 0 {TABLE_HEIGHT + half}">
    <freejoint name="radio_receiver.n.01_1"/>
    <geom name="radio_body" type="box" size="0.085 0.14 {half}" rgba="0.93 0.90 0.80 1" mass="2.5"
      friction="1 0.05 0.001" {_OBJECT}/>
    <geom type="box" size="0.003 0.125 0.035" pos="-0.085 0 0" rgba="0.30 0.22 0.18 1" mass="0.01" {_VISUAL}/>
    <geom type="cylinder" size="0.026 0.003" pos="-0.089 0.07 0" zaxis="1 0 0" rgba="0.85 0.8 0.6 1"
      mass="0.01" {_VISUAL}/>
    <geom type="cylinder" size="0.026 0.003" pos="-0.089 -0.07 0" zaxis="1 0 0" rgba="0.85 0.8 0.6 1"
      mass="0.01" {_VISUAL}/>
    <geom type="cylinder" size="0.004 0.16" pos="0.07 0.11 0.2" euler="0.35 0 0" rgba="0.6 0.6 0.62 1"
      mass="0.01" {_VISUAL}/>
    <geom name="radio_button" type="cylinder" size="{RADIO_BUTTON_RADIUS} {BUTTON_HEIGHT / 2}"
      pos="0 0 {half + BUTTON_HEIGHT / 2}" rgba="0.90 0.06 0.06 1" mass="0.02" {_OBJECT}/>
  </body>"""


def _can() -> str:
    h, r = CAN_HALF_HEIGHT, CAN_RADIUS
    return f"""
  <body name="can__of__soda.n.01_1" pos="0.6 0 {TABLE_HEIGHT + h}">
    <freejoint name="can__of__soda.n.01_1"/>
    <geom name="can" type="cylinder" size="{r} {h}" rgba="0.90 0.06 0.06 1" mass="0.2"
      friction="1 0.02 0.001" {_OBJECT}/>
    <geom type="cylinder" size="{r + 0.0005} 0.012" pos="0 0 0" rgba="0.97 0.97 0.97 1"
      mass="0.001" {_VISUAL}/>
    <geom type="cylinder" size="{r - 0.003} 0.001" pos="0 0 {h}" rgba="0.8 0.8 0.82 1"
      mass="0.001" {_VISUAL}/>
  </body>"""


def _bin() -> str:
    count, thickness = 16, 0.006
    half_width = (BIN_RADIUS + thickness) * 3.1416 / count * 1.05
    staves = "".join(
        f'<geom type="box" size="{thickness} {half_width:.4f} {BIN_HEIGHT / 2}"'
        f' pos="{BIN_RADIUS + thickness} 0 {BIN_HEIGHT / 2}" rgba="0.10 0.25 0.80 1" {_SOLID}/>'.join(
            (f'<body euler="0 0 {6.28319 * i / count:.5f}">', "</body>")
        )
        for i in range(count)
    )
    return f"""
  <body name="ashcan.n.01_1" pos="0.55 -0.5 0">
    <geom type="cylinder" size="{BIN_RADIUS} 0.008" pos="0 0 0.012" rgba="0.05 0.10 0.35 1" {_SOLID}/>
    {staves}
  </body>"""


OBJECTS = {
    "radio_receiver.n.01_1": _radio,
    "can__of__soda.n.01_1": _can,
    "ashcan.n.01_1": _bin,
}
"""Makers of the objects that a scene may hold, by the name that BDDL gives to them."""


def scene_xml(objects: tuple[str, ...], grasp_object: str | None) -> str:
    """Write the whole scene.

    Args:
        objects: BDDL names of the task's objects to place in the room, keys of `OBJECTS`.
        grasp_object: the object that the assisted grasp may weld to a hand, or None.

    Returns:
        MJCF text.
    """
    welds = ""
    if grasp_object is not None:
        welds = "<equality>" + "".join(
            f'<weld name="{side}_grasp" body1="{side}_hand" body2="{grasp_object}" active="false"'
            f' solref="0.01 1" torquescale="0.3"/>'
            for side in ("left", "right")
        )
        welds += "</equality>"
        # The assisted grasp holds the object; fingers that also pushed it would tip it over before.
        pairs = [(f"{side}_finger{i}", grasp_object) for side in ("left", "right") for i in (1, 2)]
        excluded = "".join(f'<exclude body1="{a}" body2="{b}"/>' for a, b in pairs)
        welds += f"<contact>{excluded}</contact>"
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
    <texture name="floor" type="2d" builtin="checker" rgb1="0.72 0.58 0.42" rgb2="0.68 0.54 0.39"
      width="128" height="128"/>
    <material name="floor" texture="floor" texrepeat="10 10" reflectance="0"/>
    <material name="wood" rgba="0.55 0.38 0.24 1" specular="0.1" shininess="0.1"/>
  </asset>
  <worldbody>
    <light pos="0.2 0.8 3" dir="0.2 -0.2 -1" directional="true"
      diffuse="0.45 0.45 0.42" specular="0.1 0.1 0.1"/>
    {_furniture()}
    {"".join(OBJECTS[name]() for name in objects)}
    {robot_body()}
  </worldbody>
  {welds}
  <actuator>{robot_actuators()}</actuator>
</mujoco>"""
