"""Files that appear whole or not at all, also after a power cut."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUMS = "sums.json"
"""File of a folder with the SHA-256 of its other files, by their path in it."""


class NoSpaceError(ValueError):
    """What is to be written does not fit on the disk."""


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that readers see the old text or the whole new text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def hash_files(folder: Path) -> dict[str, str]:
    """Hex SHA-256 of a folder's files by their path in it, sorted."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())

    def one(name: str) -> str:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    # hashlib releases the interpreter lock
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


def write_sums(folder: Path) -> None:
    """Write the checksums of a folder's files into it."""
    write_atomic(folder / SUMS, json.dumps(hash_files(folder), indent=1))


def changed_files(folder: Path, found: Mapping[str, str] | None = None) -> list[str] | None:
    """Files of a folder that are missing, new, or not what they were.

    Args:
        folder: the folder.
        found: the checksums of its files, where they are known.

    Returns:
        Paths in the folder; None if it has no checksums to compare with.
    """
    try:
        recorded = json.loads((folder / SUMS).read_text())
    except (OSError, ValueError):
        return None
    now = {name: digest for name, digest in (found or hash_files(folder)).items() if name != SUMS}
    return sorted(name for name in recorded.keys() | now.keys() if recorded.get(name) != now.get(name))
