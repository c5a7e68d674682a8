"""Training over several nodes: one process per node, all with the same command line, brought together by JAX.

The environment says so: `JAX_COORDINATOR_ADDRESS` (host:port, where process 0 can be reached),
`JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`. The chart's JobSet sets them.

Process 0 leads: it alone holds the stage's lock, writes metrics and publishes the artifact. The others listen
to it, train with it, and end with it. When one process dies, JAX ends the others; started again, all continue
from the last saved state.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from components.runtime.errors import UserError

COORDINATOR, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_START_SECONDS = 1800
"""Nodes do not start together: each pulls gigabytes of image first."""
_WORK = -1


@dataclass
class Processes:
    """The processes of one training; one alone until `join`."""

    count: int = 1
    number: int = 0
    _listening: bool = False
    """Whether the next thing that all do together is that process 0 says a word."""

    @property
    def leads(self) -> bool:
        """Whether this is process 0, or the only one."""
        return self.number == 0

    def join(self) -> None:
        """Join the others that the environment names, if it names any.

        Raises:
            UserError: the environment is not as expected.
        """
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
        print(f"process {self.number} of {self.count}, meeting at {address}", flush=True)
        jax.distributed.initialize(
            address,
            self.count,
            self.number,
            cluster_detection_method="deactivate",
            initialization_timeout=_START_SECONDS,
        )
        # connects the devices: a network that does not carry them shows before hours of preparation
        sync_global_devices("start")
        self._listening = True

    def follow(self) -> bool:
        """Wait for process 0, as another one.

        Returns:
            Whether there is work to do with it; if not, its artifact is there.
        """
        word = self._say(0)
        self._listening = False
        if word > 0:
            print(f"process 0 ended with exit code {word}", file=sys.stderr)
            sys.exit(word)
        return word == _WORK

    @contextmanager
    def at_work(self, fingerprint: str) -> Iterator[None]:
        """Work together on one artifact, which process 0 begins.

        Raises:
            UserError: the processes would make different artifacts.
        """
        if self.count == 1:
            yield
            return
        if self.leads:
            self._say(_WORK)
        self._listening = False
        self._agree(fingerprint)
        yield
        self._listening = True

    def leave(self, code: int) -> None:
        """End with an exit code: together after a success, at once after a failure."""
        if self.count == 1:
            return
        if self._listening:
            self._say(code)
        if code:
            # an ordinary exit would wait minutes for processes that wait for this one
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        import jax

        jax.distributed.shutdown()

    def _say(self, word: int) -> int:
        """What process 0 says to all."""
        from jax.experimental.multihost_utils import broadcast_one_to_all

        return int(broadcast_one_to_all(np.int32(word), is_source=self.leads))

    def _agree(self, fingerprint: str) -> None:
        from jax.experimental.multihost_utils import process_allgather

        rows = np.asarray(process_allgather(np.frombuffer(fingerprint.encode(), np.uint8)))
        found = [row.tobytes().decode() for row in rows]
        if len(set(found)) > 1:
            raise UserError(
                f"the processes would make different artifacts, {', '.join(found)}: start all with the same "
                "image, the same arguments and the same workspace"
            )
