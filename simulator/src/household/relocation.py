"""A script of steps, each bringing about one predicate: move an object somewhere, or push a door shut."""

from dataclasses import dataclass

import numpy as np

from household import robot
from household.expert import HAND_UP, Command, Expert, Variation, funnel, towards
from household.kinematics import ArmKinematics
from household.predicates import BINARY, Object, bounds, is_open
from household.robot import FloatArray
from household.room import kind_of
from household.simulation import Simulation

_BASE_GAIN, _BASE_SPEED = 2.5, 0.6
_TURN_GAIN, _TURN_SPEED = 2.5, 0.9
_ARM_LEAD, _TRUNK_LEAD = 0.09, 0.12
_STAND = np.array([0.50, 0.18])
"""Where a target should be, ahead and to the hand's side, while a hand works on it; base frame, metres."""
_REACH = np.array([[0.34, -0.05, 0.0], [0.60, 0.62, 2.0]])
"""Where a hand works comfortably: lowest and highest x, y to its own side, z; base frame, metres."""
_SLOPE = 2.5
"""Slope of the funnel above a target: metres up per metre outward."""
_MOUTH = 0.12
"""A hand moves sideways this far in front of the container that it takes a thing out of, in metres."""
_STILL = 0.1
"""An object slower than this lies still, m/s."""
_TUCKED = np.array([0.4, 0.1, 0.0, -2.0, 0.0, 0.9, 0.0])
"""Joints in rad of the left arm while the other works, close to the body; the right arm's mirror it."""
_POSTURES = (
    (0.05, (1.45, -2.55, 1.50, 0.0)),
    (0.20, (1.25, -2.20, 1.35, 0.0)),
    (0.36, (1.00, -1.70, 1.10, 0.0)),
    (0.50, (0.50, -0.80, 0.60, 0.0)),
    (0.62, (0.50, -0.80, 0.60, 0.0)),
    (0.80, (0.15, -0.20, 0.25, 0.0)),
    (1.00, (0.00, 0.00, 0.10, 0.0)),
)
"""Height of the hand in metres, and the trunk's joints in rad that bring the shoulders to it."""


@dataclass(frozen=True)
class Spot:
    """Where an object is to be put.

    Attributes:
        of: the object whose frame it is in, or None for the room.
        offset: x, y in metres and the height at which the object's bottom is let go.
        tolerance: how far in metres it may be off.
    """

    of: str | None
    offset: tuple[float, float, float]
    tolerance: float = 0.015


@dataclass(frozen=True)
class Relocate:
    """Put an object somewhere.

    Attributes:
        thing: the object.
        predicate: what is to hold between it and `other`; until it does, the step is not done.
        other: the other object.
        spot: where it is let go.
        travel: height in metres at which the hand travels.
        side: the hand.
        headings: where the robot looks while it picks up and while it puts down, rad.
        up: where the hand's back points, base frame.
        out_of: what the thing is taken out of to the front, -x, or None where hands come from above.
    """

    thing: str
    predicate: str
    other: str
    spot: Spot
    travel: float
    side: str = "right"
    headings: tuple[float, float] = (0.0, 0.0)
    up: tuple[float, float, float] = (float(HAND_UP[0]), 0.0, float(HAND_UP[2]))
    out_of: str | None = None


@dataclass(frozen=True)
class CloseDoor:
    """Push a door shut, seen from its outside.

    Attributes:
        thing: the object with the door.
        hinge: x, y of its hinge in the object's frame; the closed door points to -y, the open one to -x.
        length: of the door, metres.
        height: of the hand, metres.
        side: the hand.
    """

    thing: str
    hinge: tuple[float, float]
    length: float
    height: float
    side: str = "left"


Step = Relocate | CloseDoor


