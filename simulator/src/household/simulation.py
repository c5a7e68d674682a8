"""The simulation: physics at 120 Hz, actions at 30 Hz, proprioception, pictures, touch and assisted grasp."""

import copy
import functools
from typing import Self

import mujoco
import numpy as np
import numpy.typing as npt

from household import robot, room
from household.attachment import AssistedGrasp, Mounts
from household.instances import Instance
from household.proprioception import Addresses, camera_poses, proprioception
from household.robot import FloatArray
from household.task import Task

FLOOR = "floor"
"""Name of the floor among the things that can touch each other."""
_SUBSTEPS = robot.PHYSICS_HZ // robot.CONTROL_HZ
_OFF, _ON = (0.90, 0.06, 0.06, 1.0), (0.10, 0.85, 0.20, 1.0)
"""Colours of a button."""


@functools.cache
def compiled_model(task: Task) -> mujoco.MjModel:
    """Compile a task's scene once per process.

    Args:
        task: the task.

    Returns:
        MuJoCo model; shared, so copy it before writing to it.
    """
    return mujoco.MjModel.from_xml_string(room.scene_xml(task.room, task.objects, task.zones))


class Simulation:
    """One robot in one room with one task's objects.

    The same instance and the same actions give the same states bit for bit.

    Args:
        task: the task, which says what stands in the room.
        edition: year of the challenge whose proprioception the robot has.
    """

    def __init__(self, task: Task, edition: robot.Edition = "2026") -> None:
        self.task, self.edition = task, edition
        # A copy of its own: furniture is placed, buttons coloured and grasps welded in the model itself.
        self.model = copy.deepcopy(compiled_model(task))
        self.data = mujoco.MjData(self.model)
        self.addresses = Addresses(self.model)
        self.grasp = AssistedGrasp(self.model, self.data, self.addresses, task.objects)
        self.mounts = Mounts(self.model, self.data, task.objects)
        self.switched_on: set[str] = set()
        """Objects whose button a finger has touched."""
        self._renderers: dict[int, mujoco.Renderer] = {}
        self._finger_geoms = {self.model.geom(f"{side}_finger{i}").id for side in robot.SIDES for i in (1, 2)}
        self._buttons = {
            self.model.geom(f"{name}_{button}").id: name
            for name in task.objects
            if (button := room.kind_of(name).button) is not None
        }
        self._owner = [self.model.body(i).name for i in self.model.body_rootid[self.model.geom_bodyid]]
        floor = self.model.geom("floor").id
        self._owner[floor] = FLOOR

    def fork(self) -> Self:
        """Copy the simulation as it is now.

        Returns:
            A simulation of its own: the same actions give the same states bit for bit in both, and neither
            changes the other.
        """
        fork = copy.copy(self)
        fork.model = copy.deepcopy(self.model)
        fork.data = mujoco.MjData(fork.model)
        mujoco.mj_copyData(fork.data, fork.model, self.data)
        fork.grasp = AssistedGrasp(fork.model, fork.data, self.addresses, self.task.objects)
        fork.grasp.held = dict(self.grasp.held)
        fork.mounts = Mounts(fork.model, fork.data, self.task.objects)
        fork.mounts.attached = set(self.mounts.attached)
        fork.switched_on = set(self.switched_on)
        fork._renderers = {}
        return fork

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
        self.grasp.reset()
        self.mounts.reset()
        self.switched_on.clear()
        for button in self._buttons:
            self.model.geom_rgba[button] = _OFF
        for name, (x, y, z, yaw) in instance.poses.items():
            self._place(name, np.array([x, y, z]), float(yaw))
        for name, angle in instance.openings.items():
            self.data.qpos[self._door(name)] = angle
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
        forward, sideways, turn = command[robot.BASE] * robot.BASE_SPEED
        self.data.ctrl[:3] = (cos * forward - sin * sideways, sin * forward + cos * sideways, turn)
        self.data.ctrl[3:7] = command[robot.TRUNK]
        self.data.ctrl[7:14] = command[robot.LEFT_ARM]
        self.data.ctrl[14:16] = self.grasp.finger_target("left", command[robot.LEFT_GRIPPER])
        self.data.ctrl[16:23] = command[robot.RIGHT_ARM]
        self.data.ctrl[23:25] = self.grasp.finger_target("right", command[robot.RIGHT_GRIPPER])
        for _ in range(_SUBSTEPS):
            mujoco.mj_step(self.model, self.data)
            self._press_buttons()
        mujoco.mj_forward(self.model, self.data)
        self.grasp.update(command)
        self.mounts.update()

    def proprioception(self) -> FloatArray:
        """The robot's values in the simulation's edition.

        Returns:
            [61] or [256] float64, see `robot.LAYOUTS`.
        """
        return proprioception(self.data, self.addresses, self.edition)

    def camera_poses(self) -> FloatArray:
        """Camera poses in the base frame.

        Returns:
            [21]: position and quaternion (x, y, z, w) of left wrist, right wrist, head.
        """
        return camera_poses(self.data, self.addresses)

    def render(self, camera: str, size: int) -> npt.NDArray[np.uint8]:
        """Render a camera's image.

        Args:
            camera: one of `robot.CAMERAS`.
            size: side length in pixels.

        Returns:
            [size, size, 3] uint8 RGB.
        """
        if size not in self._renderers:
            screen = self.model.vis.global_
            screen.offwidth, screen.offheight = max(size, screen.offwidth), max(size, screen.offheight)
            self._renderers[size] = mujoco.Renderer(self.model, size, size)
        renderer = self._renderers[size]
        renderer.update_scene(self.data, camera)
        return np.array(renderer.render(), dtype=np.uint8)

    def depth(self, camera: str, size: int) -> npt.NDArray[np.float32]:
        """How far what a camera sees is from its image plane.

        Args:
            camera: one of `robot.CAMERAS`.
            size: side length in pixels.

        Returns:
            [size, size] in metres.
        """
        self.render(camera, size)  # the scene, seen from there
        renderer = self._renderers[size]
        renderer.enable_depth_rendering()
        try:
            return np.array(renderer.render(), dtype=np.float32)
        finally:
            renderer.disable_depth_rendering()

    def close(self) -> None:
        """Free the graphics memory."""
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

    def rotation(self, name: str) -> FloatArray:
        """How an object is turned in the world.

        Args:
            name: BDDL name of an object in the room.

        Returns:
            [3, 3] rotation matrix; its columns are the object's axes.
        """
        return np.array(self.data.body(name).xmat.reshape(3, 3))

    def to_world(self, name: str, point: npt.ArrayLike) -> FloatArray:
        """Express a point of an object in the world.

        Args:
            name: BDDL name of an object in the room.
            point: [3] in the object's frame, metres.

        Returns:
            [3] in metres.
        """
        return np.asarray(self.data.body(name).xpos + self.rotation(name) @ np.asarray(point))

    def speed(self, name: str) -> float:
        """How fast an object moves.

        Args:
            name: BDDL name of an object that can move.

        Returns:
            Speed of its frame in m/s.
        """
        return float(np.linalg.norm(self.data.joint(name).qvel[:3]))

    def door_angle(self, name: str) -> float:
        """How far an object's door is open.

        Args:
            name: BDDL name of an object with a door.

        Returns:
            Angle in rad; 0 is closed.
        """
        return float(self.data.qpos[self._door(name)])

    def touches(self, first: str, second: str) -> bool:
        """Whether two things are in contact.

        Args:
            first: BDDL name of an object, or `FLOOR`.
            second: the other.

        Returns:
            True when a shape of one touches a shape of the other.
        """
        return any(pair in ((first, second), (second, first)) for pair in self._pairs())

    def contacts(self) -> list[tuple[str, str, float]]:
        """All contacts.

        Returns:
            Names of the two things (objects, `FLOOR`, "base" for the robot) and their overlap in metres.
        """
        depths = -self.data.contact.dist[: self.data.ncon]
        return [(*pair, float(depth)) for pair, depth in zip(self._pairs(), depths, strict=True)]

    def _pairs(self) -> list[tuple[str, str]]:
        return [(self._owner[a], self._owner[b]) for a, b in self.data.contact.geom[: self.data.ncon]]

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
        if joint < 0:  # without a joint, it stands where the model says
            self.model.body_pos[body.id] = position
            self.model.body_quat[body.id] = quaternion
            return
        start = self.model.jnt_qposadr[joint]
        self.data.qpos[start : start + 7] = np.concatenate([position, quaternion])

    def _press_buttons(self) -> None:
        """A finger that touches a button switches its device on; it stays on."""
        if len(self.switched_on) == len(self._buttons):
            return
        for a, b in self.data.contact.geom[: self.data.ncon]:
            for button, other in ((a, b), (b, a)):
                if button in self._buttons and other in self._finger_geoms:
                    self.switched_on.add(self._buttons[button])
                    self.model.geom_rgba[button] = _ON

    def _door(self, name: str) -> int:
        return int(self.model.joint(f"{name}_{room.kind_of(name).door}").qposadr[0])
