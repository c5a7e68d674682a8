"""The policy server: `python -m pi_behavior.policy.server --mapping FILE | --checkpoint DIR`."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.interface import Predictor
from pi_behavior.policy.service import PolicyService
from pi_behavior.policy.switching import (
    CheckpointEntry,
    CheckpointPool,
    CheckpointUnavailableError,
    read_mapping,
)

logger = logging.getLogger(__name__)
API_KEY_VARIABLE = "B1K_API_KEY"


@dataclass(frozen=True)
class ServerConfig:
    """Serve policy checkpoints to evaluators over the challenge's websocket protocol.

    Give either a mapping or a checkpoint. GET /healthz answers OK; GET /metrics has figures for Prometheus;
    neither asks for the key. SIGTERM and Ctrl-C stop the server when it has answered what it was asked.
    """

    mapping: Path | None = None
    """Mapping file: {"checkpoints": {"NAME": {"path": "...", "tasks": [...]}}}."""
    checkpoint: Path | None = None
    """A single checkpoint folder, for every task."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for other machines."""
    port: int = 8000
    """Port to listen at; 0 takes a free one."""
    port_file: Path | None = None
    """File to write the port to once the server is ready."""
    api_key_file: Path | None = None
    """File whose text clients must send as `Authorization: Api-Key TEXT`; the environment variable
    B1K_API_KEY does the same."""
    batch_sizes: tuple[int, ...] = (1, 2)
    """Batch sizes to compile the network for; batches are padded up to the next one. Programs of two sizes
    may round differently: with a single size, answers are bit for bit the same under any load."""
    window_ms: float = 5.0
    """How long to wait for requests of other sessions before a batch runs."""
    max_loaded: int = 1
    """Checkpoints in memory at a time; with more of them, the least recently used one makes room."""
    parameters: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights in memory. bfloat16 takes half, and a network that computes in bfloat16 rounds
    them anyway. auto: bfloat16 for such a network on a GPU, float32 on a CPU."""
    json_logs: bool = False
    """Log one JSON object per line; applications of rules have the fields task, stage, step and rule."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        if (self.mapping is None) == (self.checkpoint is None):
            raise ValueError("give exactly one of --mapping and --checkpoint")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(f"--batch-sizes is {self.batch_sizes}; expected sizes from 1 up")
        if self.window_ms < 0:
            raise ValueError(f"--window-ms is {self.window_ms}; expected 0 or more")

    def entries(self) -> list[CheckpointEntry]:
        """The checkpoints to serve.

        Raises:
            ValueError: the mapping is malformed, or a checkpoint is not a folder.
        """
        if self.mapping is not None:
            return read_mapping(self.mapping)
        if self.checkpoint is None or not self.checkpoint.is_dir():
            raise ValueError(f"--checkpoint {self.checkpoint} is not a folder")
        return [CheckpointEntry(self.checkpoint.name, self.checkpoint, None)]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the server until it is told to stop. Exit code 2 for a mistake in what was given."""
    try:
        config = tyro.cli(ServerConfig, args=argv)
        _log_to_stderr(config.json_logs)
        entries = config.entries()
        key = _api_key(config.api_key_file)
        pool = CheckpointPool(entries, lambda path: _load(path, config), capacity=config.max_loaded)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    service = PolicyService(
        config.policy,
        pool,
        max_batch=max(config.batch_sizes),
        window=config.window_ms / 1000.0,
        api_key=key,
    )
    try:
        asyncio.run(_serve(service, pool, config))
    except CheckpointUnavailableError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: cannot listen at {config.host}:{config.port}: {error}", file=sys.stderr)
        sys.exit(2)


async def _serve(service: PolicyService, pool: CheckpointPool, config: ServerConfig) -> None:
    await pool.warm()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def ready(port: int) -> None:
        logger.info("serving at ws://%s:%d", config.host, port)
        if config.port_file is not None:
            _write_atomic(config.port_file, f"{port}\n")

    await service.run(config.host, config.port, ready=ready, stop=stop)
    logger.info("stopped")


def _load(path: Path, config: ServerConfig) -> Predictor:
    # JAX takes seconds to import; a mistake on the command line is reported without it
    from pi_behavior.policy.predictor import JaxPredictor

    return JaxPredictor.load(path, config.policy, config.batch_sizes, config.parameters)


class _JsonFormatter(logging.Formatter):
    """One JSON object per record, with the fields of its event."""

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "event", {}),
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row)


def _log_to_stderr(as_json: bool) -> None:
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(_JsonFormatter() if as_json else plain)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("websockets", "absl", "jax"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _api_key(file: Path | None) -> str | None:
    """The key of the file, else of the environment; never on the command line, which others can read."""
    if file is None:
        return os.environ.get(API_KEY_VARIABLE) or None
    try:
        key = file.read_text().strip()
    except OSError as error:
        raise ValueError(f"cannot read --api-key-file {file}: {error.strerror}") from error
    if not key:
        raise ValueError(f"--api-key-file {file} is empty; expected a key")
    return key


def _write_atomic(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)


if __name__ == "__main__":
    main()
