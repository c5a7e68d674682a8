"""What the demonstration datasets of 2025 and 2026 have in common: numbers, columns, moments, annotations."""

from typing import Any

import numpy as np
import pyarrow as pa

from household import robot
from household.episode import Recording
from household.robot import FloatArray
from household.task import Task

_PER_TASK = 10_000


def episode_index(task: Task, instance_id: int) -> int:
    """The number that names an episode's task and instance: the last digit counts demonstrations of it.

    Args:
        task: the task.
        instance_id: the instance, below 1000.

    Returns:
        task index * 10000 + instance * 10.
    """
    return task.index * _PER_TASK + instance_id * 10


def vector_columns(vectors: dict[str, FloatArray]) -> dict[str, pa.Array]:
    """Columns of a table, each row a list of one length.

    Args:
        vectors: [frames, width] float32 each, by name.

    Returns:
        The columns by name.
    """
    columns: dict[str, pa.Array] = {}
    for name, values in vectors.items():
        flat = pa.array(np.ascontiguousarray(values).reshape(-1), pa.float32())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return columns


def vector_statistics(vectors: dict[str, FloatArray]) -> dict[str, Any]:
    """Moments and extremes of an episode's vectors.

    Args:
        vectors: [frames, width] each, by name.

    Returns:
        min, max, mean, std and count by name.
    """
    return {
        name: {
            "min": values.min(axis=0).tolist(),
            "max": values.max(axis=0).tolist(),
            "mean": values.mean(axis=0, dtype=np.float64).tolist(),
            "std": values.std(axis=0, dtype=np.float64).tolist(),
            "count": [len(values)],
        }
        for name, values in vectors.items()
    }


def annotation(task: Task, recording: Recording) -> dict[str, Any]:
    """The episode's skills, frame by frame.

    Args:
        task: the task.
        recording: the episode.

    Returns:
        The annotation file's content.
    """
    skills: list[dict[str, Any]] = []
    for frame, (skill, target, held) in enumerate(recording.skills):
        last = skills[-1] if skills else None
        if last is not None and (last["skill_description"], last["object_id"]) == ([skill], [target]):
            last["frame_duration"][1] = frame + 1
            continue
        skills.append(
            {
                "skill_idx": len(skills),
                "skill_description": [skill],
                "object_id": [target],
                "manipulating_object_id": [held] if held else [],
                "frame_duration": [frame, frame + 1],
            }
        )
    return {
        "task_name": task.name,
        "meta_data": {"task_duration": len(recording.actions), "valid_duration": [0, len(recording.actions)]},
        "skill_annotation": skills,
        "primitive_annotation": skills,
    }


def video_feature(image_size: int, *, colours: str) -> dict[str, Any]:
    """What `info.json` says of a camera's video.

    Args:
        image_size: side of the pictures in pixels.
        colours: name of the last axis.

    Returns:
        The feature.
    """
    return {
        "dtype": "video",
        "shape": [image_size, image_size, 3],
        "names": ["height", "width", colours],
        "info": {
            "video.fps": robot.CONTROL_HZ,
            "video.height": image_size,
            "video.width": image_size,
            "video.channels": 3,
            "video.codec": "hevc",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "has_audio": False,
        },
    }
