import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pi_behavior.data.lerobot import DatasetError, LeRobotDataset
from pi_behavior.data.video import decode
from pi_behavior.layout import CAMERAS, LEFT_ARM, RIGHT_GRIPPER


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


def read_first(root) -> None:
    dataset = LeRobotDataset(root)
    dataset.camera_clip(dataset.episodes[0], "head")
    dataset.read(dataset.episodes[0], ("action",))


def test_not_a_dataset_is_named(tmp_path) -> None:
    with pytest.raises(
        DatasetError, match=r"info\.json cannot be read .* root of a LeRobot dataset, v2\.1 or v3\.0"
    ):
        LeRobotDataset(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda info: info.update(codebase_version="v1"),
            r"codebase_version is 'v1'; expected v2\.1 or v3\.0",
        ),
        (lambda info: info.pop("video_path"), "video_path is None; expected a string"),
        (lambda info: info.update(video_path="{chunk}.mp4"), "expected a template with some of video_key"),
    ],
)
def test_wrong_info_is_named(broken, change, message) -> None:
    path = broken / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=message):
        read_first(broken)


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
    with pytest.raises(DatasetError, match="10 rows of episode 20; expected 45"):
        dataset.read(second, ("action",))
    with pytest.raises(DatasetError, match=r"00000030\.parquet: cannot be read as parquet"):
        dataset.read(third, ("action",))


def test_wrong_width_is_named(broken) -> None:
    dataset = LeRobotDataset(broken)
    episode = dataset.episodes[0]
    table = pq.read_table(dataset.data_path(episode))
    narrow = table["observation.cam_rel_poses"]
    pq.write_table(table.set_column(0, "action", narrow), dataset.data_path(episode))
    with pytest.raises(
        DatasetError, match="column action holds lists of 21 values; expected 23 in every row"
    ):
        dataset.read(episode, ("action",))


def rewrite(path, change) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def lists(table: pa.Table, column: str, kind: pa.DataType) -> pa.Table:
    values = table[column].to_pylist()
    rows = values if isinstance(values[0], list) else [[value] for value in values]
    return table.set_column(table.column_names.index(column), column, pa.array(rows, kind))


@pytest.mark.parametrize(
    ("vectors", "scalars"),
    [
        (pa.large_list(pa.float32()), pa.int64()),
        (pa.list_(pa.float64()), pa.list_(pa.int64(), 1)),
        (pa.list_(pa.float32(), 23), pa.large_list(pa.int64())),
    ],
)
def test_columns_are_read_as_the_list_types_of_any_writer(broken, vectors, scalars) -> None:
    dataset = LeRobotDataset(broken)
    episode = dataset.episodes[0]
    before = dataset.read(episode, ("action", "index"))
    rewrite(dataset.data_path(episode), lambda table: lists(table, "action", vectors))
    if pa.types.is_nested(scalars):
        rewrite(dataset.data_path(episode), lambda table: lists(table, "index", scalars))
    after = dataset.read(episode, ("action", "index"))
    np.testing.assert_array_equal(after["action"], before["action"])
    np.testing.assert_array_equal(after["index"], before["index"])


def test_columns_without_numbers_are_named(broken) -> None:
    dataset = LeRobotDataset(broken)
    episode = dataset.episodes[0]
    path = dataset.data_path(episode)
    ragged = [[0.0] * (22 + 2 * (row % 2)) for row in range(episode.length)]
    whole = pq.read_table(path)
    rewrite(path, lambda table: table.set_column(0, "action", pa.array(ragged)))
    with pytest.raises(DatasetError, match="column action holds lists of 22, 24 values; expected 23"):
        dataset.read(episode, ("action",))
    texts = pa.array(["x"] * episode.length)
    pq.write_table(whole.set_column(whole.column_names.index("index"), "index", texts), path)
    with pytest.raises(DatasetError, match="column index is of type string; expected numbers"):
        dataset.read(episode, ("index",))


