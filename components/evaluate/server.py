"""The policy server as a child process, started again when it has ended."""

import contextlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from components.evaluation.serving import server_options
from components.runtime.processes import Child, describe_exit, is_healthy, read_port
from components.store.files import write_atomic
from pi_behavior.policy.config import PolicyConfig

_LOG = "-server.log"
HOST = "127.0.0.1"
ServerCommand = Callable[[Path, Path], Sequence[str]]
"""Gives the policy server's command line for a mapping file and a port file."""


def policy_server(batch: int = 1) -> ServerCommand:
    """The command line of our policy server, with its network compiled for batches of one size."""

    def command(mapping: Path, port_file: Path) -> Sequence[str]:
        options = server_options(mapping, HOST, 0, batch=batch)
        return [sys.executable, "-m", *options, "--port-file", str(port_file), "--json-logs"]

    return command


def log_file(logs: Path, policy: str) -> Path:
    """The log of a policy's server in a worker's folder of logs."""
    return logs / f"{policy.replace(':', '-')}{_LOG}"


def rule_counts(logs: Path) -> dict[str, int]:
    """How often every rule of the control loop was applied, from the policy servers' logs below a folder.

    Rollouts that were started again count each time.
    """
    counts: Counter[str] = Counter()
    for log in logs.rglob(f"*{_LOG}"):
        with log.open(errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # warnings, and the last line of a killed server
                    row = json.loads(line) if line.startswith("{") else {}
                    if "rule" in row:
                        counts[row["rule"]] += 1
    return dict(sorted(counts.items()))


@dataclass(frozen=True)
class Vitals:
    """Figures of a policy server's work, from its metrics."""

    requests: int
    """Observations answered."""
    errors: int
    """Sessions that it closed because of an error."""
    computing: bool
    """Whether the network was given a batch that it has not answered."""


class PolicyServer:
    """Serves one policy. Use it as a context manager: leaving stops the server."""

    def __init__(
        self,
        name: str,
        checkpoint: Path,
        tasks: Sequence[str],
        policy: PolicyConfig,
        command: ServerCommand,
        log: Path,
        timeout: float,
    ) -> None:
        """Prepare; `ensure` starts it, and waits for it at most `timeout` seconds."""
        self._name = name
        self._timeout = timeout
        entry = {"path": str(checkpoint), "tasks": list(tasks)}
        self._mapping = {"checkpoints": {name: entry}, "policy": asdict(policy)}
        self._command = command
        self._log = log
        self._child: Child | None = None
        self.port = 0

    def __enter__(self) -> "PolicyServer":
        self._files = tempfile.TemporaryDirectory(prefix="b1k-server-")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(10.0)
        self._files.cleanup()

    def stop(self, grace: float = 1.0) -> None:
        """End it, by SIGKILL after `grace` seconds; `ensure` starts another."""
        if self._child is not None:
            self._child.stop(grace)
            self._child = None

    def end(self) -> str | None:
        """How it ended; None while it runs."""
        code = None if self._child is None else self._child.poll()
        return None if code is None else f"the policy server ended with {describe_exit(code)}"

    def vitals(self, timeout: float = 2.0) -> Vitals | None:
        """What its metrics say; None if it does not answer within `timeout` seconds."""
        connection = HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
            values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
            return Vitals(
                requests=int(float(values["policy_requests_total"])),
                errors=int(float(values["policy_errors_total"])),
                computing=values["policy_batch_size_count"] != values["policy_network_seconds_count"],
            )
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def ensure(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Start it if it does not run, and wait until it answers at `port`; ChildError if it does not.

        `meanwhile` is called often while it waits.
        """
        if self._child is not None and self.end() is None:
            return
        self.stop()
        mapping, port_file = Path(self._files.name, "mapping.json"), Path(self._files.name, "port")
        write_atomic(mapping, json.dumps(self._mapping))
        port_file.unlink(missing_ok=True)
        command = self._command(mapping, port_file)
        child = self._child = Child(f"the policy server of {self._name}", command, self._log)

        def port() -> int | None:
            meanwhile()
            return read_port(port_file)

        self.port = child.wait_until(port, self._timeout)
        child.wait_until(lambda: True if is_healthy(HOST, self.port) else None, 60.0)
