"""Faults that are planted in a dataset are found, each by its check; sound datasets raise no alarm."""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.dataset.checks import Options, check_complete, check_dataset, dataset_files, missing_files
from pi_behavior.data.lerobot import DatasetError, LeRobotDataset
from pi_behavior.data.video import decode

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("dataset_writer", ROOT / "tests/model/data/dataset_writer.py")
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

CAMERA = "videos/task-0000/observation.images.rgb."
TABLE, VIDEO = "data/task-0000/episode_00000010.parquet", f"{CAMERA}head/episode_00000010.mp4"
BASE_V, ARM = slice(253, 255), 158
LENGTH = 120


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return writer.write_dataset(tmp_path_factory.mktemp("sound"), {0: [LENGTH, 70, 60, 66], 1: [50, 45, 48]})


@pytest.fixture(scope="module")
def sound_v3(tmp_path_factory) -> Path:
    root = writer.write_v3(tmp_path_factory.mktemp("sound3"), {0: [600, 450], 1: [300]}, size=16)
    for path in root.glob("data/*/*.parquet"):
        # the measured velocities of the arms, which the writer leaves at 0
        change(path, "observation.state", velocities)
    return root


def velocities(state: np.ndarray, episode: np.ndarray) -> None:
    for number in np.unique(episode):
        rows = np.flatnonzero(episode == number)
        for at in (3, 28):
            state[rows, at + 7 : at + 14] = np.gradient(state[rows, at : at + 7], axis=0) * 30


def change(path: Path, column: str, how: Callable[..., None]) -> None:
    table = pq.read_table(path)
    values = table[column].combine_chunks()
    if is_list := pa.types.is_fixed_size_list(values.type):
        width, values = values.type.list_size, values.flatten()
    array = values.to_numpy(zero_copy_only=False).copy()
    if is_list:
        array = array.reshape(-1, width)
    how(array, *([table["episode_index"].to_numpy()] if how.__code__.co_argcount == 2 else []))
    new = (
        pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), width) if is_list else pa.array(array)
    )
    place = table.column_names.index(column)
    path.unlink()  # the sound one is linked
    pq.write_table(table.set_column(place, column, new), path)


def column(name: str, how: Callable[..., None]) -> Callable[[Path], None]:
    return lambda root: change(root / TABLE, name, how)


def put(place: object, value: float) -> Callable[[Path], None]:
    return lambda values: values.__setitem__(place, value)


def add(place: object, value: float) -> Callable[[Path], None]:
    return lambda values: values.__setitem__(place, values[place] + np.asarray(value, values.dtype))


