"""Decodes videos with PyAV: whole, in part, or single frames by seeking to a key frame before them.

A frame is named by its position: its place in the order of presentation, from 0. Positions are counted, not
computed from time stamps, so that jitter, gaps and any frame rate do no harm. A frame that is asked for by
itself is the one that decoding the whole file gives at that position.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float64, UInt8, UInt16


class VideoError(ValueError):
    """A video cannot be decoded, or is not as expected; the message names the file."""


def decode(
    path: Path, size: int | None = None, frames: int | None = None, start: int = 0
) -> UInt8[np.ndarray, "n h w 3"]:
    """Decode consecutive frames as RGB; arguments and errors as of `pictures`."""
    return np.stack(list(pictures(path, size, frames, start)))


def pictures(
    path: Path, size: int | None = None, frames: int | None = None, start: int = 0
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Decode consecutive frames as RGB, one after the other.

    Args:
        path: the file.
        size: height and width of the result; the video's own if not given.
        frames: how many; all that follow if not given.
        start: position of the first.

    Raises:
        VideoError: the file cannot be decoded, or has fewer frames.
    """
    convert, count = Converter(size), 0
    with Video(path) as video:
        for frame in video.span(start, None if frames is None else start + frames - 1):
            count += 1
            yield convert(frame)
    if not count or (frames is not None and count != frames):
        expected = "at least one" if frames is None else f"{frames}"
        after = f" from frame {start}" if start else ""
        raise VideoError(f"{path}: {count} frames{after}; expected {expected}")


def decode_frames(
    path: Path, indices: Sequence[int], size: int | None = None
) -> UInt8[np.ndarray, "n h w 3"]:
    """Decode single frames as RGB.

    Args:
        path: the file.
        indices: positions, from 0, in any order, repeats allowed.
        size: height and width of the result; the video's own if not given.

    Raises:
        VideoError: the file cannot be decoded, or does not have a frame.
    """
    convert = Converter(size)
    found = {index: convert(frame) for index, frame in _frames(path, indices)}
    return np.stack([found[index] for index in indices])


def decode_codes(path: Path, indices: Sequence[int]) -> UInt16[np.ndarray, "n h w"]:
    """Decode single frames of a one-channel video, such as depth: the stored values, without conversion.

    Args:
        path: the file.
        indices: positions, from 0, in any order, repeats allowed.

    Raises:
        VideoError: the file cannot be decoded, has other channels, or does not have a frame.
    """
    found: dict[int, np.ndarray] = {}
    for index, frame in _frames(path, indices):
        if not frame.format.name.startswith("gray"):
            raise VideoError(
                f"{path}: pixels are {frame.format.name}; expected one channel, such as gray12le"
            )
        found[index] = frame.to_ndarray().astype(np.uint16, copy=False)
    return np.stack([found[index] for index in indices])


def count_decoded(path: Path) -> int:
    """Count the frames of a video that decode.

    Raises:
        VideoError: the file cannot be read as a video, or not decoded.
    """
    with Video(path) as video:
        return sum(1 for _ in video.container.decode(video.stream))


def frame_times(path: Path) -> Float64[np.ndarray, " n"]:
    """Time stamps of a video's frames by position, in seconds after the first; nothing is decoded.

    Raises:
        VideoError: the file cannot be read as a video, or a frame has no time stamp.
    """
    with Video(path) as video:
        stamps = [p.pts for p in video.container.demux(video.stream) if p.size > 0 and not p.is_discard]
        if None in stamps or video.stream.time_base is None:
            raise VideoError(f"{path}: a frame without a time stamp")
        times = np.sort(np.array(stamps, np.int64)) * float(video.stream.time_base)
    return times - times[0] if times.size else times


def _frames(path: Path, indices: Iterable[int]) -> Iterator[tuple[int, VideoFrame]]:
    with Video(path) as video:
        for index in sorted(set(indices)):
            yield index, video.frame(index)


