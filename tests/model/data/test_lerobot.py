import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from pi_behavior.data.lerobot import DatasetError, LeRobotDataset
from pi_behavior.layout import LEFT_ARM, RIGHT_GRIPPER


def test_episodes_come_with_task_instance_and_human_measurements(demos) -> None:
    dataset = LeRobotDataset(demos)
    assert [(e.index, e.task_name, e.instance, e.length) for e in dataset.select((1,))] == [
        (10010, "picking_up_trash", 1, 60),
        (10020, "picking_up_trash", 2, 50),
    ]
    assert dataset.select((1,))[1].human["right_eef_displacement"] == 1.0
    assert len(dataset.select()) == 5
    assert dataset.annotation_path(dataset.episodes[0]) is None


def test_state_and_actions_are_in_the_actions_order(demos) -> None:
    dataset = LeRobotDataset(demos)
    state, actions = dataset.state_and_actions(dataset.episodes[0])
    assert state.shape == actions.shape == (70, 23)
    assert state.dtype == actions.dtype == np.float32
    # the writer's robot reaches every action one step later
    np.testing.assert_allclose(state[1:, LEFT_ARM], actions[:-1, LEFT_ARM], atol=1e-6)
    np.testing.assert_allclose(state[1:, RIGHT_GRIPPER], actions[:-1, RIGHT_GRIPPER], atol=1e-6)


@pytest.fixture
def broken(demos, tmp_path):
    return shutil.copytree(demos, tmp_path / "copy")


def test_not_a_dataset_is_named(tmp_path) -> None:
    with pytest.raises(DatasetError, match=r"info\.json cannot be read .* root of a LeRobot v2\.1 dataset"):
        LeRobotDataset(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(codebase_version="v3.0"), "codebase_version is 'v3.0'; expected 'v2.1'"),
        (lambda info: info.pop("video_path"), "no entry 'video_path'"),
    ],
)
def test_wrong_info_is_named(broken, change, message) -> None:
    path = broken / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=message):
        LeRobotDataset(broken)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "tasks",
            '"task_index": 1',
            '"task_index": 7',
            "'picking_up_trash' has index 7; the challenge has index 1",
        ),
        ("tasks", "picking_up_trash", "picking_up_cash", "the challenge has no such name"),
        ("tasks", '"task_index": 1', '"task_index": "1"', "line 2: task_index is '1'; expected an integer"),
        ("episodes", '"episode_index": 10010', '"episode_index": 50010', "is of task 5"),
        ("episodes", '"episode_index": 10010', '"episode_index": 10', "expected each episode once"),
        ("episodes", '"length": 60', '"length": null', "line 4: length is None; expected an integer"),
        ("episodes", "{", "", "line 1 is not JSON"),
    ],
)
def test_wrong_meta_lines_are_named(broken, file, old, new, message) -> None:
    path = broken / f"meta/{file}.jsonl"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DatasetError, match=message):
        _ = LeRobotDataset(broken).episodes


def test_wrong_columns_are_named(broken) -> None:
    dataset = LeRobotDataset(broken)
    first, second, third = dataset.select((0,))
    table = pq.read_table(dataset.data_path(first))
    pq.write_table(table.drop_columns(["action"]), dataset.data_path(first))
    pq.write_table(table.slice(0, 10), dataset.data_path(second))
    dataset.data_path(third).write_bytes(b"PAR1 but not really")
    with pytest.raises(DatasetError, match=r"00000010\.parquet: no column action"):
        dataset.read(first, ("action",))
    with pytest.raises(DatasetError, match="10 rows; expected 45"):
        dataset.read(second, ("action",))
    with pytest.raises(DatasetError, match=r"00000030\.parquet: cannot be read as parquet"):
        dataset.read(third, ("action",))


def test_wrong_width_is_named(broken) -> None:
    dataset = LeRobotDataset(broken)
    episode = dataset.episodes[0]
    table = pq.read_table(dataset.data_path(episode))
    narrow = table["observation.cam_rel_poses"]
    pq.write_table(table.set_column(0, "action", narrow), dataset.data_path(episode))
    with pytest.raises(DatasetError, match="column action holds 1470 values in 70 rows; expected 23 each"):
        dataset.read(episode, ("action",))


def test_unknown_task_is_named(demos) -> None:
    with pytest.raises(DatasetError, match=r"no demonstrations of task \[4\]; it has tasks \[0, 1\]"):
        LeRobotDataset(demos).select((4,))
