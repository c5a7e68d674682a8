"""The policy server: `python -m pi_behavior.policy.server --champion DIR`, or another `Source`."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tyro

from pi_behavior.checkpoint_description import CheckpointError, read_config
from pi_behavior.config import ModelConfig
from pi_behavior.families import SIZES, family_of
from pi_behavior.files import write_atomic
from pi_behavior.policy.config import FloatType, PolicyConfig, Serving
from pi_behavior.policy.interface import Predictor
from pi_behavior.policy.mapping import CHAMPION, RENEW_CHAMPION, CheckpointEntry, read_mapping
from pi_behavior.policy.service import PolicyService
from pi_behavior.policy.switching import CheckpointPool, CheckpointUnavailableError

logger = logging.getLogger(__name__)
_MOST_PORTS, _LAST_PORT = 1024, 65535
API_KEY_VARIABLE = "B1K_API_KEY"


@dataclass(frozen=True)
class Source:
    """What to serve: exactly one of these."""

    mapping: Path | None = None
    """Mapping file: {"checkpoints": {"NAME": {"path": "...", "tasks": [...]}}, "policy": {...}}. Tasks are
    names or numbers; paths are relative to the file. `policy`, which may be absent, has defaults for
    --policy.*."""
    checkpoint: Path | None = None
    """A single checkpoint folder, for every task."""
    champion: Path | None = None
    """Folder of a promoted champion. The defaults for --policy.* are what it was evaluated with."""
    size: str | None = None
    """A network's size, such as full_2026, for --plan alone."""

    def __post_init__(self) -> None:
        """Check that something, and one thing only, is to be served."""
        places = (self.mapping, self.checkpoint, self.champion, self.size)
        if sum(place is not None for place in places) != 1:
            raise ValueError("give exactly one of --mapping, --checkpoint and --champion")

    def read(self) -> tuple[list[CheckpointEntry], PolicyConfig]:
        """The checkpoints, and the settings that come with them, else the defaults.

        Raises:
            ValueError: the mapping is malformed, or a checkpoint is not a folder.
        """
        if self.size is not None:
            return [], PolicyConfig()
        if self.checkpoint is not None:
            if not self.checkpoint.is_dir():
                raise ValueError(f"--checkpoint {self.checkpoint} is not a folder")
            return [CheckpointEntry(self.checkpoint.name, self.checkpoint, None)], PolicyConfig()
        file = self.mapping if self.champion is None else self.champion / CHAMPION
        assert file is not None
        entries, policy = read_mapping(file)
        if policy is None and self.champion is not None:
            raise ValueError(f"{file} does not say what settings it was evaluated with. {RENEW_CHAMPION}")
        return entries, policy or PolicyConfig()


