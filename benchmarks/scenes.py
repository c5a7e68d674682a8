"""Demonstrations of the benchmarks: LeRobot v2.1 with drawn scenes, coded as the real ones.

Real pictures are not redistributable; a textured background that a camera moves over, a few moving objects
and sensor noise come to about twice the real bytes per frame (2.7 kB of the head camera, 1.0 kB of a wrist).
Few clips are encoded, and the episodes' files are links to them under names of their own.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pi_behavior.layout import CAMERA_VIDEO_KEYS

FPS = 30
SIZES = {"head": 720, "left_wrist": 480, "right_wrist": 480}
_QUIET = "log-level=none:pools=1:frame-threads=1"
CODING = {2025: _QUIET, 2026: f"keyint=8:min-keyint=8:bframes=0:{_QUIET}"}
"""x265's parameters: as it writes by default, a key frame every 250 frames, or a key frame every 8 frames."""


def scene(size: int, frames: int, seed: int) -> Iterator[np.ndarray]:
    """Pictures [size, size, 3] of a slowly moving camera."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(size // 6, size // 6, 3))
    ground = np.kron(coarse, np.ones((12, 12, 1)))
    for axis in (0, 1):
        ground = (np.roll(ground, 5, axis) + 2 * ground + np.roll(ground, -5, axis)) / 4
    ground = 120 + 45 * ground + rng.normal(size=ground.shape) * 3
    noise = rng.normal(size=(4, size, size, 1)) * 1.5
    for t in range(frames):
        y, x = (int(size / 4 * (1 + np.sin(t / period))) for period in (35, 50))
        picture = ground[y : y + size, x : x + size] + noise[t % 4]
        for n in range(3):
            top, left = (int(size * (0.4 + 0.3 * np.sin(t / (9 + 4 * n) + n + k))) for k in (0, 2))
            picture[top : top + size // 7, left : left + size // 7] = (60 * n + 40, 200 - 50 * n, 90)
        yield np.clip(picture, 0, 255).astype(np.uint8)


def write_clip(path: Path, pictures: Iterator[np.ndarray], size: int, edition: int = 2026) -> None:
    """Encode pictures as the demonstrations of a year are: HEVC, quality 30."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "30", "x265-params": CODING[edition]}
        stream = container.add_stream("libx265", rate=FPS, options=options)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def write_columns(path: Path, index: int, task: int, frames: int, width: int, seed: int) -> None:
    """A table of one episode: smooth states [frames, width] and actions [frames, 23] within the limits."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames + 1)[:, None] / FPS
    waves = 0.3 * np.sin(time * rng.uniform(0.3, 1.5, 23) + rng.uniform(0, 6, 23))
    state = rng.normal(0.0, 0.05, (frames, width)).astype(np.float32)
    state[:, :23] = waves[:-1]
    actions = (waves[1:] + rng.normal(0.0, 0.002, (frames, 23))).astype(np.float32)
    lists = {"action": actions, "observation.state": state}
    columns: dict[str, pa.Array] = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        for name, values in lists.items()
    }
    columns["timestamp"] = pa.array(np.arange(frames) / FPS)
    columns["episode_index"] = pa.array(np.full(frames, index))
    columns["index"] = pa.array(np.arange(frames))
    columns["task_index"] = pa.array(np.full(frames, task))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def write_meta(root: Path, lengths: dict[int, int]) -> None:
    """The files below `meta/`, from episode numbers and lengths; task = number // 10000."""
    names = {0: "turning_on_radio", 1: "picking_up_trash"}
    tasks = sorted({index // 10000 for index in lengths})
    human = {"distance_traveled": 1.0, "left_eef_displacement": 1.0, "right_eef_displacement": 1.0}
    rows = {
        "tasks": [{"task_index": t, "task_name": names[t], "task": names[t]} for t in tasks],
        "episodes": [
            {"episode_index": index, "tasks": [names[index // 10000]], "length": length, **human}
            for index, length in lengths.items()
        ],
    }
    (root / "meta").mkdir(parents=True, exist_ok=True)
    for name, lines in rows.items():
        (root / "meta" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    info = {
        "codebase_version": "v2.1",
        "robot_type": "R1Pro",
        "fps": FPS,
        "chunks_size": 10000,
        "total_episodes": len(lengths),
        "total_frames": sum(lengths.values()),
        "total_tasks": len(tasks),
        "data_path": "data/task-{episode_chunk:04d}/episode_{episode_index:08d}.parquet",
        "video_path": "videos/task-{episode_chunk:04d}/{video_key}/episode_{episode_index:08d}.mp4",
        "features": {},
    }
    (root / "meta" / "info.json").write_text(json.dumps(info))


def write_demonstrations(
    root: Path, episodes: int, frames: int, clips: int, width: int = 256, edition: int = 2026
) -> None:
    """A whole dataset of equally long episodes, with videos coded as those of a year."""
    for camera, size in SIZES.items():
        for clip in range(clips):
            write_clip(root / "clips" / f"{camera}-{clip}.mp4", scene(size, frames, clip), size, edition)
    indices = [10 * n for n in range(episodes)]
    for n, index in enumerate(indices):
        name = f"episode_{index:08d}"
        write_columns(root / f"data/task-0000/{name}.parquet", index, 0, frames, width, n)
        for camera in SIZES:
            video = root / f"videos/task-0000/{CAMERA_VIDEO_KEYS[camera][0]}/{name}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            os.link(root / "clips" / f"{camera}-{n % clips}.mp4", video)
    write_meta(root, dict.fromkeys(indices, frames))
