"""The dataset that `household.collect` writes: format, labels, resuming after a kill."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from components.dataset.checks import Options, check_complete, check_dataset, dataset_files
from household import cli, robot
from household.collect import CollectConfig, collect
from household.dataset import episode_index
from household.dataset_2025 import video_key
from household.tasks import TASKS
from pi_behavior.data.lerobot import LeRobotDataset

TRASH = TASKS["picking_up_trash"]
DEMO = ("turning_on_radio", "picking_up_trash")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demos")
    totals = collect(
        CollectConfig(output=root, tasks=DEMO, episodes=2, workers=1, image_size=32, edition="2025")
    )
    assert totals["total_episodes"] == 4
    return root


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_meta_describes_the_files(dataset: Path) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    assert (info["codebase_version"], info["robot_type"], info["fps"]) == ("v2.1", "R1Pro", 30)
    assert info["chunks_size"] == 10_000
    episodes = lines(dataset / "meta/episodes.jsonl")
    assert [e["episode_index"] for e in episodes] == [10, 20, 10010, 10020]
    assert [t["task_name"] for t in lines(dataset / "meta/tasks.jsonl")] == list(DEMO)
    keys = {"episode_index", "tasks", "length", "distance_traveled"}
    assert keys | {"left_eef_displacement", "right_eef_displacement"} == set(episodes[0])
    assert info["total_frames"] == sum(int(str(e["length"])) for e in episodes)
    assert len(lines(dataset / "meta/episodes_stats.jsonl")) == 4
    for episode in episodes:
        index = int(str(episode["episode_index"]))
        place = {"episode_chunk": index // 10_000, "episode_index": index}
        assert (dataset / info["data_path"].format(**place)).exists()
        assert (dataset / info["metainfo_path"].format(**place)).exists()
        note = json.loads((dataset / info["annotation_path"].format(**place)).read_text())
        assert note["meta_data"]["task_duration"] == episode["length"]
        spans = [s["frame_duration"] for s in note["skill_annotation"]]
        assert spans[0][0] == 0
        assert spans[-1][1] == episode["length"]
        assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


def test_columns_and_labels(dataset: Path) -> None:
    index = episode_index(TRASH, 1)
    table = pq.read_table(dataset / f"data/task-0001/episode_{index:08d}.parquet")
    action = np.stack(table["action"].to_numpy())
    state = np.stack(table["observation.state"].to_numpy())
    assert action.shape == (len(table), 23)
    assert state.shape == (len(table), 256)
    assert action.dtype == state.dtype == np.float32
    assert np.stack(table["observation.cam_rel_poses"].to_numpy()).shape == (len(table), 21)
    np.testing.assert_allclose(table["timestamp"].to_numpy(), np.arange(len(table)) / 30)
    assert set(table["episode_index"].to_pylist()) == {index}
    assert set(table["task_index"].to_pylist()) == {1}
    assert (action >= robot.ACTION_LOW - 1e-5).all()
    assert (action <= robot.ACTION_HIGH + 1e-5).all()
    # Arm labels lead the measured joints by little: they are commands relative to where the arm is.
    lead = action[:, robot.RIGHT_ARM] - state[:, robot.PROPRIOCEPTION["arm_right_qpos"]]
    assert np.abs(lead).max() < 0.05
    spread = np.stack([robot.state_from_proprioception(row.astype(float)) for row in state]).std(axis=0)
    assert (spread[3:] > 1e-3).all()
    assert (spread[:3] < 0.03).all(), "in the world's frame and near 0"
    assert (spread[:3] > 0).all()


@pytest.mark.parametrize("camera", robot.CAMERAS)
def test_videos_have_every_frame_and_seek_cheaply(dataset: Path, camera: str) -> None:
    index = episode_index(TRASH, 2)
    frames = pq.read_table(dataset / f"data/task-0001/episode_{index:08d}.parquet").num_rows
    with av.open(str(dataset / f"videos/task-0001/{video_key(camera)}/episode_{index:08d}.mp4")) as video:
        stream = video.streams.video[0]
        assert stream.codec_context.name == "hevc"
        assert (stream.width, stream.height) == (32, 32)
        decoded = list(video.decode(stream))
    assert len(decoded) == frames
    keys = [i for i, frame in enumerate(decoded) if frame.key_frame]
    assert np.diff(keys).max() <= 10
    assert decoded[0].to_ndarray(format="rgb24").std() > 5


def test_started_again_it_redoes_nothing_and_continues(dataset: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob("*.parquet")}
    missing = episode_index(TRASH, 2)
    lost = dataset / f"meta/episodes/task-0001/episode_{missing:08d}.json"
    content = (dataset / f"data/task-0001/episode_{missing:08d}.parquet").read_bytes()
    lost.unlink()
    collect(CollectConfig(output=dataset, tasks=DEMO, episodes=2, workers=1, image_size=32, edition="2025"))
    assert lost.exists()
    again = dataset / f"data/task-0001/episode_{missing:08d}.parquet"
    assert again.read_bytes() == content  # the same seed gives the same demonstration
    after = {p: p.stat().st_mtime_ns for p in dataset.rglob("*.parquet")}
    assert [p.name for p in before if before[p] != after[p]] == [again.name]


def test_other_settings_are_not_mixed_in(dataset: Path) -> None:
    with pytest.raises(cli.UserError, match="use another --output"):
        collect(CollectConfig(output=dataset, tasks=DEMO, episodes=2, image_size=64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 101}, "--episodes is 101"),
        ({"tasks": ("cooking",)}, "cooking"),
        ({"image_size": 33}, "--image-size is 33"),
        ({"workers": 0}, "--workers is 0"),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(cli.UserError, match=message):
        collect(CollectConfig(output=tmp_path / "d", **change))  # type: ignore[arg-type]
    assert not (tmp_path / "d").exists()


def test_after_a_kill_it_continues(tmp_path: Path) -> None:
    root = tmp_path / "demos"
    command = [
        sys.executable,
        "-m",
        "household.collect",
        "--output",
        str(root),
        "--tasks",
        "turning_on_radio",
    ]
    command += ["--episodes", "4", "--workers", "1", "--image-size", "16"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(root.glob("meta/episodes/*/episode_*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (root / "meta/info.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in root.glob("meta/episodes/*/episode_*.json")}
    assert 1 <= len(kept) < 4
    (root / "data").mkdir(exist_ok=True)
    (root / "data/.episode_1.7.partial.parquet").write_text("what a kill in the middle of a write leaves")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "4 episodes" in done.stdout
    assert not list(root.rglob(".*"))
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in kept.items())
    assert json.loads((root / "meta/info.json").read_text())["total_episodes"] == 4


def test_the_dataset_of_2026(tmp_path: Path) -> None:
    """LeRobot v3.0 with 61 values, which the reader of the policy takes, and the same demonstrations."""
    config = CollectConfig(output=tmp_path, tasks=DEMO, episodes=1, workers=1, image_size=32)
    assert collect(config)["total_episodes"] == 2
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert (info["codebase_version"], info["features"]["observation.state"]["shape"]) == ("v3.0", [61])
    read = LeRobotDataset(tmp_path)
    assert read.proprioception == 61
    assert [(e.index, e.task_name, e.instance) for e in read.episodes] == [(0, DEMO[0], 1), (200, DEMO[1], 1)]
    rows = 0
    for episode in read.episodes:
        state, actions = read.state_and_actions(episode)
        assert len(state) == len(actions) == episode.length
        assert (np.abs(state[:, :3]).max(axis=0) > 0.04).all(), "real speeds"
        assert episode.human["distance_traveled"] > 0
        assert episode.human["length"] == episode.length
        clip = read.camera_clip(episode, "left_wrist")
        assert clip.frames == episode.length
        with av.open(str(clip.path)) as video:
            assert sum(1 for _ in video.decode(video=0)) == clip.frames
        index = read.read(episode, ("index",))["index"]
        np.testing.assert_array_equal(index, rows + np.arange(episode.length))
        rows += episode.length
        note = json.loads(read.annotation_path(episode).read_text())
        assert note["skill_annotation"][-1]["frame_duration"][1] == episode.length
        assert note["skill_annotation"][0]["skill_type"] == ["navigation"]
    files = dataset_files(read)
    check_complete(read, files)
    assert check_dataset(read, files, Options(tolerance=0.02, joint_tolerance=0.02))[0] == []
    stats = json.loads((tmp_path / "meta/stats.json").read_text())["observation.state"]
    states = np.concatenate(
        [read.read(e, ("observation.state",))["observation.state"] for e in read.episodes]
    ).astype(float)
    np.testing.assert_allclose(stats["std"], states.std(axis=0), rtol=1e-4, atol=1e-7)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("file-*.parquet") if "meta" not in p.parts}
    collect(config)
    assert before == {p: p.stat().st_mtime_ns for p in before}
    with pytest.raises(cli.UserError, match="use another --output"):
        collect(CollectConfig(**{**vars(config), "edition": "2025"}))
