"""The true stage of a rollout, for experiments that measure how much knowing it helps.

Demonstrations are labelled by their length: of n stages, frame t of a demonstration of length T has the stage
floor(n t / T). A rollout has no length before it ends, so it gets the one that it would have if the expert
took over now and finished.
"""

from household.episode import HOLD_STEPS
from household.experts import make_expert
from household.goals import Goal
from household.simulation import Simulation

_INTERVAL = 10
_INTERVALS = 12
"""A length is estimated again after 10 control steps, or a twelfth of what remained where that is longer: a
step of a rollout then costs at most about 12 steps of the expert."""


def steps_to_goal(simulation: Simulation) -> int:
    """Count the steps of the expert, on a copy of the simulation.

    Args:
        simulation: where to start; it stays as it is.

    Returns:
        Control steps until the goal is reached, at most the task's time limit: also where the expert cannot
        reach it.
    """
    fork = simulation.fork()
    goal, expert = Goal(fork), make_expert(fork)
    for step in range(simulation.task.time_limit):
        if goal.satisfied():
            return step
        fork.step(expert.act().action)
    return simulation.task.time_limit


class Oracle:
    """Knows the stage of one rollout.

    Args:
        simulation: the simulation that the rollout is in.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._due = 0
        self._length = 0

    def stage(self, step: int) -> int:
        """The stage now.

        Args:
            step: control steps done so far, never less than in the last call.

        Returns:
            From 0 to the task's number of stages - 1.
        """
        if step >= self._due:
            remaining = steps_to_goal(self._simulation)
            self._length = step + remaining + HOLD_STEPS  # which every demonstration has after success
            self._due = step + max(_INTERVAL, remaining // _INTERVALS)
        stages = self._simulation.task.stages
        return min(stages - 1, stages * step // self._length)
