"""Cameras of a training copy: H.264 in closed groups of eight pictures, which decode by themselves.

A frame costs its group's pictures up to it, four and a half on average. No picture refers to a later one, so
that pictures come out of the decoder as they go in, and every group carries its parameters, so that any bytes
that begin with a group can be decoded without a container. Parts of H.264 that are slow to decode (CABAC, the
deblocking filter) are not used.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from pi_behavior.data.video import VideoError

GROUP = 8
"""Pictures of a group."""


def encode(pictures: Iterable[UInt8[np.ndarray, "h w 3"]], size: int, quality: int) -> Iterator[bytes]:
    """Encode RGB pictures, which begin a group: one piece of bytes per picture.

    Args:
        pictures: the pictures.
        size: their height and width, even.
        quality: x264's constant rate factor: lower is better and larger.
    """
    codec = av.CodecContext.create("libx264", "w")
    codec.width = codec.height = size
    codec.pix_fmt, codec.time_base, codec.framerate = "yuv420p", Fraction(1, 30), Fraction(30)
    codec.thread_count = 1
    codec.options = {
        "preset": "veryfast",
        "tune": "fastdecode",
        "crf": str(quality),
        "g": str(GROUP),
        "keyint_min": str(GROUP),
        "sc_threshold": "0",
        "bf": "0",
        # looking ahead gains nothing in groups of eight, and x264's result on tiny pictures then depends on
        # what the memory held before
        "rc-lookahead": "0",
        "x264-params": "open-gop=0:repeat-headers=1",
    }
    for number, picture in enumerate(pictures):
        frame = VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = number
        yield from map(bytes, codec.encode(frame))
    yield from map(bytes, codec.encode(None))


class GroupDecoder:
    """Decodes pictures of groups; no state is left from one group to the next."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("h264", "r")
        self._codec.thread_count = 1

    def decode(self, pictures: Iterable[bytes]) -> Iterator[VideoFrame]:
        """Decode pictures, of which the first begins a group.

        Raises:
            VideoError: they cannot be decoded.
        """
        for picture in pictures:
            try:
                frames = self._codec.decode(av.Packet(picture))
            except av.FFmpegError as error:
                raise VideoError(f"a picture cannot be decoded: {error}") from error
            if len(frames) != 1:
                raise VideoError(f"{len(frames)} pictures in the bytes of one")
            yield frames[0]
