"""One stage run by several processes, one per node, all with the same command line, connected by JAX.

They are configured by `JAX_COORDINATOR_ADDRESS` (host:port of process 0), `JAX_NUM_PROCESSES` and
`JAX_PROCESS_ID`, which the chart's JobSet sets.

Process 0 leads: it alone holds the stage's lock, writes metrics and publishes the artifact. It broadcasts to
the others whether there is work, and at the end its exit code. When one process dies, JAX ends the others;
started again, all continue from the last saved state.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from components.errors import UserError
from components.runtime.declaration import C, In
from components.runtime.progress import Progress
from components.runtime.stage import Result, Stage, Work
from components.store.making import partial_of

COORDINATOR, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_START_SECONDS = 1800
"""Nodes do not start together: each pulls gigabytes of image first."""
_WORK = -1
"""Broadcast: there is an artifact to make. All other values are exit codes."""


@dataclass
class Processes:
    """The processes of one stage; one alone until `join`."""

    count: int = 1
    number: int = 0
    _waiting: bool = False
    """True while the other processes wait for a broadcast from process 0."""

    @property
    def leads(self) -> bool:
        """Whether this is process 0, or the only one."""
        return self.number == 0

    def join(self) -> None:
        """Connect to the other processes that the environment names, if it names any."""
        address = os.environ.get(COORDINATOR, "")
        if not address:
            return
        given = {name: os.environ.get(name, "") for name in (COUNT, NUMBER)}
        known = ":" in address and all(text.isdecimal() for text in given.values())
        if not known or int(given[NUMBER]) >= int(given[COUNT]):
            said = ", ".join(f"{name}={text!r}" for name, text in {COORDINATOR: address, **given}.items())
            raise UserError(
                f"{said}; expected host:port, how many processes there are, and which one this is, from 0"
            )
        if int(given[COUNT]) == 1:
            return
        import jax
        from jax.experimental.multihost_utils import sync_global_devices

        self.count, self.number = int(given[COUNT]), int(given[NUMBER])
        print(f"process {self.number} of {self.count}, coordinator {address}", flush=True)
        jax.distributed.initialize(
            address,
            self.count,
            self.number,
            cluster_detection_method="deactivate",
            initialization_timeout=_START_SECONDS,
        )
        # connects the devices, so that a network without a route for them fails now and not after hours
        sync_global_devices("start")
        self._waiting = True

    def wait(self) -> bool:
        """Wait for a broadcast, in a process that does not lead: whether there is an artifact to make."""
        value = self._broadcast(0)
        self._waiting = False
        if value > 0:
            print(f"process 0 ended with exit code {value}", file=sys.stderr)
            sys.exit(value)
        return value == _WORK

    @contextmanager
    def working(self, fingerprint: str) -> Iterator[None]:
        """Work together on one artifact; UserError if the processes would make different ones."""
        if self.count == 1:
            yield
            return
        if self.leads:
            self._broadcast(_WORK)
        self._waiting = False
        self._agree(fingerprint)
        yield
        self._waiting = True

    def leave(self, code: int) -> None:
        """End with an exit code: together after a success, at once after a failure."""
        if self.count == 1:
            return
        if self._waiting:
            self._broadcast(code)
        if code:
            # an ordinary exit would wait minutes for processes that wait for this one
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        import jax

        jax.distributed.shutdown()

    def _broadcast(self, value: int) -> int:
        """The value that process 0 gives, in all processes."""
        from jax.experimental.multihost_utils import broadcast_one_to_all

        return int(broadcast_one_to_all(np.int32(value), is_source=self.leads))

    def _agree(self, fingerprint: str) -> None:
        from jax.experimental.multihost_utils import process_allgather

        rows = np.asarray(process_allgather(np.frombuffer(fingerprint.encode(), np.uint8)))
        found = [row.tobytes().decode() for row in rows]
        if len(set(found)) > 1:
            raise UserError(
                f"the processes would make different artifacts, {', '.join(found)}: start all with the same "
                "image, the same arguments and the same workspace"
            )


@dataclass(frozen=True)
class MultiprocessStage(Stage[C, In]):
    """A stage that several processes may run together; process 0 makes the artifact."""

    processes: Processes = field(default_factory=Processes)

    def main(self, arguments: Sequence[str] | None = None) -> NoReturn:
        """Run as a command, alone or with others."""
        try:
            super().main(arguments)
        except SystemExit as end:
            self.processes.leave(end.code if isinstance(end.code, int) else 0)
            raise

    def _main(self, arguments: list[str]) -> str:
        self.processes.join()
        if self.processes.leads:
            return super()._main(arguments)
        self._help(arguments)
        return ""

    def _help(self, arguments: list[str]) -> None:
        """Help process 0 with its artifact."""
        call = self.call(arguments)
        workspace = call.workspace.resolve()
        config = self.resolve(call.config, call.inputs, workspace)
        external = self.external(config, call.inputs, workspace)
        partial = partial_of(self.place(config, call.inputs, workspace, external))
        if self.processes.wait():
            partial.mkdir(parents=True, exist_ok=True)
            self.work_on(config, call.inputs, Work(partial, workspace, Progress()))
            self.processes.wait()
        print(f"{self.name}: process 0 has the artifact", flush=True)

    def work_on(self, config: C, inputs: In, work: Work) -> Result:
        """Do the work in the partial folder, together."""
        with self.processes.working(work.path.stem):
            return super().work_on(config, inputs, work)
