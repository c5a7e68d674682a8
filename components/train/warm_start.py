"""What a training takes over from the policy that it starts from, besides weights."""

from dataclasses import replace
from typing import Any

import numpy as np

from components.evaluation.records import Renormalised
from pi_behavior.layout import BASE
from pi_behavior.statistics import Statistics

STILL = 0.1
"""A dimension that moved less than this times as much in the old demonstrations as in the new ones did not
move: divided by its old deviation, new values would be far too large."""
_KINDS = ("mean", "std", "q01", "q99")


def continued(old: Statistics, new: Statistics) -> tuple[Statistics, Renormalised]:
    """The statistics to continue with, from those of the initial policy and of the new demonstrations.

    Normalisation, correlation and tokenizer say what the network's inputs and outputs mean, so they stay;
    tables are of both. Only dimensions that did not move in the old demonstrations, and about which the
    weights have learned nothing, are normalised as in the new ones; they are returned too.
    """
    still = {name: _std(old, name) < STILL * _std(new, name) for name in ("state", "action")}
    if new.base_velocity not in (None, old.base_velocity):
        # those of 2025 are in the world's frame and near 0: of the robot's own speed nothing was learned
        still["state"][BASE] = True
    arrays: dict[str, Any] = {
        f"{name}_{kind}": np.where(
            still[name.removesuffix("_step")], getattr(new, f"{name}_{kind}"), getattr(old, f"{name}_{kind}")
        )
        for name in ("state", "action", "action_step")
        for kind in _KINDS
    }
    statistics = replace(
        old,
        **arrays,
        human={**old.human, **new.human},
        closure={**old.closure, **new.closure},
        fast=new.fast if old.fast is None else old.fast,
        proprioception=new.proprioception,
    )
    state, action = (tuple(np.flatnonzero(still[name]).tolist()) for name in ("state", "action"))
    return statistics, Renormalised(state, action)


def _std(statistics: Statistics, name: str) -> np.ndarray:
    array: np.ndarray = getattr(statistics, f"{name}_std")
    return array
