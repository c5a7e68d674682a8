"""What one server for many simulators gains: `python -m benchmarks.serving`.

Simulated clients ask for one chunk after the other, each as fast as it is answered: all of one server, or
each of a server process of its own, on the same cores. Weights are random. The ratio of chunks per second is
what counts; clients and servers share the machine.

`python -m benchmarks.serving --network --size full` measures the network of a server alone, without sockets,
for a GPU: latency of one chunk, chunks per second at growing batches while they fit the memory limit, and the
memory they take.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from pi_behavior.config import ModelConfig
from pi_behavior.correlation import correlation_matrix
from pi_behavior.layout import CAMERA_OBSERVATION_KEYS, CAMERAS, PROPRIOCEPTION_KEY, TASK_ID_KEY
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.interface import NoiseId, Request
from pi_behavior.statistics import Statistics

_START_SECONDS = 900.0
_ANSWER_SECONDS = 600.0
_SPARE_GB = 1.5
"""Memory that is left to others."""


@dataclass(frozen=True)
class Options:
    """Compare one policy server for all clients with one server process per client."""

    size: str = "tiny"
    """Size of the network: tiny, small or full; random weights."""
    clients: tuple[int, ...] = (1, 4, 16, 32)
    """Numbers of clients."""
    seconds: float = 15.0
    """Measured time per case, after every client had its first answers."""
    batch_sizes: tuple[int, ...] = (1, 4, 16, 32)
    """Batch sizes of the one server, and of the network alone."""
    network: bool = False
    """Measure the network alone, in this process, on the default device."""
    memory_gb: float = 23.0
    """Device memory that the network alone may take: 24 GB less what CUDA and its libraries take."""


def random_statistics() -> Statistics:
    """Statistics of no data: random normalisation and correlation."""
    rng = np.random.default_rng(3)

    def between(low: float, high: float, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, shape or (23,)).astype(np.float32)

    mixing = rng.normal(size=(690, 690)) * 0.03 + np.eye(690)
    correlation = correlation_matrix(mixing @ mixing.T, np.ones(690))
    return Statistics(
        state_mean=between(-1, 1),
        state_std=between(0.5, 1),
        state_q01=between(-2, -1),
        state_q99=between(1, 2),
        action_mean=between(-1, 1),
        action_std=between(0.5, 1),
        action_q01=between(-2, -1),
        action_q99=between(1, 2),
        action_step_mean=between(-1, 1, 30, 23),
        action_step_std=between(0.5, 1, 30, 23),
        action_step_q01=between(-2, -1, 30, 23),
        action_step_q99=between(1, 2, 30, 23),
        correlation_cholesky=np.linalg.cholesky(correlation).astype(np.float32),
        closure={"0": [[False, True]] * 5},
    )


def write_random_checkpoint(path: Path, config: ModelConfig, statistics: Statistics | None = None) -> Path:
    """Write a checkpoint of random weights, quicker than a network's initialisers compile."""
    import jax.numpy as jnp
    from flax import nnx

    from pi_behavior import checkpoint
    from pi_behavior.network import PiBehavior

    shapes = nnx.to_flat_state(nnx.split(nnx.eval_shape(lambda: PiBehavior(config, nnx.Rngs(0))))[1])
    rng = np.random.default_rng(1)
    parameters = {
        ".".join(map(str, name)): jnp.asarray(rng.normal(size=leaf.shape) * 0.1, jnp.float32)
        for name, leaf in shapes
    }
    checkpoint.save(path, parameters, config=config, statistics=statistics or random_statistics(), step=7)
    return path


