"""Digests of files and folders, in the format of sha256sum: anyone can check a folder without this project.

The digest of a folder is the SHA-256 of the lines of its `SHA256SUMS` for all files but `lineage.json`: the
lineage holds that digest as its subject, so it cannot be part of it.
"""

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.errors import UserError
from components.store.files import THREADS, files_below

SUMS = "SHA256SUMS"
LINEAGE = "lineage.json"
ENVELOPE = "lineage.dsse.json"
"""The signed lineage, see `signing.py`."""
_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)")
_UNFIT = re.compile("[\n\r\\\\\ud800-\udfff]")
"""What the format has no plain line for: line breaks, backslashes, and bytes that are not UTF-8."""


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Hex SHA-256 of every file below a folder, by its path relative to the folder.

    Links to files are followed; `SHA256SUMS`, signed lineage and files of unfinished writers are left out.
    Files whose digest is `known` are not read. UserError if a file's name cannot be written as a line of
    `SHA256SUMS`.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in files_below(folder))
    names = [name for name in names if name not in (SUMS, ENVELOPE)]
    for name in names:
        if _UNFIT.search(name):
            raise UserError(f"the file name {name!r} has a line break, a backslash or no UTF-8; rename it")

    known = known or {}

    def digest(name: str) -> str:
        return known[name] if name in known else sha256_file(folder / name)

    with ThreadPoolExecutor(THREADS) as pool:  # hashlib releases the interpreter lock
        return dict(zip(names, pool.map(digest, names), strict=True))


def tree_digest(sums: Mapping[str, str]) -> str:
    """Digest of a folder's content from the digests of its files; `lineage.json` does not count."""
    content = {name: digest for name, digest in sums.items() if name != LINEAGE}
    return hashlib.sha256(format_sums(content).encode()).hexdigest()


def format_sums(sums: Mapping[str, str]) -> str:
    """The text of `SHA256SUMS`."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def parse_sums(text: str) -> dict[str, str]:
    """Read the text of `SHA256SUMS`; ValueError for other text, or a path that is in it twice."""
    sums: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} is {line!r}; expected '<64 hex digits>  <path>'")
        if match[2] in sums:
            raise ValueError(f"line {number} names {match[2]!r} a second time")
        sums[match[2]] = match[1]
    return sums
