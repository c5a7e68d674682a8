"""Runs one process of the evaluator, watched, until it has what is wanted of it, or fails."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from components.evaluate.config import Limits
from components.evaluate.server import PolicyServer
from components.evaluate.watch import Failure, Watch
from components.runtime.attempts import memory_share
from components.runtime.processes import Child, describe_exit

_POLL = 0.2


@dataclass(frozen=True)
class Look:
    """What came of a process so far."""

    found: int
    """Results since the last look."""
    left: int
    """Results that it still has to make."""
    goes_on: bool = True
    """Whether they are still wanted of it."""


def run_process(
    child: Child,
    watch: Watch,
    server: PolicyServer,
    look: Callable[[], Look],
    *,
    limits: Limits,
    cgroup: Path,
    say: Callable[[str], None],
) -> Failure | None:
    """Run it to its end; None if it made all results, or was ended because it had done enough.

    Raises:
        UserError: the evaluator does not accept its command line, or from `look`.
    """
    any_found, last = False, time.monotonic()
    while (code := child.poll()) is None:
        time.sleep(_POLL)
        state = look()
        if state.found:
            any_found, last = True, time.monotonic()
            watch.progress()
        if not state.goes_on:
            return None
        if state.found and state.left and (share := memory_share(cgroup)) > limits.memory:
            say(f"the pod holds {share:.0%} of its memory limit; starting the evaluator again")
            return None
        if not state.left:
            if time.monotonic() - last > limits.closing:
                return None
        elif (failure := watch.look()) is not None:
            child.stop(1.0)  # it may be stopped, and then hears no signal but the last
            look()
            if failure.of_server:
                server.stop()
            return failure
    state = look()
    if not state.left or not state.goes_on:
        return None
    if code == 2 and not any_found and not state.found:
        raise UserError(f"the evaluator does not accept its command line{child.tail()}")
    failure = watch.after_end("the evaluator ended without a result" if code == 0 else describe_exit(code))
    if failure.of_server:
        server.stop()
    return failure