def test_what_editors_leave_in_meta_files_does_no_harm(broken) -> None:
    before = LeRobotDataset(broken).episodes
    for path in (broken / "meta").glob("*.json*"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\n")
    assert LeRobotDataset(broken).episodes == before


def test_unknown_task_is_named(demos) -> None:
    with pytest.raises(DatasetError, match=r"no demonstrations of task \[4\]; it has tasks \[0, 1\]"):
        LeRobotDataset(demos).select((4,))


# version 3.0


LENGTHS = {0: [70, 45, 20], 1: [60, 50]}


@pytest.fixture(scope="module")
def demos_v3(writer, tmp_path_factory):
    return writer.write_v3(tmp_path_factory.mktemp("demos_v3"), LENGTHS)


@pytest.fixture
def broken_v3(demos_v3, tmp_path):
    return shutil.copytree(demos_v3, tmp_path / "copy")


def test_both_versions_give_the_same_demonstrations(demos_v3, demos, writer) -> None:
    new, old = LeRobotDataset(demos_v3), LeRobotDataset(demos)
    assert [e.index for e in new.episodes] == [0, 1, 2, 3, 4]
    assert new.task_names == old.task_names
    rows = [(e.task, e.task_name, e.length, e.instance) for e in new.episodes]
    assert rows == [(e.task, e.task_name, e.length, e.instance) for e in old.episodes]
    assert dict(new.episodes[0].human) == {"length": 70.0}
    for ours, theirs in zip(new.episodes, old.episodes, strict=True):
        for camera in CAMERAS:
            clip, whole = new.camera_clip(ours, camera), old.camera_clip(theirs, camera)
            frames = decode(clip.path, None, clip.frames, clip.start)
            difference = np.abs(frames.astype(int) - decode(whole.path))
            assert difference.max() <= 4


def test_states_of_61_and_of_256_values_are_brought_to_the_same_order(writer, demos_v3, tmp_path) -> None:
    # one episode each, since the writer of 256 values draws more random numbers per episode
    new = LeRobotDataset(writer.write_v3(tmp_path / "new", {0: [40]}))
    old = LeRobotDataset(writer.write_dataset(tmp_path / "old", {0: [40]}))
    for ours, theirs in zip(
        new.state_and_actions(new.episodes[0]), old.state_and_actions(old.episodes[0]), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    dataset = LeRobotDataset(demos_v3)
    lengths = [len(dataset.state_and_actions(episode)[0]) for episode in reversed(dataset.episodes)]
    assert lengths == [50, 60, 20, 45, 70]


def test_a_part_of_the_release_keeps_its_numbers(writer, tmp_path) -> None:
    dataset = LeRobotDataset(writer.write_v3(tmp_path, {1: [40, 35]}, first=200))
    assert [(e.index, e.task) for e in dataset.episodes] == [(200, 1), (201, 1)]
    assert len(dataset.state_and_actions(dataset.episodes[1])[0]) == 35


def test_one_folder_per_task_is_one_dataset(writer, tmp_path) -> None:
    for task, name in writer.TASKS.items():
        writer.write_v3(tmp_path / name, {task: [40, 35 + task]})
    dataset = LeRobotDataset(tmp_path)
    rows = [(e.folder, e.index, e.task, e.length) for e in dataset.select()]
    assert rows == [
        ("picking_up_trash", 0, 1, 40),
        ("picking_up_trash", 1, 1, 36),
        ("turning_on_radio", 0, 0, 40),
        ("turning_on_radio", 1, 0, 35),
    ]
    assert len({*dataset.episodes}) == 4
    last = dataset.camera_clip(dataset.episodes[3], "head")
    assert last.path.is_relative_to(tmp_path / "turning_on_radio")
    assert (last.start, last.frames) == (40, 35)
    info = tmp_path / "turning_on_radio/meta/info.json"
    info.write_text(info.read_text().replace('"fps": 30', '"fps": 15'))
    with pytest.raises(DatasetError, match=r"v3\.0 at 15 fps; expected v3\.0 at 30 fps, as .*picking_up"):
        LeRobotDataset(tmp_path)


@pytest.mark.parametrize("numbered", [True, False])
def test_a_datasets_own_task_numbers_are_resolved_by_name(writer, tmp_path, numbered) -> None:
    root = writer.write_v3(tmp_path, {1: [40]})
    (root / "meta/tasks.jsonl").unlink()
    own = pa.table({"task_index": [0], "__index_level_0__": ["picking_up_trash"]})
    pq.write_table(own, root / "meta/tasks.parquet")
    rows = root / "meta/episodes/chunk-000/file-000.parquet"
    rewrite(
        rows,
        lambda table: (
            table.set_column(table.column_names.index("task_index"), "task_index", pa.array([0]))
            if numbered
            else table.drop_columns(["task_index"])
        ),
    )
    (episode,) = LeRobotDataset(root).episodes
    assert (episode.task, episode.task_name, episode.task_column) == (1, "picking_up_trash", 0)


def test_sentences_name_tasks_too(broken_v3) -> None:
    def change(table: pa.Table) -> pa.Table:
        sentences = pa.array([[f"do {0 if row < 3 else 1}"] for row in range(5)], pa.large_list(pa.string()))
        table = table.drop_columns(["task_index"])
        return table.set_column(table.column_names.index("tasks"), "tasks", sentences)

    rewrite(broken_v3 / "meta/episodes/chunk-000/file-000.parquet", change)
    assert [e.task for e in LeRobotDataset(broken_v3).episodes] == [0, 0, 0, 1, 1]


HEAD = "videos/observation.rgb.zed_link_camera_0"


def column(name: str, values: list[object]):
    return lambda table: table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (column("task_index", [0, 0, 0, 7, 1]), "episode 3 is of task 7; meta/tasks has no such"),
        (column("episode_index", [0, 1, 2, 3, 3]), "5 rows; expected each episode once"),
        (column("length", [70, 45, 20, 60, 0]), "episode 4 with 0 frames"),
        (column("length", [70, 45, 20, 60, None]), "column length has 1 empty values"),
        (lambda table: table.drop_columns(["length"]), "no column length"),
        (
            column(f"{HEAD}/from_timestamp", [float("nan"), 0.0, 0.0, 0.0, 0.0]),
            "episode 0 of .* begins at nan s and ends at 2",
        ),
        (lambda table: table.drop_columns(["data/chunk_index"]), "no column data/chunk_index"),
    ],
)
def test_wrong_tables_of_episodes_are_named(broken_v3, change, message) -> None:
    rewrite(broken_v3 / "meta/episodes/chunk-000/file-000.parquet", change)
    with pytest.raises(DatasetError, match=message):
        read_first(broken_v3)


def test_missing_tables_of_episodes_are_named(broken_v3) -> None:
    shutil.rmtree(broken_v3 / "meta/episodes")
    with pytest.raises(DatasetError, match=r"meta/episodes: no parquet file"):
        _ = LeRobotDataset(broken_v3).episodes


def test_rows_that_do_not_fit_their_episode_are_named(broken_v3) -> None:
    path = broken_v3 / "data/chunk-001/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 100), path)
    dataset = LeRobotDataset(broken_v3)
    with pytest.raises(DatasetError, match="40 rows of episode 4; expected 50"):
        dataset.read(dataset.episodes[4], ("action",))
    numbers = table["episode_index"].to_pylist()
    pq.write_table(column("episode_index", [4, *numbers[1:-1], 3])(table), path)
    dataset = LeRobotDataset(broken_v3)
    with pytest.raises(DatasetError, match="the rows of episode 3 are not consecutive"):
        dataset.read(dataset.episodes[3], ("action",))
