"""The R1Pro robot: slices of actions and proprioception, limits, names of joints and cameras.

Source: the BEHAVIOR challenge's robot definition. The policy's package has the same numbers; the two
distributions must not import each other: in a real run the simulator is OmniGibson.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
"""Double precision array: what the physics computes in."""

CONTROL_HZ = 30
PHYSICS_HZ = 120
ACTION_DIM = 23
Edition = Literal["2025", "2026"]
"""Year of the challenge whose proprioception and dataset the simulator has."""

BASE = slice(0, 3)
TRUNK = slice(3, 7)
LEFT_ARM = slice(7, 14)
LEFT_GRIPPER = 14
RIGHT_ARM = slice(15, 22)
RIGHT_GRIPPER = 22

_ARM_LOW = (-4.4506, -0.1745, -2.3562, -2.0944, -2.3562, -1.0472, -1.5708)
_ARM_HIGH = (1.3090, 3.1416, 2.3562, 0.3491, 2.3562, 1.0472, 1.5708)
_RIGHT_LOW = (_ARM_LOW[0], -3.1416, *_ARM_LOW[2:])
_RIGHT_HIGH = (_ARM_HIGH[0], 0.1745, *_ARM_HIGH[2:])
_TRUNK_LOW = (-1.1345, -2.7925, -1.8326, -3.0543)
_TRUNK_HIGH = (1.8326, 2.5307, 1.5708, 3.0543)

ACTION_LOW: FloatArray = np.array([-1.0, -1.0, -1.0, *_TRUNK_LOW, *_ARM_LOW, -1.0, *_RIGHT_LOW, -1.0])
"""Lower limits: commands for the base, see `BASE_SPEED`, rad for joints, -1 (closed) for grippers. [23]."""
ACTION_HIGH: FloatArray = np.array([1.0, 1.0, 1.0, *_TRUNK_HIGH, *_ARM_HIGH, 1.0, *_RIGHT_HIGH, 1.0])
"""Upper limits, as `ACTION_LOW`. Shape [23]."""
BASE_SPEED: FloatArray = np.array([0.75, 0.75, 1.0])
"""What the controller makes of the base's command 1: m/s ahead and to the left, rad/s. Shape [3]."""

FINGER_TRAVEL = 0.05
"""Travel of one finger joint, in metres: 0 closed, 0.05 open; a gripper has two."""

SIDES = ("left", "right")
BASE_JOINTS = ("base_x", "base_y", "base_yaw")
TRUNK_JOINTS = tuple(f"torso_joint{i}" for i in range(1, 5))
ARM_JOINTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {side: tuple(f"{side}_arm_joint{i}" for i in range(1, 8)) for side in SIDES}
)
FINGER_JOINTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {side: (f"{side}_gripper_finger_joint1", f"{side}_gripper_finger_joint2") for side in SIDES}
)

NAME = "robot_r1"
"""The robot's name in the evaluator's own configuration, which is in the keys of its messages."""
CAMERAS = ("head", "left_wrist", "right_wrist")
CAMERA_OBSERVATION_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "head": "robot_r1::robot_r1:zed_link:Camera:0::rgb",
        "left_wrist": "robot_r1::robot_r1:left_realsense_link:Camera:0::rgb",
        "right_wrist": "robot_r1::robot_r1:right_realsense_link:Camera:0::rgb",
    }
)
"""Keys of the evaluator's observation message."""
PROPRIOCEPTION_KEY = "robot_r1::proprio"
CAMERA_POSES_KEY = "robot_r1::cam_rel_poses"
ORACLE_STAGE_KEY = "oracle_stage"
"""Not the challenge's: the true stage of the task, for experiments."""

FIELD_OF_VIEW: Mapping[str, float] = MappingProxyType(
    {
        "head": float(2 * np.degrees(np.arctan(360 / 306))),
        "left_wrist": float(2 * np.degrees(np.arctan(240 / 388.6639))),
        "right_wrist": float(2 * np.degrees(np.arctan(240 / 388.6639))),
    }
)
"""Degrees, from the challenge's intrinsics (f = 306 at 720 px, f = 388.66 at 480 px); square pictures."""

