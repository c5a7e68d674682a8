"""The simulation: physics at 120 Hz, actions at 30 Hz, proprioception, pictures, touch and assisted grasp."""

import copy
import functools

import mujoco
import numpy as np
import numpy.typing as npt

from household import robot, room
from household.instances import Instance
from household.proprioception import Addresses, camera_poses, proprioception
from household.robot import FloatArray
from household.tasks import Task

_SUBSTEPS = robot.PHYSICS_HZ // robot.CONTROL_HZ
_GRASP_HALF_SIZE = np.array([0.055, 0.05, 0.06])
"""Half-size in metres of the box around the grasp point in which an object's axis must lie to be grasped."""
_GRASP_SQUEEZE = 0.006
"""Fingers count as closed on an object when they are this close to its surface, in metres."""


@functools.cache
def compiled_model(task: Task) -> mujoco.MjModel:
    """Compile a task's scene once per process.

    Args:
        task: the task.

    Returns:
        MuJoCo model; shared, so copy it before writing to it.
    """
    names = tuple(p.name for p in task.placements)
    return mujoco.MjModel.from_xml_string(room.scene_xml(names, task.grasp_object))


class Simulation:
    """One robot in one room with one task's objects.

    The same instance and the same actions give the same states bit for bit.

    Args:
        task: the task, which says what stands in the room.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        # An own copy: the bin is placed, the button coloured and the grasp welded in the model itself.
        self.model = copy.deepcopy(compiled_model(task))
        self.data = mujoco.MjData(self.model)
        self.addresses = Addresses(self.model)
        self._renderers: dict[int, mujoco.Renderer] = {}
        self._finger_geoms = {self.model.geom(f"{side}_finger{i}").id for side in robot.SIDES for i in (1, 2)}
        self._button = (
            self.model.geom("radio_button").id
            if any(p.name.startswith("radio") for p in task.placements)
            else -1
        )
        self.radio_on = False
        self.grasping: str | None = None

    def reset(self, instance: Instance) -> None:
        """Place robot and objects and let them settle.

        Args:
            instance: one of this task's instances.

        Raises:
            ValueError: the instance belongs to another task.
        """
        if instance.task != self.task.name:
            raise ValueError(f"instance of {instance.task} given to a simulation of {self.task.name}")
        mujoco.mj_resetData(self.model, self.data)
        self._release()
        self.radio_on = False
        if self._button >= 0:
            self.model.geom_rgba[self._button] = (0.90, 0.06, 0.06, 1.0)
        for name, (x, y, z, yaw) in instance.poses.items():
            self._place(name, np.array([x, y, z]), float(yaw))
        action = np.zeros(robot.ACTION_DIM)
        action[robot.TRUNK] = robot.TRUNK_POSTURE + instance.posture[:4]
        action[robot.LEFT_ARM] = robot.ARM_POSTURE["left"] + instance.posture[4:11]
        action[robot.RIGHT_ARM] = robot.ARM_POSTURE["right"] + instance.posture[11:18]
        action[robot.LEFT_GRIPPER] = 1.0 + instance.posture[18]
        action[robot.RIGHT_GRIPPER] = self.task.gripper - np.sign(self.task.gripper) * -instance.posture[19]
        a = self.addresses
        self.data.qpos[a.base_q] = instance.base
        self.data.qpos[a.trunk_q] = action[robot.TRUNK]
        for side, arm, gripper in (
            ("left", robot.LEFT_ARM, robot.LEFT_GRIPPER),
            ("right", robot.RIGHT_ARM, robot.RIGHT_GRIPPER),
        ):
            self.data.qpos[a.arm_q[side]] = action[arm]
            self.data.qpos[a.finger_q[side]] = robot.gripper_to_finger(action[gripper])
        for _ in range(5):
            self.step(action)

    def step(self, action: npt.ArrayLike) -> None:
        """Advance one control step of 1/30 s.

        Args:
            action: [23], clipped to the robot's limits.

        Raises:
            ValueError: wrong shape, or a value is not finite.
        """
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (robot.ACTION_DIM,):
            raise ValueError(f"action has shape {command.shape}; expected ({robot.ACTION_DIM},)")
        if not np.isfinite(command).all():
            bad = np.flatnonzero(~np.isfinite(command)).tolist()
            raise ValueError(f"action has non-finite values at indices {bad}; expected 23 finite numbers")
        command = np.clip(command, robot.ACTION_LOW, robot.ACTION_HIGH)
        yaw = self.data.qpos[self.addresses.base_q[2]]
        cos, sin = np.cos(yaw), np.sin(yaw)
        forward, sideways, turn = command[robot.BASE]
        self.data.ctrl[:3] = (cos * forward - sin * sideways, sin * forward + cos * sideways, turn)
        self.data.ctrl[3:7] = command[robot.TRUNK]
        self.data.ctrl[7:14] = command[robot.LEFT_ARM]
        self.data.ctrl[14:16] = self._finger_target("left", command[robot.LEFT_GRIPPER])
        self.data.ctrl[16:23] = command[robot.RIGHT_ARM]
        self.data.ctrl[23:25] = self._finger_target("right", command[robot.RIGHT_GRIPPER])
        for _ in range(_SUBSTEPS):
            mujoco.mj_step(self.model, self.data)
            self._press_button()
        mujoco.mj_forward(self.model, self.data)
        self._assist_grasp(command)

    def proprioception(self) -> FloatArray:
        """The robot's 256 values.

        Returns:
            [256] float64, laid out as `robot.PROPRIOCEPTION`.
        """
        return proprioception(self.data, self.addresses)

    def camera_poses(self) -> FloatArray:
        """Camera poses in the base frame.

        Returns:
            [21]: position and quaternion (x, y, z, w) of left wrist, right wrist, head.
        """
        return camera_poses(self.data, self.addresses)

    def render(self, camera: str, size: int) -> npt.NDArray[np.uint8]:
        """Take a picture.

        Args:
            camera: one of `robot.CAMERAS`.
            size: side length in pixels.

        Returns:
            [size, size, 3] uint8 RGB.
        """
        if size not in self._renderers:
            self._renderers[size] = mujoco.Renderer(self.model, size, size)
        renderer = self._renderers[size]
        renderer.update_scene(self.data, camera)
        return np.array(renderer.render(), dtype=np.uint8)

    def close(self) -> None:
        """Free the pictures' graphics memory."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def object_pose(self, name: str) -> FloatArray:
        """Where an object is in the world.

        Args:
            name: BDDL name of an object in the room.

        Returns:
            [7]: position in metres and quaternion (w, x, y, z).
        """
        body = self.data.body(name)
        return np.concatenate([body.xpos, body.xquat])

    def hand_position(self, side: str) -> FloatArray:
        """Where a hand's grasp point is in the world.

        Args:
            side: "left" or "right".

        Returns:
            [3] in metres.
        """
        return np.array(self.data.site_xpos[self.addresses.eef_site[side]])

    def to_base(self, position: FloatArray) -> FloatArray:
        """Express a world position in the robot's base frame.

        Args:
            position: [3] in metres.

        Returns:
            [3] in metres: ahead, to the left, above the floor.
        """
        x, y, yaw = self.data.qpos[self.addresses.base_q]
        dx, dy = position[0] - x, position[1] - y
        cos, sin = np.cos(yaw), np.sin(yaw)
        return np.array([cos * dx + sin * dy, -sin * dx + cos * dy, position[2]])

    def _place(self, name: str, position: FloatArray, yaw: float) -> None:
        quaternion = np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
        body = self.model.body(name)
        joint = body.jntadr[0]
        if joint < 0:  # furniture-like: it stands where the model says
            self.model.body_pos[body.id] = position
            self.model.body_quat[body.id] = quaternion
            return
        start = self.model.jnt_qposadr[joint]
        self.data.qpos[start : start + 7] = np.concatenate([position, quaternion])

    def _press_button(self) -> None:
        """A finger that touches the button turns the radio on; it stays on."""
        if self._button < 0 or self.radio_on:
            return
        for a, b in self.data.contact.geom[: self.data.ncon]:
            other = b if a == self._button else a
            if self._button in (a, b) and other in self._finger_geoms:
                self.radio_on = True
                self.model.geom_rgba[self._button] = (0.10, 0.85, 0.20, 1.0)
                return

    def _finger_target(self, side: str, command: float) -> float:
        """Target of a hand's finger joints in metres; fingers stop at the surface of what they hold."""
        target = robot.gripper_to_finger(float(command))
        return max(target, room.CAN_RADIUS) if self.grasping == side else target

    def _assist_grasp(self, command: FloatArray) -> None:
        """Weld the object to a hand whose fingers close on it; let go when they are told to open."""
        name = self.task.grasp_object
        if name is None:
            return
        for side, gripper in (("left", robot.LEFT_GRIPPER), ("right", robot.RIGHT_GRIPPER)):
            half_gap = float(self.data.qpos[self.addresses.finger_q[side]].mean())
            target = robot.gripper_to_finger(float(command[gripper]))
            if self.grasping == side:
                if target > room.CAN_RADIUS + 2 * _GRASP_SQUEEZE:
                    self._release()
            elif self.grasping is None and target < room.CAN_RADIUS:
                near = half_gap < room.CAN_RADIUS + _GRASP_SQUEEZE
                if near and bool((np.abs(self._in_hand(side, name)) < _GRASP_HALF_SIZE).all()):
                    self._attach(side, name)

    def _in_hand(self, side: str, name: str) -> FloatArray:
        """The object's nearest axis point relative to the grasp point, in the hand's frame, metres."""
        hand = self.data.body(f"{side}_hand")
        body = self.data.body(name)
        axis = body.xmat.reshape(3, 3)[:, 2]
        offset = self.data.site_xpos[self.addresses.eef_site[side]] - body.xpos
        along = np.clip(offset @ axis, -room.CAN_HALF_HEIGHT, room.CAN_HALF_HEIGHT)
        return np.asarray(hand.xmat.reshape(3, 3).T @ (axis * along - offset))

    def _attach(self, side: str, name: str) -> None:
        hand, body = self.data.body(f"{side}_hand"), self.data.body(name)
        conjugate, quaternion = np.zeros(4), np.zeros(4)
        mujoco.mju_negQuat(conjugate, hand.xquat)
        mujoco.mju_mulQuat(quaternion, conjugate, body.xquat)
        equality = self.model.equality(f"{side}_grasp").id
        row = self.model.eq_data[equality]
        row[:] = 0.0
        row[3:6] = hand.xmat.reshape(3, 3).T @ (body.xpos - hand.xpos)
        row[6:10] = quaternion
        row[10] = 0.3
        self.data.eq_active[equality] = 1
        self.grasping = side

    def _release(self) -> None:
        self.data.eq_active[:] = 0
        self.grasping = None
