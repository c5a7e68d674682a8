"""Scores, denominators and the choice of checkpoints: values computed by hand."""

import numpy as np
import pytest

from components.evaluation.records import Denominators, Efficiency, Gain
from components.evaluation.rollouts import Distances, Outcome, Rollout, RolloutKey
from components.leaderboard.choice import choose, gains, shrink
from components.leaderboard.scores import denominators, efficiency, overall, score


def rollout(q, *, time=1.0, ways=(1.0, 1.0, 1.0), **key):
    outcome = None if q is None else Outcome(q, q == 1.0, 300, time, Distances(*ways))
    known = {"policy": "common", "split": "reported", "task": "a", "index": 0, "rollout": 0, **key}
    return Rollout(RolloutKey(**known), 301, 1, outcome=outcome)


def rollouts(*qs, **values):
    return [rollout(q, index=index, **values) for index, q in enumerate(qs)]


def test_the_three_denominators():
    # two tasks: 10 rollouts with a sum of 6, and 4 of which one never finished, with a sum of 1.5
    tasks = [rollouts(*[1.0] * 5, 0.5, 0.5, 0.0, 0.0, 0.0), rollouts(1.0, None, 0.5, 0.0, task="b")]
    # rules: (6 + 1.5) / 10 / 100; repository: / 20 / 100; leaderboard: (6 / 10 + 1.5 / 3) / 100
    assert denominators(tasks, "2026") == Denominators(*map(pytest.approx, (0.0075, 0.00375, 0.011)))
    # 2025: / 10 / 50 twice, and (0.6 + 0.5) / 50
    assert denominators(tasks, "2025") == Denominators(*map(pytest.approx, (0.015, 0.015, 0.022)))


def test_what_is_not_prescribed_has_no_denominator():
    """The household reports 40 instances, of which the challenge would count 10; and first rollouts alone."""
    tasks = [[*rollouts(*[1.0] * 10, *[0.5] * 30), *rollouts(*[0.5] * 10, rollout=1)]]
    assert denominators(tasks, "2026") == Denominators(*map(pytest.approx, (0.01, 0.005, 0.01)))


def test_efficiency():
    # the human time, 2/3 of it (the time limit of 2026), and a rollout without result
    one = [rollout(1.0, ways=(2.0, 1.0, 0.5)), rollout(0.0, time=2 / 3, ways=(1.0, 3.0, 0.1)), rollout(None)]
    two = [rollout(1.0, task="b", time=2.0, ways=(1.0, 1.0, 1.0))]
    # 2026: 3 - 2 / 1 = 1, 3 - 3 = 0, 0: mean 1/3; 3 - 2 / 2 = 2: mean over tasks 7/6.
    # base (2 + 1 + 0) / 3 = 1 and 1; left 4/3 and 1; right 0.2 and 1
    assert efficiency([one, two], "2026") == Efficiency(*map(pytest.approx, (7 / 6, 1.0, 7 / 6, 0.6)))
    # 2025: 2 - 1 = 1, 2 - 1.5 = 0.5, 0: mean 0.5; 2 - 0.5 = 1.5: mean over tasks 1
    assert efficiency([one, two], "2025").time == pytest.approx(1.0)
    still = [rollout(0.0, ways=(None, 1.0, 1.0))]
    assert efficiency([still], "2026").base is None
    assert efficiency([still], "2026").left == 1.0


def test_the_interval_is_named():
    """The bootstrap where it knows enough; Clopper-Pearson for a task, for few rollouts, and near 0 or 1."""
    half = [rollouts(*[1.0, 0.0] * 5, task=str(k)) for k in range(20)]
    many = overall(half, "2026", 0)
    assert many.interval == "stratified bootstrap"
    assert (many.low, many.high) == (many.bootstrap_low, many.bootstrap_high)
    # normal approximation: 0.5 -+ 1.96 * sqrt(s^2 / n), where s^2 = 10 / 9 * 0.25 and n = 200: 0.0730
    assert (many.low, many.high) == (pytest.approx(0.427, abs=0.006), pytest.approx(0.573, abs=0.006))
    assert overall(half[:19], "2026", 0).interval == "Clopper-Pearson"
    nothing = overall([rollouts(*[0.0] * 10, task=str(k)) for k in range(20)], "2026", 0)
    assert (nothing.interval, nothing.low) == ("Clopper-Pearson", 0.0)
    # 1 - 0.025 ** (1 / 200)
    assert nothing.high == pytest.approx(0.018275, abs=1e-6)
    single = score(rollouts(*[1.0, 0.5] * 200), "2026", 0)
    assert single.interval == "Clopper-Pearson"
    assert (single.success, single.q) == (0.5, 0.75)