class ScriptedExpert(Expert):
    """Does the first step of a script whose predicate does not hold, or goes on with what is in a hand.

    Args:
        simulation: the simulation to act in.
        script: the steps, in the order in which they are to be done.
        variation: how this episode's motion differs.
    """

    def __init__(self, simulation: Simulation, script: tuple[Step, ...], variation: Variation) -> None:
        super().__init__(simulation)
        self._script, self._variation = script, variation
        self._arms = {side: ArmKinematics(simulation.model, side) for side in robot.SIDES}

    def act(self) -> Command:
        """See `Expert.act`."""
        held = self.simulation.grasp.held
        for step in self._script:
            if isinstance(step, Relocate) and held.get(step.side) == step.thing:
                return self._put(step)
        undone = next((s for s in self._script if not self._done(s)), None)
        if undone is None:
            return self._rest(self._script[-1])
        if isinstance(undone, CloseDoor):
            return self._push(undone)
        if self.simulation.speed(undone.thing) > _STILL:  # it was just let go: wait until it lies still
            return self._rest(undone)
        return self._pick(undone)

    def _done(self, step: Step) -> bool:
        thing = Object(step.thing)
        if isinstance(step, CloseDoor):
            return not is_open(self.simulation, thing)
        return BINARY[step.predicate](self.simulation, thing, Object(step.other))

    def _pick(self, step: Relocate) -> Command:
        grasp = kind_of(step.thing).grasp
        if grasp is None:
            raise ValueError(f"{step.thing} cannot be grasped")
        target = self.simulation.to_world(step.thing, grasp.point)
        hand = self.simulation.hand_position(step.side)
        distance = float(np.hypot(*(target - hand)[:2]))
        clear = max(step.travel + self._variation.travel - target[2], 0.05)
        height = target[2] + funnel(distance, 0.015, _SLOPE, clear)
        gate = _gate(hand[2] - height)
        waypoint = np.array([*(hand + gate * (target - hand))[:2], height])
        if step.out_of is not None:
            mouth = bounds(self.simulation, step.out_of)[0][0] - _MOUTH
            aside = abs(float(target[1] - hand[1]))
            waypoint[0] = target[0] - funnel(aside, 0.03, 4.0, target[0] - mouth)
        closing = distance < 0.03 and hand[2] - target[2] < 0.03
        across = self.simulation.rotation(step.thing)[:, 1] if grasp.turns else None
        action = self._compose(
            step.side,
            waypoint,
            self._stand(step.side, target, step.headings[0], gate),
            -1.0 if closing else 1.0,
            np.array(step.up),
            across,
        )
        return Command(action, "grasp" if distance < 0.03 else "move to", step.thing)

    def _put(self, step: Relocate) -> Command:
        goal = self._goal(step)
        thing = self.simulation.object_pose(step.thing)[:3]
        hand = self.simulation.hand_position(step.side)
        way = goal - thing
        distance = float(np.hypot(way[0], way[1]))
        if step.out_of is not None:
            out = self._outside(step.out_of, hand)
            way = np.array([out * way[0] - 0.12 * (1.0 - out), out * way[1], way[2]])
        end = hand[2] + way[2]
        clear = max(step.travel + self._variation.travel - end, 0.0)
        height = end + funnel(distance, 0.012, _SLOPE, clear)
        gate = _gate(hand[2] - height)
        there = distance < step.spot.tolerance and -way[2] < 0.02
        letting_go = self._done(step) if step.predicate == "attached" else there
        action = self._compose(
            step.side,
            np.array([*(hand + gate * way)[:2], height]),
            self._stand(step.side, hand + way, step.headings[1], gate),
            1.0 if letting_go else -1.0,
            np.array(step.up),
            None,
        )
        return Command(action, "release" if letting_go else "carry", step.other)

    def _push(self, step: CloseDoor) -> Command:
        """Around the door's edge to its outside, then against it; angles about the hinge, 0 closed."""
        sim = self.simulation
        hinge = sim.to_world(step.thing, (*step.hinge, 0.0))
        hand = sim.hand_position(step.side)
        local = sim.rotation(step.thing).T @ (hand - hinge)
        radius, angle = float(np.hypot(local[0], local[1])), float(np.arctan2(-local[0], -local[1]))
        door = sim.door_angle(step.thing)
        clear = step.length + 0.14
        around = angle < door + 0.08  # with open fingers: closing ones might grasp something
        if around:
            away = np.clip((radius - clear + 0.06) / 0.05, 0.0, 1.0)
            radius, angle = clear, angle + float(away) * min(0.5, door + 0.30 - angle)
        elif radius > step.length - 0.04 and angle < door + 0.20:
            radius, angle = clear, door + 0.35
        else:
            handle = step.length - 0.10
            radius, angle = handle, door - 0.25 if abs(radius - handle) < 0.08 else door + 0.15
        point = np.array([-radius * np.sin(angle), -radius * np.cos(angle), step.height])
        target = hinge + sim.rotation(step.thing) @ point
        base = self._stand(step.side, target, 0.0, 1.0)
        action = self._compose(step.side, target, base, 1.0 if around else -1.0, HAND_UP, None)
        return Command(action, "push", step.thing)

    def _rest(self, last: Step) -> Command:
        """Nothing is left to do: open the hand and lift it."""
        hand = self.simulation.hand_position(last.side)
        up = last.up if isinstance(last, Relocate) else tuple(HAND_UP)
        action = self._compose(last.side, hand + np.array([0, 0, 0.02]), np.zeros(3), 1.0, np.array(up), None)
        return Command(action, "retreat", last.thing)

    def _goal(self, step: Relocate) -> FloatArray:
        """Where the thing's frame is to be when it is let go, [3] in the world."""
        offset = np.array(step.spot.offset) - [0.0, 0.0, kind_of(step.thing).low[2]]
        return offset if step.spot.of is None else self.simulation.to_world(step.spot.of, offset)

    def _outside(self, container: str, hand: FloatArray) -> float:
        """0 where a hand is inside a container that is open to the front, 1 where it is outside."""
        low, high = bounds(self.simulation, container)
        if not low[1] - 0.1 < hand[1] < high[1] + 0.1:
            return 1.0
        return float(np.clip((low[0] - _MOUTH + 0.06 - hand[0]) / 0.05, 0.0, 1.0))

    def _stand(self, side: str, target: FloatArray, heading: float, gate: float) -> FloatArray:
        """How far the base should move, [3]: base frame in metres, and rad."""
        sign = 1.0 if side == "left" else -1.0
        ahead, aside = (_STAND + self._variation.stand) * [1.0, sign]
        x, y, yaw = self.simulation.data.qpos[self.simulation.addresses.base_q]
        cos, sin = np.cos(heading), np.sin(heading)
        dx = target[0] - (cos * ahead - sin * aside) - x
        dy = target[1] - (sin * ahead + cos * aside) - y
        turn = np.arctan2(np.sin(heading - yaw), np.cos(heading - yaw))
        cos, sin = np.cos(yaw), np.sin(yaw)
        return gate * np.array([cos * dx + sin * dy, -sin * dx + cos * dy, turn])

    def _compose(
        self,
        side: str,
        waypoint: FloatArray,
        base: FloatArray,
        gripper: float,
        up: FloatArray,
        across: FloatArray | None,
    ) -> FloatArray:
        """Build the action.

        Args:
            side: the hand that works; the other one stays in its posture.
            waypoint: [3] where the hand should be, world, metres.
            base: [3] how far the base should move and turn, base frame.
            gripper: its command.
            up: [3] where the hand's back points, base frame.
            across: [3] direction in the world in which the fingers close, or None.

        Returns:
            [23] action.
        """
        qpos, addresses = self.simulation.data.qpos, self.simulation.addresses
        measured = qpos[addresses.trunk_q]
        speed = self._variation.speed
        action = np.zeros(robot.ACTION_DIM)
        action[0:2] = _limited(_BASE_GAIN * base[:2], _BASE_SPEED * speed)
        action[2] = np.clip(_TURN_GAIN * base[2], -_TURN_SPEED * speed, _TURN_SPEED * speed)
        heights = [height for height, _ in _POSTURES]
        joints = np.array([posture for _, posture in _POSTURES])
        trunk = np.array([np.interp(waypoint[2], heights, joints[:, i]) for i in range(4)])
        action[robot.BASE] /= robot.BASE_SPEED
        action[robot.TRUNK] = towards(measured, trunk, _TRUNK_LEAD * speed)
        sign = 1.0 if side == "left" else -1.0
        local = self.simulation.to_base(waypoint) * [1.0, sign, 1.0]
        comfortable = np.clip(local, *_REACH) * [1.0, sign, 1.0]
        for other, arm, grip in (
            ("left", robot.LEFT_ARM, robot.LEFT_GRIPPER),
            ("right", robot.RIGHT_ARM, robot.RIGHT_GRIPPER),
        ):
            goal = _TUCKED * [1.0, 1.0 if other == "left" else -1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
            if other == side:
                goal = self._arms[side].solve(measured, comfortable, up, self._turned(across))
            action[arm] = towards(qpos[addresses.arm_q[other]], goal, _ARM_LEAD * speed)
            action[grip] = gripper if other == side else 1.0
        return np.clip(action, robot.ACTION_LOW, robot.ACTION_HIGH)

    def _turned(self, across: FloatArray | None) -> FloatArray:
        """A direction of the world in the base frame; of the two that close the same, the one to the left."""
        if across is None:
            return np.array([0.0, 1.0, 0.0])
        yaw = float(self.simulation.data.qpos[self.simulation.addresses.base_q[2]])
        cos, sin = np.cos(yaw), np.sin(yaw)
        local = np.array([cos * across[0] + sin * across[1], -sin * across[0] + cos * across[1], 0.0])
        if local[1] < 0:
            local = -local
        return local / max(float(np.linalg.norm(local)), 1e-9)


def _gate(above: float) -> float:
    """How far a hand may move sideways, 0 to 1: from well below the funnel it first rises."""
    return float(np.clip((above + 0.07) / 0.05, 0.0, 1.0))


def _limited(vector: FloatArray, length: float) -> FloatArray:
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-9))
