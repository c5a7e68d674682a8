"""Whether an instance is a valid start: nothing overlaps or moves, and no part of the goal holds."""

import numpy as np

from household.goals import Goal
from household.instances import Instance
from household.room import kind_of
from household.simulation import Simulation

_OVERLAP = 0.004
"""Contacts deeper than this are overlaps, in metres; an object at rest sinks in less."""
_MOVING = 0.05
"""Objects faster than this, in m/s, have not been placed at rest."""
_DRIFT = 0.02
"""Objects may move this far while they settle, in metres."""


def problems(simulation: Simulation, instance: Instance) -> list[str]:
    """Look for what is wrong with an instance.

    Args:
        simulation: a simulation of its task; it is reset.
        instance: the instance.

    Returns:
        What is wrong, in words; empty for a valid instance.
    """
    simulation.reset(instance)
    found = [
        f"{first} and {second} overlap by {1000 * depth:.1f} mm"
        for first, second, depth in simulation.contacts()
        if depth > _OVERLAP
    ]
    for name, pose in instance.poses.items():
        if not kind_of(name).free:
            continue
        speed = simulation.speed(name)
        drift = float(np.linalg.norm(simulation.object_pose(name)[:3] - pose[:3]))
        if speed > _MOVING:
            found.append(f"{name} moves at {speed:.2f} m/s")
        if drift > _DRIFT:
            found.append(f"{name} has moved by {100 * drift:.1f} cm")
    conditions = {str(c.terms): c for option in Goal(simulation).options for c in option}
    found += [f"{terms} holds at the start" for terms, c in conditions.items() if c.evaluate()]
    if simulation.grasp.held or simulation.mounts.attached:
        found.append("something is held or attached at the start")
    return found
