"""Worker processes of this package."""

import ctypes
import multiprocessing
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def begin_worker(*_: object) -> None:
    """Tie a worker process to its parent: the kernel kills it when the parent ends, kill -9 included.

    Linux only. Ctrl-C reaches the whole process group, and the parent decides what follows.
    """
    parent = multiprocessing.parent_process()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent.pid:  # it ended before the call above
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
