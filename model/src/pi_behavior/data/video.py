"""Decodes RGB videos with PyAV: whole, or single frames by seeking to the keyframe before them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8

SEEK_DISTANCE = 30
"""A frame that is at most this many frames ahead is reached by decoding on, not by seeking."""


class VideoError(ValueError):
    """A video cannot be decoded, or is not as expected; the message names the file."""


def decode(path: Path, size: int | None = None, frames: int | None = None) -> UInt8[np.ndarray, "n h w 3"]:
    """Decode a whole video.

    Args:
        path: the file.
        size: height and width of the result; the video's own if not given.
        frames: the expected number of frames.

    Raises:
        VideoError: the file cannot be decoded, or has another number of frames.
    """
    with _open(path) as (container, stream):
        result = [_to_array(frame, size) for frame in container.decode(stream)]
    if frames is not None and len(result) != frames:
        raise VideoError(f"{path}: {len(result)} frames; expected {frames}")
    if not result:
        raise VideoError(f"{path}: no frames")
    return np.stack(result)


def decode_frames(
    path: Path, indices: Sequence[int], size: int | None = None
) -> UInt8[np.ndarray, "n h w 3"]:
    """Decode single frames.

    Args:
        path: the file.
        indices: frame numbers, from 0, in any order, repeats allowed.
        size: height and width of the result; the video's own if not given.

    Raises:
        VideoError: the file cannot be decoded, or does not have a frame.
    """
    found: dict[int, np.ndarray] = {}
    with _open(path) as (container, stream):
        reader = _Reader(container, stream, path)
        for index in sorted(set(indices)):
            found[index] = _to_array(reader.frame(index), size)
    return np.stack([found[index] for index in indices])


def count_frames(path: Path) -> int:
    """Count a video's frames without decoding them.

    Raises:
        VideoError: the file cannot be read as a video.
    """
    with _open(path) as (container, stream):
        return sum(packet.size > 0 for packet in container.demux(stream))


class _Reader:
    """Walks through a video forwards, by decoding or by seeking, whichever is nearer."""

    def __init__(self, container: InputContainer, stream: VideoStream, path: Path) -> None:
        if stream.average_rate is None or stream.time_base is None:
            raise VideoError(f"{path}: the video says neither its frame rate nor its time base")
        self.container, self.stream, self.path = container, stream, path
        self.ticks = 1 / (stream.average_rate * stream.time_base)
        self.start = stream.start_time or 0
        self.next = 0
        self.decoder: Iterator[VideoFrame] = container.decode(stream)

    def frame(self, index: int) -> VideoFrame:
        if index < 0:
            raise VideoError(f"{self.path}: frame {index}; expected 0 or more")
        if index > self.next + SEEK_DISTANCE:
            self.container.seek(int(self.start + index * self.ticks), stream=self.stream, backward=True)
            self.decoder = self.container.decode(self.stream)
        for frame in self.decoder:
            if frame.pts is None:
                raise VideoError(f"{self.path}: a frame without a time stamp")
            number = round((frame.pts - self.start) / self.ticks)
            self.next = number + 1
            if number == index:
                return frame
            if number > index:
                break
        raise VideoError(f"{self.path}: no frame {index}")


def _to_array(frame: VideoFrame, size: int | None) -> np.ndarray:
    """RGB at the wanted size; what is not square gets black bars, as the policy's preprocessing does."""
    if size is None or (frame.height == size and frame.width == size):
        return frame.to_ndarray(format="rgb24")
    scale = size / max(frame.height, frame.width)
    height, width = max(1, round(frame.height * scale)), max(1, round(frame.width * scale))
    resized = frame.reformat(
        width=width, height=height, format="rgb24", interpolation="BILINEAR"
    ).to_ndarray()
    if height == width:
        return resized
    result = np.zeros((size, size, 3), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    result[top : top + height, left : left + width] = resized
    return result


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: no video stream")
            stream = container.streams.video[0]
            # one thread each: callers decode many videos at once
            stream.thread_count = 1
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be decoded: {error}") from error