class Server:
    """`b1k serve` as a process."""

    def __init__(self, folder: Path, words: Sequence[str], variables: dict[str, str]) -> None:
        """Start it; its port file and log are in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self._port_file = folder / "server.log", folder / "port"
        command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0"]
        command += ["--port-file", str(self._port_file), *words]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | variables
            )

    def wait(self) -> int:
        """Wait until it serves; its port.

        Raises:
            RuntimeError: it ended, or takes too long.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not self._port_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)
        return int(self._port_file.read_text())

    def memory(self) -> float:
        """Resident memory in GB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


@contextmanager
def serving(folder: Path, *words: str, **variables: str) -> Iterator[Server]:
    """Run `b1k serve`; killed at the end, where it still runs."""
    server = Server(folder, words, variables)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def make_observation(seed: int, image_size: int, task: int = 1) -> dict[str, object]:
    """A random observation, as one simulator sends it."""
    rng = np.random.default_rng(seed)
    return {
        PROPRIOCEPTION_KEY: rng.uniform(-0.3, 0.3, 256).astype(np.float32),
        TASK_ID_KEY: np.array([task], np.int64),
        **{
            key: rng.integers(0, 255, (image_size, image_size, 4), np.uint8)
            for key in CAMERA_OBSERVATION_KEYS.values()
        },
    }


async def _client(
    port: int, seed: int, image_size: int, barrier: asyncio.Barrier, seconds: float
) -> list[float]:
    """Ask for whole chunks one after the other; seconds of each answer."""
    from websockets.asyncio.client import connect

    from pi_behavior.policy.protocol import ACTION_CHUNK_SIZE, pack, unpack

    frame = pack(make_observation(seed, image_size) | {ACTION_CHUNK_SIZE: 30})
    latencies = []
    async with connect(
        f"ws://127.0.0.1:{port}", max_size=None, compression=None, ping_timeout=None
    ) as socket:
        await socket.recv()
        measured = False
        end = float("inf")
        while time.monotonic() < end:
            start = time.monotonic()
            await socket.send(frame)
            answer = await asyncio.wait_for(socket.recv(), _ANSWER_SECONDS)
            if isinstance(answer, str):
                raise RuntimeError(answer)
            assert "action" in unpack(answer)
            if measured:
                latencies.append(time.monotonic() - start)
            elif len(latencies := [*latencies, 0.0]) == 3:  # the first answers are not measured
                latencies, measured = [], True
                await barrier.wait()
                end = time.monotonic() + seconds
    return latencies


@dataclass(frozen=True)
class Case:
    """What one arrangement of servers came to."""

    rate: float
    """Chunks per second, over all clients."""
    p50: float
    p95: float
    """Latency of a chunk, in seconds."""
    memory: float
    """Resident memory of all servers, in GB."""


def measure(ports: Sequence[int], servers: Sequence[Server], options: Options) -> Case:
    """Run one client per port."""
    image_size = ModelConfig.presets[options.size].vision.image_size

    async def run() -> list[list[float]]:
        barrier = asyncio.Barrier(len(ports))
        return await asyncio.gather(
            *(_client(port, seed, image_size, barrier, options.seconds) for seed, port in enumerate(ports))
        )

    latencies = asyncio.run(run())
    flat = np.concatenate(latencies)
    rate = sum(len(one) / sum(one) for one in latencies)
    memory = sum(server.memory() for server in servers)
    return Case(rate, float(np.median(flat)), float(np.quantile(flat, 0.95)), memory)


def _one(checkpoint: Path, folder: Path, clients: int, options: Options) -> Case:
    sizes = [str(size) for size in options.batch_sizes if size <= max(clients, min(options.batch_sizes))]
    with serving(folder, "--checkpoint", str(checkpoint), "--batch-sizes", *sizes) as server:
        return measure([server.wait()] * clients, [server], options)


def _one_each(checkpoint: Path, folder: Path, clients: int, options: Options, each_gb: float) -> Case | str:
    needed, available = each_gb * clients + _SPARE_GB, _available_gb()
    if needed > available:
        return f"needs {needed:.1f} GB of memory, {available:.1f} are free"
    words = ("--checkpoint", str(checkpoint), "--batch-sizes", "1", "--window-ms", "0")
    with ExitStack() as stack:
        servers: list[Server] = []
        for start in range(0, clients, 4):  # their start takes more memory and cores than their work
            new = [
                stack.enter_context(serving(folder / str(i), *words))
                for i in range(start, min(start + 4, clients))
            ]
            for server in new:
                server.wait()
            servers += new
        return measure([server.wait() for server in servers], servers, options)


def _available_gb() -> float:
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(rows["MemAvailable"].split()[0]) * 1024 / 1e9


def compare(options: Options, console: Console) -> None:
    """One server against one per client."""
    table = Table("clients", "servers", "chunks/s", "p50 ms", "p95 ms", "memory GB", "ratio of chunks/s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
        checkpoint = write_random_checkpoint(folder / "checkpoint", ModelConfig.presets[options.size])
        each_gb = 1.0
        for clients in options.clients:
            console.print(f"{clients} clients ...")
            one = _one(checkpoint, folder / f"one{clients}", clients, options)
            each = _one_each(checkpoint, folder / f"each{clients}", clients, options, each_gb)
            table.add_row(
                str(clients),
                "one",
                *_figures(one),
                "" if isinstance(each, str) else f"{one.rate / each.rate:.2f}",
            )
            if isinstance(each, str):
                table.add_row("", str(clients), each)
            else:
                each_gb = 1.2 * each.memory / clients  # with what their start takes more
                table.add_row("", str(clients), *_figures(each), "")
            console.print(table)


def _figures(case: Case) -> tuple[str, ...]:
    return f"{case.rate:.1f}", f"{case.p50 * 1000:.0f}", f"{case.p95 * 1000:.0f}", f"{case.memory:.1f}"


def network_alone(options: Options, console: Console) -> None:
    """Latency, throughput and memory of the network at growing batches."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from pi_behavior.checkpoint import Checkpoint
    from pi_behavior.network import PiBehavior
    from pi_behavior.policy.predictor import JaxPredictor

    config, device = ModelConfig.presets[options.size], jax.local_devices()[0]
    graph, state = nnx.split(nnx.eval_shape(lambda: PiBehavior(config, nnx.Rngs(0))))
    rng, size = np.random.default_rng(0), config.vision.image_size
    kind = jnp.dtype(config.dtype if device.platform != "cpu" else "float32")
    state = jax.tree.map(  # on the host, so that the device's peak is the network's
        lambda leaf: jax.device_put((rng.standard_normal(leaf.shape, np.float32) * 0.02).astype(kind)), state
    )
    loaded = Checkpoint(nnx.merge(graph, state), config, random_statistics(), 0)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e9
    console.print(f"{device.device_kind}: {options.size}, weights {weights:.2f} GB in {kind}, 20 Euler steps")
    table = Table("batch", "latency ms (p50)", "p95", "chunks/s", "peak memory GB")
    pixels = {camera: rng.integers(0, 255, (size, size, 3), np.uint8) for camera in CAMERAS}
    saved = rng.normal(size=(4, 23)).astype(np.float32)
    for batch in options.batch_sizes:
        state23 = np.zeros(23, np.float32)
        requests = [Request(pixels, state23, 0, 0, saved, NoiseId(0, 0, i)) for i in range(batch)]
        try:
            predictor = JaxPredictor(loaded, PolicyConfig(), [batch])
            seconds: list[float] = []
            end = time.monotonic() + options.seconds
            while len(seconds) < 5 or time.monotonic() < end:
                start = time.monotonic()
                predictor.predict(requests)
                seconds.append(time.monotonic() - start)
        except jax.errors.JaxRuntimeError as error:
            console.print(f"batch {batch}: {str(error).splitlines()[0]}")
            break
        stats = device.memory_stats() or {}
        peak = stats.get("peak_bytes_in_use", 0) / 1e9
        if peak > options.memory_gb:
            console.print(f"batch {batch} takes {peak:.1f} GB, more than {options.memory_gb:g}")
            break
        p50, p95 = np.quantile(seconds, [0.5, 0.95])
        memory = f"{peak:.1f}" if stats else "unknown"
        table.add_row(str(batch), f"{p50 * 1000:.0f}", f"{p95 * 1000:.0f}", f"{batch / p50:.1f}", memory)
    console.print(table)


def main(options: Options) -> None:
    """Run the benchmark."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    if options.network:
        network_alone(options, console)
    else:
        compare(options, console)


if __name__ == "__main__":
    main(tyro.cli(Options))
