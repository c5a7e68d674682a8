"""The demonstration dataset's files of 2025: LeRobot v2.1 as that challenge publishes it, RGB only."""

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

_CHUNKS_SIZE = 10_000
_DATA_PATH = "data/task-{episode_chunk:04d}/episode_{episode_index:08d}.parquet"
_VIDEO_PATH = "videos/task-{episode_chunk:04d}/{video_key}/episode_{episode_index:08d}.mp4"
_METAINFO_PATH = "meta/episodes/task-{episode_chunk:04d}/episode_{episode_index:08d}.json"
_ANNOTATION_PATH = "annotations/task-{episode_chunk:04d}/episode_{episode_index:08d}.json"
_VECTORS = {"action": 23, "observation.state": 256, "observation.cam_rel_poses": 21}


def video_key(camera: str) -> str:
    """Feature name of a camera's video.

    Args:
        camera: one of `robot.CAMERAS`.

    Returns:
        For example "observation.images.rgb.head".
    """
    return f"observation.images.rgb.{camera}"


def metainfo_path(root: Path, task: Task, instance_id: int) -> Path:
    """The episode's metainfo file, which is written last: where it exists, the episode is whole.

    Args:
        root: the dataset's folder.
        task: the task.
        instance_id: the instance.

    Returns:
        Its path.
    """
    return _path(root, _METAINFO_PATH, episode_index(task, instance_id))


def write_episode(root: Path, task: Task, instance_id: int, recording: Recording) -> None:
    """Write one episode's files, the metainfo last.

    Args:
        root: the dataset's folder.
        task: the task.
        instance_id: the instance.
        recording: a successful recording with pictures.
    """
    index = episode_index(task, instance_id)
    length = len(recording.actions)
    vectors = _vectors(recording)
    for camera in robot.CAMERAS:
        path = _path(root, _VIDEO_PATH, index, video_key(camera))
        write_dataset_video(path, recording.frames[camera], robot.CONTROL_HZ)
    table = _table(vectors, task, index)
    write_atomically(_path(root, _DATA_PATH, index), lambda aside: pq.write_table(table, aside))
    write_json(_path(root, _ANNOTATION_PATH, index), annotation(task, recording))
    base, left, right = (float(d) for d in recording.distances)
    metainfo = {
        "episode": {
            "episode_index": index,
            "tasks": [task.instruction],
            "length": length,
            "distance_traveled": base,
            "left_eef_displacement": left,
            "right_eef_displacement": right,
        },
        "stats": vector_statistics(vectors),
        "task_name": task.name,
        "instance_id": instance_id,
    }
    write_json(metainfo_path(root, task, instance_id), metainfo, indent=None)


def write_meta(root: Path, tasks: Iterable[Task], image_size: int) -> dict[str, int]:
    """Write meta/ from the finished episodes' metainfo files.

    Args:
        root: the dataset's folder.
        tasks: tasks that the dataset holds.
        image_size: side of the pictures in pixels.

    Returns:
        {"total_episodes", "total_frames"}.
    """
    infos = [
        json.loads(path.read_text())
        for path in sorted((root / "meta/episodes").glob("task-*/episode_*.json"))
    ]
    episodes = [info["episode"] for info in infos]
    statistics = [{"episode_index": i["episode"]["episode_index"], "stats": i["stats"]} for i in infos]
    known = sorted(tasks, key=lambda t: t.index)
    rows = [{"task_index": t.index, "task_name": t.name, "task": t.instruction} for t in known]
    write_json_lines(root / "meta/tasks.jsonl", rows)
    write_json_lines(root / "meta/episodes.jsonl", episodes)
    write_json_lines(root / "meta/episodes_stats.jsonl", statistics)
    totals = {"total_episodes": len(episodes), "total_frames": sum(e["length"] for e in episodes)}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "R1Pro",
        **totals,
        "total_tasks": len(known),
        "total_videos": len(episodes) * len(robot.CAMERAS),
        "total_chunks": len(known),
        "chunks_size": _CHUNKS_SIZE,
        "fps": robot.CONTROL_HZ,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": _DATA_PATH,
        "video_path": _VIDEO_PATH,
        "metainfo_path": _METAINFO_PATH,
        "annotation_path": _ANNOTATION_PATH,
        "features": _features(image_size),
    }
    # info.json comes last: a dataset without it is not finished.
    write_json(root / "meta/info.json", info)
    return totals


def _path(root: Path, template: str, index: int, key: str = "") -> Path:
    return root / template.format(episode_chunk=index // _CHUNKS_SIZE, episode_index=index, video_key=key)


def _vectors(recording: Recording) -> dict[str, FloatArray]:
    return {
        "action": np.stack(recording.actions).astype(np.float32),
        "observation.state": np.stack(recording.proprioception).astype(np.float32),
        "observation.cam_rel_poses": np.stack(recording.camera_poses).astype(np.float32),
        "observation.task_info": np.stack(recording.task_info).astype(np.float32),
    }


def _table(vectors: dict[str, FloatArray], task: Task, index: int) -> pa.Table:
    columns = vector_columns(vectors)
    frames = np.arange(len(vectors["action"]))
    columns["timestamp"] = pa.array(frames / robot.CONTROL_HZ, pa.float64())
    columns["episode_index"] = pa.array(np.full(len(frames), index), pa.int64())
    # Frames are counted within the episode: episodes are written in parallel and may be added later.
    columns["index"] = pa.array(frames, pa.int64())
    columns["task_index"] = pa.array(np.full(len(frames), task.index), pa.int64())
    return pa.table(columns)


def _features(image_size: int) -> dict[str, Any]:
    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": [width], "names": None} for name, width in _VECTORS.items()
    }
    features["observation.task_info"] = {"dtype": "float32", "shape": [None], "names": None}
    features["timestamp"] = {"dtype": "float64", "shape": [1], "names": None}
    for name in ("episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    for camera in robot.CAMERAS:
        features[video_key(camera)] = video_feature(image_size, colours="rgb")
    return features
