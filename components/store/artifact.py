"""Artifacts: finished output folders of stages, their digests, and the small records that KFP passes.

An artifact is a folder `<workspace>/artifacts/<stage>/<fingerprint>/` with its content, `result.json`,
`lineage.json` and `SHA256SUMS` (the format of sha256sum, so that anyone can check a folder without us).
Its digest is the SHA-256 of the lines of `SHA256SUMS` for all files but `lineage.json`: the lineage holds
that digest as its subject, so it cannot be part of it.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.runtime.errors import UserError

SUMS = "SHA256SUMS"
LINEAGE = "lineage.json"
RESULT = "result.json"
RECORD = "artifact.json"
_LINE = re.compile(r"^([0-9a-f]{64})  ([^\n]+)$")


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


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path, on_file: Callable[[], None] | None = None) -> dict[str, str]:
    """Hex SHA-256 of every file below a folder but `SHA256SUMS`, by its path relative to the folder.

    Args:
        folder: the folder to read; links to files are followed, they are content.
        on_file: called after each file, for a progress display.

    Raises:
        UserError: a file's name cannot be written as a line of `SHA256SUMS`.
    """
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    paths = [p for p in paths if p != SUMS]
    for name in paths:
        if "\n" in name or "\\" in name:
            raise UserError(f"the file name {name!r} holds a line break or backslash; rename it")

    def digest(name: str) -> str:
        value = sha256_file(folder / name)
        if on_file is not None:
            on_file()
        return value

    # hashlib releases the interpreter lock, so threads use all cores
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(paths, pool.map(digest, paths), strict=True))


def tree_digest(sums: Mapping[str, str]) -> str:
    """Digest of a folder's content from the digests of its files; `lineage.json` does not count."""
    lines = (f"{sums[name]}  {name}\n" for name in sorted(sums) if name != LINEAGE)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def format_sums(sums: Mapping[str, str]) -> str:
    """The text of `SHA256SUMS`."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def parse_sums(text: str) -> dict[str, str]:
    """Read the text of `SHA256SUMS`.

    Raises:
        ValueError: a line is not `<64 hex digits>  <path>`, or a path stands twice.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"line {number} is {line!r}; expected '<64 hex digits>  <path>'")
        if match[2] in sums:
            raise ValueError(f"line {number} names {match[2]!r} a second time")
        sums[match[2]] = match[1]
    return sums


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk."""

    path: Path
    """The folder with the content."""
    stage: str
    """Name of the stage that made it."""
    digest: str
    """Hex SHA-256 tree digest of the content."""
    lineage_digest: str
    """Hex SHA-256 of `lineage.json`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the stage says of it, as shown in the Kubeflow UI."""

    @property
    def workspace(self) -> Path:
        """The workspace in which the artifact lies."""
        return self.path.parents[2]

    @property
    def uri(self) -> str:
        """The artifact's place relative to its workspace, which is how lineage names it."""
        return self.path.relative_to(self.workspace).as_posix()

    @classmethod
    def load(cls, path: Path | str) -> "Artifact":
        """Open an artifact by its own folder or by the record that KFP passes.

        Raises:
            UserError: there is no artifact at the path.
        """
        folder = Path(path)
        record = folder / RECORD
        if record.is_file():
            folder = Path(json.loads(record.read_text())["uri"])
        if not (folder / LINEAGE).is_file() or not (folder / SUMS).is_file():
            raise UserError(
                f"{folder} is not an artifact: expected a folder with {LINEAGE} and {SUMS}, or a record with "
                f"{RECORD}. Give the folder of a finished stage, <workspace>/artifacts/<stage>/<fingerprint>"
            )
        folder = folder.resolve()
        try:
            lineage = json.loads((folder / LINEAGE).read_text())
            digest = lineage["subject"][0]["digest"]["sha256"]
            stage = lineage["predicate"]["buildDefinition"]["internalParameters"]["stage"]
            result = json.loads((folder / RESULT).read_text())
        except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
            raise UserError(
                f"{folder} cannot be read as an artifact: {type(error).__name__}: {error}. "
                f"`b1k lineage verify {folder}` names what changed"
            ) from error
        return cls(folder, stage, digest, sha256_file(folder / LINEAGE), result["metadata"])

    def write_record(self, folder: Path) -> None:
        """Write the record that KFP passes from task to task: where the artifact is, and its digests."""
        record = {
            "stage": self.stage,
            "uri": str(self.path),
            "digest": self.digest,
            "lineage_digest": self.lineage_digest,
            "metadata": dict(self.metadata),
        }
        write_atomic(folder / RECORD, json.dumps(record, indent=2) + "\n")
