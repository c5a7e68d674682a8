"""Files that appear whole or not at all, also when the process is killed."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file aside, flush it to the disk and rename it into place.

    Args:
        path: the file to appear; its folder is made.
        write: gets a temporary path in the same folder, with the same suffix, and writes the content there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        write(aside)
        with aside.open("rb") as handle:
            os.fsync(handle.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text atomically.

    Args:
        path: the file.
        text: its whole content.
    """
    write_atomically(path, lambda aside: _write(aside, text))


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a JSON file atomically.

    Args:
        path: the file.
        value: what json can write; infinity is written as `Infinity`, as the challenge's evaluator does.
        indent: as for `json.dumps`.
    """
    write_text(path, json.dumps(value, indent=indent) + "\n")


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write a JSON-lines file atomically.

    Args:
        path: the file.
        rows: one value per line.
    """
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
