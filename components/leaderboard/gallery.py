"""Videos of rollouts for the report, with a poster each."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av

from components.evaluation.rollouts import Rollout
from components.runtime.progress import Progress
from components.store.files import link


@dataclass(frozen=True)
class Clip:
    """One video of the gallery."""

    rollout: Rollout
    file: str
    """Path of the video relative to the page."""
    poster: str
    """Path of a JPEG relative to the page."""
    width: int
    height: int


def collect(rollouts: Iterable[Rollout], page: Path, progress: Progress) -> list[Clip]:
    """Put videos into `videos/` in the report's folder, as hard links where the file system allows it.

    Videos that cannot be read are left out: they are no reason to fail a leaderboard.
    """
    clips = []
    for rollout in progress.track([one for one in rollouts if one.video], "videos of the report"):
        source = Path(rollout.folder, str(rollout.video))
        policy = rollout.key.policy.replace(":", "-")
        target = page / "videos" / policy / rollout.key.split / source.name
        link(source, target)
        poster = target.with_suffix(".jpg")
        size = _write_poster(target, poster)
        if size is not None:
            file, picture = (path.relative_to(page).as_posix() for path in (target, poster))
            clips.append(Clip(rollout, file, picture, *size))
    return clips


def _write_poster(video: Path, poster: Path) -> tuple[int, int] | None:
    """Write a frame from the last third, where success or failure shows; returns (width, height)."""
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            until_there = islice(container.decode(stream), int(stream.frames * 0.8) + 1)
            frame = deque(until_there, maxlen=1)[0]
        with av.open(str(poster), "w", format="image2", options={"update": "1"}) as output:
            picture = output.add_stream("mjpeg", rate=1, options={"qmin": "4", "qmax": "6"})
            picture.width, picture.height, picture.pix_fmt = frame.width, frame.height, "yuvj420p"
            output.mux(picture.encode(frame.reformat(format="yuvj420p")))
            output.mux(picture.encode(None))
    except (av.FFmpegError, IndexError, OSError):
        return None
    return frame.width, frame.height
