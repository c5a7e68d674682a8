"""An anytime-valid test of paired scores, by betting: is the first policy better than the second?

Differences d in [-1, 1] come in rounds, one pair of every task in each. A bet on "d is above m" multiplies
its stake by 1 + b (d - m). If the mean over tasks is at most m, no bet that was fixed before the round wins
on average: the factors of a round are independent, and the product of their means is at most the power of the
mean of their means. So the chance that the stake is ever multiplied by 1/a is at most a (Ville), however
often one looks and whenever one stops.

Sources: J. Ville, Etude critique de la notion de collectif, 1939; I. Waudby-Smith and A. Ramdas, Estimating
means of bounded random variables by betting, J. R. Stat. Soc. B 86 (2024), whose predictable bet for a
planned number of observations this is, kept the same within a round.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rounds = NDArray[np.float64]
"""Differences in [-1, 1] by round and task."""
Answer = Literal["better", "not better", "go on"]
_STAKE = 0.9
"""Largest part of the stake that one pair may lose."""
_PRIOR_PAIRS, _PRIOR_VARIANCE = 10, 0.25
"""What the variance of differences is taken for before there are any, and how many pairs that counts for."""
_HALVINGS = 30
_LARGEST = 700.0
"""Largest logarithm of a stake: JSON knows no infinity."""


@dataclass(frozen=True)
class Rule:
    """When the test stops, and how often it may be wrong."""

    level: float
    """Largest probability of `better` where the first policy is not better."""
    gain: float
    """Difference that is worth finding."""
    miss: float
    """Largest probability of `not better` where the first is better by `gain` or more."""
    rounds: int
    """Rounds that are planned. The bets are sized for them; the error rates hold for any number."""


@dataclass(frozen=True)
class Verdict:
    """What the test says."""

    answer: Answer
    rounds: int
    """Rounds until the answer; all that there are where it is `go on`."""
    pairs: int
    difference: float
    """Mean difference over these rounds, tasks weighing the same."""
    low: float
    """95 % confidence interval of the mean difference, which holds whenever one stops."""
    high: float
    evidence: float
    """By how much bets on a difference above 0 multiplied their stake: `better` at 1 / level."""
    against: float
    """The same for bets on a difference below `gain`: `not better` at 1 / miss."""


def judge(differences: Rounds, rule: Rule) -> Verdict:
    """Test the rounds in their order; those after the answer do not count.

    The order must be fixed before the rollouts are run, and a round must not count before those ahead of it
    are whole: rollouts that end early are not like the others.

    Raises:
        ValueError: there is no pair, or a difference is not in [-1, 1].
    """
    if differences.ndim != 2 or differences.size == 0 or not (np.abs(differences) <= 1).all():
        raise ValueError("expected at least one round with a pair, and differences in [-1, 1]")
    evidence = _wealth(differences, 0.0, _bets(differences, rule.level, rule.rounds))
    against = _wealth(-differences, -rule.gain, _bets(differences, rule.miss, rule.rounds))
    better, worse = evidence >= 1 / rule.level, against >= 1 / rule.miss
    stops = np.flatnonzero(better | worse)
    last = int(stops[0]) if stops.size else len(differences) - 1
    seen = differences[: last + 1]
    low, high = interval(seen, 0.95, rule.rounds)
    return Verdict(
        answer="better" if better[last] else "not better" if worse[last] else "go on",
        rounds=last + 1,
        pairs=seen.size,
        difference=float(seen.mean()),
        low=low,
        high=high,
        evidence=float(evidence[last]),
        against=float(against[last]),
    )


def interval(differences: Rounds, confidence: float, planned: int) -> tuple[float, float]:
    """All means that bets at (1 - confidence) / 2 on either side have not refuted by the last round."""
    level = (1 - confidence) / 2
    bets = _bets(differences, level, planned)

    def lower(signed: Rounds) -> float:
        low, high = -1.0, float(signed.mean())
        for _ in range(_HALVINGS):  # the stake falls as the mean that is bet against grows
            middle = (low + high) / 2
            refuted = _wealth(signed, middle, bets).max() >= 1 / level
            low, high = (middle, high) if refuted else (low, middle)
        return low

    return lower(differences), -lower(-differences)


def _bets(differences: Rounds, level: float, planned: int) -> NDArray[np.float64]:
    """The bet of each round, fixed when it begins: by the variance of the differences before it."""
    count, tasks = differences.shape
    seen = tasks * np.arange(count)
    sums, squares = np.zeros(count), np.zeros(count)
    np.cumsum(differences[:-1].sum(axis=1), out=sums[1:])
    np.cumsum((differences[:-1] ** 2).sum(axis=1), out=squares[1:])
    spread = np.maximum(squares - sums**2 / np.maximum(seen, 1), 0.0)
    variance = (_PRIOR_PAIRS * _PRIOR_VARIANCE + spread) / (_PRIOR_PAIRS + seen)
    bets: NDArray[np.float64] = np.sqrt(2 * math.log(1 / level) / (planned * tasks * variance))
    return bets


def _wealth(differences: Rounds, mean: float, bets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stake of 1 after each round when it is bet on differences above `mean`."""
    bets = np.minimum(bets, _STAKE / (1 + mean)) if mean > -1 else bets
    logarithms = np.log1p(bets[:, None] * (differences - mean)).sum(axis=1).cumsum()
    stakes: NDArray[np.float64] = np.exp(np.minimum(logarithms, _LARGEST))
    return stakes
