"""Child processes that cannot outlive us: start, wait until ready, stop, and the end of their log."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")

# Runs in the child before the program: asks the kernel for a SIGKILL when its parent ends (prctl with
# PR_SET_PDEATHSIG, which survives exec). Popen's preexec_fn would do it in a fork of ourselves, which may
# deadlock where other threads run, such as those of JAX.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):  # it ended before the call above
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
_POLL = 0.1


class ChildError(RuntimeError):
    """A child process ended, or did not become ready. The message has the end of its log."""


class Child:
    """A running child process in a process group of its own.

    The kernel sends it SIGKILL when the thread that started it ends, kill -9 included (prctl
    PR_SET_PDEATHSIG; Linux only). Use it as a context manager: leaving stops it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path | None,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process; ChildError if there is no such program.

        Its output is appended to `log`, or goes where ours goes; `environment` is added to our variables.
        """
        self.name = name
        self.command = tuple(command)
        self.log = log
        self._log_start = log.stat().st_size if log is not None and log.exists() else 0
        if shutil.which(command[0]) is None:
            raise ChildError(f"{name}: cannot start {command[0]!r}: there is no such program")
        with ExitStack() as files:
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=files.enter_context(log.open("ab")) if log is not None else None,
                stderr=subprocess.STDOUT if log is not None else None,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its process group."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._process.returncode is not None:
            return self._process.returncode
        # looks without reaping, so that the process id stays ours until `stop` has ended its group
        state = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if state is None:
            return None
        return state.si_status if state.si_code == os.CLD_EXITED else -state.si_status

    def wait_until(self, ready: Callable[[], T | None], timeout: float) -> T:
        """What `ready` returns once it is not None; ChildError if the process ends, or after `timeout` s."""
        deadline = time.monotonic() + timeout
        while True:
            value = ready()
            if value is not None:
                return value
            code = self.poll()
            if code is not None:
                raise ChildError(
                    f"{self.name} ended with {describe_exit(code)} before it was ready{self.tail()}"
                )
            if time.monotonic() > deadline:
                raise ChildError(f"{self.name} was not ready after {timeout:.0f} s{self.tail()}")
            time.sleep(_POLL)

    def stop(self, grace: float = 10.0) -> None:
        """Stop the whole process group: SIGTERM, then SIGKILL after `grace` seconds."""
        if self._process.returncode is not None:
            return
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + grace
            while self.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL)
        os.killpg(self.pid, signal.SIGKILL)  # also what the process left behind in its group
        self._process.wait()

    def tail(self, lines: int = 15) -> str:
        """The end of what this process logged, as further lines of an error message."""
        return "" if self.log is None else log_tail(self.log, lines, self._log_start)

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def log_tail(log: Path, lines: int = 15, start: int = 0) -> str:
    """The last lines of a log from byte `start` on, introduced by its path."""
    last = last_lines(log, lines, start)
    if not last:
        return f"; its log {log} is empty"
    return f"; the end of {log}:\n" + "\n".join(f"    {line}" for line in last)


def last_lines(log: Path, lines: int, start: int = 0) -> list[str]:
    """The last lines of a log from byte `start` on; reads at most 16 KiB."""
    size = log.stat().st_size if log.exists() else 0
    if size <= start:
        return []
    with log.open("rb") as file:
        file.seek(max(start, size - 16384))
        text = file.read().decode(errors="replace")
    # a progress bar redraws its line with carriage returns; only the last state is of interest
    return [line.rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")][-lines:]


def describe_exit(code: int) -> str:
    """An exit code for people: `exit code 1`, `signal SIGSEGV`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def read_port(file: Path) -> int | None:
    """The port in a port file; None until the file is whole."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return None
    return int(text) if text.endswith("\n") else None


def is_healthy(host: str, port: int, path: str = "/healthz") -> bool:
    """Whether a server answers 200 at its health path."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=2.0) as answer:
            return bool(answer.status == 200)
    except OSError:  # URLError and HTTPError are of this kind
        return False
