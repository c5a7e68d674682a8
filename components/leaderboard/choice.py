"""Which policy each task gets, by its validation rollouts.

The difference between a policy and the common one on ten rollouts of a task is mostly luck, and the luckier
of two is the better one only by chance. So the difference is shrunk to the policy's mean over its tasks, by
as much as the spread over tasks is explained by the spread over rollouts (empirical Bayes: Efron and Morris
1975, with the spread between tasks by the method of moments).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from components.evaluation.plan import COMMON, REPORTED, UNTRAINED, VALIDATION
from components.evaluation.records import Gain
from components.evaluation.rollouts import Rollout

_QUANTILE = 1.959964
"""Of the normal distribution, for 95 %."""
Splits = Mapping[str, Sequence[Rollout]]


def gains(table: Mapping[str, Mapping[str, Splits]]) -> dict[str, dict[str, Gain]]:
    """Gains over the common policy by task and policy, of the policies that can be chosen there."""
    pairs: dict[str, dict[str, list[float]]] = {}
    for task, policies in table.items():
        theirs = _by_rollout(policies.get(COMMON, {}))
        for name, splits in policies.items():
            ours = _by_rollout(splits)
            common = sorted(ours.keys() & theirs.keys())
            if name not in (COMMON, UNTRAINED) and splits.get(REPORTED) and common:
                pairs.setdefault(name, {})[task] = [ours[key] - theirs[key] for key in common]
    found: dict[str, dict[str, Gain]] = {task: {} for task in table}
    for name, by_task in pairs.items():
        for task, gain in shrink(by_task).items():
            found[task][name] = gain
    return found


def shrink(differences: Mapping[str, Sequence[float]]) -> dict[str, Gain]:
    """The gains of one policy by task, from its differences in q on the same rollouts."""
    means = {task: float(np.mean(pairs)) for task, pairs in differences.items()}
    counts = np.array([len(pairs) for pairs in differences.values()])
    centre = float(np.mean(list(means.values())))
    squares = sum(float(((np.array(pairs) - means[task]) ** 2).sum()) for task, pairs in differences.items())
    freedom = int(counts.sum()) - len(means)
    # rollouts differ alike in all tasks; of single ones nothing is known, and 1 is the largest variance
    variance = squares / freedom if freedom else 1.0
    between = 0.0
    if len(means) > 1:
        spread = sum((mean - centre) ** 2 for mean in means.values()) / (len(means) - 1)
        between = max(0.0, spread - variance * float(np.mean(1 / counts)))
    found = {}
    for (task, mean), count in zip(means.items(), counts, strict=True):
        own = variance / count
        weight = between / (between + own) if between else 0.0
        # of a task's own difference, and of the mean that it is shrunk to
        error = math.sqrt(weight * own + (1 - weight) ** 2 * (between + own) / len(means))
        shrunk = centre + weight * (mean - centre)
        found[task] = Gain(mean, shrunk, shrunk - _QUANTILE * error, shrunk + _QUANTILE * error)
    return found


def choose(policies: Mapping[str, Splits], found: Mapping[str, Gain]) -> str:
    """The policy with the highest gain above 0, and else the common one.

    Where the common one has no validation, the policy with the highest mean. Policies without validation or
    without reported rollouts, and the untrained one, cannot be chosen.
    """
    if _by_rollout(policies.get(COMMON, {})) and policies[COMMON].get(REPORTED):
        better = {name: gain.shrunk for name, gain in found.items() if gain.shrunk > 0}
        return min(better, key=lambda name: (-better[name], name)) if better else COMMON
    means = {
        name: sum(r.q for r in splits[VALIDATION]) / len(splits[VALIDATION])
        for name, splits in policies.items()
        if name != UNTRAINED and splits.get(VALIDATION) and splits.get(REPORTED)
    }
    return min(means, key=lambda name: (-means[name], name)) if means else COMMON


def _by_rollout(splits: Splits) -> dict[tuple[int, int], float]:
    return {(r.key.index, r.key.rollout): r.q for r in splits.get(VALIDATION, ())}
