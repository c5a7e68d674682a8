import numpy as np
import pytest

from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.corrections import (
    Correction,
    Situation,
    correction_rules,
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
    assert rule(situation(-0.99, -0.99, task=3, stage=0)) == Correction("gripper", (True, False))
    assert rule(situation(-0.99, -0.99, task=3, stage=1)) is None
    assert rule(situation(-0.97, -0.97, task=3, stage=0)) is None
    assert rule(situation(-1.0, -1.0, task=3, stage=2)) is None, "beyond the table"
    assert rule(situation(-1.0, -1.0, task=4, stage=0)) is None, "no table"


def test_correction_holds_the_robot_and_opens():
    state = situation(-1.0, 0.3).state
    chunk = np.zeros((30, 23), np.float32)
    held = Correction("gripper", (True, False)).apply(chunk, state)
    expected = state.copy()
    expected[14] = 1.0
    np.testing.assert_array_equal(held, np.tile(expected, (30, 1)))
    assert Correction("radio", stage=2).apply(chunk, state) is chunk


@pytest.mark.parametrize(
    ("stage", "left", "right", "expected"),
    [
        (1, -1.0, 1.0, None),
        (2, -1.0, 0.95, Correction("radio", (True, False))),
        (2, 0.95, -1.0, Correction("radio", (False, True))),
        (2, -1.0, -1.0, Correction("radio", (True, True))),
        (2, -1.0, 0.0, None),
        (3, 1.0, 1.0, None),
        (4, 0.0, 0.0, Correction("radio", (False, False), 2)),
        (4, -1.0, 0.95, Correction("radio", (True, False), 2)),
    ],
)
def test_radio_rule(stage, left, right, expected):
    assert radio_rule(situation(left, right, stage=stage)) == expected
    assert radio_rule(situation(left, right, task=1, stage=stage)) is None


def test_published_table():
    table = published_closure()
    assert sorted(table) == list(range(50))
    never = {side: {t for t in table if not table[t][:, i].any()} for i, side in enumerate(("left", "right"))}
    assert never["left"] == {*range(1, 41), *range(42, 46), 47, 48}
    assert never["right"] == {*range(1, 30), *range(34, 38), *range(42, 45), *range(47, 50)}
    assert table[38][:, 1].all()
    assert table[39][:, 1].all()
    first = {(task, side): int(np.argmax(table[task][:, i])) for task in table for i, side in enumerate("lr")}
    assert [first[key] for key in ((0, "l"), (0, "r"), (30, "r"), (33, "r"), (41, "l"), (49, "l"))] == [
        2,
        2,
        6,
        11,
        14,
        14,
    ]


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
    assert len(correction_rules(config, lambda _: None)) == count


def test_data_table_comes_from_the_statistics_not_from_the_file():
    closed = situation(-1.0, 1.0, task=5)
    (data,) = correction_rules(PolicyConfig(gripper="data"), {5: np.ones((15, 2), bool)}.get)
    (published,) = correction_rules(PolicyConfig(gripper="published"), {5: np.ones((15, 2), bool)}.get)
    assert data(closed) is None
    assert published(closed) == Correction("gripper", (True, False))
