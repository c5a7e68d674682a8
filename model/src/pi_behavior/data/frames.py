"""Where a batch's images come from: a source of single frames, and that of the videos themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from pi_behavior.data.lerobot import Episode, LeRobotDataset
from pi_behavior.data.open_files import OpenFiles
from pi_behavior.data.video import Converter, Video
from pi_behavior.layout import CAMERAS

Images = dict[str, UInt8[np.ndarray, "b h w 3"]]


@runtime_checkable
class Frames(Protocol):
    """A source of images."""

    def gather(self, episode: Int[np.ndarray, " b"], frame: Int[np.ndarray, " b"]) -> Images:
        """Images by camera, for positions in the list of episodes and frame numbers."""


class DecodedFrames:
    """Frames of the original videos, which stay open between batches.

    Args:
        dataset: the dataset.
        episodes: the episodes that `gather` indexes.
        size: height and width of the frames.
    """

    def __init__(self, dataset: LeRobotDataset, episodes: Sequence[Episode], size: int) -> None:
        self._size = size
        numbers: dict[Path, int] = {}
        clips = [[dataset.camera_clip(episode, camera) for camera in CAMERAS] for episode in episodes]
        self._file = np.array([[numbers.setdefault(c.path, len(numbers)) for c in row] for row in clips])
        self._start = np.array([[clip.start for clip in row] for row in clips])
        self._paths = list(numbers)
        self._videos = OpenFiles(Video, Video.close)

    def gather(self, episode: Int[np.ndarray, " b"], frame: Int[np.ndarray, " b"]) -> Images:
        """Images by camera; each video is walked through once per call."""
        convert, size = Converter(self._size), self._size
        images = {camera: np.empty((len(frame), size, size, 3), np.uint8) for camera in CAMERAS}
        for column, camera in enumerate(CAMERAS):
            files, positions = self._file[episode, column], self._start[episode, column] + frame
            for file in np.unique(files):
                rows = np.flatnonzero(files == file)
                video = self._videos(self._paths[file])
                for position in np.unique(positions[rows]):
                    picture = convert(video.frame(int(position)))
                    images[camera][rows[positions[rows] == position]] = picture
        return images
