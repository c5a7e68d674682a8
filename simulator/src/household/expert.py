"""The base of scripted experts: their command, and how joints and hands move towards a goal.

An expert has no memory: its action is a smooth function of the measured joints and of where the objects are
relative to the robot. A policy that sees only the present can therefore imitate it, and started from any
disturbed state it shows the way back. What varies between episodes, speed and path, is drawn before.
"""

from dataclasses import dataclass

import numpy as np

from household.robot import FloatArray
from household.simulation import Simulation

JOINT_GAIN = 0.6
LEAD = 0.04
"""Largest distance in rad by which a commanded joint leads the measured one: it sets the arm's speed."""
HAND_UP: FloatArray = np.array([-0.3, 0.0, 1.0]) / np.hypot(0.3, 1.0)
"""Where the hand's back points: up and a little backward, so that the wrist camera sees the target early."""


@dataclass(frozen=True)
class Command:
    """What an expert does next.

    Attributes:
        action: [23] action.
        skill: name of the skill, for the annotations.
        target: BDDL name of the object that the skill is about.
    """

    action: FloatArray
    skill: str
    target: str


@dataclass(frozen=True)
class Variation:
    """How one episode's motion differs from another's.

    Attributes:
        speed: factor of all speeds.
        travel: added to the height in metres at which hands travel.
        stand: [2] added to where the base stands, metres.
    """

    speed: float = 1.0
    travel: float = 0.0
    stand: tuple[float, float] = (0.0, 0.0)


def draw_variation(rng: np.random.Generator, scale: float) -> Variation:
    """Draw an episode's variation.

    Args:
        rng: random numbers.
        scale: 0 for none, 1 for all of it.

    Returns:
        The variation.
    """
    speed, travel, ahead, aside = scale * rng.uniform([-0.2, 0.0, -0.02, -0.03], [0.2, 0.04, 0.02, 0.03])
    return Variation(1.0 + speed, travel, (ahead, aside))


class Expert:
    """Decides actions from the simulation's present state.

    Args:
        simulation: the simulation to act in.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation

    def act(self) -> Command:
        """Decide the next action from the simulation's present state.

        Returns:
            The command for the next control step.
        """
        raise NotImplementedError


def towards(measured: FloatArray, goal: FloatArray, lead: float = LEAD) -> FloatArray:
    """Joint targets on the straight line to a goal that lead the measured joints by at most `lead`.

    Args:
        measured: [n] rad.
        goal: [n] rad.
        lead: rad.

    Returns:
        [n] rad.
    """
    step = JOINT_GAIN * (goal - measured)
    return measured + step * min(1.0, lead / max(float(np.abs(step).max()), 1e-9))


def funnel(distance: float, radius: float, slope: float, height: float) -> float:
    """Height above the working point that keeps clear of an object at a horizontal distance.

    Args:
        distance: horizontal distance in metres.
        radius: within it the height is 0, metres.
        slope: metres up per metre outward.
        height: largest height in metres.

    Returns:
        Metres.
    """
    return float(np.clip(slope * (distance - radius), 0.0, height))
