"""The experts of all tasks: a script of steps for each, and hand-written ones for the demo's two tasks."""

from collections.abc import Callable

import numpy as np

from household import robot
from household.expert import HAND_UP, Command, Expert, Variation, funnel, towards
from household.furnishings import BIN_RADIUS
from household.kinematics import ArmKinematics
from household.movables import BUTTON_HEIGHT, RADIO_HEIGHT
from household.relocation import ScriptedExpert
from household.robot import FloatArray
from household.scripts import SCRIPTS
from household.simulation import Simulation

_BASE_GAIN = 1.5
_BASE_SPEED = 0.25
_TURN_SPEED = 0.3
_STAND: FloatArray = np.array([0.50, -0.18])
"""Where a target should be, in the base frame, while the right hand works on it; metres."""
_STAND_BIN: FloatArray = np.array([0.48, -0.50])
"""The same for the ashcan: about where it is when the can is in its place, so that the base hardly moves."""


_REACH_LOW: FloatArray = np.array([0.36, -0.64, 0.0])
_REACH_HIGH: FloatArray = np.array([0.56, 0.05, 2.0])
"""Where the right hand works comfortably, base frame, metres: it waits at the edge until the base is near."""


class _DemoExpert(Expert):
    """Moves base, posture and the right arm to a waypoint, slowly and always the same way.

    Args:
        simulation: the simulation to act in.
    """

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._arm = ArmKinematics(simulation.model, "right")

    def _compose(self, waypoint: FloatArray, stand: FloatArray, gripper: float) -> FloatArray:
        """Build the action.

        Args:
            waypoint: [3] where the right hand should be, base frame, metres.
            stand: [2] how far the base should move, base frame, metres.
            gripper: right gripper's command.

        Returns:
            [23] action.
        """
        qpos, addresses = self.simulation.data.qpos, self.simulation.addresses
        trunk, left, right = (
            qpos[a] for a in (addresses.trunk_q, addresses.arm_q["left"], addresses.arm_q["right"])
        )
        yaw = float(self.simulation.data.qpos[self.simulation.addresses.base_q[2]])
        action = np.zeros(robot.ACTION_DIM)
        action[0:2] = np.clip(_BASE_GAIN * stand, -_BASE_SPEED, _BASE_SPEED)
        action[2] = np.clip(-_BASE_GAIN * yaw, -_TURN_SPEED, _TURN_SPEED)
        action[robot.BASE] /= robot.BASE_SPEED
        action[robot.TRUNK] = towards(trunk, robot.TRUNK_POSTURE)
        action[robot.LEFT_ARM] = towards(left, robot.ARM_POSTURE["left"])
        action[robot.LEFT_GRIPPER] = 1.0
        comfortable = np.clip(waypoint, _REACH_LOW, _REACH_HIGH)
        goal = self._arm.solve(trunk, comfortable, HAND_UP)
        action[robot.RIGHT_ARM] = towards(right, goal)
        action[robot.RIGHT_GRIPPER] = gripper
        return np.clip(action, robot.ACTION_LOW, robot.ACTION_HIGH)

    def _positions(self, name: str) -> tuple[FloatArray, FloatArray, float]:
        """The right hand and an object in the base frame, and their horizontal distance, metres."""
        hand = self.simulation.to_base(self.simulation.hand_position("right"))
        thing = self.simulation.to_base(self.simulation.object_pose(name)[:3])
        return hand, thing, float(np.hypot(*(hand - thing)[:2]))


class TurnOnRadio(_DemoExpert):
    """Brings the closed right hand above the button and presses it."""

    _RADIO = "radio_receiver.n.01_1"

    def act(self) -> Command:
        """See `Expert.act`."""
        _, radio, distance = self._positions(self._RADIO)
        top = radio[2] + RADIO_HEIGHT / 2 + BUTTON_HEIGHT
        # A funnel: the farther from the button's axis, the higher.
        waypoint = np.array([*radio[:2], top - 0.03 + funnel(distance, 0.03, 1.6, 0.12)])
        skill = "press" if distance < 0.03 else "move to"
        return Command(self._compose(waypoint, radio[:2] - _STAND, -1.0), skill, self._RADIO)


class PickUpTrash(_DemoExpert):
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
        waypoint = np.array([*can[:2], height + funnel(distance, 0.015, 4.0, 0.11)])
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


_DEMO: dict[str, Callable[[Simulation], Expert]] = {
    "turning_on_radio": TurnOnRadio,
    "picking_up_trash": PickUpTrash,
}


def make_expert(simulation: Simulation, variation: Variation = Variation()) -> Expert:  # noqa: B008 (frozen)
    """Make the expert of a simulation's task.

    Args:
        simulation: the simulation to act in.
        variation: how this episode's motion differs from others; the demo's two tasks have none.

    Returns:
        The expert.
    """
    name = simulation.task.name
    if name in _DEMO:
        return _DEMO[name](simulation)
    return ScriptedExpert(simulation, SCRIPTS[name], variation)
