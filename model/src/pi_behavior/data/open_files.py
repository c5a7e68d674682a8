"""Files that stay open between reads, up to a number, since opening one costs more than reading from it."""

import resource
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def open_limit() -> int:
    """A third of the files that this process may have open, at most 1,024: training has two kinds of them."""
    return min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)


class OpenFiles(Generic[T]):
    """Opens files on demand and closes the one that was unused for longest; every thread has its own.

    A copy in another process begins without open files.

    Args:
        opener: opens a file.
        closer: closes what it returned.
    """

    def __init__(self, opener: Callable[[Path], T], closer: Callable[[T], None]) -> None:
        self._opener, self._closer = opener, closer
        self._threads = threading.local()

    def __call__(self, path: Path) -> T:
        """The open file."""
        files: OrderedDict[Path, T] = self._threads.__dict__.setdefault("files", OrderedDict())
        if path in files:
            files.move_to_end(path)
            return files[path]
        while len(files) >= open_limit():
            self._closer(files.popitem(last=False)[1])
        files[path] = self._opener(path)
        return files[path]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the open files."""
        return OpenFiles, (self._opener, self._closer)
