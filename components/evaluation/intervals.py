"""Intervals and comparisons of scores.

Episodes are few and scores lie in [0, 1], so an interval goes with every score that we show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_CONFIDENCE = 0.95
_TAIL = (1 - _CONFIDENCE) / 2
_ROUNDING = 1e-9
"""Sums this close to 0 or to the count are that: so thirds that add up to 1 count as 1."""


@dataclass(frozen=True)
class Interval:
    """A mean with a two-sided 95 % interval."""

    low: float
    high: float


def clopper_pearson(total: float, count: int) -> Interval:
    """Clopper-Pearson interval of a mean of `count` scores in [0, 1] with the sum `total`.

    For binary scores this is the exact interval of a proportion. For partial scores the sum takes the place
    of successes: Beta(S, n-S+1) and Beta(S+1, n-S). Of all variables in [0, 1] with a given mean
    the binary one varies most, so the interval is wide rather than narrow there.

    Raises:
        ValueError: the sum is not between 0 and the count.
    """
    from scipy import stats  # half a second that a stage whose artifact is there should not take

    if count < 1 or not -_ROUNDING <= total <= count + _ROUNDING:
        raise ValueError(f"sum {total} of {count} scores; expected 0 <= sum <= count and count >= 1")
    low = 0.0 if total < _ROUNDING else stats.beta.ppf(_TAIL, total, count - total + 1)
    high = 1.0 if total > count - _ROUNDING else stats.beta.ppf(1 - _TAIL, total + 1, count - total)
    return Interval(float(low), float(high))


def bootstrap(groups: Sequence[Sequence[float]], seed: int, resamples: int = RESAMPLES) -> Interval:
    """Stratified bootstrap: the percentile interval of the mean of group means, resampled within each group.

    With one group this is the bootstrap of a mean. With one group per task it is that of the overall score,
    for the given tasks: tasks are not resampled. A group of n is resampled n - 1 times, which makes the
    variance of its mean right also where n is small (Rao and Wu 1988).

    Raises:
        ValueError: there is no group, or one is empty.
    """
    if not groups or any(len(group) == 0 for group in groups):
        raise ValueError("bootstrap of an empty group; expected at least one score in each")
    random = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for group in groups:
        total += random.choice(group, (resamples, max(len(group) - 1, 1))).mean(axis=1)
    low, high = np.quantile(total / len(groups), [_TAIL, 1 - _TAIL])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """How much better the first policy is on the same rollouts."""

    difference: float
    """Mean difference of q, averaged over tasks."""
    low: float
    """Lower end of its 95 % paired bootstrap interval."""
    high: float
    p_value: float
    """Two-sided paired permutation test (signs of the differences)."""
    pairs: int
    """Rollouts compared."""

    @property
    def better(self) -> bool:
        """Whether the first is better on the evidence: the whole interval is above 0, and the test agrees.

        The bootstrap alone would be certain after a single pair: it resamples only what was seen.
        """
        return self.low > 0.0 and self.p_value <= 1 - _CONFIDENCE


def compare(
    first: Mapping[str, Mapping[str, float]], second: Mapping[str, Mapping[str, float]], seed: int
) -> Comparison:
    """Paired comparison of q, by task and rollout name, on the rollouts that both have.

    Raises:
        ValueError: they have no rollout in common.
    """
    from scipy import stats  # half a second that a stage whose artifact is there should not take

    groups = [
        [first[task][name] - second[task][name] for name in sorted(first[task].keys() & second[task].keys())]
        for task in sorted(first.keys() & second.keys())
    ]
    groups = [group for group in groups if group]
    if not groups:
        raise ValueError("no rollout in common; expected the same tasks and instances")
    interval = bootstrap(groups, seed)
    difference = float(np.mean([np.mean(group) for group in groups]))
    # rollouts are weighted as in the mean over tasks, so that the test is about the same number
    weighted = np.concatenate([np.asarray(group) / len(group) for group in groups])
    p_value = 1.0  # of a single pair: both signs are as likely
    if len(weighted) > 1:
        test = stats.permutation_test(
            (weighted,), np.sum, permutation_type="samples", n_resamples=RESAMPLES, vectorized=True, rng=seed
        )
        p_value = float(test.pvalue)
    return Comparison(difference, interval.low, interval.high, p_value, len(weighted))
