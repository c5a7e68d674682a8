"""Intervals against known values and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from components.evaluation.intervals import Interval, bootstrap, clopper_pearson, compare


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_exact_for_binary_scores(counts):
    successes, n = counts
    interval = clopper_pearson(successes, n)
    low, high = proportion_confint(successes, n, alpha=0.05, method="beta")
    assert interval.low == pytest.approx(low, abs=1e-12)
    assert interval.high == pytest.approx(high, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_contains_the_mean(qs):
    interval = clopper_pearson(sum(qs), len(qs))
    mean = sum(qs) / len(qs)
    assert 0 <= interval.low <= mean + 1e-9
    assert mean - 1e-9 <= interval.high <= 1


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 100))
def test_grows_with_the_sum_and_mirrors(first, second, n):
    low, high = sorted((first * n, second * n))
    a, b = clopper_pearson(low, n), clopper_pearson(high, n)
    assert a.low <= b.low + 1e-9
    assert a.high <= b.high + 1e-9
    mirrored = clopper_pearson(n - low, n)
    assert mirrored.low == pytest.approx(1 - a.high, abs=1e-6)
    assert mirrored.high == pytest.approx(1 - a.low, abs=1e-6)


def test_coverage_of_partial_scores():
    random = np.random.default_rng(0)
    scores = random.choice([0.0, 1 / 3, 2 / 3, 1.0], p=[0.5, 0.2, 0.1, 0.2], size=(400, 20))
    intervals = [clopper_pearson(row.sum(), 20) for row in scores]
    mean = 0.2 / 3 + 0.2 / 3 + 0.2
    assert np.mean([i.low <= mean <= i.high for i in intervals]) >= 0.95


@pytest.mark.parametrize(("total", "count"), [(-0.1, 5), (5.1, 5), (0, 0)])
def test_impossible_sums(total, count):
    with pytest.raises(ValueError, match="expected 0 <= sum <= count"):
        clopper_pearson(total, count)


def test_bootstrap():
    interval = bootstrap([[0.0, 1.0] * 50], seed=0)
    assert interval == bootstrap([[0.0, 1.0] * 50], seed=0)
    # normal approximation: 0.5 -+ 1.96 * 0.05
    assert interval.low == pytest.approx(0.402, abs=0.015)
    assert interval.high == pytest.approx(0.598, abs=0.015)
    # tasks are not resampled: constant tasks leave nothing to vary
    assert bootstrap([[0.0] * 5, [1.0] * 9], seed=0) == bootstrap([[0.5]], seed=1)
    with pytest.raises(ValueError, match="at least one score"):
        bootstrap([[1.0], []], seed=0)


def test_a_group_of_n_is_resampled_n_minus_1_times():
    # of (0, 1) one value is drawn: 0 or 1. With two groups the mean is 0, 1/2 or 1, each end with chance 1/4
    assert bootstrap([[0.0, 1.0]] * 2, seed=0) == Interval(0.0, 1.0)


def test_coverage_over_tasks():
    """100 tasks of 10 rollouts, which differ as in the challenge: it is right, and much narrower."""
    random = np.random.default_rng(0)
    hits, widths, exact = [], [], []
    for _ in range(200):
        means = random.beta(0.6, 1.7, 100)
        qs = (random.random((100, 10)) < means[:, None]).astype(float)
        interval = bootstrap(qs.tolist(), seed=0, resamples=600)
        hits.append(interval.low <= means.mean() <= interval.high)
        widths.append(interval.high - interval.low)
        bounds = clopper_pearson(qs.sum(), qs.size)
        exact.append(bounds.high - bounds.low)
    # a coverage of 0.95 of 200 is 190, give or take 2 * sqrt(200 * 0.95 * 0.05) = 6
    assert 184 <= sum(hits) <= 198
    assert np.mean(widths) < 0.85 * np.mean(exact)


def scores(*qs):
    return {"task": {str(i): q for i, q in enumerate(qs)}}


def test_comparison():
    better = compare(scores(*[1.0] * 10, 0.0, 0.0), scores(*[0.0] * 12), seed=0)
    assert better.difference == pytest.approx(10 / 12)
    assert better.pairs == 12
    assert better.better
    # all 2^12 signs: 2 * 2^2 of them give a difference at least as large
    assert better.p_value == pytest.approx(8 / 4096)
    assert not compare(scores(*[0.0] * 12), scores(*[1.0] * 12), seed=0).better


def test_a_tie_is_not_better():
    same = compare(scores(0.0, 1.0, 0.5), scores(0.0, 1.0, 0.5), seed=0)
    assert (same.difference, same.low, same.high, same.p_value, same.better) == (0, 0, 0, 1.0, False)


def test_few_pairs_are_no_evidence():
    one = compare(scores(1.0), scores(0.0), seed=0)
    assert one.low == 1.0
    assert not one.better


def test_only_common_rollouts_count_and_tasks_weigh_the_same():
    first = {"a": {"1": 1.0, "2": 0.0}, "b": {"1": 1.0, "2": 1.0, "3": 1.0}, "c": {"1": 1.0}}
    second = {"a": {"1": 0.0, "9": 1.0}, "b": {"1": 1.0, "2": 1.0, "3": 1.0}}
    comparison = compare(first, second, seed=0)
    assert comparison.pairs == 4
    assert comparison.difference == 0.5
    with pytest.raises(ValueError, match="no rollout in common"):
        compare({"a": {"1": 1.0}}, {"b": {"1": 1.0}}, seed=0)
