"""The robot's MJCF: holonomic base, four trunk joints, two seven-joint arms, parallel grippers, cameras.

Lengths in metres, angles in rad. Only palms and fingers collide (collision bit 1); everything else of the
robot is only visible. Gravity is compensated, as the real controllers do it, so that position targets are
reached without a steady error.
"""

from household import robot

HAND_TO_GRASP = 0.15
"""Distance from a wrist to the point between the fingertips."""

_WHITE = "0.93 0.93 0.95 1"
_DARK = "0.18 0.19 0.22 1"
_ACCENT = "0.10 0.45 0.85 1"
_VISUAL = 'class="visual"'
_COLLIDING = 'class="hand"'


def _joint(name: str, axis: str, low: float, high: float) -> str:
    return (
        f'<joint name="{name}" type="hinge" axis="{axis}" range="{low} {high}" damping="2" armature="0.4"/>'
    )


def _finger(side: str, number: int, sign: int) -> str:
    joint = robot.FINGER_JOINTS[side][number - 1]
    return f"""
    <body name="{side}_finger{number}" pos="0 {sign * 0.008} -0.09" gravcomp="1">
      <joint name="{joint}" type="slide" axis="0 {sign} 0" range="0 {robot.FINGER_TRAVEL}"
        damping="10" armature="0.5"/>
      <geom name="{side}_finger{number}" type="box" size="0.012 0.007 0.045" pos="0 0 -0.025" rgba="{_DARK}"
        mass="0.05" {_COLLIDING}/>
      <geom type="box" size="0.0125 0.0075 0.010" pos="0 0 -0.061" rgba="{_ACCENT}" mass="0.01" {_VISUAL}/>
    </body>"""


def _hand(side: str) -> str:
    fovy = robot.FIELD_OF_VIEW[f"{side}_wrist"]
    return f"""
    <geom name="{side}_palm" type="box" size="0.028 0.062 0.028" pos="0 0 -0.06" rgba="{_DARK}" mass="0.3"
      {_COLLIDING}/>
    <geom type="cylinder" size="0.03 0.03" pos="0 0 -0.02" rgba="{_WHITE}" mass="0.2" {_VISUAL}/>
    <geom type="box" size="0.012 0.03 0.012" pos="0.075 0 -0.02" rgba="{_DARK}" mass="0.05" {_VISUAL}/>
    <site name="{side}_eef" pos="0 0 -{HAND_TO_GRASP}" size="0.008" rgba="0 0 0 0"/>
    <camera name="{side}_wrist" pos="0.095 0 -0.01" xyaxes="0 -1 0 0.925 0 -0.38" fovy="{fovy}"/>
    {_finger(side, 1, 1)}{_finger(side, 2, -1)}"""


def _arm(side: str) -> str:
    sign = 1 if side == "left" else -1
    limits = robot.LEFT_ARM if side == "left" else robot.RIGHT_ARM
    low, high = robot.ACTION_LOW[limits], robot.ACTION_HIGH[limits]
    names = robot.ARM_JOINTS[side]
    axes = ("0 1 0", "1 0 0", "0 0 1", "0 1 0", "0 0 1", "0 1 0", "1 0 0")
    joints = [_joint(n, a, lo, hi) for n, a, lo, hi in zip(names, axes, low, high, strict=True)]
    return f"""
    <body name="{side}_shoulder" pos="0 {sign * 0.21} 0.20" gravcomp="1">{joints[0]}
      <geom type="sphere" size="0.07" rgba="{_ACCENT}" mass="1" {_VISUAL}/>
      <body name="{side}_upper_arm" gravcomp="1">{joints[1]}{joints[2]}
        <geom type="capsule" size="0.048" fromto="0 0 -0.03 0 0 -0.30" rgba="{_WHITE}" mass="1.5" {_VISUAL}/>
        <body name="{side}_forearm" pos="0 0 -0.34" gravcomp="1">{joints[3]}
          <geom type="sphere" size="0.055" rgba="{_DARK}" mass="0.5" {_VISUAL}/>
          <body name="{side}_wrist_roll" gravcomp="1">{joints[4]}
            <geom type="capsule" size="0.040" fromto="0 0 -0.04 0 0 -0.29" rgba="{_WHITE}"
              mass="1" {_VISUAL}/>
            <body name="{side}_wrist_pitch" pos="0 0 -0.33" gravcomp="1">{joints[5]}
              <geom type="sphere" size="0.042" rgba="{_ACCENT}" mass="0.3" {_VISUAL}/>
              <body name="{side}_hand" gravcomp="1">{joints[6]}{_hand(side)}
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>"""


