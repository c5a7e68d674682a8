"""Samples per second and core that training's input gives, from a training copy and from original videos.

Run as `python -m benchmarks.loader`, with `--check` to exit with 1 where a ratio below is not met. Writes
short demonstrations and makes a training copy of them; writes long ones, the original videos: HEVC of 720 and
480 pixels as x265 writes it by default, with a key frame every 250 frames, as in 2025 (`--edition 2026`:
every 8 frames). Reads samples of three cameras at 224 pixels, each from another episode. No process may have
more than a tenth as many files open as there are episodes.

copy          ours, from the training copy                         (`--check`: at least 400 per second)
copy, PyAV    av.open, seek and decode for every sample, of the training copy's pictures in MP4 files
              (`--check`: ours is 3 times as fast)
originals     ours, from the original videos, which stay open
PyAV          av.open, seek and decode for every sample, of the original videos
              (`--check`: the training copy is 20 times as fast)

A core's second is a second of processor time, so that other work on the machine does not count. With worker
processes, seconds are those of the clock.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.scenes import FPS, write_demonstrations
from pi_behavior.accumulators import DatasetAccumulator
from pi_behavior.data.frames import DecodedFrames
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.packing import make_copy
from pi_behavior.data.pipeline import make_loader, open_samples
from pi_behavior.data.training_copy import CopyOptions, TrainingCopy
from pi_behavior.layout import CAMERAS
from pi_behavior.statistics import Statistics

SIZE, BATCH, OPEN = 224, 64, 64
H200 = 224.0
"""Samples per second that 8 H200 take at most."""
LEAST, OVER_SEEKS, OVER_OWN_SEEKS = 400.0, 20.0, 3.0


@dataclass(frozen=True)
class Options:
    """Measure the input of training."""

    folder: Path | None = None
    """Where demonstrations and copy are kept for the next run; a temporary folder when not given."""
    episodes: int = 10 * OPEN
    """Number of demonstrations."""
    frames: int = 24
    """Frames of each in the copy."""
    length: int = 500
    """Frames of each original video."""
    edition: int = 2025
    """The year whose coding the original videos have."""
    clips: int = 3
    """Different videos per camera."""
    seconds: float = 6.0
    """Least processor time of a measurement."""
    workers: tuple[int, ...] = (1, 2)
    """Numbers of worker processes to measure."""
    check: bool = False
    """Exit with 1 where a ratio is not met."""


def statistics_of(dataset: LeRobotDataset) -> Statistics:
    """Statistics of a part of the demonstrations."""
    accumulator = DatasetAccumulator()
    rng = np.random.default_rng(0)
    for _ in range(4):
        walk = np.cumsum(rng.normal(0, 0.01, (60, 23)), axis=0).astype(np.float32)
        accumulator.update(0, dataset.episodes[0].task_name, 5, walk, walk, {})
    return accumulator.finish()


def prepare(options: Options, root: Path) -> float:
    """Write demonstrations and copy where they are missing; returns copied pictures per second and core."""
    if not (root / "demonstrations" / "meta" / "info.json").exists():
        print("writing demonstrations ...", file=sys.stderr)
        write_demonstrations(root / "demonstrations", options.episodes, options.frames, options.clips)
    originals = originals_of(options, root)
    if not (originals / "meta" / "info.json").exists():
        print("writing original videos ...", file=sys.stderr)
        write_demonstrations(
            originals, options.episodes, options.length, options.clips, edition=options.edition
        )
    dataset = LeRobotDataset(root / "demonstrations")
    before = children_seconds()
    make_copy(
        dataset,
        root / "copy",
        CopyOptions(SIZE),
        cameras=CAMERAS,
        digest=lambda path: path.name,
        processes=2,
        on_frames=lambda done, total: print(f"copying {done}/{total}", end="\r", file=sys.stderr),
    )
    frames = len(CAMERAS) * sum(e.length for e in dataset.episodes)
    spent = children_seconds() - before
    return frames / spent if spent > 1 else float("nan")


def originals_of(options: Options, root: Path) -> Path:
    """The folder of the original videos."""
    return root / f"originals-{options.edition}"


def children_seconds() -> float:
    """Processor time of ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def each_from_another(episodes: int, frames: int, batch: int) -> np.ndarray:
    """Numbers of samples, no two of one episode."""
    rng = np.random.default_rng(batch)
    return rng.permutation(episodes)[:BATCH] * frames + rng.integers(0, frames, BATCH)


