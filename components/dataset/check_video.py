"""Checks of a video file and of the episodes in it."""

import zlib
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from components.dataset.findings import Finding
from pi_behavior.data.curation import name_of
from pi_behavior.data.lerobot import Clip, DatasetError, Episode, LeRobotDataset
from pi_behavior.data.video import Converter, Video, VideoError, frame_times

THUMBNAIL = 4
"""Height and width of the pictures that cameras are compared by."""
_STEP = 8
"""Of the pixels in each direction, one in so many is looked at."""
_NOISE = 2
"""Levels of brightness by which coding changes a picture that stands still."""
_SECOND = 30
_SEEKS = 5
_Found = tuple[list[Finding], dict[str, dict[str, list[float]]]]


def check_video(
    dataset: LeRobotDataset, path: Path, camera: str, episodes: list[Episode], decode_all: bool
) -> _Found:
    """Check a video file.

    Args:
        dataset: the dataset.
        path: the file.
        camera: the camera in `layout.CAMERAS` whose pictures these are.
        episodes: all episodes in the file.
        decode_all: decode every frame; otherwise the first and the last of every episode.

    Returns:
        What was found, and by episode: `CAMERA` (checksum of the pictures, 0 where not all were decoded,
        height, width, and a thumbnail of the first picture).
    """
    name, names = path.relative_to(dataset.root), tuple(name_of(e) for e in episodes)
    try:
        clips = [(episode, dataset.camera_clip(episode, camera)) for episode in episodes]
    except DatasetError as error:
        return [Finding("schema", str(error).replace(f"{dataset.root}/", ""), names)], {}
    try:
        times = frame_times(path)
        look = _Look(path, [clip for _, clip in clips], len(times))
        frames = look.decode() if decode_all else look.decode_ends()
    except VideoError as error:
        return [Finding("videos", str(error).replace(f"{dataset.root}/", ""), names)], {}
    findings, expected = [], 0
    for episode, clip in clips:
        expected = max(expected, clip.start + clip.frames)
        if clip.frames != episode.length:
            where = f"{name}: episode {episode.index} has {clip.frames} frames here"
            text = f"{where}; expected {episode.length}, the length in the same table"
            findings.append(Finding("frames", text, (name_of(episode),)))
    # a file of several episodes may hold more than those that meta/ lists
    if frames < expected or (frames > expected and not dataset.several_per_file):
        short = tuple(name_of(e) for e, clip in clips if clip.start + clip.frames > frames) or names
        findings.append(Finding("frames", f"{name}: {frames} frames; expected {expected}", short))
    late = np.abs(times - np.arange(len(times)) / dataset.fps) >= 0.5 / dataset.fps
    if late.any():
        at = int(late.argmax())
        text = (
            f"{name}: the time stamp of frame {at} is {times[at]:.3f} s; expected {at / dataset.fps:.3f} s, "
            f"as its position says at {dataset.fps:g} fps"
        )
        findings.append(Finding("frames", text, names))
    if wrong := look.wrong_seeks():
        text = f"{name}: frame {wrong[0]} read by itself is not the one that decoding the file gives"
        findings.append(Finding("seeking", text, names))
    for number, (episode, clip) in enumerate(clips):
        if decode_all and clip.frames >= _SECOND and look.largest[number] <= _NOISE:
            text = f"{name}, episode {episode.index}: all {clip.frames} pictures are the same"
            findings.append(Finding("pictures", text, (name_of(episode),)))
    return findings, {name_of(e): {camera: look.measured(i)} for i, (e, _) in enumerate(clips)}


class _Look:
    """Decodes a file once and remembers of every clip what the checks compare."""

    def __init__(self, path: Path, clips: list[Clip], frames: int) -> None:
        self._path, self._clips, self._frames = path, clips, frames
        rng = np.random.default_rng(zlib.crc32(path.name.encode()))
        self._sought: dict[int, int | None] = {int(n): None for n in rng.integers(0, max(1, frames), _SEEKS)}
        self._first: list[np.ndarray | None] = [None] * len(clips)
        self._thumbnails: list[list[float]] = [[] for _ in clips]
        self._sums = [0] * len(clips)
        self.largest = [0] * len(clips)
        """Largest change of brightness anywhere in a clip."""

    def decode(self) -> int:
        """All frames; returns how many."""
        order = sorted(range(len(self._clips)), key=lambda i: self._clips[i].start)
        count, at = 0, 0
        with Video(self._path) as video:
            for count, frame in enumerate(video.span(0, None), start=1):
                position = count - 1
                if position in self._sought:
                    self._sought[position] = _checksum(frame)
                while at < len(order) and position >= sum(self._clips[order[at]][1:]):
                    at += 1
                if at < len(order) and position >= self._clips[order[at]].start:
                    self._see(order[at], frame)
        return count

    def decode_ends(self) -> int:
        """First and last frame of every clip; returns the number of frames that the file lists."""
        self._sought = {}
        with Video(self._path) as video:
            for number, (_, start, frames) in enumerate(self._clips):
                for position in (start, min(start + frames, self._frames) - 1):
                    self._see(number, video.frame(position))
        self._sums = [0] * len(self._clips)
        return self._frames

    def wrong_seeks(self) -> list[int]:
        """Positions at which a single frame is another than in the order of decoding, or is not found."""
        wrong = []
        for position, seen in sorted(self._sought.items()):
            if seen is not None:
                try:
                    with Video(self._path) as video:  # a new one, so that each is sought
                        found = _checksum(video.frame(position))
                except VideoError:
                    found = None
                wrong += [position] if found != seen else []
        return wrong

    def measured(self, number: int) -> list[float]:
        """See `check_video`."""
        return [float(self._sums[number]), *self._thumbnails[number]]

    def _see(self, number: int, frame: VideoFrame) -> None:
        grey = _brightness(frame)[::_STEP, ::_STEP]
        self._sums[number] = zlib.crc32(grey.tobytes(), self._sums[number])
        first = self._first[number]
        if first is None:
            self._first[number] = grey.astype(np.int16)
            small = Converter(THUMBNAIL)(frame).reshape(-1)
            self._thumbnails[number] = [float(frame.height), float(frame.width), *map(float, small)]
        else:
            self.largest[number] = max(self.largest[number], int(np.abs(first - grey).max()))


def _brightness(frame: VideoFrame) -> UInt8[np.ndarray, "h w"]:
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def _checksum(frame: VideoFrame) -> int:
    return zlib.crc32(_brightness(frame).tobytes())