class Video:
    """An open video, which knows the position of every frame. Close it, or use it as a context manager.

    An MP4 file lists its packets in decoding order and marks the key frames. All packets before a key frame
    are also presented before it, apart from reordering within its group of pictures; so a frame's position is
    the number of packets before that key frame, plus the number of packets since with smaller time stamps.
    Pictures that follow a key frame in the file and precede it on the screen (an open group of pictures) need
    the pictures before the key frame, so they are decoded from the key frame before that. Files without such
    a list are decoded from their beginning.

    Raises:
        VideoError: here and in all methods: the file cannot be read as a video, or not decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._named():
            self.container = av.open(str(path))
            if not self.container.streams.video:
                self.container.close()
                raise VideoError(f"{path}: no video stream")
            self.stream = self.container.streams.video[0]
            # one thread each: callers decode many videos at once
            self.stream.thread_count = 1
            index = self.stream.index_entries
            # an edit list may hide packets; then the list does not count what is shown
            complete = 0 < len(index) == self.stream.frames and not index[0].is_discard
        self.index = index if complete else None
        self.next = 0
        self.decoder = self._decode()

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, (av.FFmpegError, OSError)):
            raise VideoError(f"{self.path}: cannot be decoded: {error}") from error

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self.path}: cannot be decoded: {error}") from error

    def frame(self, position: int) -> VideoFrame:
        """The frame at a position; quick where positions ascend."""
        with self._named():
            return self._frame(position)

    def _frame(self, position: int) -> VideoFrame:
        if position < 0:
            raise VideoError(f"{self.path}: frame {position}; expected 0 or more")
        for key in self._beginnings(position):
            if key is not None:
                self.container.seek(key, stream=self.stream)
                self.decoder = self._decode(seeked=True)
            for number, frame in self.decoder:
                if number == position:
                    return frame
                if number > position:
                    break
        raise VideoError(f"{self.path}: no frame {position}")

    def span(self, start: int, last: int | None) -> Iterator[VideoFrame]:
        """Frames from one position to another or to the end."""
        if last is None or last >= start:
            yield self.frame(start)
        while last is None or self.next <= last:
            _, frame = next(self.decoder, (0, None))
            if frame is None:
                return
            yield frame

    def _beginnings(self, position: int) -> Iterator[int | None]:
        """Where decoding towards a frame may begin, best first: here (None), or at a key frame's time."""
        if self.index is None or position >= len(self.index):
            yield None
            return
        key = self._key_frame(position)
        if key <= self.next <= position:
            yield None
        yield self.index[key].timestamp
        if key > 0:
            yield self.index[self._key_frame(key - 1)].timestamp

    def _key_frame(self, packet: int) -> int:
        assert self.index is not None
        return max(0, self.index.search_timestamp(self.index[packet].timestamp, backward=True))

    def _decode(self, seeked: bool = False) -> Iterator[tuple[int, VideoFrame]]:
        """Decode from where the container stands; yield frames with their positions."""
        waiting: list[int] = []  # time stamps of packets whose frames have not come out, as a heap
        first: int | None = None
        position = 0
        for packet in self.container.demux(self.stream):
            if first is None and packet.pts is not None:
                first = packet.pts
                position = self._packet_number(packet) if seeked else 0
            if packet.pts is not None and not packet.is_discard:
                heappush(waiting, packet.pts)
            for frame in packet.decode():
                if frame.pts is None or first is None:
                    raise VideoError(f"{self.path}: a frame without a time stamp")
                while waiting and waiting[0] < frame.pts:
                    heappop(waiting)
                    position += 1
                if not waiting or waiting[0] != frame.pts:
                    continue
                heappop(waiting)
                position += 1
                self.next = position
                # what precedes the first key frame on the screen was decoded without the pictures it needs
                if not seeked or frame.pts >= first:
                    yield position - 1, frame

    def _packet_number(self, packet: "av.Packet[VideoStream]") -> int:
        assert self.index is not None
        number = self.index.search_timestamp(packet.dts, backward=True, any_frame=True)
        if number < 0 or self.index[number].pos != packet.pos or not packet.is_keyframe:
            raise VideoError(f"{self.path}: seeking does not lead to a key frame of the file's list")
        return number


class Converter:
    """Makes RGB arrays of one size; what is not square gets black bars, as in the policy's preprocessing.

    Args:
        size: height and width; the frame's own if not given.
    """

    def __init__(self, size: int | None) -> None:
        self.size = size
        # shared by all frames: setting one up costs more than converting a small frame
        self.reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        """Convert a frame."""
        height, width, size = frame.height, frame.width, self.size
        if size is not None:
            scale = size / max(height, width)
            height, width = max(1, round(height * scale)), max(1, round(width * scale))
        converted = self.reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BILINEAR", threads=1
        ).to_ndarray()
        if size is None or height == width:
            return converted
        result = np.zeros((size, size, 3), np.uint8)
        top, left = (size - height) // 2, (size - width) // 2
        result[top : top + height, left : left + width] = converted
        return result
