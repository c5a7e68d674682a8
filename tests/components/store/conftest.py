import importlib.util
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from components.store.artifact import Artifact

_spec = importlib.util.spec_from_file_location(
    "small_artifacts", Path(__file__).with_name("small_artifacts.py")
)
_artifacts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_artifacts)


@pytest.fixture
def make() -> Callable[..., Artifact]:
    """Makes small artifacts."""
    return _artifacts.make


def _killed_at(event: int, work: Callable[[], object]) -> bool:
    """Do work in a process that is killed at one of its uses of the file system; returns whether it was."""
    with warnings.catch_warnings():  # of JAX, which another test may have started: the child does not use it
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        child = os.fork()
    if child == 0:
        left = event
        watched = ("open", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")

        def count(name: str, arguments: tuple) -> None:
            nonlocal left
            if name in watched:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.fixture
def killed_at() -> Callable[[int, Callable[[], object]], bool]:
    """Does work in a process that is killed at one of its uses of the file system."""
    return _killed_at