def rows(of: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        table = of(pq.read_table(root / TABLE))
        (root / TABLE).unlink()
        pq.write_table(table, root / TABLE)

    return plant


def replaced(name: str, content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        data = (root / name).read_bytes() if (root / name).exists() else b""
        (root / name).unlink(missing_ok=True)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content(data))

    return plant


def video(frames: Callable[[np.ndarray], np.ndarray], name: str = VIDEO, **options) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        pictures = frames(decode(root / name))
        (root / name).unlink()
        writer.write_video(root / name, list(pictures), 10, **options)

    return plant


def swap(one: str, other: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / one).rename(root / "aside")
        (root / other).rename(root / one)
        (root / "aside").rename(root / other)

    return plant


def copied(one: str, other: str) -> Callable[[Path], None]:
    return lambda root: ((root / other).unlink(), shutil.copy(root / one, root / other))


def same_actions(root: Path) -> None:
    path = root / "data/task-0000/episode_00000030.parquet"
    action = pq.read_table(root / TABLE)["action"].slice(0, 60).combine_chunks().flatten().to_numpy()
    for number in (30, 40):
        path = root / f"data/task-0000/episode_{number:08d}.parquet"
        change(path, "action", lambda a: a.__setitem__(slice(0, 60), action.reshape(60, 23)))
        change(path, "action", lambda a: a.__setitem__(slice(60, None), action.reshape(60, 23)[-1]))


def turned(values: np.ndarray) -> None:
    values[:, BASE_V] = np.stack([-values[:, 254], values[:, 253]], 1)


def all_turned(root: Path) -> None:
    for path in root.glob("data/*/*.parquet"):
        change(path, "observation.state", turned)


def annotation(content: object) -> Callable[[Path], None]:
    text = content if isinstance(content, str) else json.dumps(content)
    return replaced("annotations/task-0000/episode_00000010.json", lambda _: text.encode())


FAULTS = {
    "NaN in actions": ("finite", column("action", put((3, 7), np.nan))),
    "infinite state": ("finite", column("observation.state", put((3, ARM), np.inf))),
    "NaN in camera poses": ("finite", column("observation.cam_rel_poses", put((0, 0), np.nan))),
    "action beyond its limit": ("limits", column("action", put((5, 0), 1.1))),
    "joint beyond its limit": ("limits", column("observation.state", put((5, ARM), 2.0))),
    "degrees for radians": ("limits", column("action", lambda a: a.__imul__(57.3))),
    "gripper in metres": ("limits", column("observation.state", put((slice(None), 193), 5.0))),
    "state jumps": ("motion", column("observation.state", add((60, ARM), 0.9))),
    "action jumps": ("motion", column("action", add((slice(60, None), 5), 0.8))),
    "actions never change": ("motion", column("action", lambda a: a.__setitem__(slice(None), a[0]))),
    "robot never moves": ("motion", column("observation.state", lambda s: s.__setitem__(slice(None), s[0]))),
    "rows are missing": ("schema", rows(lambda t: t.slice(0, LENGTH - 3))),
    "rows too many": ("schema", rows(lambda t: pa.concat_tables([t, t.slice(0, 2)]))),
    "rows in another order": ("schema", rows(lambda t: t.take([1, 0, *range(2, LENGTH)]))),
    "a column is missing": ("schema", rows(lambda t: t.drop_columns(["observation.state"]))),
    "another robot's actions": (
        "schema",
        rows(
            lambda t: t.set_column(
                t.column_names.index("action"),
                "action",
                pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(14 * LENGTH, np.float32)), 14),
            )
        ),
    ),
    "empty values": (
        "schema",
        rows(
            lambda t: t.set_column(
                t.column_names.index("action"), "action", pa.nulls(LENGTH, t["action"].type)
            )
        ),
    ),
    "another episode's number": ("schema", column("episode_index", put(slice(None), 20))),
    "another task's number": ("schema", column("task_index", put(slice(None), 1))),
    "half a table": ("schema", replaced(TABLE, lambda data: data[: len(data) // 2])),
    "pointer of git-lfs": (
        "schema",
        replaced(TABLE, lambda _: b"version https://git-lfs.github.com/spec/v1\n"),
    ),
    "time stamps with a gap": ("frames", column("timestamp", add(slice(60, None), 0.5))),
    "time stamps go on over episodes": ("frames", column("timestamp", add(slice(None), 4.0))),
    "time stamps at 29.97 Hz": ("frames", column("timestamp", lambda t: t.__imul__(1.5))),
    "a frame is missing": ("frames", video(lambda f: f[:-1])),
    "a frame too many": ("frames", video(lambda f: np.concatenate([f, f[-1:]]))),
    "video stands for a while": (
        "frames",
        video(lambda f: f, times=[t + 9 * (t > 50) for t in range(LENGTH)]),
    ),
    "half a video": ("videos", replaced(VIDEO, lambda data: data[: len(data) // 2])),
    "no video": ("videos", replaced(VIDEO, lambda _: b"<html>404</html>")),
    "camera is frozen": ("pictures", video(lambda f: np.repeat(f[:1], len(f), 0))),
    "camera is black": ("pictures", video(lambda f: np.zeros_like(f))),
    "another size": ("cameras", video(lambda f: f[:, :24, :24])),
    "wrists are swapped": (
        "cameras",
        swap(f"{CAMERA}left_wrist/episode_00000010.mp4", f"{CAMERA}right_wrist/episode_00000010.mp4"),
    ),
    "head and wrist are swapped": ("cameras", swap(VIDEO, f"{CAMERA}left_wrist/episode_00000010.mp4")),
    "a camera's video twice": ("copies", copied(VIDEO, f"{CAMERA}left_wrist/episode_00000010.mp4")),
    "base velocity in the world's frame": ("velocity", all_turned),
    "base velocity of one episode turned": ("velocity", column("observation.state", turned)),
    "annotation is no JSON": ("annotations", annotation("{")),
    "annotation of another task": ("annotations", annotation({"task_name": "picking_up_trash"})),
    "annotation beyond the end": (
        "annotations",
        annotation({"skill_annotation": [{"frame_duration": [0, 900]}]}),
    ),
}


def found(root: Path) -> list[str]:
    dataset = LeRobotDataset(root)
    findings, _ = check_dataset(dataset, dataset_files(dataset), Options())
    return [f.check for f in findings]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, sound, tmp_path) -> None:
    root = shutil.copytree(sound, tmp_path / "planted", copy_function=os.link)
    check, plant = FAULTS[fault]
    plant(root)
    assert check in found(root)


def test_sound_datasets_raise_no_alarm(sound, sound_v3) -> None:
    assert found(sound) == found(sound_v3) == []


@pytest.mark.parametrize("name", ["lerobot-v21", "lerobot-v3-partial"])
def test_golden_datasets_raise_no_alarm(name) -> None:
    assert found(ROOT / "tests/golden" / name) == []


def test_files_that_are_missing_are_named_with_their_tasks(sound, tmp_path) -> None:
    root = shutil.copytree(sound, tmp_path / "planted", copy_function=os.link)
    for folder in ("data", "videos"):
        shutil.rmtree(root / folder / "task-0001")
    dataset = LeRobotDataset(root)
    files = dataset_files(dataset)
    with pytest.raises(DatasetError, match=r"12 of 28 files are missing.*tasks picking_up_trash"):
        check_complete(dataset, files)
    assert {name for f in missing_files(files) for name in f.episodes} == {"10010", "10020", "10030"}


def without_depth_range(info: dict) -> None:
    info["features"]["observation.depth_linear.zed_link_camera_0"] = {"info": {"is_depth_map": True}}


@pytest.mark.parametrize(
    ("fault", "check", "message"),
    [
        ("no tasks.jsonl", "revision", "no meta/tasks.jsonl, as before 27 July 2026"),
        ("no depth range", "revision", "has no video.depth_min, as before 27 July 2026"),
        ("base in the world's frame", "velocity", "as before 27 July 2026"),
        ("other joint velocities", "revision", "as before 24 August 2026"),
        ("left and right of a task swapped", "cameras", "left_wrist and right_wrist look swapped"),
    ],
)
def test_replaced_revisions_of_2026_are_named(fault, check, message, sound_v3, tmp_path) -> None:
    root = shutil.copytree(sound_v3, tmp_path / "planted", copy_function=os.link)
    if fault == "no tasks.jsonl":
        (root / "meta/tasks.jsonl").unlink()
    elif fault == "no depth range":
        info = json.loads((root / "meta/info.json").read_text())
        without_depth_range(info)
        (root / "meta/info.json").unlink()
        (root / "meta/info.json").write_text(json.dumps(info))
    elif check == "cameras":
        one, other = (f"videos/{key}/chunk-001/file-000.mp4" for key in writer.KEYS_2026[1:])
        swap(one, other)(root)
    else:
        for path in root.glob("data/*/*.parquet"):
            if check == "velocity":
                change(
                    path, "observation.state", lambda s: s.__setitem__((slice(None), [0, 1]), s[:, [1, 0]])
                )
            else:
                rng = np.random.default_rng(0)
                change(path, "observation.state", lambda s: s.__setitem__(
                    (slice(None), slice(10, 17)), rng.normal(size=(len(s), 7))  # noqa: B023
                ))  # fmt: skip
    dataset = LeRobotDataset(root)
    findings, _ = check_dataset(dataset, dataset_files(dataset), Options(decode_all=False))
    assert (check, True) in [(f.check, message in f.message) for f in findings]