PROPRIOCEPTION: Mapping[str, slice] = MappingProxyType(
    {
        "joint_qpos": slice(0, 28),
        "joint_qpos_sin": slice(28, 56),
        "joint_qpos_cos": slice(56, 84),
        "joint_qvel": slice(84, 112),
        "joint_qeffort": slice(112, 140),
        "robot_pos": slice(140, 143),
        "robot_ori_cos": slice(143, 146),
        "robot_ori_sin": slice(146, 149),
        "robot_2d_ori": slice(149, 150),
        "robot_2d_ori_cos": slice(150, 151),
        "robot_2d_ori_sin": slice(151, 152),
        "robot_lin_vel": slice(152, 155),
        "robot_ang_vel": slice(155, 158),
        "arm_left_qpos": slice(158, 165),
        "arm_left_qpos_sin": slice(165, 172),
        "arm_left_qpos_cos": slice(172, 179),
        "arm_left_qvel": slice(179, 186),
        "eef_left_pos": slice(186, 189),
        "eef_left_quat": slice(189, 193),
        "gripper_left_qpos": slice(193, 195),
        "gripper_left_qvel": slice(195, 197),
        "arm_right_qpos": slice(197, 204),
        "arm_right_qpos_sin": slice(204, 211),
        "arm_right_qpos_cos": slice(211, 218),
        "arm_right_qvel": slice(218, 225),
        "eef_right_pos": slice(225, 228),
        "eef_right_quat": slice(228, 232),
        "gripper_right_qpos": slice(232, 234),
        "gripper_right_qvel": slice(234, 236),
        "trunk_qpos": slice(236, 240),
        "trunk_qvel": slice(240, 244),
        "base_qpos": slice(244, 247),
        "base_qpos_sin": slice(247, 250),
        "base_qpos_cos": slice(250, 253),
        "base_qvel": slice(253, 256),
    }
)
"""Of 2025: 256 values; the base's velocity is in the world's frame and near 0, see `WORLD_VELOCITY`."""
PROPRIOCEPTION_2026: Mapping[str, slice] = MappingProxyType(
    {
        "base_qvel": slice(0, 3),
        "arm_left_qpos": slice(3, 10),
        "arm_left_qvel": slice(10, 17),
        "eef_left_pos": slice(17, 20),
        "eef_left_quat": slice(20, 24),
        "gripper_left_qpos": slice(24, 26),
        "gripper_left_qvel": slice(26, 28),
        "arm_right_qpos": slice(28, 35),
        "arm_right_qvel": slice(35, 42),
        "eef_right_pos": slice(42, 45),
        "eef_right_quat": slice(45, 49),
        "gripper_right_qpos": slice(49, 51),
        "gripper_right_qvel": slice(51, 53),
        "trunk_qpos": slice(53, 57),
        "trunk_qvel": slice(57, 61),
    }
)
"""Of 2026: 61 values; the base's velocity is in the robot's frame."""
LAYOUTS: Mapping[Edition, Mapping[str, slice]] = MappingProxyType(
    {"2025": PROPRIOCEPTION, "2026": PROPRIOCEPTION_2026}
)
WORLD_VELOCITY = 0.05
"""Share of the base's real velocity that 2025's proprioception shows, as small as the challenge's data have
it: a deviation of about 0.01."""

# Postures, in rad: crouched and leaning forward, forearms over the table, hands pointing down.
TRUNK_POSTURE: FloatArray = np.array([0.5, -0.8, 0.6, 0.0])
ARM_POSTURE: Mapping[str, FloatArray] = MappingProxyType(
    {
        "left": np.array([-0.45, 0.10, 0.0, -1.15, 0.0, 0.95, 0.0]),
        "right": np.array([-0.45, -0.05, 0.0, -1.15, 0.0, 0.95, 0.0]),
    }
)


def gripper_to_finger(command: float) -> float:
    """Map a gripper action to the target of each of its two finger joints.

    Args:
        command: -1 (closed) to 1 (open).

    Returns:
        Finger joint target in metres, 0 to 0.05, so that 2 * (sum of both / 0.1) - 1 is the command again.
    """
    return (command + 1.0) / 2.0 * FINGER_TRAVEL


def layout_length(edition: Edition) -> int:
    """Number of values of the proprioception.

    Args:
        edition: the edition.

    Returns:
        256 or 61.
    """
    return max(part.stop for part in LAYOUTS[edition].values())


def state_from_proprioception(proprioception: FloatArray) -> FloatArray:
    """Take the 23 values that correspond to the action's entries from the proprioception.

    Args:
        proprioception: [256] or [61], in rad, m and their derivatives per second.

    Returns:
        [23]: base velocity, trunk, left arm, left gripper, right arm, right gripper.
    """
    layout = LAYOUTS["2026" if len(proprioception) == layout_length("2026") else "2025"]

    def part(name: str) -> FloatArray:
        return np.asarray(proprioception[layout[name]], dtype=np.float64)

    def gripper(side: str) -> float:
        return float(2.0 * part(f"gripper_{side}_qpos").sum() / (2 * FINGER_TRAVEL) - 1.0)

    return np.concatenate(
        [
            part("base_qvel"),
            part("trunk_qpos"),
            part("arm_left_qpos"),
            [gripper("left")],
            part("arm_right_qpos"),
            [gripper("right")],
        ]
    )
