"""Writes one pack of a training copy, see `training_copy.py`."""

import fcntl
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pi_behavior.data.groups import encode
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.meta import Episode
from pi_behavior.data.training_copy import CopyOptions
from pi_behavior.data.video import pictures
from pi_behavior.files import write_atomic
from pi_behavior.layout import ACTION_DIM

_DONE = "done"


def aside(folder: Path) -> Path:
    """Where a pack is under construction."""
    return folder.with_name(f"{folder.name}.partial")


def count_done(folder: Path, episodes: Sequence[Episode]) -> int:
    """Frames of a pack that are on the disk."""
    if folder.exists():
        return sum(e.length for e in episodes)
    try:
        return sum(e.length for e in episodes[: int((aside(folder) / _DONE).read_text())])
    except FileNotFoundError:
        return 0


def write_pack(
    dataset: LeRobotDataset,
    folder: Path,
    episodes: Sequence[Episode],
    options: CopyOptions,
    cameras: Sequence[str],
) -> None:
    """Write a pack beside its place and rename it when it is whole.

    The file `done` counts the episodes whose rows and pictures are on the disk; what follows is overwritten.
    """
    work = aside(folder)
    work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # a killed run's worker may still write its last episode
        lock = stack.enter_context((work / "lock").open("a"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        counter = work / _DONE
        begun = counter.exists()
        rows = sum(e.length for e in episodes)
        open_array = partial(_open_array, work, begun=begun)
        columns = {name: open_array(name, np.float32, (rows, ACTION_DIM)) for name in ("state", "action")}
        size = options.image_size
        arrays = {
            camera: open_array(camera, np.int64, (rows + 1,))
            if options.compress
            else open_array(camera, np.uint8, (rows, size, size, 3))
            for camera in cameras
        }
        if not begun:
            write_atomic(counter, "0")
        done = int(counter.read_text())
        row = sum(e.length for e in episodes[:done])
        files = {camera: stack.enter_context((work / f"{camera}.h264").open("ab")) for camera in cameras}
        for number, episode in enumerate(episodes[done:], start=done + 1):
            state, actions = dataset.state_and_actions(episode)
            columns["state"][row : row + episode.length] = state
            columns["action"][row : row + episode.length] = actions
            for camera in cameras:
                clip = dataset.camera_clip(episode, camera)
                images = pictures(clip.path, size, episode.length, clip.start)
                if options.compress:
                    _append(files[camera], arrays[camera], row, encode(images, size, options.quality))
                else:
                    for at, image in enumerate(images, row):
                        arrays[camera][at] = image
            row += episode.length
            for array in (*columns.values(), *arrays.values()):
                array.flush()
            for file in files.values():
                os.fsync(file.fileno())
            write_atomic(counter, str(number))
        counter.unlink()
        if not options.compress:
            for camera in cameras:
                (work / f"{camera}.h264").unlink()
        (work / "lock").unlink()
        work.rename(folder)


def _open_array(work: Path, name: str, kind: type, shape: tuple[int, ...], *, begun: bool) -> np.memmap:
    """A memory-mapped array of a pack, made anew where nothing is done yet."""
    path = work / f"{name}.npy"
    if begun:
        return np.lib.format.open_memmap(path, "r+")
    return np.lib.format.open_memmap(path, "w+", kind, shape)


def _append(file: BinaryIO, offsets: np.ndarray, row: int, pieces: Iterable[bytes]) -> None:
    """Append pictures from a row on, after what is done."""
    end = int(offsets[row])
    file.truncate(end)
    for number, piece in enumerate(pieces, start=row + 1):
        file.write(piece)
        end += len(piece)
        offsets[number] = end
    file.flush()
