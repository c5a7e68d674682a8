"""Videos of rollouts for the report, with a poster each."""

from collections.abc import Iterable
from pathlib import Path

import av

from components.evaluation.rollouts import Rollout, RolloutKey
from components.runtime.progress import Progress
from components.store.files import link

_POSTER_WIDTH = 336
"""Pixels; a gallery shows posters smaller than that."""


def collect(rollouts: Iterable[Rollout], page: Path, progress: Progress) -> set[RolloutKey]:
    """Put videos into `videos/` in the report's folder, as hard links where the file system allows it.

    Returns:
        The rollouts that can be watched. A video that cannot be read is no reason to fail a leaderboard.
    """
    filmed = set()
    for rollout in progress.track([one for one in rollouts if one.video], "videos of the report"):
        source = Path(rollout.folder, str(rollout.video))
        policy = rollout.key.policy.replace(":", "-")
        target = page / "videos" / policy / rollout.key.split / source.name
        link(source, target)
        if _write_poster(target, target.with_suffix(".jpg")):
            filmed.add(rollout.key)
    return filmed


def _write_poster(video: Path, poster: Path) -> bool:
    """Write a frame from the last third, where success or failure shows; False where it cannot be read."""
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            wanted = int((stream.duration or 0) * 0.8)
            if wanted:  # to the key frame before it, as long videos take minutes to decode
                container.seek(wanted, stream=stream)
            frame = _first_from(container.decode(stream), wanted)
            scale = min(1.0, _POSTER_WIDTH / frame.width)
            width, height = (int(side * scale) // 2 * 2 for side in (frame.width, frame.height))
        with av.open(str(poster), "w", format="image2", options={"update": "1"}) as output:
            picture = output.add_stream("mjpeg", rate=1, options={"qmin": "4", "qmax": "6"})
            picture.width, picture.height, picture.pix_fmt = width, height, "yuvj420p"
            output.mux(picture.encode(frame.reformat(width, height, format="yuvj420p")))
            output.mux(picture.encode(None))
    except (av.FFmpegError, IndexError, OSError):
        return False
    return True


def _first_from(frames: Iterable[av.VideoFrame], wanted: int) -> av.VideoFrame:
    """The first frame at a time or after it, else the last; IndexError where there is none."""
    frame = None
    for frame in frames:
        if frame.pts is None or frame.pts >= wanted:
            break
    if frame is None:
        raise IndexError("a video without frames")
    return frame
