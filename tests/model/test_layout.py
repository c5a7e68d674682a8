"""The robot's slices and the challenge's tasks."""

import numpy as np
import pytest

from pi_behavior.challenge import EDITIONS, STAGE_COUNTS, TASKS, TASKS_BY_INDEX, task
from pi_behavior.layout import (
    ACTION_GROUPS,
    ACTION_HIGH,
    ACTION_LOW,
    DELTA_DIMS,
    PROPRIOCEPTION_BY_LENGTH,
    state_from_proprioception,
)


@pytest.mark.parametrize("length", [61, 256])
def test_proprioception_slices_cover_all_values_once(length: int) -> None:
    parts = PROPRIOCEPTION_BY_LENGTH[length].values.values()
    assert sorted(np.concatenate([np.arange(length)[part] for part in parts])) == list(range(length))


def test_state_is_in_the_actions_order_with_grippers_on_its_scale() -> None:
    values = np.arange(256, dtype=np.float32)
    values[193:195], values[232:234] = 0.05, 0.0
    state = state_from_proprioception(np.stack([values, values]))
    assert state.shape == (2, 23)
    assert state[0, :3].tolist() == [253, 254, 255]
    assert state[0, 3:7].tolist() == [236, 237, 238, 239]
    assert state[0, 7] == 158
    assert state[0, 14] == pytest.approx(1.0)
    assert state[0, 15] == 197
    assert state[0, 22] == pytest.approx(-1.0)
    with pytest.raises(
        ValueError, match=r"255 values in its last axis; expected 256 \(2025\) or 61 \(2026\)"
    ):
        state_from_proprioception(values[:255])
    values = np.arange(61, dtype=np.float64)
    values[24:26], values[49:51] = 0.0, 0.05
    state = state_from_proprioception(values)
    assert (state.dtype, state[:7].tolist()) == (np.float32, [0, 1, 2, 53, 54, 55, 56])
    assert (state[7], state[14], state[15], state[22]) == (3, -1, 28, 1)


def test_limits_and_groups_fit_the_robot() -> None:
    assert (ACTION_LOW < ACTION_HIGH).all()
    # the right arm mirrors the left one in its second joint
    assert ACTION_LOW[16] == pytest.approx(-ACTION_HIGH[8])
    assert sorted(d for dims in ACTION_GROUPS.values() for d in dims) == list(range(23))
    assert not set(DELTA_DIMS) & {0, 1, 2, 6, 14, 22}


def test_tasks_of_both_editions() -> None:
    assert len(TASKS) == EDITIONS["2026"].tasks
    assert sorted(TASKS_BY_INDEX) == list(range(100))
    assert EDITIONS["2025"].task_names == EDITIONS["2026"].task_names[:50]
    assert sum(STAGE_COUNTS) == sum(EDITIONS["2025"].stage_counts) == 596
    assert sum(EDITIONS["2026"].stage_counts) == 1120
    for name in ("2025", "2026"):  # task 1 only has another sentence
        sentence = EDITIONS[name].instructions["picking_up_trash"]
        assert ("three cans" in sentence) == (name == "2026")
    assert task("turning_on_radio").stages == 5
    with pytest.raises(ValueError, match="did you mean 'turning_on_radio'"):
        task("turning_on_radios")
