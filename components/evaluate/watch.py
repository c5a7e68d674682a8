"""Watches an evaluator and the policy server beside it, and says which of the two has failed.

Only progress counts, as a process that hangs may go on logging: another step in the evaluator's log, another
request that the server answered, another result.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from components.evaluate.config import Limits
from components.evaluate.server import PolicyServer, Vitals

_STEP = re.compile(rb"Current step: (\d+)")
_LONGEST_LINE = 64
_LONGEST_GAP = 5.0
"""Seconds between two looks of which more do not count: the whole machine stood still."""


@dataclass(frozen=True)
class Failure:
    """How an evaluator's process ended before its time."""

    what: str
    of_server: bool


class StepLog:
    """Follows the steps that an evaluator logs, from the present end of the file on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = path.stat().st_size if path.exists() else 0
        self._rest = b""
        self._step = b""

    def moved(self) -> bool:
        """Whether the log names another step than before."""
        if not self._path.exists():
            return False
        with self._path.open("rb") as file:
            file.seek(self._place)
            text = self._rest + file.read()
            self._place = file.tell()
        self._rest = text[-_LONGEST_LINE:]
        steps = _STEP.findall(text)
        before, self._step = self._step, steps[-1] if steps else self._step
        return self._step != before


class Watch:
    """Watches one process of an evaluator."""

    def __init__(self, server: PolicyServer, log: Path, limits: Limits) -> None:
        """Begin before the evaluator starts: what the server and the log have now is not its progress."""
        self._server, self._limits = server, limits
        self._log = StepLog(log)
        self._first = self._last = server.vitals() or Vitals(0, 0, computing=False)
        self._looked = self._asked = time.monotonic()
        self._limit = limits.start
        self.started = time.monotonic()
        self.first_step: float | None = None
        """Seconds from the beginning to the first progress."""
        self._still = 0.0
        """Seconds without progress."""
        self._silent = 0.0
        """Seconds since the server answered."""

    def progress(self) -> None:
        """There was progress."""
        if self.first_step is None:
            self.first_step = time.monotonic() - self.started
        self._still, self._limit = 0.0, self._limits.stalled

    def look(self) -> Failure | None:
        """What is wrong now, to be called often while the evaluator runs."""
        self._pass_time()
        end = self._server.end()
        if end is not None:
            return Failure(end, of_server=True)
        if self._log.moved():
            self.progress()
        often = 0.5 if self.first_step is None else 2.0  # the first step tells how long the start took
        if time.monotonic() - self._asked >= min(often, self._limits.server / 4):
            self._ask()
        if self._silent > self._limits.server:
            return self._server_is_silent()
        if self._still > self._limit:
            self._ask()
        if self._still <= self._limit or self._silent > 0:  # a silent server is judged by its own limit
            return None
        if self._last.computing:
            return Failure(
                f"the policy server computed for {self._limit:.0f} s without an answer", of_server=True
            )
        return Failure(f"the evaluator made no step for {self._limit:.0f} s", of_server=False)

    def after_end(self, end: str) -> Failure:
        """Who failed, once the evaluator ended in the words `end` without all of its results."""
        while (found := self._server.end()) is None:
            self._pass_time()
            self._ask()
            if self._silent > self._limits.server:
                return self._server_is_silent()
            if self._silent == 0:
                if self._last.errors > self._first.errors:
                    return Failure("the policy server closed a session with an error", of_server=True)
                return Failure(end, of_server=False)
            time.sleep(0.1)
        return Failure(found, of_server=True)

    def _server_is_silent(self) -> Failure:
        return Failure("the policy server did not answer", of_server=True)

    def _pass_time(self) -> None:
        now = time.monotonic()
        gap = min(now - self._looked, _LONGEST_GAP)
        self._looked = now
        self._still += gap
        self._silent += gap

    def _ask(self) -> None:
        """Ask the server how it is; an answer ends its silence."""
        vitals = self._server.vitals()
        self._asked = time.monotonic()
        if vitals is None:
            return
        self._silent = 0.0
        if vitals.requests != self._last.requests:
            self.progress()
        self._last = vitals
