"""The demonstration dataset's files of 2026: LeRobot v3.0 as that challenge publishes it, RGB only.

A chunk is a task. Every episode has files of its own, so that episodes can be written in parallel and added
later; the format allows several per file.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from household import robot
from household.dataset import annotation, episode_index, vector_columns, vector_statistics, video_feature
from household.episode import Recording
from household.files import write_atomically, write_json, write_json_lines
from household.robot import FloatArray
from household.task import Task
from household.video import write_dataset_video

_PER_TASK = 200
"""Episode numbers of a task, as in the published dataset."""
_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_LINKS = {"head": "zed_link", "left_wrist": "left_realsense_link", "right_wrist": "right_realsense_link"}
_POSES = ("left_wrist", "right_wrist", "head")
"""Order of the cameras in the 21 values of their poses."""
_HUMAN = ("distance_traveled", "left_eef_displacement", "right_eef_displacement")


def video_key(camera: str) -> str:
    """Feature name of a camera's video.

    Args:
        camera: one of `robot.CAMERAS`.

    Returns:
        For example "observation.rgb.zed_link_camera_0".
    """
    return f"observation.rgb.{_LINKS[camera]}_camera_0"


def metainfo_path(root: Path, task: Task, instance_id: int) -> Path:
    """What meta/ will say of an episode, which is written last: where it exists, the episode is whole.

    Args:
        root: the dataset's folder.
        task: the task.
        instance_id: the instance.

    Returns:
        Its path.
    """
    name = f"episode_{episode_index(task, instance_id):08d}.json"
    return root / f"meta/episodes/chunk-{task.index:03d}" / name


def write_episode(root: Path, task: Task, instance_id: int, recording: Recording) -> None:
    """Write one episode's files, the metainfo last.

    Args:
        root: the dataset's folder.
        task: the task.
        instance_id: the instance.
        recording: a successful recording with pictures.
    """
    raw, file = episode_index(task, instance_id), instance_id - 1
    length = len(recording.actions)
    vectors = _vectors(recording)
    number = task.index * _PER_TASK + file
    row: dict[str, Any] = {
        "episode_index": number,
        "tasks": [task.name],
        "length": length,
        "task_index": task.index,
        "raw_episode_id": raw,
        "task_instance_id": instance_id,
        "demo_index_within_task": file,
        "annotation_path": f"annotations/task-{task.index:04d}/episode_{raw:08d}.json",
        "data/chunk_index": task.index,
        "data/file_index": file,
        **dict(zip(_HUMAN, map(float, recording.distances), strict=True)),
    }
    for camera in robot.CAMERAS:
        key = video_key(camera)
        path = root / _VIDEO_PATH.format(video_key=key, chunk_index=task.index, file_index=file)
        write_dataset_video(path, recording.frames[camera], robot.CONTROL_HZ)
        row |= {f"videos/{key}/chunk_index": task.index, f"videos/{key}/file_index": file}
        row |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": length / robot.CONTROL_HZ}
    table = _table(vectors, task, number)
    path = root / _DATA_PATH.format(chunk_index=task.index, file_index=file)
    write_atomically(path, lambda aside: pq.write_table(table, aside))
    notes = annotation(task, recording)
    for skill in notes["skill_annotation"]:
        kind = "navigation" if skill["skill_description"] == ["move to"] else "uncoordinated"
        skill |= {"skill_type": [kind], "memory_prefix": [""], "spatial_prefix": [""]}
    write_json(root / row["annotation_path"], notes | {"primitive_annotation": []})
    metainfo = {"episode": row, "stats": vector_statistics(vectors)}
    write_json(metainfo_path(root, task, instance_id), metainfo, indent=None)


def write_meta(root: Path, tasks: Iterable[Task], image_size: int) -> dict[str, int]:
    """Write meta/ from the finished episodes' metainfo files, and number the frames of all of them.

    Args:
        root: the dataset's folder.
        tasks: tasks that the dataset holds.
        image_size: side of the pictures in pixels.

    Returns:
        {"total_episodes", "total_frames"}.
    """
    paths = sorted((root / "meta/episodes").glob("chunk-*/episode_*.json"))
    infos = [json.loads(path.read_text()) for path in paths]
    rows, frames = [info["episode"] for info in infos], 0
    for row in rows:
        row["dataset_from_index"], row["dataset_to_index"] = frames, frames + row["length"]
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        _number(root / _DATA_PATH.format(**place), frames)
        frames += row["length"]
    known = sorted(tasks, key=lambda t: t.index)
    for task in known:
        own = [row for row in rows if row["task_index"] == task.index]
        own = [row | {"meta/episodes/chunk_index": task.index, "meta/episodes/file_index": 0} for row in own]
        table = pa.Table.from_pylist(own)
        path = root / f"meta/episodes/chunk-{task.index:03d}/file-000.parquet"
        write_atomically(path, lambda aside, table=table: pq.write_table(table, aside))  # type: ignore[misc]
    sentences = [{"task_index": t.index, "task_name": t.name, "task": t.instruction} for t in known]
    write_json_lines(root / "meta/tasks.jsonl", sentences)
    named = _with_index(
        pa.table({"task_index": pa.array([t.index for t in known]), "task": [t.name for t in known]})
    )
    write_atomically(root / "meta/tasks.parquet", lambda aside: pq.write_table(named, aside))
    write_json(root / "meta/stats.json", _together([info["stats"] for info in infos]))
    totals = {"total_episodes": len(rows), "total_frames": frames}
    info = {
        "codebase_version": "v3.0",
        "robot_type": "R1Pro",
        **totals,
        "total_tasks": len(known),
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": robot.CONTROL_HZ,
        "splits": {"train": f"0:{len(rows)}"},
        "data_path": _DATA_PATH,
        "video_path": _VIDEO_PATH,
        "features": _features(image_size),
    }
    # info.json comes last: a dataset without it is not finished.
    write_json(root / "meta/info.json", info)
    return totals


def _vectors(recording: Recording) -> dict[str, FloatArray]:
    poses = np.stack(recording.camera_poses)
    vectors = {
        "action": np.stack(recording.actions),
        "observation.state": np.stack(recording.proprioception),
        **{
            f"observation.robot2cam_pose.{_LINKS[camera]}_camera_0": poses[:, 7 * at : 7 * at + 7]
            for at, camera in enumerate(_POSES)
        },
    }
    return {name: values.astype(np.float32) for name, values in vectors.items()}


def _table(vectors: dict[str, FloatArray], task: Task, number: int) -> pa.Table:
    columns = vector_columns(vectors)
    frames = np.arange(len(vectors["action"]))
    last = frames == frames[-1]
    columns["next.reward"] = pa.array(last.astype(np.float32))
    columns["next.terminated"], columns["next.truncated"] = pa.array(last), pa.array(np.zeros_like(last))
    columns["timestamp"] = pa.array((frames / robot.CONTROL_HZ).astype(np.float32))
    columns["frame_index"] = pa.array(frames, pa.int64())
    columns["episode_index"] = pa.array(np.full(len(frames), number), pa.int64())
    columns["index"] = pa.array(frames, pa.int64())
    columns["task_index"] = pa.array(np.full(len(frames), task.index), pa.int64())
    return pa.table(columns)


def _number(path: Path, first: int) -> None:
    """Number a table's frames from `first` on; a table that has these numbers stays as it is."""
    column = pq.read_table(path, columns=["index"])["index"]
    if column[0].as_py() == first:
        return
    table = pq.read_table(path)
    place = table.column_names.index("index")
    numbers = pa.array(np.arange(first, first + table.num_rows), pa.int64())
    numbered = table.set_column(place, "index", numbers)
    write_atomically(path, lambda aside: pq.write_table(numbered, aside))


