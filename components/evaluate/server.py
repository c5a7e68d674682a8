"""The policy server as a child process, started again when it ended."""

import contextlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from components.evaluation.serving import server_options
from components.runtime.processes import Child, is_healthy, read_port
from components.store.files import write_atomic
from pi_behavior.policy.config import PolicyConfig

_LOG = "-server.log"
HOST = "127.0.0.1"
_TIMEOUT = 1800.0
"""Seconds to load a checkpoint and compile: a large one from a shared volume takes many minutes."""

ServerCommand = Callable[[Path, Path], Sequence[str]]
"""Gives the policy server's command line for a mapping file and a port file."""


def policy_server(policy: PolicyConfig) -> ServerCommand:
    """The command line of our policy server."""

    def command(mapping: Path, port_file: Path) -> Sequence[str]:
        options = server_options(mapping, HOST, 0, policy, every=True)
        return [sys.executable, "-m", *options, "--port-file", str(port_file), "--json-logs"]

    return command


def log_file(folder: Path, policy: str) -> Path:
    """The log of a policy's server in a worker's folder."""
    return folder / "logs" / f"{policy.replace(':', '-')}{_LOG}"


def rule_counts(folder: Path) -> dict[str, int]:
    """How often every rule of the control loop was applied, from the logs of a worker's policy servers.

    Rollouts that were begun again count each time.
    """
    counts: Counter[str] = Counter()
    for log in (folder / "logs").glob(f"*{_LOG}"):
        with log.open(errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # warnings, and the last line of a killed server
                    row = json.loads(line) if line.startswith("{") else {}
                    if "rule" in row:
                        counts[row["rule"]] += 1
    return dict(sorted(counts.items()))


class PolicyServer:
    """Serves one policy. Use it as a context manager: leaving stops the server."""

    def __init__(
        self, name: str, checkpoint: Path, tasks: Sequence[str], command: ServerCommand, log: Path
    ) -> None:
        """Prepare; `ensure` starts.

        Args:
            name: name of the policy.
            checkpoint: its checkpoint folder.
            tasks: names of the tasks to serve.
            command: the server's command line.
            log: file for its output.
        """
        self._name = name
        self._mapping = {"checkpoints": {name: {"path": str(checkpoint), "tasks": list(tasks)}}}
        self._command = command
        self._log = log
        self._child: Child | None = None
        self.port = 0

    def __enter__(self) -> "PolicyServer":
        self._files = tempfile.TemporaryDirectory(prefix="b1k-server-")
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.stop()
        self._files.cleanup()

    def alive(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.poll() is None

    def ensure(self) -> None:
        """Start it if it does not run, and wait until it answers; `port` is then where.

        Raises:
            ChildError: it does not start.
        """
        if self.alive():
            return
        if self._child is not None:
            self._child.stop()
        mapping, port_file = Path(self._files.name, "mapping.json"), Path(self._files.name, "port")
        write_atomic(mapping, json.dumps(self._mapping))
        port_file.unlink(missing_ok=True)
        command = self._command(mapping, port_file)
        child = self._child = Child(f"the policy server of {self._name}", command, self._log)
        self.port = child.wait_until(lambda: read_port(port_file), _TIMEOUT)
        child.wait_until(lambda: True if is_healthy(HOST, self.port) else None, 60.0)