@dataclass(frozen=True)
class ServerConfig(Source):
    """Serve policy checkpoints to evaluators over the challenge's websocket protocol.

    Give a mapping, a checkpoint or a champion. GET /healthz answers OK; GET /metrics has metrics for
    Prometheus; neither needs the key. SIGTERM and Ctrl-C stop the server once it has answered the requests
    that it has received.
    """

    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for other machines."""
    port: int = 8000
    """First port to listen at; 0 takes free ones."""
    ports: int = 1
    """How many ports, one after the other, to serve the same network at: for evaluators that want an endpoint
    per environment. Any number of connections may also share a port."""
    port_file: Path | None = None
    """File to write the first port to once the server is ready at all."""
    api_key_file: Path | None = None
    """File whose text clients must send as `Authorization: Api-Key TEXT`; the environment variable
    B1K_API_KEY does the same."""
    batch_sizes: tuple[int, ...] = (1, 2)
    """Batch sizes to compile the network for; batches are padded up to the next one. Programs of two sizes
    may round differently: with a single size, answers are bit for bit the same under any load."""
    window_ms: float = 5.0
    """How long to wait for requests of other sessions before a batch runs."""
    max_loaded: int = 1
    """Checkpoints in memory at a time; the least recently used one is removed for another."""
    parameters: FloatType = "auto"
    """Type of the weights in memory. bfloat16 takes half the memory of float32, and a network that computes
    in bfloat16 rounds them anyway. auto: on a GPU the type of the computation, float32 on a CPU."""
    compute: FloatType = "auto"
    """Type of the computation. auto: the network's own, but float32 on a GPU without bfloat16, as those
    before compute capability 8.0 are (TITAN RTX)."""
    plan: bool = False
    """Say how much memory of a GPU serving takes, and end, without a GPU and without reading weights. Exit
    code 1 if it does not fit."""
    gpu_gib: float = 24.0
    """Memory of that GPU."""
    json_logs: bool = False
    """Log one JSON object per line; applications of rules have the fields task, stage, step and rule, and
    calls of the network, where the stage changed, step, predicted and stage."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        super().__post_init__()
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(f"--batch-sizes is {self.batch_sizes}; expected sizes from 1 up")
        if not 1 <= self.ports <= _MOST_PORTS:
            raise ValueError(f"--ports is {self.ports}; expected 1 to {_MOST_PORTS}")
        if self.port and self.port + self.ports - 1 > _LAST_PORT:
            raise ValueError(
                f"--port {self.port} with --ports {self.ports} ends at {self.port + self.ports - 1}; "
                f"expected ports up to {_LAST_PORT}"
            )
        if self.gpu_gib <= 0:
            raise ValueError(f"--gpu-gib is {self.gpu_gib}; expected more than 0")
        if self.window_ms < 0:
            raise ValueError(f"--window-ms is {self.window_ms}; expected 0 or more")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the server until it is told to stop. Exit code 2 for a mistake in what was given."""
    try:
        config, entries = _configure(sys.argv[1:] if argv is None else argv)
        _log_to_stderr(config.json_logs)
        serving = _serving(config, entries)
        if config.plan:
            sys.exit(_plan(serving, config))
        if config.size is not None:
            raise ValueError("--size is for --plan; give --mapping, --checkpoint or --champion to serve")
        key = _api_key(config.api_key_file)
        pool = CheckpointPool(entries, lambda path: _load(path, config), capacity=config.max_loaded)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    logger.info("settings of the policy: %s", json.dumps(asdict(config.policy)))
    service = PolicyService(
        config.policy,
        pool,
        serving=serving,
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
        print(f"error: cannot listen at {config.host}, {error}", file=sys.stderr)
        sys.exit(2)


def _configure(argv: Sequence[str]) -> tuple[ServerConfig, list[CheckpointEntry]]:
    """The configuration, whose defaults for the policy are those of what is served; and the checkpoints."""
    if not {"-h", "--help"}.isdisjoint(argv):
        tyro.cli(ServerConfig, args=argv)
    source, _ = tyro.cli(Source, args=argv, return_unknown_args=True)
    entries, policy = source.read()
    return tyro.cli(ServerConfig, args=argv, default=ServerConfig(**vars(source), policy=policy)), entries


def _serving(config: ServerConfig, entries: Sequence[CheckpointEntry]) -> Serving:
    """What decides how much memory it takes; a checkpoint that cannot be read takes none."""
    networks = {} if config.size is None else {config.size: SIZES.get(config.size)}
    for entry in entries:
        with suppress(CheckpointError):
            networks[entry.name] = read_config(entry.path)[0]
    known = {name: model for name, model in networks.items() if isinstance(model, ModelConfig)}
    return Serving(known, config.batch_sizes, config.max_loaded, config.parameters, config.compute)


def _plan(serving: Serving, config: ServerConfig) -> int:
    if not serving.networks:
        sizes = ", ".join(name for name, model in SIZES.items() if isinstance(model, ModelConfig))
        raise ValueError(f"there is no network to plan for; give a checkpoint of ours, or --size: {sizes}")
    from pi_behavior.policy.plan import run

    return run(serving, config.policy, config.gpu_gib)


async def _serve(service: PolicyService, pool: CheckpointPool, config: ServerConfig) -> None:
    await pool.warm()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def ready(port: int) -> None:
        others = "" if config.ports == 1 else f" and the ports up to {port + config.ports - 1}"
        logger.info("serving at ws://%s:%d%s", config.host, port, others)
        if config.port_file is not None:
            write_atomic(config.port_file, f"{port}\n")

    await service.run(config.host, config.port, ports=config.ports, ready=ready, stop=stop)
    logger.info("stopped")


def _load(path: Path, config: ServerConfig) -> Predictor:
    # JAX takes seconds to import; a mistake on the command line is reported without it
    family, options = family_of(read_config(path)[0]), (config.parameters, config.compute)
    return family.load_predictor(path, config.policy, config.batch_sizes, *options)


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
    if not as_json:  # a line per call of the network is nothing for people
        logging.getLogger("pi_behavior.policy.trace").setLevel(logging.WARNING)


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


if __name__ == "__main__":
    main()