def _with_index(table: pa.Table) -> pa.Table:
    """Tell pandas that the column `task` is the index."""
    kinds = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy}
        for name, kind, numpy in kinds
    ]
    text = json.dumps({"index_columns": ["task"], "columns": columns, "column_indexes": []})
    return table.replace_schema_metadata({"pandas": text})


def _together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Moments and extremes of all episodes from those of each."""
    result: dict[str, Any] = {}
    for name in parts[0] if parts else ():
        low, high, mean, std, count = (
            np.array([part[name][key] for part in parts]) for key in ("min", "max", "mean", "std", "count")
        )
        share = count / count.sum()
        overall = (share * mean).sum(axis=0)
        square = (share * (std**2 + (mean - overall) ** 2)).sum(axis=0)
        result[name] = {
            "min": low.min(axis=0).tolist(),
            "max": high.max(axis=0).tolist(),
            "mean": overall.tolist(),
            "std": np.sqrt(square).tolist(),
            "count": [int(count.sum())],
        }
    return result


def _features(image_size: int) -> dict[str, Any]:
    widths = {"action": 23, "observation.state": robot.layout_length("2026")}
    widths |= {f"observation.robot2cam_pose.{link}_camera_0": 7 for link in _LINKS.values()}
    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": [width], "names": None} for name, width in widths.items()
    }
    kinds = {
        **dict.fromkeys(("next.reward", "timestamp"), "float32"),
        **dict.fromkeys(("next.terminated", "next.truncated"), "bool"),
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64"),
    }
    features |= {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in kinds.items()}
    for camera in robot.CAMERAS:
        features[video_key(camera)] = video_feature(image_size, colours="channels")
    return features
