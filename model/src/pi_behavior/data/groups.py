"""Cameras of a training copy: H.264 in closed groups of eight pictures, which decode by themselves.

A group's first picture stands alone, its last one refers to the first, and those between refer to these two
alone. So any picture takes at most three to be decoded, 2.6 on average, where eight in a chain take 4.5.
Every group carries its parameters, so that its bytes can be decoded without a container. Parts of H.264 that
are slow to decode (CABAC, the deblocking filter) are not used.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from pi_behavior.data.video import VideoError

GROUP = 8
"""Pictures of a group; the last one of an episode may have fewer."""
_OPTIONS = {
    "preset": "veryfast",
    "tune": "fastdecode",
    "g": str(GROUP),
    "keyint_min": str(GROUP),
    "sc_threshold": "0",
    "bf": str(GROUP - 2),
    "b_strategy": "0",
    "b-pyramid": "none",
    "refs": "1",
    # looking ahead gains nothing in groups of eight, and x264's result on tiny pictures then depends on what
    # the memory held before
    "rc-lookahead": "0",
    "x264-params": "open-gop=0:repeat-headers=1",
}
_REFERENCE = 0x60
"""Bits of a NAL unit's header that say that other pictures refer to it."""


def encode(pictures: Iterable[UInt8[np.ndarray, "h w 3"]], size: int, quality: int) -> Iterator[bytes]:
    """Encode RGB pictures, of which the first begins a group: one piece of bytes each, in their order.

    Args:
        pictures: the pictures.
        size: their height and width, even.
        quality: x264's constant rate factor: lower is better and larger.
    """
    codec = av.CodecContext.create("libx264", "w")
    codec.width = codec.height = size
    codec.pix_fmt, codec.time_base, codec.framerate = "yuv420p", Fraction(1, 30), Fraction(30)
    codec.thread_count = 1
    codec.options = {**_OPTIONS, "crf": str(quality)}
    group: dict[int, bytes] = {}

    def packets() -> Iterator["av.Packet[av.VideoStream]"]:
        for number, picture in enumerate(pictures):
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            yield from codec.encode(frame)
        yield from codec.encode(None)

    for packet in packets():
        if packet.is_keyframe and group:
            yield from _in_order(group)
        assert packet.pts is not None
        group[packet.pts] = bytes(packet)
    yield from _in_order(group)


def _in_order(group: dict[int, bytes]) -> Iterator[bytes]:
    numbers = sorted(group)
    if len(numbers) > GROUP or any(group[n][4] & _REFERENCE for n in numbers[1:-1]):
        raise VideoError(f"x264 made a group of {len(numbers)} pictures with references between; expected 8")
    for number in numbers:
        yield group.pop(number)


def needed(wanted: Collection[int], length: int) -> list[int]:
    """The pictures to decode for some of a group of a length, in the order of decoding."""
    last = length - 1
    ends = [0] if set(wanted) <= {0} else [0, last]
    return [*dict.fromkeys(ends), *sorted(set(wanted) - {0, last})]


class GroupDecoder:
    """Decodes pictures of groups; no state is left from one group to the next."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("h264", "r")
        self._codec.thread_count = 1

    def decode(self, pictures: Mapping[int, bytes]) -> dict[int, VideoFrame]:
        """Decode what `needed` names, by number.

        Raises:
            VideoError: it cannot be decoded.
        """
        frames = []
        try:
            for number, piece in pictures.items():
                packet = cast("av.Packet[av.VideoStream]", av.Packet(piece))
                packet.pts = number
                frames += self._codec.decode(packet)
            frames += self._codec.decode(None)
            self._codec.flush_buffers()
        except av.FFmpegError as error:
            self._codec.flush_buffers()
            raise VideoError(f"a picture cannot be decoded: {error}") from error
        found = {frame.pts: frame for frame in frames if frame.pts is not None}
        if found.keys() != pictures.keys():
            raise VideoError(f"pictures {sorted(found)} of a group; expected {sorted(pictures)}")
        return found
