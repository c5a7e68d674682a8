"""Scores of two policies on the same rollouts: pairs, leads, and tasks that have fallen."""

import math
from collections.abc import Collection, Sequence

import numpy as np

from components.errors import UserError
from components.evaluation.champion import Table
from components.evaluation.sequential import Rounds, interval
from components.evaluation.trial import Lead

_CONFIDENCE = 0.95


def pair(challenger: Table, rival: Table) -> Rounds:
    """Differences in q on the rival's rollouts, a round for each rollout of its tasks, in the order of names.

    A task that the challenger lacks scores 0 on all of them. Tasks that only the challenger has do not count.

    Raises:
        UserError: a task was rolled out on other instances, or tasks of the rival have different counts.
    """
    columns = []
    for task, theirs in sorted(rival.items()):
        ours = challenger.get(task) or dict.fromkeys(theirs, 0.0)
        if ours.keys() != theirs.keys():
            raise UserError(
                f"{task} was rolled out on {_names(ours)} by the challenger and on {_names(theirs)} by its "
                "rival; expected the same instances. Evaluate both alike"
            )
        columns.append([ours[name] - theirs[name] for name in sorted(theirs, key=_order)])
    if len({len(column) for column in columns}) != 1 or not columns[0]:
        raise UserError(
            "the tasks of the challenger's rival have different numbers of rollouts, or none; expected the "
            "same number of each. Evaluate it again"
        )
    return np.array(columns).T


def lead(differences: Rounds) -> Lead:
    """The challenger's lead; the standard error is that of a mean over these tasks."""
    rounds, tasks = differences.shape
    centre = differences.mean(axis=0) if rounds > 1 else differences.mean()
    freedom = (rounds - 1) * tasks if rounds > 1 else tasks - 1
    # of a single pair nothing is known
    variance = float(((differences - centre) ** 2).sum()) / freedom if freedom else 1.0
    return Lead(float(differences.mean()), math.sqrt(variance / differences.size), differences.size)


def fallen(differences: Rounds, tasks: Sequence[str], fall: float) -> dict[str, float]:
    """Tasks that have fallen by more than `fall`: 95 % bounds of their difference, which lie below -fall."""
    bounds = {
        task: interval(differences[:, [i]], _CONFIDENCE, len(differences))[1] for i, task in enumerate(tasks)
    }
    return {task: bound for task, bound in bounds.items() if bound < -fall}


def _order(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split("_")))


def _names(names: Collection[str]) -> str:
    shown = sorted(names, key=_order)
    return f"{len(shown)} rollouts ({', '.join(shown[:3])}{', ...' * (len(shown) > 3)})"
