"""Frames per second and core of the pass that computes the statistics.

Run as `python -m benchmarks.statistics`, with `--check` to exit with 1 where a ratio below is not met. Writes
tables as those of 2025 (256 values of state; `--width 61` for 2026), many short demonstrations and few long
ones, and compares

ours     the pass of the stage statistics, one process
plain    a pass that makes every chunk, as of 6806e6d            (`--check`: ours is 7 times as fast)
columns  reading the two parquet columns alone, one thread       (`--check`: ours has 0.3 of its speed)

in seconds of processor time, so that other work on the machine does not count. Also: memory at three sizes
(`--check`: flat within 10 %), seconds on two processes (`--check`: 1.6 times as fast by the clock; needs two
idle cores), and how far means and deviations are from the plain pass's.
"""

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.scenes import write_columns, write_meta
from components.statistics.reading import Cache, Sums, read_all, read_part
from pi_behavior.accumulators import QuantileHistogram, delta_chunks
from pi_behavior.data.lerobot import LeRobotDataset

OVER_PLAIN, OF_COLUMNS, ON_TWO, FLAT = 7.0, 0.3, 1.6, 1.1
SHAPES = {"300 x 1,000": (300, 1000), "30 x 11,900": (30, 11_900)}
_DIFFERENT = 30
"""Tables that are written; the other demonstrations' are links to them."""


@dataclass(frozen=True)
class Options:
    """Measure the pass over the demonstrations."""

    width: int = 256
    """Values of the state: 256 as in 2025, 61 as in 2026."""
    check: bool = False
    """Exit with 1 where a ratio is not met."""


class PlainPass:
    """Moments and quantiles as of 6806e6d: every chunk is made, its 690 x 690 products, and its histogram."""

    def __init__(self) -> None:
        self.states, self.chunks = QuantileHistogram(23), QuantileHistogram(690)
        self.count, self.mean, self.scatter = 0, np.zeros(690), np.zeros((690, 690))

    def update(self, state: np.ndarray, actions: np.ndarray) -> None:
        """Add a demonstration."""
        self.states.update(state)
        flat = delta_chunks(state, actions)
        self.chunks.update(flat)
        mean = flat.mean(axis=0)
        centred, total = flat - mean, self.count + len(flat)
        shift = mean - self.mean
        self.scatter += centred.T @ centred + np.outer(shift, shift) * (self.count * len(flat) / total)
        self.mean = self.mean + shift * (len(flat) / total)
        self.count = total


def write(root: Path, episodes: int, frames: int, width: int) -> None:
    """Write the tables of a dataset without videos."""
    folder = root / "data" / "task-0000"
    for n in range(episodes):
        path = folder / f"episode_{10 * n:08d}.parquet"
        if n < _DIFFERENT:
            write_columns(path, 10 * n, 0, frames, width, n)
        else:
            os.link(folder / f"episode_{10 * (n % _DIFFERENT):08d}.parquet", path)
    write_meta(root, {10 * n: frames for n in range(episodes)})


def ours(root: Path) -> Sums:
    """The stage's pass, in this process."""
    return read_part(root, LeRobotDataset(root).episodes, absolute=False)


def plain(root: Path) -> PlainPass:
    """The reference."""
    dataset, result = LeRobotDataset(root), PlainPass()
    # a part is enough: its time is the same for every demonstration
    for episode in dataset.episodes[: max(3, len(dataset.episodes) // 15)]:
        result.update(*dataset.state_and_actions(episode))
    return result


def columns(root: Path) -> int:
    """Reads the columns and does nothing with them."""
    rows = 0
    for path in sorted(root.glob("data/*/*.parquet")):
        with pq.ParquetFile(path) as file:
            rows += file.read(columns=["action", "observation.state"], use_threads=False).num_rows
    return rows


def _timed(work: Callable[[Path], Any], root: Path) -> tuple[float, float]:
    """Seconds of processor time, and the process's largest memory in bytes."""
    start = time.process_time()
    work(root)
    return time.process_time() - start, 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def apart(work: Callable[[Path], Any], root: Path) -> tuple[float, float]:
    """`_timed` in a process of its own; the best of two."""
    found = []
    for _ in range(2):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(_timed, work, root).result())
    return min(found)


def on_processes(root: Path, processes: int) -> float:
    """Seconds by the clock, without the start of the processes, which a larger dataset does not notice."""
    dataset = LeRobotDataset(root)
    keys = {e: str(e.index) for e in dataset.episodes}
    with tempfile.TemporaryDirectory() as folder:
        begun: list[float] = []
        read_all(
            dataset,
            keys,
            Cache(Path(folder), "benchmark"),
            absolute=False,
            processes=processes,
            on_frames=lambda done, total: begun.append(time.perf_counter()) if done else None,
        )
    return begun[-1] - begun[0]


def largest_difference(root: Path) -> float:
    """Of our covariance from the plain pass's, relative to the deviations."""
    dataset = LeRobotDataset(root)
    few = dataset.episodes[:3]
    reference = PlainPass()
    for episode in few:
        reference.update(*dataset.state_and_actions(episode))
    _, covariance = read_part(root, few, absolute=False).accumulator.moments.chunk_moments()
    spread = np.sqrt(np.diag(covariance))
    difference = np.abs(covariance - reference.scatter / reference.count)
    return float((difference / np.maximum(np.outer(spread, spread), 1e-12)).max())


def run(options: Options, root: Path) -> bool:
    """Measure, print, and say whether all ratios are met."""
    table = Table("demonstrations", "ours", "plain", "columns", "ours/plain", "ours/columns")
    met, difference = True, 0.0
    for name, (episodes, frames) in SHAPES.items():
        folder = root / name.replace(" ", "")
        write(folder, episodes, frames, options.width)
        counts = {ours: episodes, plain: max(3, episodes // 15), columns: episodes}
        speed = {work: count * frames / apart(work, folder)[0] for work, count in counts.items()}
        ratios = speed[ours] / speed[plain], speed[ours] / speed[columns]
        met &= ratios[0] >= OVER_PLAIN and ratios[1] >= OF_COLUMNS
        shown = [f"{speed[work]:,.0f}" for work in counts]
        table.add_row(name, *shown, *(f"{ratio:.2f}" for ratio in ratios))
        difference = max(difference, largest_difference(folder))
    console = Console(width=140)
    console.print(table, f"frames/s per core, {options.width} values of state; expected 7 and 0.3")
    memory = []
    for episodes in (50, 100, 200):
        write(root / f"memory{episodes}", episodes, 1000, options.width)
        memory.append(apart(ours, root / f"memory{episodes}")[1])
    met &= max(memory) <= FLAT * min(memory)
    console.print("memory at 50, 100, 200 x 1,000:", ", ".join(f"{m / 1e6:.0f} MB" for m in memory))
    one, two = (on_processes(root / "30x11,900", n) for n in (1, 2))
    met &= one / two >= ON_TWO
    console.print(f"two processes: {one / two:.2f} times as fast as one ({two:.1f} s, {one:.1f} s)")
    console.print(f"covariance from the plain pass's: {difference:.1e} of the deviations' product")
    return met


def main(options: Options) -> None:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        met = run(options, Path(folder))
    sys.exit(options.check and not met)


if __name__ == "__main__":
    # one thread of BLAS, also in the processes that are started
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))
