"""Decodes RGB videos with PyAV: whole, or single frames by seeking to the keyframe before them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

SEEK_DISTANCE = 30
"""A frame that is at most this many frames ahead is reached by decoding up to it, not by seeking."""


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
        convert = _Converter(size)
        result = [convert(frame) for frame in container.decode(stream)]
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
        reader, convert = _Reader(container, stream, path), _Converter(size)
        for index in sorted(set(indices)):
            found[index] = convert(reader.frame(index))
    return np.stack([found[index] for index in indices])


def count_frames(path: Path, *, decoded: bool = False) -> int:
    """Count a video's frames, in the file or those that decode.

    Raises:
        VideoError: the file cannot be read as a video, or not decoded.
    """
    with _open(path) as (container, stream):
        if decoded:
            return sum(1 for _ in container.decode(stream))
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


class _Converter:
    """Makes RGB arrays of one size; what is not square gets black bars, as in the policy's preprocessing.

    Args:
        size: height and width; the frame's own if not given.
    """

    def __init__(self, size: int | None) -> None:
        self.size = size
        # shared by all frames: setting one up costs more than converting a small frame
        self.reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        height, width, size = frame.height, frame.width, self.size
        if size is not None:
            scale = size / max(height, width)
            height, width = max(1, round(height * scale)), max(1, round(width * scale))
        converted = self.reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BILINEAR"
        ).to_ndarray()
        if size is None or height == width:
            return converted
        result = np.zeros((size, size, 3), np.uint8)
        top, left = (size - height) // 2, (size - width) // 2
        result[top : top + height, left : left + width] = converted
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
