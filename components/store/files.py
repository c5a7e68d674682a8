"""Writes files whole or not at all, also after a power cut, and finds what killed writers left."""

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = min(8, os.cpu_count() or 1)
_LEFTOVER = re.compile(r".+\.partial|\..+\.partial\.[^.]+|\..+\.removed")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old content or the whole new content, also after a power cut."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync(path.parent)


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def is_leftover(path: Path) -> bool:
    """Whether a file or folder has a name that only unfinished work has: `NAME.partial` and
    `.NAME.partial.SUFFIX`, with or without a process number before `.partial`, and `.NAME.removed`.
    """
    return _LEFTOVER.fullmatch(path.name) is not None


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder but those of unfinished writers; links to files count, as content."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_leftover(Path(name))]
        for name in names:
            path = Path(parent, name)
            if not is_leftover(path) and path.is_file():
                yield path


def remove_leftovers(folder: Path) -> None:
    """Remove what unfinished writers left below a folder in which nobody writes now."""
    for parent, folders, names in os.walk(folder):
        for name in [n for n in folders if is_leftover(Path(n))]:
            shutil.rmtree(Path(parent, name))
            folders.remove(name)
        for name in names:
            if is_leftover(Path(name)):
                Path(parent, name).unlink()


def sync(path: Path) -> None:
    """Bring a file's content, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Bring a folder, and all files and folders below it, to the disk."""
    folders = [Path(parent) for parent, _, _ in os.walk(folder)]
    with ThreadPoolExecutor(THREADS) as pool:  # each call waits for the disk or the network
        for _ in pool.map(sync, [*files_below(folder), *folders]):
            pass
