"""MP4 files from frames."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt

from household.files import write_atomically

Frame = npt.NDArray[np.uint8]

_DATASET_OPTIONS = {
    "preset": "fast",
    "crf": "14",
    # A closed group of pictures every ten frames makes seeking cheap. One thread: episodes run in parallel.
    "x265-params": "keyint=10:min-keyint=10:scenecut=0:open-gop=0:bframes=0:pools=none:frame-threads=1"
    ":log-level=none",
}
_ROLLOUT_OPTIONS = {"preset": "veryfast", "crf": "23", "movflags": "+faststart"}


def write_dataset_video(path: Path, frames: Iterable[Frame], fps: int) -> None:
    """Write a video as the demonstration dataset has it: HEVC, yuv420p.

    Args:
        path: the MP4 file, written atomically.
        frames: [height, width, 3] uint8 RGB each, all of one size, even sides.
        fps: frames per second.
    """
    write_atomically(path, lambda aside: _encode(aside, frames, fps, "libx265", _DATASET_OPTIONS))


def write_rollout_video(path: Path, frames: Iterable[Frame], fps: int | Fraction) -> None:
    """Write a video that every browser plays: H.264, yuv420p.

    Args:
        path: the MP4 file, written atomically.
        frames: [height, width, 3] uint8 RGB each, all of one size, even sides.
        fps: frames per second.
    """
    write_atomically(path, lambda aside: _encode(aside, frames, fps, "libx264", _ROLLOUT_OPTIONS))


def through_camera(frame: Frame) -> Frame:
    """Pass a rendered picture through 4:2:0 colour, as a camera's stream and every video does.

    At 56 pixels halving the colours' resolution shows. The dataset's videos have it, so
    the evaluator adds it too: a policy sees the same kind of picture in both.

    Args:
        frame: [height, width, 3] uint8 RGB, even sides.

    Returns:
        [height, width, 3] uint8 RGB.
    """
    subsampled = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
    return np.asarray(subsampled.to_ndarray(format="rgb24"), dtype=np.uint8)


def _encode(
    path: Path, frames: Iterable[Frame], fps: int | Fraction, codec: str, options: dict[str, str]
) -> None:
    with av.open(str(path), "w") as container:
        stream: av.VideoStream | None = None
        for frame in frames:
            if stream is None:
                stream = cast(av.VideoStream, container.add_stream(codec, rate=fps, options=options))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                if codec == "libx265":
                    stream.codec_context.codec_tag = "hvc1"
                else:
                    stream.codec_context.thread_count = 1
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if stream is None:
            raise ValueError(f"no frames to write to {path}")
        container.mux(stream.encode(None))
