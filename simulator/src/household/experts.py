"""Scripted experts that demonstrate the tasks.

An expert has no memory: its action is a smooth function of the measured joints and of where the objects are
relative to the robot. A policy that sees only the present can therefore imitate it, and started from any
disturbed state it shows the way back.
"""

from dataclasses import dataclass

import numpy as np

from household import robot
from household.furnishings import BIN_RADIUS
from household.kinematics import ArmKinematics
from household.movables import BUTTON_HEIGHT, RADIO_HEIGHT
from household.robot import FloatArray
from household.simulation import Simulation

_LEAD = 0.04
"""Largest distance in rad by which a commanded joint leads the measured one: it sets the arm's speed."""
_JOINT_GAIN = 0.6
_BASE_GAIN = 1.5
_BASE_SPEED = 0.25
_TURN_SPEED = 0.3
_HAND_UP: FloatArray = np.array([-0.3, 0.0, 1.0]) / np.hypot(0.3, 1.0)
"""Where the hand's back points: up and a little backward, so that the wrist camera sees the target early."""
_STAND: FloatArray = np.array([0.50, -0.18])
"""Where the robot wants a target to be, in its base frame, while the right hand works on it; metres."""
_STAND_BIN: FloatArray = np.array([0.48, -0.50])
"""The same for the ashcan: about where it is when the can is in its place, so that the base hardly moves."""


_REACH_LOW: FloatArray = np.array([0.36, -0.64, 0.0])
_REACH_HIGH: FloatArray = np.array([0.56, 0.05, 2.0])
"""Where the right hand works comfortably, base frame, metres: it waits at the edge until the base is near."""


@dataclass(frozen=True)
class Command:
    """What an expert wants to do now.

    Attributes:
        action: [23] action.
        skill: name of the skill, for the annotations.
        target: BDDL name of the object that the skill is about.
    """

    action: FloatArray
    skill: str
    target: str


class Expert:
    """Common part of the experts: base, posture and the right arm's motion to a waypoint.

    Args:
        simulation: the simulation to act in.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._arm = ArmKinematics(simulation.model, "right")

    def act(self) -> Command:
        """Decide the next action from the simulation's present state.

        Returns:
            The command for the next control step.
        """
        raise NotImplementedError

    def _compose(self, waypoint: FloatArray, stand: FloatArray, gripper: float) -> FloatArray:
        """Build the action.

        Args:
            waypoint: [3] where the right hand should be, base frame, metres.
            stand: [2] how far the base should move, base frame, metres.
            gripper: right gripper's command.

        Returns:
            [23] action.
        """
        state = robot.state_from_proprioception(self.simulation.proprioception())
        yaw = float(self.simulation.data.qpos[self.simulation.addresses.base_q[2]])
        action = np.zeros(robot.ACTION_DIM)
        action[0:2] = np.clip(_BASE_GAIN * stand, -_BASE_SPEED, _BASE_SPEED)
        action[2] = np.clip(-_BASE_GAIN * yaw, -_TURN_SPEED, _TURN_SPEED)
        action[robot.TRUNK] = _towards(state[robot.TRUNK], robot.TRUNK_POSTURE)
        action[robot.LEFT_ARM] = _towards(state[robot.LEFT_ARM], robot.ARM_POSTURE["left"])
        action[robot.LEFT_GRIPPER] = 1.0
        comfortable = np.clip(waypoint, _REACH_LOW, _REACH_HIGH)
        goal = self._arm.solve(state[robot.TRUNK], comfortable, _HAND_UP)
        action[robot.RIGHT_ARM] = _towards(state[robot.RIGHT_ARM], goal)
        action[robot.RIGHT_GRIPPER] = gripper
        return np.clip(action, robot.ACTION_LOW, robot.ACTION_HIGH)

    def _positions(self, name: str) -> tuple[FloatArray, FloatArray, float]:
        """The right hand and an object in the base frame, and their horizontal distance, metres."""
        hand = self.simulation.to_base(self.simulation.hand_position("right"))
        thing = self.simulation.to_base(self.simulation.object_pose(name)[:3])
        return hand, thing, float(np.hypot(*(hand - thing)[:2]))


class TurnOnRadio(Expert):
    """Brings the closed right hand above the button and presses it."""

    _RADIO = "radio_receiver.n.01_1"

    def act(self) -> Command:
        """See `Expert.act`."""
        _, radio, distance = self._positions(self._RADIO)
        top = radio[2] + RADIO_HEIGHT / 2 + BUTTON_HEIGHT
        # A funnel: the farther from the button's axis, the higher.
        waypoint = np.array([*radio[:2], top - 0.03 + _funnel(distance, 0.03, 1.6, 0.12)])
        skill = "press" if distance < 0.03 else "move to"
        return Command(self._compose(waypoint, radio[:2] - _STAND, -1.0), skill, self._RADIO)


class PickUpTrash(Expert):
    """Grasps the can from above, carries it over the ashcan and drops it."""

    _CAN = "can__of__soda.n.01_1"
    _BIN = "ashcan.n.01_1"
    _CARRY_HEIGHT = 0.63
    _GRASP_ABOVE_CENTRE = 0.02
    _RELEASE_DISTANCE = 0.08

    def act(self) -> Command:
        """See `Expert.act`."""
        if "right" in self.simulation.grasp.held:
            return self._carry()
        can, ashcan = (self.simulation.object_pose(n)[:3] for n in (self._CAN, self._BIN))
        if np.hypot(*(can - ashcan)[:2]) < BIN_RADIUS:
            hand, _, _ = self._positions(self._BIN)
            return Command(self._compose(hand, np.zeros(2), 1.0), "release", self._BIN)
        return self._grasp()

    def _grasp(self) -> Command:
        hand, can, distance = self._positions(self._CAN)
        height = can[2] + self._GRASP_ABOVE_CENTRE
        waypoint = np.array([*can[:2], height + _funnel(distance, 0.015, 4.0, 0.11)])
        gripper = -1.0 if distance < 0.035 and hand[2] - height < 0.04 else 1.0
        skill = "grasp" if distance < 0.03 else "move to"
        return Command(self._compose(waypoint, can[:2] - _STAND, gripper), skill, self._CAN)

    def _carry(self) -> Command:
        hand, ashcan, distance = self._positions(self._BIN)
        lifted = float(np.clip((hand[2] - 0.555) / 0.05, 0.0, 1.0))
        waypoint = np.array([*(hand[:2] + lifted * (ashcan[:2] - hand[:2])), self._CARRY_HEIGHT])
        gripper = 1.0 if distance < self._RELEASE_DISTANCE else -1.0
        skill = "release" if gripper > 0 else "carry"
        stand = lifted * (ashcan[:2] - _STAND_BIN)
        return Command(self._compose(waypoint, stand, gripper), skill, self._BIN)


EXPERTS: dict[str, type[Expert]] = {"turning_on_radio": TurnOnRadio, "picking_up_trash": PickUpTrash}
"""Experts by task name."""


def _towards(measured: FloatArray, goal: FloatArray) -> FloatArray:
    """Joint targets on the straight line to a goal that lead the measured joints by at most `_LEAD`."""
    step = _JOINT_GAIN * (goal - measured)
    return measured + step * min(1.0, _LEAD / max(float(np.abs(step).max()), 1e-9))


def _funnel(distance: float, radius: float, slope: float, height: float) -> float:
    """Height above the working point that keeps clear of an object at a horizontal distance, metres."""
    return float(np.clip(slope * (distance - radius), 0.0, height))
