"""Additions to the physics: the assisted grasp, as in OmniGibson, and attachment on alignment."""

import mujoco
import numpy as np

from household import robot, room
from household.objects import Grasp
from household.proprioception import Addresses
from household.robot import FloatArray

_GRASP_HALF_SIZE = np.array([0.055, 0.05, 0.06])
"""Half-size in metres of the box around the grasp point in which an object must be to be grasped."""
_GRASP_SQUEEZE = 0.006
"""Fingers count as closed on an object when they are this close to its surface, in metres."""
_MOUNT_DISTANCE = 0.03
"""A mount snaps into a socket when it is this close, in metres ..."""
_MOUNT_TILT = np.cos(0.5)
"""... and its object stands as upright as the socket's, within half a radian."""


class AssistedGrasp:
    """Holds an object in a hand whose fingers close on it, and lets go when they are told to open.

    Args:
        model: the simulation's own compiled scene; the grasps are welded in it.
        data: its state.
        addresses: where the robot's joints lie.
        objects: names of the objects that are present.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, addresses: Addresses, objects: tuple[str, ...]
    ) -> None:
        self._model, self._data, self._addresses = model, data, addresses
        kinds = ((name, room.kind_of(name)) for name in objects)
        self._grasps: dict[str, Grasp] = {n: kind.grasp for n, kind in kinds if kind.grasp is not None}
        self.held: dict[str, str] = {}
        """What each hand holds: side to object."""

    def reset(self) -> None:
        """Let go of everything."""
        for side in list(self.held):
            self._release(side)

    def finger_target(self, side: str, command: float) -> float:
        """Target of a hand's finger joints; fingers stop at the surface of what they hold.

        Args:
            side: "left" or "right".
            command: gripper action, -1 to 1.

        Returns:
            Metres.
        """
        target = robot.gripper_to_finger(float(command))
        return max(target, self._grasps[self.held[side]].half_gap) if side in self.held else target

    def update(self, command: FloatArray) -> None:
        """Grasp or release, as the grippers are told.

        Args:
            command: [23] action.
        """
        for side, gripper in (("left", robot.LEFT_GRIPPER), ("right", robot.RIGHT_GRIPPER)):
            half_gap = float(self._data.qpos[self._addresses.finger_q[side]].mean())
            target = robot.gripper_to_finger(float(command[gripper]))
            if side in self.held:
                half = self._grasps[self.held[side]].half_gap
                if target > min(half + 2 * _GRASP_SQUEEZE, robot.FINGER_TRAVEL - _GRASP_SQUEEZE / 2):
                    self._release(side)
                continue
            found = [
                (float(np.abs(offset).max()), name)
                for name, grasp in self._grasps.items()
                if target < grasp.half_gap
                and half_gap < grasp.half_gap + _GRASP_SQUEEZE
                and name not in self.held.values()
                and bool((np.abs(offset := self._in_hand(side, name)) < _GRASP_HALF_SIZE).all())
            ]
            if found:
                self._hold(side, min(found)[1])

    def _in_hand(self, side: str, name: str) -> FloatArray:
        """The nearest point of an object's grasp part relative to the grasp point, in the hand's frame."""
        grasp, body = self._grasps[name], self._data.body(name)
        rotation = body.xmat.reshape(3, 3)
        offset = self._data.site_xpos[self._addresses.eef_site[side]] - body.xpos
        middle, reach = np.array(grasp.point), np.array(grasp.reach)
        nearest = np.clip(rotation.T @ offset, middle - reach, middle + reach)
        hand = self._data.body(f"{side}_hand").xmat.reshape(3, 3)
        return np.asarray(hand.T @ (rotation @ nearest - offset))

    def _hold(self, side: str, name: str) -> None:
        weld_as_is(self._model, self._data, room.grasp_weld(side, name), f"{side}_hand", name, 0.3)
        self.held[side] = name

    def _release(self, side: str) -> None:
        name = self.held.pop(side)
        self._data.eq_active[self._model.equality(room.grasp_weld(side, name)).id] = 0


class Mounts:
    """Fixes an object to another when its mount comes to the other's socket; it stays there.

    Args:
        model: the simulation's own compiled scene.
        data: its state.
        objects: names of the objects that are present.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, objects: tuple[str, ...]) -> None:
        self._model, self._data = model, data
        self._pairs = room.mountable(objects)
        self.attached: set[tuple[str, str]] = set()
        """Pairs (object, what it is attached to)."""

    def reset(self) -> None:
        """Take everything apart."""
        self.attached.clear()

    def update(self) -> None:
        """Attach what is aligned."""
        for child, parent in self._pairs:
            if not any(child == c for c, _ in self.attached) and self._aligned(child, parent):
                name = room.mount_weld(child, parent)
                weld_as_is(self._model, self._data, name, parent, child, 1.0)
                self.attached.add((child, parent))

    def _aligned(self, child: str, parent: str) -> bool:
        mount, socket = room.kind_of(child).mount, room.kind_of(parent).socket
        a, b = self._data.body(child), self._data.body(parent)
        ra, rb = a.xmat.reshape(3, 3), b.xmat.reshape(3, 3)
        gap = a.xpos + ra @ np.array(mount) - b.xpos - rb @ np.array(socket)
        upright = float(ra[:, 2] @ rb[:, 2])
        return bool(np.linalg.norm(gap) < _MOUNT_DISTANCE and upright > _MOUNT_TILT)


def weld_as_is(
    model: mujoco.MjModel, data: mujoco.MjData, name: str, first: str, second: str, stiffness: float
) -> None:
    """Switch a weld on so that it keeps two bodies as they are to each other now.

    Args:
        model: compiled scene, which is changed.
        data: its state, which is changed.
        name: the weld's name.
        first: its first body.
        second: its second body.
        stiffness: weight of the rotation against the position.
    """
    a, b = data.body(first), data.body(second)
    conjugate, quaternion = np.zeros(4), np.zeros(4)
    mujoco.mju_negQuat(conjugate, a.xquat)
    mujoco.mju_mulQuat(quaternion, conjugate, b.xquat)
    equality = model.equality(name).id
    row = model.eq_data[equality]
    row[:] = 0.0
    row[3:6] = a.xmat.reshape(3, 3).T @ (b.xpos - a.xpos)
    row[6:10] = quaternion
    row[10] = stiffness
    data.eq_active[equality] = 1
