"""The R1Pro robot: slices of actions and proprioception, limits, cameras, and data keys.

Sources: the BEHAVIOR challenge's robot definition; report, appendix B. Every string key of a dataset,
a message or an observation that more than one module uses is a constant here.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Float32

ACTION_DIM = 23
"""Actions of the robot."""
MODEL_DIM = 32
"""Width of state and actions inside the network: zero-padded from 23, as in Pi0.5."""
ACTION_HORIZON = 30
"""Actions per predicted chunk, one second at 30 Hz."""
PROPRIOCEPTION_DIM = 256
CONTROL_HZ = 30

BASE = slice(0, 3)
TRUNK = slice(3, 7)
LEFT_ARM = slice(7, 14)
LEFT_GRIPPER = 14
RIGHT_ARM = slice(15, 22)
RIGHT_GRIPPER = 22
GRIPPERS = (LEFT_GRIPPER, RIGHT_GRIPPER)

ACTION_GROUPS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "base": tuple(range(3)),
        "trunk": tuple(range(3, 7)),
        "left_arm": tuple(range(7, 14)),
        "right_arm": tuple(range(15, 22)),
        "grippers": GRIPPERS,
    }
)

DELTA_DIMS = np.array([*range(3, 6), *range(7, 14), *range(15, 22)])
"""Dimensions trained as action - state: trunk without its fourth joint (constant in the demos), both arms."""

_ARM_LOW = (-4.4506, -0.1745, -2.3562, -2.0944, -2.3562, -1.0472, -1.5708)
_ARM_HIGH = (1.3090, 3.1416, 2.3562, 0.3491, 2.3562, 1.0472, 1.5708)
_RIGHT_LOW = (*_ARM_LOW[:1], -3.1416, *_ARM_LOW[2:])
_RIGHT_HIGH = (*_ARM_HIGH[:1], 0.1745, *_ARM_HIGH[2:])

ACTION_LOW: Float32[np.ndarray, "23"] = np.array(
    [-0.75, -0.75, -1.0, -1.1345, -2.7925, -1.8326, -3.0543, *_ARM_LOW, -1.0, *_RIGHT_LOW, -1.0], np.float32
)
"""Lower action limits: m/s and rad/s for the base, rad for joints, -1 (closed) for grippers."""
ACTION_HIGH: Float32[np.ndarray, "23"] = np.array(
    [0.75, 0.75, 1.0, 1.8326, 2.5307, 1.5708, 3.0543, *_ARM_HIGH, 1.0, *_RIGHT_HIGH, 1.0], np.float32
)

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
"""Proprioception of 2025, and of this repository's simulator."""
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
"""The base's velocity is in the robot's frame (2025: in the world's), hands are relative to the base."""
PROPRIOCEPTION_BY_LENGTH: Mapping[int, Mapping[str, slice]] = MappingProxyType(
    {PROPRIOCEPTION_DIM: PROPRIOCEPTION, 61: PROPRIOCEPTION_2026}
)
"""The editions tell themselves apart by the number of values."""

GRIPPER_OPENING = 0.1
"""Sum of a gripper's two finger joints when fully open, in metres."""

CAMERAS = ("head", "left_wrist", "right_wrist")
"""Cameras in the order of the network's image tokens."""
CAMERA_OBSERVATION_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "head": "robot_r1::robot_r1:zed_link:Camera:0::rgb",
        "left_wrist": "robot_r1::robot_r1:left_realsense_link:Camera:0::rgb",
        "right_wrist": "robot_r1::robot_r1:right_realsense_link:Camera:0::rgb",
    }
)
"""Keys of the evaluator's observation message."""
CAMERA_VIDEO_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "head": ("observation.images.rgb.head", "observation.rgb.zed_link_camera_0"),
        "left_wrist": (
            "observation.images.rgb.left_wrist",
            "observation.rgb.left_realsense_link_camera_0",
        ),
        "right_wrist": (
            "observation.images.rgb.right_wrist",
            "observation.rgb.right_realsense_link_camera_0",
        ),
    }
)
"""Keys of the dataset's videos: those of 2025 and of 2026."""
CAMERA_CHECKPOINT_KEYS: Mapping[str, str] = MappingProxyType(
    {"head": "base_0_rgb", "left_wrist": "left_wrist_0_rgb", "right_wrist": "right_wrist_0_rgb"}
)
"""Names that the published policy gives to the cameras."""
PROPRIOCEPTION_KEY = "robot_r1::proprio"
TASK_ID_KEY = "task_id"
ORACLE_STAGE_KEY = "oracle_stage"
"""The true stage, for experiments: no evaluator of the challenge sends it."""
DATASET_ACTION_KEY = "action"
DATASET_STATE_KEY = "observation.state"


def gripper_state(finger_joints: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
    """Map a gripper's two finger joints, in metres, to the action's scale: -1 closed, 1 open."""
    return 2.0 * finger_joints.sum(axis=-1) / GRIPPER_OPENING - 1.0


def state_from_proprioception(
    proprioception: Float[np.ndarray, "*batch values"],
) -> Float32[np.ndarray, "*batch 23"]:
    """Take the policy's state from the robot's proprioception, in the action's order.

    Args:
        proprioception: the 256 values of 2025 or the 61 of 2026, in radians, metres and their derivatives
            per second.

    Returns:
        Base velocity (3), trunk (4), left arm (7), left gripper, right arm (7), right gripper. No global
        pose: the challenge does not allow it.

    Raises:
        ValueError: the last axis has another width.
    """
    layout = PROPRIOCEPTION_BY_LENGTH.get(proprioception.shape[-1])
    if layout is None:
        known = " or ".join(map(str, PROPRIOCEPTION_BY_LENGTH))
        raise ValueError(
            f"proprioception has {proprioception.shape[-1]} values in its last axis; expected {known}"
        )

    def part(name: str) -> Float[np.ndarray, "*batch n"]:
        return proprioception[..., layout[name]]

    return np.concatenate(
        [
            part("base_qvel"),
            part("trunk_qpos"),
            part("arm_left_qpos"),
            gripper_state(part("gripper_left_qpos"))[..., None],
            part("arm_right_qpos"),
            gripper_state(part("gripper_right_qpos"))[..., None],
        ],
        axis=-1,
    ).astype(np.float32)
