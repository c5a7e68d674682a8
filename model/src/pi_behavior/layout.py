"""The R1Pro robot: slices of actions and proprioception, limits, cameras, and data keys.

Sources: the BEHAVIOR challenge's robot definition; report, appendix B. Every string key of a dataset,
a message or an observation that more than one module uses is a constant here.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Float32

from pi_behavior.challenge import EDITIONS, Proprioception

ACTION_DIM = 23
"""Actions of the robot."""
MODEL_DIM = 32
"""Width of state and actions inside the network: zero-padded from 23, as in Pi0.5."""
ACTION_HORIZON = 30
"""Actions per predicted chunk, one second at 30 Hz."""
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
    [-1.0, -1.0, -1.0, -1.1345, -2.7925, -1.8326, -3.0543, *_ARM_LOW, -1.0, *_RIGHT_LOW, -1.0], np.float32
)
"""Lower action limits: the base's commands, of which the controller makes 0.75 m/s and 1 rad/s; rad for
joints; -1 (closed) for grippers."""
ACTION_HIGH: Float32[np.ndarray, "23"] = np.array(
    [1.0, 1.0, 1.0, 1.8326, 2.5307, 1.5708, 3.0543, *_ARM_HIGH, 1.0, *_RIGHT_HIGH, 1.0], np.float32
)

PROPRIOCEPTION_BY_LENGTH: Mapping[int, Proprioception] = MappingProxyType(
    {edition.proprioception.length: edition.proprioception for edition in EDITIONS.values()}
)
"""The editions' layouts of the proprioception, which tell themselves apart by the number of values."""

GRIPPER_OPENING = 0.1
"""Sum of a gripper's two finger joints when fully open, in metres."""

CAMERAS = ("head", "left_wrist", "right_wrist")
"""Cameras in the order of the network's image tokens."""
ROBOT = "robot_r1"
"""The robot's name in the evaluators' own configuration; others are allowed."""
PROPRIOCEPTION_SUFFIX = "::proprio"
_CAMERA_LINKS = {
    "head": "zed_link",
    "left_wrist": "left_realsense_link",
    "right_wrist": "right_realsense_link",
}


def camera_observation_keys(robot: str = ROBOT) -> dict[str, str]:
    """Keys of the evaluator's observation message, by camera, for a robot of this name."""
    return {camera: f"{robot}::{robot}:{link}:Camera:0::rgb" for camera, link in _CAMERA_LINKS.items()}


CAMERA_OBSERVATION_KEYS: Mapping[str, str] = MappingProxyType(camera_observation_keys())
"""Those of the robot with the usual name."""
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
PROPRIOCEPTION_KEY = ROBOT + PROPRIOCEPTION_SUFFIX
TASK_ID_KEY = "task_id"
PROMPT_KEY = "prompt"
"""An instruction in place of the task's own, for networks that read one; no evaluator sends it."""
ORACLE_STAGE_KEY = "oracle_stage"
"""The true stage, for experiments: no evaluator of the challenge sends it."""
DATASET_ACTION_KEY = "action"
DATASET_STATE_KEY = "observation.state"


def gripper_state(finger_joints: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
    """Map a gripper's two finger joints, in metres, to the action's scale: -1 closed, 1 open."""
    return 2.0 * finger_joints.sum(axis=-1) / GRIPPER_OPENING - 1.0


def proprioception_layout(length: int) -> Proprioception:
    """The layout of proprioception with so many values.

    Raises:
        ValueError: no edition of the challenge has so many.
    """
    if length not in PROPRIOCEPTION_BY_LENGTH:
        known = " or ".join(
            f"{layout.length} ({', '.join(n for n, e in EDITIONS.items() if e.proprioception == layout)})"
            for layout in PROPRIOCEPTION_BY_LENGTH.values()
        )
        raise ValueError(f"proprioception has {length} values in its last axis; expected {known}")
    return PROPRIOCEPTION_BY_LENGTH[length]


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
    layout = proprioception_layout(proprioception.shape[-1])

    def part(name: str) -> Float[np.ndarray, "*batch n"]:
        return proprioception[..., layout.values[name]]

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
