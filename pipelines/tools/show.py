"""A page about demonstrations: what they are of, how long they take, and what they look like."""

import io
import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import tyro
from av.video.stream import VideoStream

from components.demonstrations.news import whats_new
from components.demonstrations.repository import dvc_environment
from components.demonstrations.source import Source
from components.errors import UserError
from components.runtime.page import page, paragraph, table
from components.statistics.summary import summary_sections
from components.store.artifact import Artifact
from components.store.files import write_atomic
from pi_behavior.challenge import TASKS_BY_INDEX
from pi_behavior.data.lerobot import DatasetError, Episode, LeRobotDataset
from pi_behavior.data.video import VideoError, decode_frames
from pi_behavior.layout import CAMERAS
from pi_behavior.statistics import Statistics

_SIZE = 160
_EVERY = 3
"""Of the frames, one in so many is in a clip."""


@dataclass(frozen=True)
class Options:
    """Write a page about the demonstrations of an artifact: tasks, durations, pictures and clips, what was
    left out, what is new, and the statistics.
    """

    dataset: tyro.conf.Positional[Path]
    """An artifact of the stage dataset."""
    statistics: Path | None = None
    """An artifact of the stage statistics: correlation, deviations, grippers by stage."""
    since: str = ""
    """A revision of the demonstrations: the page says what is new since then."""
    seconds: float = 5.0
    """Length of a clip."""
    output: Path = Path("demonstrations.html")
    """The page."""


def run(options: Options) -> int:
    """Write the page and print its path; exit code 0."""
    artifact = Artifact.load(options.dataset)
    if artifact.stage != "dataset":
        raise UserError(f"{options.dataset} is of the stage {artifact.stage}; expected one of dataset")
    facts, checks = (
        json.loads((artifact.path / name).read_text()) for name in ("version.json", "checks.json")
    )
    try:
        dataset = LeRobotDataset(artifact.path / "data")
        parts = [paragraph(f"Commit {facts['rev']} of {facts['repository']}."), _tasks(dataset)]
        parts += _left_out(checks)
        parts += _news(facts, options.since) if options.since else []
        parts += ["<h2>Pictures</h2>", *_pictures(dataset, options.seconds)]
        if options.statistics is not None:
            found = Statistics.load(Artifact.load(options.statistics).path)
            parts += ["<h2>Statistics</h2>", *summary_sections(found)]
    except (DatasetError, VideoError, ValueError) as error:
        raise UserError(str(error)) from error
    write_atomic(options.output, page("Demonstrations", *parts))
    print(options.output.resolve())
    return 0


def _tasks(dataset: LeRobotDataset) -> str:
    """Episodes and durations in seconds, by task; a stage is an equal part of an episode."""
    rows = []
    for name, episodes in _by_task(dataset):
        seconds = sorted(e.length / dataset.fps for e in episodes)
        stages, middle = TASKS_BY_INDEX[episodes[0].task].stages, median(seconds)
        hours = f"{sum(seconds) / 3600:.2f}"
        times = [f"{t:.1f}" for t in (seconds[0], middle, seconds[-1], middle / stages)]
        rows.append((name, len(episodes), hours, *times[:3], stages, times[3]))
    header = ("task", "episodes", "hours", "shortest, s", "median, s", "longest, s", "stages", "a stage, s")
    return table(header, rows)


def _left_out(checks: dict[str, Any]) -> list[str]:
    if not checks["left_out"] and not checks["cut_frames"]:
        return []
    rows = sorted(checks["left_out"].items())
    return [
        "<h2>Left out</h2>",
        paragraph(f"{len(rows)} episodes; {checks['cut_frames']:,} idle frames of others."),
        table(("episode", "why"), rows),
    ]


def _news(facts: dict[str, Any], since: str) -> list[str]:
    source = Source(facts["repository"], facts["rev"], facts["path"])
    with TemporaryDirectory(prefix="b1k-") as folder, dvc_environment(Path(folder)):
        new = whats_new(source, since)
    counts = [("files", *new["files"].values())]
    counts += [(task, *one.values()) for task, one in (new["episodes"] or {}).items()]
    commits = [(one["date"], one["rev"][:10], one["subject"]) for one in new["commits"]]
    return [
        f"<h2>New since {escape(since)}</h2>",
        table(("", "added", "removed", "changed"), counts),
        table(("date", "commit", "subject"), commits),
    ]


def _pictures(dataset: LeRobotDataset, seconds: float) -> Iterator[str]:
    """Of every task an episode of middle length: frames of all cameras, and a clip of the head's."""
    for name, episodes in _by_task(dataset):
        episode = sorted(episodes, key=lambda e: e.length)[len(episodes) // 2]
        yield f"<h3>{escape(name)}, episode {episode.index}</h3><p>"
        for camera in CAMERAS:
            clip = dataset.camera_clip(episode, camera)
            wanted = [clip.start + int(part * (clip.frames - 1)) for part in (0, 0.5, 1)]
            for picture in decode_frames(clip.path, wanted, _SIZE):
                uri = _encode("mjpeg", "yuvj420p", [picture], {"q": "5"})
                yield f'<img style="width: {_SIZE}px" alt="{camera}" src="data:image/jpeg;base64,{uri}">'
        clip = dataset.camera_clip(episode, CAMERAS[0])
        middle = max(0, (clip.frames - int(seconds * dataset.fps)) // 2)
        last = min(clip.frames, middle + int(seconds * dataset.fps))
        frames = decode_frames(
            clip.path, [clip.start + n for n in range(middle, max(last, middle + 1), _EVERY)], _SIZE
        )
        uri = _encode("libx264", "yuv420p", list(frames), {"crf": "28"}, dataset.fps / _EVERY)
        yield f'</p><video controls muted loop src="data:video/mp4;base64,{uri}"></video>'


def _encode(
    codec: str, pixels: str, pictures: Sequence[np.ndarray], options: dict[str, str], fps: float = 1
) -> str:
    """Pictures as a JPEG or MP4 file in base64."""
    file = io.BytesIO()
    kind = "mp4" if codec == "libx264" else "image2pipe"
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return b64encode(file.getvalue()).decode()


def _by_task(dataset: LeRobotDataset) -> Iterator[tuple[str, list[Episode]]]:
    groups: dict[str, list[Episode]] = {}
    for episode in dataset.episodes:
        groups.setdefault(episode.task_name, []).append(episode)
    yield from groups.items()
