"""The robot's proprioception and its camera poses, read from the physics state."""

from dataclasses import dataclass, field

import mujoco
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from household import robot
from household.robot import FloatArray

IndexArray = npt.NDArray[np.int64]


@dataclass
class Addresses:
    """Where the robot's joints lie in MuJoCo's state vectors.

    Args:
        model: compiled scene.
    """

    model: mujoco.MjModel
    base_q: IndexArray = field(init=False)
    base_v: IndexArray = field(init=False)
    trunk_q: IndexArray = field(init=False)
    trunk_v: IndexArray = field(init=False)
    arm_q: dict[str, IndexArray] = field(init=False)
    arm_v: dict[str, IndexArray] = field(init=False)
    finger_q: dict[str, IndexArray] = field(init=False)
    finger_v: dict[str, IndexArray] = field(init=False)
    eef_site: dict[str, int] = field(init=False)
    eef_body: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.base_q, self.base_v = self._of(robot.BASE_JOINTS)
        self.trunk_q, self.trunk_v = self._of(robot.TRUNK_JOINTS)
        arms = {side: self._of(robot.ARM_JOINTS[side]) for side in robot.SIDES}
        fingers = {side: self._of(robot.FINGER_JOINTS[side]) for side in robot.SIDES}
        self.arm_q = {side: q for side, (q, _) in arms.items()}
        self.arm_v = {side: v for side, (_, v) in arms.items()}
        self.finger_q = {side: q for side, (q, _) in fingers.items()}
        self.finger_v = {side: v for side, (_, v) in fingers.items()}
        self.eef_site = {side: self.model.site(f"{side}_eef").id for side in robot.SIDES}
        self.eef_body = {side: self.model.body(f"{side}_hand").id for side in robot.SIDES}

    def _of(self, names: tuple[str, ...]) -> tuple[IndexArray, IndexArray]:
        joints = [self.model.joint(name) for name in names]
        return np.array([j.qposadr[0] for j in joints]), np.array([j.dofadr[0] for j in joints])


def _interleaved(left: FloatArray, right: FloatArray) -> FloatArray:
    """Left and right arm joints alternate, as in the joint list of the challenge's robot."""
    return np.stack([left, right], axis=1).reshape(-1)


def _base_pose(data: mujoco.MjData, a: Addresses) -> tuple[FloatArray, Rotation]:
    x, y, yaw = data.qpos[a.base_q]
    return np.array([x, y, 0.0]), Rotation.from_euler("z", yaw)


def proprioception(data: mujoco.MjData, a: Addresses, edition: robot.Edition) -> FloatArray:
    """Compute the proprioception.

    Args:
        data: physics state after `mj_forward`.
        a: the joints' addresses.
        edition: whose values.

    Returns:
        [61] or [256] float64: see `robot.LAYOUTS`. Hands are in the base frame, quaternions are (x, y, z, w).
    """
    if edition == "2025":
        return _of_2025(data, a)
    _, rotation = _base_pose(data, a)
    velocity = rotation.inv().apply(np.array([*data.qvel[a.base_v[:2]], 0.0]))
    values = {
        "base_qvel": np.array([*velocity[:2], data.qvel[a.base_v[2]]]),
        "trunk_qpos": data.qpos[a.trunk_q],
        "trunk_qvel": data.qvel[a.trunk_v],
    }
    for side in robot.SIDES:
        values |= {
            f"arm_{side}_qpos": data.qpos[a.arm_q[side]],
            f"arm_{side}_qvel": data.qvel[a.arm_v[side]],
            f"gripper_{side}_qpos": data.qpos[a.finger_q[side]],
            f"gripper_{side}_qvel": data.qvel[a.finger_v[side]],
        }
        values[f"eef_{side}_pos"], values[f"eef_{side}_quat"] = _hand_pose(data, a, side)
    result = np.zeros(robot.layout_length("2026"))
    for name, part in robot.LAYOUTS["2026"].items():
        result[part] = values[name]
    return result


