"""Writes a small synthetic dataset in the 2025 demonstrations' layout (LeRobot v2.1, RGB only)."""

import json
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CAMERAS = ("head", "left_wrist", "right_wrist")
TASKS = {0: "turning_on_radio", 1: "picking_up_trash"}
FPS = 30


def write_dataset(
    root: Path, lengths: dict[int, list[int]], size: int = 32, seed: int = 0, gop: int = 10
) -> Path:
    """Write episodes of the given lengths by task; instance i + 1 for the i-th episode of a task."""
    rng = np.random.default_rng(seed)
    episodes = []
    for task, task_lengths in lengths.items():
        for i, length in enumerate(task_lengths):
            index = task * 10000 + (i + 1) * 10
            write_episode(root, task, index, length, rng, size, gop)
            human = {
                "distance_traveled": 0.1 * length,
                "left_eef_displacement": 0.2,
                "right_eef_displacement": i,
            }
            episodes.append({"episode_index": index, "tasks": [TASKS[task]], "length": length, **human})
    meta = root / "meta"
    meta.mkdir(parents=True, exist_ok=True)
    tasks = [{"task_index": t, "task_name": TASKS[t], "task": "do it"} for t in lengths]
    (meta / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tasks))
    (meta / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in episodes))
    info = {
        "codebase_version": "v2.1",
        "robot_type": "R1Pro",
        "fps": FPS,
        "chunks_size": 10000,
        "data_path": "data/task-{episode_chunk:04d}/episode_{episode_index:08d}.parquet",
        "video_path": "videos/task-{episode_chunk:04d}/{video_key}/episode_{episode_index:08d}.mp4",
        "annotation_path": "annotations/task-{episode_chunk:04d}/episode_{episode_index:08d}.json",
        "features": {},
    }
    (meta / "info.json").write_text(json.dumps(info))
    return root


def trajectory(length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Smooth proprioception [n, 256] and actions [n, 23] within the robot's limits."""
    time = np.arange(length)[:, None] / FPS
    waves = 0.25 * np.sin(time * rng.uniform(0.5, 2.0, (1, 23)) + rng.uniform(0, 6, (1, 23)))
    center = np.zeros(23)
    center[7:14] = [-1.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0]
    center[15:22] = [-1.0, -1.0, 0.0, -1.0, 0.0, 0.0, 0.0]
    actions = (center + waves).astype(np.float32)
    actions[:, 6] = 0.125  # constant in the demonstrations
    actions[:, [14, 22]] = 1.0
    actions[length // 2 :, 22] = -1.0
    proprioception = rng.normal(0, 0.1, (length, 256)).astype(np.float32)
    measured = np.concatenate([actions[:1], actions[:-1]])
    proprioception[:, 253:256] = measured[:, 0:3]
    proprioception[:, 236:240] = measured[:, 3:7]
    proprioception[:, 158:165] = measured[:, 7:14]
    proprioception[:, 197:204] = measured[:, 15:22]
    proprioception[:, 193:195] = (measured[:, 14:15] + 1) / 2 * 0.05
    proprioception[:, 232:234] = (measured[:, 22:23] + 1) / 2 * 0.05
    return proprioception, actions


def write_episode(
    root: Path, task: int, index: int, length: int, rng: np.random.Generator, size: int, gop: int
) -> None:
    proprioception, actions = trajectory(length, rng)
    vectors = {
        "action": actions,
        "observation.state": proprioception,
        "observation.cam_rel_poses": rng.normal(size=(length, 21)).astype(np.float32),
    }
    columns = {
        k: pa.FixedSizeListArray.from_arrays(pa.array(v.reshape(-1)), v.shape[1]) for k, v in vectors.items()
    }
    columns["timestamp"] = pa.array(np.arange(length) / FPS)
    columns["episode_index"] = pa.array(np.full(length, index))
    columns["index"] = pa.array(np.arange(length))
    columns["task_index"] = pa.array(np.full(length, task))
    path = root / f"data/task-{task:04d}/episode_{index:08d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    for number, camera in enumerate(CAMERAS):
        video = root / f"videos/task-{task:04d}/observation.images.rgb.{camera}/episode_{index:08d}.mp4"
        write_video(video, [frame_picture(index, number, t, size) for t in range(length)], gop)


def frame_picture(index: int, camera: int, frame: int, size: int) -> np.ndarray:
    """Flat colours that name the frame: red = frame, green = camera, blue = episode."""
    colour = (20 + 2 * (frame % 100), 40 + 60 * camera, 20 + (index // 10 * 7 + index // 10000 * 31) % 200)
    return np.full((size, size, 3), colour, np.uint8)


def write_video(path: Path, frames: list[np.ndarray], gop: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx265",
            rate=FPS,
            options={
                "preset": "ultrafast",
                "crf": "4",
                "x265-params": f"keyint={gop}:min-keyint={gop}:open-gop=0:pools=none:frame-threads=1"
                ":log-level=none",
            },
        )
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
