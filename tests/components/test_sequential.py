"""The sequential test: values computed by hand, and its error rates by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from components.evaluation.sequential import Rule, interval, judge

RULE = Rule(level=0.05, gain=0.05, miss=0.1, rounds=4)


def column(*differences: float) -> np.ndarray:
    return np.array(differences, dtype=float)[:, None]


def test_a_sure_winner():
    # the first bet would be sqrt(2 ln 20 / (4 * 0.25)) = 2.45, and no bet is more than 0.9: 1.9 ** 5 = 24.76
    # is the first power of 1.9 that reaches 20
    verdict = judge(column(*[1.0] * 9), RULE)
    assert (verdict.answer, verdict.rounds, verdict.pairs) == ("better", 5, 5)
    assert verdict.evidence == pytest.approx(1.9**5)
    assert verdict.difference == 1.0
    assert judge(column(*[1.0] * 4), RULE).answer == "go on"


def test_a_tie_is_no_evidence_for_it():
    # d = 0 leaves the stake as it is. Against a gain of 0.05 the bet on -d > -0.05 is at most 0.9 / 0.95, so
    # a tie multiplies by 1 + 0.9 / 0.95 * 0.05 = 1.0474; 1.0474 ** 50 = 10.12 is the first power above 10.
    # The bets are as large as that: sqrt(2 ln 10 / (4 * variance)) > 0.95, as the variance is at most 0.25
    verdict = judge(column(*[0.0] * 60), RULE)
    assert (verdict.answer, verdict.rounds, verdict.evidence) == ("not better", 50, 1.0)
    assert verdict.against == pytest.approx((1 + 0.9 / 0.95 * 0.05) ** 50)


def test_bets_follow_the_variance_of_earlier_rounds():
    # level 0.5 and 1000 rounds of 2 tasks: a bet is sqrt(2 ln 2 / (2000 v)).
    # Round 1: v = 0.25, so b = sqrt(1.386294 / 500) = 0.052655; d = (1, 0) gives 1 + b = 1.052655.
    # Round 2: v = (10 * 0.25 + 0.5) / 12 = 0.25 again, as (1, 0) has the sum of squares 0.5 about its mean.
    # Round 3: d = (0, 0) was added: v = (2.5 + 0.75) / 14 = 0.232143, b = sqrt(1.386294 / 464.286) = 0.054643
    # and d = (-1, 1) gives 1 - b ** 2 = 0.997014
    rounds = np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 1.0]])
    verdict = judge(rounds, Rule(level=0.5, gain=0.05, miss=0.1, rounds=1000))
    assert verdict.answer == "go on"
    assert verdict.evidence == pytest.approx(1.052655 * 0.997014, rel=1e-5)


def test_the_interval_is_what_the_bets_have_not_refuted():
    # confidence 0.9: level 0.05 on either side, bets of 0.9 / (1 + m) as above. Ten times d = 1: the stake
    # against m is (1 + 0.9 (1 - m) / (1 + m)) ** 10 and reaches 20 where that is 20 ** 0.1 = 1.349283, or
    # (1 - m) / (1 + m) = 0.388092: m = 0.440827. Nothing speaks against 1
    low, high = interval(column(*[1.0] * 10), 0.9, planned=1)
    assert low == pytest.approx(0.440827, abs=1e-6)
    assert high == 1.0


@given(arrays.arrays(float, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=st.floats(-1, 1)))
def test_signs_mirror_the_interval_which_holds_the_mean(rounds):
    low, high = interval(rounds, 0.95, 5)
    assert -1 <= low <= rounds.mean() + 1e-9
    assert rounds.mean() - 1e-9 <= high <= 1
    assert interval(-rounds, 0.95, 5) == pytest.approx((-high, -low))


@given(
    arrays.arrays(float, st.tuples(st.integers(2, 8), st.integers(1, 3)), elements=st.floats(-1, 1)),
    st.integers(1, 8),
)
def test_later_rounds_do_not_change_an_answer(rounds, seen):
    early, late = judge(rounds[:seen], RULE), judge(rounds, RULE)
    if early.answer != "go on":
        assert late == early
    assert judge(rounds, RULE).rounds >= early.rounds


@pytest.mark.parametrize("rounds", [np.zeros((0, 3)), np.zeros((2, 0)), np.zeros(3), column(0.0, 1.1)])
def test_what_cannot_be_differences(rounds):
    with pytest.raises(ValueError, match="at least one round"):
        judge(rounds, RULE)


def simulate(*chances: float) -> np.ndarray:
    """Series of rounds by chance of the first policy to win a pair, in each task."""
    wins = np.random.default_rng(0).random((500, 40, len(chances))) < chances
    return np.where(wins, 1.0, -1.0)


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_false_promotions_when_one_looks_after_every_round(level):
    """Tasks that differ, and balance to a mean difference of 0."""
    answers = [judge(one, Rule(level, 0.05, 0.1, 40)).answer for one in simulate(0.65, 0.35)]
    assert answers.count("better") <= len(answers) * level


def test_missed_gains_when_one_looks_after_every_round():
    # a chance of 0.6 is a mean difference of 0.2
    answers = [judge(one, Rule(0.05, 0.2, 0.1, 40)).answer for one in simulate(0.6)]
    assert answers.count("not better") <= len(answers) * 0.1
    assert answers.count("better") > len(answers) * 0.05