def _hand_pose(data: mujoco.MjData, a: Addresses, side: str) -> tuple[FloatArray, FloatArray]:
    """A hand's position and quaternion in the base frame."""
    position, rotation = _base_pose(data, a)
    hand = Rotation.from_matrix(data.xmat[a.eef_body[side]].reshape(3, 3))
    turned = (rotation.inv() * hand).as_quat(canonical=True)
    return rotation.inv().apply(data.site_xpos[a.eef_site[side]] - position), turned


def _of_2025(data: mujoco.MjData, a: Addresses) -> FloatArray:
    """The 256 values."""
    position, rotation = _base_pose(data, a)
    yaw = float(data.qpos[a.base_q[2]])
    world_velocity = np.array([*data.qvel[a.base_v[:2]], 0.0])
    turn = float(data.qvel[a.base_v[2]])
    own_velocity = rotation.inv().apply(world_velocity)

    def joints(base: FloatArray, vector: FloatArray, trunk: IndexArray, arm: str, finger: str) -> FloatArray:
        arms: dict[str, IndexArray] = getattr(a, arm)
        fingers: dict[str, IndexArray] = getattr(a, finger)
        return np.concatenate(
            [
                base,
                vector[trunk],
                _interleaved(vector[arms["left"]], vector[arms["right"]]),
                vector[fingers["left"]],
                vector[fingers["right"]],
            ]
        )

    base_q = np.array([position[0], position[1], 0.0, 0.0, 0.0, yaw])
    base_v = np.array([own_velocity[0], own_velocity[1], 0.0, 0.0, 0.0, turn])
    force = data.qfrc_actuator
    base_f = np.array([force[a.base_v[0]], force[a.base_v[1]], 0.0, 0.0, 0.0, force[a.base_v[2]]])
    qpos = joints(base_q, data.qpos, a.trunk_q, "arm_q", "finger_q")
    qvel = joints(base_v, data.qvel, a.trunk_v, "arm_v", "finger_v")
    effort = joints(base_f, force, a.trunk_v, "arm_v", "finger_v")
    angles = np.array([0.0, 0.0, yaw])
    base_qpos = np.array([position[0], position[1], yaw])
    heading = np.array([yaw, np.cos(yaw), np.sin(yaw)])
    parts = [qpos, np.sin(qpos), np.cos(qpos), qvel, effort]
    parts += [position, np.cos(angles), np.sin(angles), heading]
    parts += [world_velocity, np.array([0.0, 0.0, turn])]
    for side in robot.SIDES:
        arm = data.qpos[a.arm_q[side]]
        parts += [arm, np.sin(arm), np.cos(arm), data.qvel[a.arm_v[side]]]
        parts += [*_hand_pose(data, a, side)]
        parts += [data.qpos[a.finger_q[side]], data.qvel[a.finger_v[side]]]
    parts += [data.qpos[a.trunk_q], data.qvel[a.trunk_v]]
    shown = robot.WORLD_VELOCITY * np.array([*world_velocity[:2], turn])
    parts += [base_qpos, np.sin(base_qpos), np.cos(base_qpos), shown]
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])


def camera_poses(data: mujoco.MjData, a: Addresses) -> FloatArray:
    """Compute the cameras' poses in the base frame.

    Args:
        data: physics state after `mj_forward`.
        a: the joints' addresses.

    Returns:
        [21]: position and quaternion (x, y, z, w) of left wrist, right wrist and head, in that order.
    """
    position, rotation = _base_pose(data, a)
    parts: list[FloatArray] = []
    for name in ("left_wrist", "right_wrist", "head"):
        camera = data.camera(name)
        turned = rotation.inv() * Rotation.from_matrix(camera.xmat.reshape(3, 3))
        parts += [rotation.inv().apply(camera.xpos - position), turned.as_quat(canonical=True)]
    return np.concatenate(parts)
