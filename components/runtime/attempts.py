"""Starting a stage again after a crash, in the same pod.

Kubeflow replaces lost pods, but it never starts again a program that failed. So on a cluster a small process
takes the stage's place and starts the stage as its child, again after a crash: a stage may be killed at any
moment and continues from what it saved.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from components.runtime.processes import Child, describe_exit

MOST = "B1K_ATTEMPTS"
"""Environment variable: most starts of a stage in one pod. Profiles set it."""
NUMBER = "B1K_ATTEMPT"
"""Environment variable of the stage: which start it is, from 1."""
_FINAL = (0, 2, 130)
"""Exit codes after which nothing is tried again: done, a mistake of the user, interrupted."""
_CGROUP = Path("/sys/fs/cgroup")
_FULL = 0.95
_GRACE = 30.0
_LONGEST_PAUSE = 600.0
_POLL = 0.2


def take_over() -> None:
    """Replace this process, which was started as a stage, by the one that starts the stage again.

    Not without `B1K_ATTEMPTS`, nor in a training of several processes: those are started again together.
    """
    if MOST in os.environ and "JAX_COORDINATOR_ADDRESS" not in os.environ:
        os.execv(sys.executable, [sys.executable, "-m", __name__, *sys.orig_argv[1:]])  # noqa: S606


def number_of_this() -> int:
    """Which start of the stage in its pod this process is, from 1."""
    return int(os.environ.get(NUMBER, "1"))


def run(command: Sequence[str], most: int, *, pause: float = 5.0, cgroup: Path = _CGROUP) -> int:
    """Run a program, and again after a crash; the last exit code, or 128 and the number of a signal.

    A signal that we get is passed on to the program, which is then not started again. After exit code 1, a
    defect of ours, it is started once more. Each pause (seconds) is four times as long as the one before.
    """
    received: list[int] = []
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda number, _: received.append(number))
    defects = 0
    for number in range(1, most + 1):
        code = _start(command, number, received, cgroup)
        if code in _FINAL or received:
            break
        defects += code == 1
        said = f"attempt {number} of {most} ended with {describe_exit(code)}"
        if number == most or defects == 2:
            _say(f"{said}; given up")
            break
        seconds = min(pause * 4 ** (number - 1), _LONGEST_PAUSE)
        _say(f"{said}; the next begins in {seconds:.0f} s and continues from what was saved")
        end = time.monotonic() + seconds
        while time.monotonic() < end and not received:
            time.sleep(_POLL)
        if received:
            code = -received[0]
            break
    return code if code >= 0 else 128 - code


def _start(command: Sequence[str], number: int, received: Sequence[int], cgroup: Path) -> int:
    """Run the program once; its exit code, negative for a signal."""
    passed_on = 0
    with Child("the stage", command, None, environment={NUMBER: str(number)}) as child:
        while (code := child.poll()) is None:
            for one in received[passed_on:]:
                os.kill(child.pid, one)
                passed_on += 1
            share = memory_share(cgroup)
            if share > _FULL and not received:
                _say(
                    f"attempt {number} is ended: it holds {share:.0%} of the pod's memory limit, where the "
                    "kernel would kill the pod; if more attempts end so, the step needs more memory"
                )
                child.stop(_GRACE)
            else:
                time.sleep(_POLL)
    return code


def memory_share(cgroup: Path) -> float:
    """Share of a container's memory limit that only the end of its processes frees; 0 without a limit.

    Files that the kernel caches do not count; files in memory, as in /dev/shm, do. Reads control groups of
    version 2 or 1.
    """
    version_2 = (cgroup, "memory.current", "memory.max", "file", "shmem")
    version_1 = (
        cgroup / "memory",
        "memory.usage_in_bytes",
        "memory.limit_in_bytes",
        "total_cache",
        "total_shmem",
    )
    for folder, used, limit, files, in_memory in (version_2, version_1):
        try:
            total, most = (int((folder / name).read_text()) for name in (used, limit))
            lines = (folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # no such figures, or the limit is "max"
            continue
        parts = {name: int(value) for name, value in (line.split() for line in lines)}
        cached = parts.get(files, 0) - parts.get(in_memory, 0) + parts.get("slab_reclaimable", 0)
        return (total - cached) / most
    return 0.0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(run([sys.executable, *sys.argv[1:]], int(os.environ.pop(MOST))))