def test_a_gain_is_shrunk_to_the_mean_over_tasks():
    # means 0.5, 0.1 and 0, their centre 0.2. Squares about the means: of (1, 0) * 5 it is 2.5, of one 1 among
    # ten zeros 0.9, of zeros 0: 3.4 / (30 - 3) = 0.125926 = variance of a pair, 0.0125926 of a mean of ten.
    # Spread of the means: (0.09 + 0.01 + 0.04) / 2 = 0.07; between tasks 0.07 - 0.0125926 = 0.0574074.
    # Weight 0.0574074 / 0.07 = 0.820106. Shrunk: 0.2 + 0.820106 * (0.3, -0.1, -0.2)
    found = shrink({"a": [1.0, 0.0] * 5, "b": [1.0] + [0.0] * 9, "c": [0.0] * 10})
    assert [gain.seen for gain in found.values()] == pytest.approx([0.5, 0.1, 0.0])
    assert [gain.shrunk for gain in found.values()] == pytest.approx([0.446032, 0.117989, 0.035979], abs=1e-6)
    # error: sqrt(0.820106 * 0.0125926 + 0.179894 ** 2 * 0.07 / 3) = sqrt(0.0110824) = 0.105273
    half = 1.959964 * 0.105273
    assert found["a"].low == pytest.approx(0.446032 - half, abs=1e-5)
    assert found["a"].high == pytest.approx(0.446032 + half, abs=1e-5)


def test_what_luck_explains_is_shrunk_away():
    # both tasks spread by less than luck explains: both get the mean, 0.1
    found = shrink({"a": [1.0, -1.0, 1.0, -0.4], "b": [1.0, -1.0, -1.0, 1.2]})
    assert [gain.shrunk for gain in found.values()] == pytest.approx([0.1, 0.1])
    # a single task has nothing to be shrunk to
    assert shrink({"a": [1.0, 0.0, 0.0, 0.0]})["a"].shrunk == 0.25


def table(**qs):
    """Policies of a task from their validation scores."""
    return {
        name.replace("_", ":"): {
            "validation": rollouts(*values, policy=name, split="validation"),
            "reported": rollouts(0.0, policy=name),
        }
        for name, values in qs.items()
    }


def test_choice():
    found = gains({"a": table(common=[0.0] * 4, group_best=[1.0, 1.0, 0.0, 0.0], untrained=[1.0] * 4)})
    assert list(found["a"]) == ["group:best"]
    assert choose(table(common=[0.0], group_best=[1.0]), {"group:best": Gain(0, 0.1, 0, 0)}) == "group:best"
    # a tie, and a loss, leave the common policy
    for shrunk in (0.0, -0.1):
        assert (
            choose(table(common=[0.0], group_best=[1.0]), {"group:best": Gain(0.5, shrunk, 0, 0)}) == "common"
        )
    # without validation of the common policy the highest mean is all there is
    policies = table(common=[], group_best=[0.5], group_bad=[0.25])
    assert choose(policies, {}) == "group:best"
    assert choose({"common": {"reported": rollouts(0.0)}}, {}) == "common"


def test_a_policy_that_loses_on_one_lucky_task_keeps_its_group():
    """Nine tasks gain 0.3 and one, by bad luck, loses 0.1: the group's policy serves all ten."""
    good, bad = [1.0] * 5 + [0.0] * 3 + [-1.0] * 2, [1.0] * 4 + [0.0] + [-1.0] * 5
    found = shrink({**{str(k): good for k in range(9)}, "unlucky": bad})
    assert found["unlucky"].seen == pytest.approx(-0.1)
    assert found["unlucky"].shrunk > 0


def test_shrinkage_chooses_better_policies():
    """Simulated groups of 15 tasks, 10 rollouts each: the true gain of what is chosen, by either way."""
    random = np.random.default_rng(0)
    chosen, raw, known = [], [], []
    for _ in range(300):
        true = random.normal(0.05, 0.05, 15)
        seen = random.normal(true[:, None], 0.5, (15, 10)).clip(-1, 1)
        found = shrink({str(k): pairs for k, pairs in enumerate(seen)})
        chosen.append(np.mean([true[int(k)] * (gain.shrunk > 0) for k, gain in found.items()]))
        raw.append(np.mean(true * (seen.mean(axis=1) > 0)))
        known.append(np.mean(true.clip(min=0)))
    assert np.mean(raw) < np.mean(chosen) < np.mean(known)
    # most of what the raw choice leaves behind is found
    assert np.mean(known) - np.mean(chosen) < 0.75 * (np.mean(known) - np.mean(raw))
