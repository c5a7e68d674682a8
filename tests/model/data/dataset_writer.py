"""Writes small synthetic datasets in the layouts of 2025 and 2026 (LeRobot v2.1 and v3.0, RGB only)."""

import json
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CAMERAS = ("head", "left_wrist", "right_wrist")
KEYS_2026 = tuple(
    f"observation.rgb.{c}_camera_0" for c in ("zed_link", "left_realsense_link", "right_realsense_link")
)
PARTS_2026 = (
    *((0, slice(253, 256)), (3, slice(158, 165)), (24, slice(193, 195))),
    *((28, slice(197, 204)), (49, slice(232, 234)), (53, slice(236, 240))),
)
"""Where the 61 values of 2026 lie, and the same among the 256 of 2025."""
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
    columns = columns_of(vectors, length, index, task)
    path = root / f"data/task-{task:04d}/episode_{index:08d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns, path)
    for number, camera in enumerate(CAMERAS):
        video = root / f"videos/task-{task:04d}/observation.images.rgb.{camera}/episode_{index:08d}.mp4"
        write_video(video, [frame_picture(index, number, t, size) for t in range(length)], gop)


def columns_of(
    vectors: dict[str, np.ndarray], length: int, index: int, task: int, start: int = 0
) -> pa.Table:
    columns = {
        k: pa.FixedSizeListArray.from_arrays(pa.array(v.reshape(-1)), v.shape[1]) for k, v in vectors.items()
    }
    columns["timestamp"] = pa.array(np.arange(length) / FPS)
    columns["episode_index"] = pa.array(np.full(length, index))
    columns["index"] = pa.array(np.arange(start, start + length))
    columns["task_index"] = pa.array(np.full(length, task))
    return pa.table(columns)


def write_v3(
    root: Path, lengths: dict[int, list[int]], size: int = 32, seed: int = 0, first: int = 0
) -> Path:
    """Write v3.0: one table and one video per camera and task, 61 values of state, numbers from `first` on.

    The numbers of trajectories and pictures are those of write_dataset: task * 10000 + (i + 1) * 10.
    """
    rng, episodes, rows = np.random.default_rng(seed), [], 0
    for task, task_lengths in lengths.items():
        tables, pictures, start = [], {key: [] for key in KEYS_2026}, 0
        for i, length in enumerate(task_lengths):
            raw = task * 10000 + (i + 1) * 10
            long, actions = trajectory(length, rng)
            state = np.zeros((length, 61), np.float32)
            for at, part in PARTS_2026:
                state[:, at : at + part.stop - part.start] = long[:, part]
            vectors = {"action": actions, "observation.state": state}
            tables.append(columns_of(vectors, length, first, task, rows))
            row = {"episode_index": first, "tasks": [TASKS[task]], "length": length, "task_index": task}
            row |= {"raw_episode_id": raw, "data/chunk_index": task, "data/file_index": 0}
            for number, key in enumerate(KEYS_2026):
                pictures[key] += [frame_picture(raw, number, t, size) for t in range(length)]
                row |= {f"videos/{key}/chunk_index": task, f"videos/{key}/file_index": 0}
                row |= {f"videos/{key}/from_timestamp": start / FPS}
                row |= {f"videos/{key}/to_timestamp": (start + length) / FPS}
            episodes.append(row)
            first, rows, start = first + 1, rows + length, start + length
        path = root / f"data/chunk-{task:03d}/file-000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), path)
        for key, frames in pictures.items():
            # a key frame every 7 frames: few episodes begin with one
            write_video(root / f"videos/{key}/chunk-{task:03d}/file-000.mp4", frames, 7)
    meta = root / "meta"
    (meta / "episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(episodes), meta / "episodes/chunk-000/file-000.parquet")
    pq.write_table(
        pa.table({"task_index": list(lengths), "task": [TASKS[t] for t in lengths]}), meta / "tasks.parquet"
    )
    tasks = [{"task_index": t, "task_name": TASKS[t], "task": f"do {t}"} for t in lengths]
    (meta / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tasks))
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {key: {"dtype": "video", "shape": [size, size, 3]} for key in KEYS_2026},
    }
    (meta / "info.json").write_text(json.dumps(info))
    return root


def frame_picture(index: int, camera: int, frame: int, size: int) -> np.ndarray:
    """Flat colours that name the frame: red = frame, green = camera, blue = episode."""
    colour = (20 + 2 * (frame % 100), 40 + 60 * camera, 20 + (index // 10 * 7 + index // 10000 * 31) % 200)
    return np.full((size, size, 3), colour, np.uint8)


def write_video(
    path: Path,
    frames: list[np.ndarray],
    gop: int,
    codec: str = "libx265",
    options: dict[str, str] | None = None,
    times: list[int] | None = None,
) -> None:
    """Write a video: closed groups of pictures of a fixed length, or as the codec does with other options.

    Times are the frames' time stamps in units of 1 / FPS.
    """
    closed = f"keyint={gop}:min-keyint={gop}:open-gop=0:pools=none:frame-threads=1:log-level=none"
    options = options or {"preset": "ultrafast", "crf": "4", "x265-params": closed}
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number if times is None else times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