def _head() -> str:
    # The head looks 0.75 rad below the chest's forward axis, so that table and hands fill the picture.
    return f"""
    <body name="head" pos="0.02 0 0.36" gravcomp="1">
      <geom type="box" size="0.06 0.09 0.055" rgba="{_WHITE}" mass="1" {_VISUAL}/>
      <geom type="box" size="0.01 0.07 0.025" pos="0.056 0 -0.005" rgba="{_DARK}" mass="0.1" {_VISUAL}/>
      <camera name="head" pos="0.075 0 0" xyaxes="0 -1 0 0.565 0 0.825" fovy="{robot.FIELD_OF_VIEW["head"]}"/>
    </body>"""


def robot_body() -> str:
    """Write the robot's body tree.

    Returns:
        MJCF text of one `<body>` for the world, its base frame on the floor at the origin.
    """
    low, high = robot.ACTION_LOW[robot.TRUNK], robot.ACTION_HIGH[robot.TRUNK]
    axes = ("0 1 0", "0 1 0", "0 1 0", "0 0 1")
    trunk = [
        _joint(n, a, lo, hi).replace('armature="0.4"', 'armature="2"')
        for n, a, lo, hi in zip(robot.TRUNK_JOINTS, axes, low, high, strict=True)
    ]
    wheels = "".join(
        f'<geom type="sphere" size="0.06" pos="{x} {y} 0.06" rgba="{_DARK}" mass="1" {_VISUAL}/>'
        for x, y in ((0.16, 0), (-0.10, 0.16), (-0.10, -0.16))
    )
    return f"""
  <body name="base" gravcomp="1">
    <joint name="base_x" type="slide" axis="1 0 0" armature="5"/>
    <joint name="base_y" type="slide" axis="0 1 0" armature="5"/>
    <joint name="base_yaw" type="hinge" axis="0 0 1" armature="5"/>
    {wheels}
    <geom type="cylinder" size="0.23 0.06" pos="0 0 0.13" rgba="{_WHITE}" mass="40" {_VISUAL}/>
    <geom type="cylinder" size="0.235 0.015" pos="0 0 0.13" rgba="{_ACCENT}" mass="1" {_VISUAL}/>
    <geom type="box" size="0.09 0.11 0.06" pos="-0.05 0 0.24" rgba="{_DARK}" mass="10" {_VISUAL}/>
    <body name="torso1" pos="-0.05 0 0.30" gravcomp="1">{trunk[0]}
      <geom type="capsule" size="0.065" fromto="0 0 0 0 0 0.38" rgba="{_WHITE}" mass="4" {_VISUAL}/>
      <body name="torso2" pos="0 0 0.38" gravcomp="1">{trunk[1]}
        <geom type="capsule" size="0.06" fromto="0 0 0 0 0 0.34" rgba="{_DARK}" mass="3" {_VISUAL}/>
        <body name="torso3" pos="0 0 0.34" gravcomp="1">{trunk[2]}
          <geom type="sphere" size="0.085" rgba="{_ACCENT}" mass="1" {_VISUAL}/>
          <body name="torso4" pos="0 0 0.05" gravcomp="1">{trunk[3]}
            <geom type="box" size="0.075 0.14 0.12" pos="0 0 0.12" rgba="{_WHITE}" mass="6" {_VISUAL}/>
            <geom type="box" size="0.003 0.06 0.05" pos="0.076 0 0.13" rgba="{_ACCENT}" mass="0.1" {_VISUAL}/>
            {_head()}{_arm("left")}{_arm("right")}
          </body>
        </body>
      </body>
    </body>
  </body>"""


def robot_actuators() -> str:
    """Write the robot's controllers: velocity for the base, position for every other joint.

    Returns:
        MJCF text for `<actuator>`, in the order base, trunk, left arm and fingers, right arm and fingers.
    """
    lines = [
        f'<velocity name="{name}" joint="{name}" kv="{gain}"/>'
        for name, gain in zip(robot.BASE_JOINTS, (1500, 1500, 300), strict=True)
    ]
    lines += [f'<position name="{n}" joint="{n}" kp="6000" kv="500"/>' for n in robot.TRUNK_JOINTS]
    for side in robot.SIDES:
        lines += [f'<position name="{n}" joint="{n}" kp="400" kv="32"/>' for n in robot.ARM_JOINTS[side]]
        lines += [
            f'<position name="{n}" joint="{n}" kp="300" kv="20" forcerange="-25 25"/>'
            for n in robot.FINGER_JOINTS[side]
        ]
    return "\n".join(lines)
