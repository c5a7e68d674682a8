"""Files that appear whole or not at all, also after a power cut."""

import os
from pathlib import Path


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