def ours(options: Options, root: Path, originals: bool) -> Callable[[int], int]:
    """Gathers a batch; of the originals the images alone, and fewer."""
    if originals:
        dataset = LeRobotDataset(originals_of(options, root))
        frames = DecodedFrames(dataset, dataset.episodes, SIZE)

        def decode(number: int) -> int:
            rng = np.random.default_rng(number)
            episodes = rng.permutation(options.episodes)[: BATCH // 8]
            frames.gather(episodes, rng.integers(0, options.length, len(episodes)))
            return len(episodes)

        return decode
    statistics = statistics_of(LeRobotDataset(root / "demonstrations"))
    samples = open_samples(TrainingCopy(root / "copy"), statistics, image_size=SIZE)

    def gather(number: int) -> int:
        numbers = each_from_another(options.episodes, options.frames, number)
        assert samples.gather(numbers).images["head"].shape[1:] == (SIZE, SIZE, 3)
        return len(numbers)

    return gather


def seeks(options: Options, root: Path, originals: bool) -> Callable[[int], int]:
    """Opens, seeks and decodes for every camera of a sample."""
    dataset, copy = LeRobotDataset(originals_of(options, root)), TrainingCopy(root / "copy")
    packs, rows = copy.locate(copy.episodes)
    if not originals:
        for pack, camera in {(int(p), c) for p in packs for c in CAMERAS}:
            as_mp4(copy, pack, camera, root / "mp4" / f"{pack}-{camera}.mp4")

    def gather(number: int) -> int:
        rng = np.random.default_rng(number)
        for n in rng.permutation(options.episodes)[:8]:
            frame = int(rng.integers(0, options.length if originals else options.frames))
            for camera in CAMERAS:
                if originals:
                    path, at = dataset.camera_clip(dataset.episodes[n], camera).path, frame
                else:
                    path, at = root / "mp4" / f"{packs[n]}-{camera}.mp4", int(rows[n]) + frame
                seek(path, at)
        return 8

    return gather


def seek(path: Path, position: int) -> np.ndarray:
    """A frame by its time, as is usual with PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        target = round(position / FPS / stream.time_base)
        container.seek(target, stream=stream)
        for frame in container.decode(stream):
            assert frame.pts is not None
            if frame.pts >= target:
                return frame.reformat(width=SIZE, height=SIZE, format="rgb24", threads=1).to_ndarray()
    raise ValueError(f"{path}: no frame {position}")


def as_mp4(copy: TrainingCopy, pack: int, camera: str, path: Path) -> None:
    """The pictures of a pack in an MP4 file, without coding them again."""
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    with av.open(str(copy.path(pack, f"{camera}.h264"))) as given, av.open(str(path), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        stream.time_base = Fraction(1, FPS)
        for number, packet in enumerate(p for p in given.demux(video=0) if p.size):
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts = packet.dts = number
            made.mux(packet)


def measure(
    make: Callable[..., Callable[[int], int]], options: Options, root: Path, originals: bool
) -> float:
    """Samples per second of processor time, in this process."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN, OPEN))
    gather = make(options, root, originals)
    gather(0)
    samples, batch, start = 0, 0, time.process_time()
    while time.process_time() - start < options.seconds:
        batch += 1
        samples += gather(batch)
    return samples / (time.process_time() - start)


def apart(*arguments: Any) -> float:
    """`measure` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(measure, *arguments).result()


def with_workers(options: Options, root: Path, workers: int) -> float:
    """Samples per second of the clock from the loader itself."""
    copy = TrainingCopy(root / "copy")
    samples = open_samples(copy, statistics_of(LeRobotDataset(root / "demonstrations")), image_size=SIZE)
    loader = make_loader(samples, batch_size=BATCH, seed=0, workers=workers)
    for _ in range(3 * workers):
        next(loader)
    start, batches = time.perf_counter(), 0
    while time.perf_counter() - start < 2 * options.seconds:
        next(loader)
        batches += 1
    seconds = time.perf_counter() - start
    loader.close()
    return batches * BATCH / seconds


def run(options: Options, root: Path) -> bool:
    """Measure, print, and say whether all ratios are met."""
    console = Console(width=140)
    copied = prepare(options, root)
    copy, own, videos, seeked = (
        apart(make, options, root, originals)
        for make, originals in ((ours, False), (seeks, False), (ours, True), (seeks, True))
    )
    table = Table("reader", "samples/s per core", "copy is faster by", "expected")
    table.add_row("copy", f"{copy:.0f}", "", f"at least {LEAST:.0f}")
    table.add_row("copy, PyAV seek per sample", f"{own:.1f}", f"{copy / own:.1f}", f"{OVER_OWN_SEEKS:g}")
    table.add_row("originals", f"{videos:.1f}", f"{copy / videos:.1f}", "")
    table.add_row(
        "originals, PyAV seek per sample", f"{seeked:.1f}", f"{copy / seeked:.1f}", f"{OVER_SEEKS:g}"
    )
    console.print(table)
    for workers in options.workers:
        rate = with_workers(options, root, workers)
        console.print(f"{workers} worker processes: {rate:.0f} samples/s")
    sizes = [path.stat().st_size for path in (root / "copy").rglob("*.h264")]
    pictures = len(CAMERAS) * options.episodes * options.frames
    console.print(
        f"{options.episodes} episodes, {OPEN} open files a process, {sum(sizes) / pictures:.0f} bytes a "
        f"picture; copying: {copied:.0f} pictures/s per core\n"
        f"8 H200 at {H200:.0f} samples/s need {H200 / copy:.1f} cores from the copy, {H200 / videos:.0f} "
        f"from the originals, {H200 / seeked:.0f} with seeks"
    )
    return copy >= LEAST and copy >= OVER_SEEKS * seeked and copy >= OVER_OWN_SEEKS * own


def main(options: Options) -> None:
    """Run the benchmark."""
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        met = run(options, options.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            met = run(options, Path(folder))
    sys.exit(options.check and not met)


if __name__ == "__main__":
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))
