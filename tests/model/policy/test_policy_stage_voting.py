import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_behavior.policy.stage_voting import StageTracker, vote


def logits(stage: int) -> np.ndarray:
    return np.where(np.arange(15) == stage, 1.0, 0.0)


@pytest.mark.parametrize(
    ("stage", "history", "expected"),
    [
        (0, [1, 1], None),
        (0, [1, 0, 1], "forward"),
        (0, [1, 1, 1], "forward"),
        (0, [2, 2, 1], None),
        (0, [2, 2, 2], "skip"),
        (0, [3, 3, 3], None),
        (3, [2, 2, 2], "back"),
        (3, [2, 2, 3], None),
        (3, [2, 2, 4], None),
        (3, [2, 4, 4], "forward"),
        (0, [0, 0, 0], None),
    ],
)
def test_vote(stage, history, expected):
    assert vote(stage, history) == expected


def test_backward_vote_moves_one_stage_and_forgets():
    tracker = StageTracker(stage=5)
    assert [tracker.update(logits(4)) for _ in range(3)] == [None, None, "back"]
    assert tracker.stage == 4
    assert tracker.history == []


def test_skip_moves_one_stage_only():
    tracker = StageTracker()
    for _ in range(3):
        tracker.update(logits(2))
    assert tracker.stage == 1


def test_window_slides_over_the_last_three():
    tracker = StageTracker()
    transitions = [tracker.update(logits(stage)) for stage in (1, 0, 0, 1, 0, 1)]
    assert transitions == [None, None, None, None, None, "forward"]


@given(st.lists(st.integers(0, 14), max_size=60))
def test_a_transition_needs_three_predictions_and_moves_by_one(predictions):
    tracker = StageTracker()
    since = 0
    for predicted in predictions:
        before = tracker.stage
        transition = tracker.update(logits(predicted))
        since += 1
        assert abs(tracker.stage - before) == (transition is not None)
        assert 0 <= tracker.stage <= 14
        if transition is not None:
            assert since >= 3
            since = 0


@given(st.integers(0, 14), st.lists(st.integers(0, 14), max_size=60))
def test_votes_are_those_of_the_published_rules(stage, predictions):
    """Against the rules written out over the whole history, counted from the last transition."""
    tracker = StageTracker(stage=stage)
    expected, since = stage, []
    for predicted in predictions:
        since.append(predicted)
        last = [value - expected for value in since[-3:]]
        move = 0
        if len(last) == 3:
            if sum(value == 1 for value in last) >= 2 or last == [2, 2, 2]:
                move = 1
            elif last == [-1, -1, -1]:
                move = -1
        if move:
            expected, since = expected + move, []
        tracker.update(logits(predicted))
        assert tracker.stage == expected


def test_the_first_stage_does_not_go_back_and_the_last_one_not_on():
    for stage, task_stages in ((0, 15), (14, 15), (4, 5)):
        tracker = StageTracker(stage=stage)
        for predicted in range(task_stages):
            masked = np.where(np.arange(15) < task_stages, logits(predicted), -np.inf)
            for _ in range(3):
                tracker.update(masked)
            assert 0 <= tracker.stage < task_stages


def test_without_voting_the_stage_follows_the_prediction():
    tracker = StageTracker(voting=False)
    assert tracker.update(logits(7)) == "follow"
    assert tracker.stage == 7
    assert tracker.update(logits(7)) is None
