import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.rules import (
    RuleAction,
    Situation,
    active_rules,
    gripper_rule,
    published_closure,
    radio_rule,
)


def situation(left: float, right: float, task: int = 0, stage: int = 0) -> Situation:
    state = np.linspace(-0.5, 0.5, 23, dtype=np.float32)
    state[14], state[22] = left, right
    return Situation(task, stage, state)


def test_gripper_rule_opens_what_the_table_forbids():
    rule = gripper_rule({3: np.array([[False, True], [True, True]])}.get)
    assert rule(situation(-0.99, -0.99, task=3, stage=0)) == RuleAction("gripper", (True, False))
    assert rule(situation(-0.99, -0.99, task=3, stage=1)) is None
    assert rule(situation(-0.97, -0.97, task=3, stage=0)) is None
    assert rule(situation(-1.0, -1.0, task=3, stage=2)) is None, "beyond the table"
    assert rule(situation(-1.0, -1.0, task=4, stage=0)) is None, "no table"


def test_an_action_holds_the_robot_and_opens():
    state = situation(-1.0, 0.3).state
    chunk = np.zeros((30, 23), np.float32)
    held = RuleAction("gripper", (True, False)).apply(chunk, state)
    expected = state.copy()
    expected[14] = 1.0
    np.testing.assert_array_equal(held, np.tile(expected, (30, 1)))
    assert RuleAction("radio", stage=2).apply(chunk, state) is chunk


@pytest.mark.parametrize(
    ("stage", "left", "right", "expected"),
    [
        (1, -1.0, 1.0, None),
        (2, -1.0, 0.95, RuleAction("radio", (True, False))),
        (2, 0.95, -1.0, RuleAction("radio", (False, True))),
        (2, -1.0, -1.0, RuleAction("radio", (True, True))),
        (2, -1.0, 0.0, None),
        (3, 1.0, 1.0, None),
        (4, 0.0, 0.0, RuleAction("radio", (False, False), 2)),
        (4, -1.0, 0.95, RuleAction("radio", (True, False), 2)),
    ],
)
def test_radio_rule(stage, left, right, expected):
    assert radio_rule(situation(left, right, stage=stage)) == expected
    assert radio_rule(situation(left, right, task=1, stage=stage)) is None


LEFT_NEVER = {*range(1, 41), *range(42, 46), 47, 48}
RIGHT_NEVER = {*range(1, 30), *range(34, 38), *range(42, 45), *range(47, 50)}
LEFT_FROM = {0: 2, 41: 14, 46: 8, 49: 14}
RIGHT_FROM = {0: 2, 30: 6, 31: 8, 32: 5, 33: 11, 40: 4, 41: 14, 45: 10, 46: 8}
RIGHT_FREE = {38, 39}


def test_published_table_covers_every_task_and_stage():
    """As the facts list it: never, from a stage on, or always; each hand of each task is in one list."""
    assert sorted([*LEFT_NEVER, *LEFT_FROM]) == list(range(50))
    assert sorted([*RIGHT_NEVER, *RIGHT_FROM, *RIGHT_FREE]) == list(range(50))
    table = published_closure()
    assert sorted(table) == list(range(50))
    for task in range(50):
        for stage in range(15):
            left = task not in LEFT_NEVER and stage >= LEFT_FROM[task]
            right = task in RIGHT_FREE or (task not in RIGHT_NEVER and stage >= RIGHT_FROM[task])
            assert table[task][stage].tolist() == [left, right], (task, stage)


grippers = st.floats(-1.0, 1.0) | st.sampled_from([-1.0, -0.98, -0.97, 0.9, 1.0])


@given(st.integers(0, 49), st.integers(0, 14), grippers, grippers)
def test_published_rules_open_what_the_table_forbids_and_nothing_else(task, stage, left, right):
    moment = situation(left, right, task=task, stage=stage)
    closed = [bool(np.float32(hand) < -0.98) for hand in (left, right)]
    radio = radio_rule(moment)
    rule = gripper_rule(published_closure().get)
    wanted = [c and not ok for c, ok in zip(closed, published_closure()[task][stage], strict=True)]
    correction = rule(moment)
    assert (list(correction.opened) if correction else [False, False]) == wanted
    if task != 0 or stage < 2:
        assert radio is None
    elif radio:
        assert (radio.stage == 2) == (stage == 4)
        assert all(is_closed for opened, is_closed in zip(radio.opened, closed, strict=True) if opened)
    chunk = np.zeros((30, 23), np.float32)
    if correction:
        held = correction.apply(chunk, moment.state)
        kept = np.ones(23, bool)
        kept[[14, 22]] = np.logical_not(wanted)
        np.testing.assert_array_equal(held[:, kept], np.tile(moment.state[kept], (30, 1)))
        assert (held[:, ~kept] == 1.0).all()


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (PolicyConfig(), 1),
        (PolicyConfig(gripper="off"), 0),
        (PolicyConfig(gripper="published", task_rules="published"), 2),
        (PolicyConfig(gripper="off", task_rules="published"), 1),
    ],
)
def test_configuration_chooses_rules(config, count):
    assert len(active_rules(config, lambda _: None)) == count


def test_data_table_comes_from_the_statistics_not_from_the_file():
    closed = situation(-1.0, 1.0, task=5)
    (data,) = active_rules(PolicyConfig(gripper="data"), {5: np.ones((15, 2), bool)}.get)
    (published,) = active_rules(PolicyConfig(gripper="published"), {5: np.ones((15, 2), bool)}.get)
    assert data(closed) is None
    assert published(closed) == RuleAction("gripper", (True, False))
