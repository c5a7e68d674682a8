"""Artifacts: finished output folders of stages, and the small records that KFP passes.

An artifact is a folder `<workspace>/artifacts/<stage>/<fingerprint>/` with its content, `result.json`,
`lineage.json` and `SHA256SUMS`.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.store.files import is_leftover, write_atomic
from components.store.sums import LINEAGE, SUMS, sha256_file

RESULT = "result.json"
RECORD = "artifact.json"
__all__ = ["LINEAGE", "RECORD", "RESULT", "Artifact", "is_artifact"]


def is_artifact(folder: Path) -> bool:
    """Whether a folder is a finished artifact."""
    return not is_leftover(folder) and (folder / LINEAGE).is_file() and (folder / SUMS).is_file()


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk."""

    path: Path
    """The folder with the content."""
    stage: str
    """Name of the stage that made it."""
    digest: str
    """Hex SHA-256 tree digest of the content."""
    fingerprint: str
    """The stage's key over configuration, inputs and code."""
    lineage_digest: str
    """Hex SHA-256 of `lineage.json`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Facts from the stage, as shown in the Kubeflow UI."""

    @property
    def workspace(self) -> Path:
        """The workspace in which the artifact lies."""
        return self.path.parents[2]

    @property
    def uri(self) -> str:
        """The artifact's path relative to its workspace, which is how lineage names it."""
        return self.path.relative_to(self.workspace).as_posix()

    @property
    def identity(self) -> tuple[str, str]:
        """What it is as an input: its content, and what that was made from. An artifact that is made again
        with the same content keeps it, while the lineage's digest changes with times and run ids.
        """
        return self.digest, self.fingerprint

    @classmethod
    def load(cls, path: Path | str) -> "Artifact":
        """Open an artifact by its folder or by the record that KFP passes; UserError if it is none."""
        folder = Path(path)
        record = folder / RECORD
        if record.is_file():
            folder = Path(json.loads(record.read_text())["uri"])
        if not is_artifact(folder):
            raise UserError(
                f"{folder} is not an artifact: expected a folder with {LINEAGE} and {SUMS}, or a record with "
                f"{RECORD}. Give the folder of a finished stage, <workspace>/artifacts/<stage>/<fingerprint>"
            )
        folder = folder.resolve()
        try:
            lineage = json.loads((folder / LINEAGE).read_text())
            digest = lineage["subject"][0]["digest"]["sha256"]
            made_by = lineage["predicate"]["buildDefinition"]["internalParameters"]
            stage, fingerprint = made_by["stage"], made_by["fingerprint"]
            metadata = json.loads((folder / RESULT).read_text())["metadata"]
        except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
            raise UserError(
                f"{folder} cannot be read as an artifact: {type(error).__name__}: {error}. "
                f"`b1k lineage verify {folder}` names what changed"
            ) from error
        return cls(folder, stage, digest, fingerprint, sha256_file(folder / LINEAGE), metadata)

    @classmethod
    def containing(cls, folder: Path) -> "Artifact | None":
        """The artifact that a folder lies in, or is; None where it lies in none."""
        folder = folder.resolve()
        return next((cls.load(one) for one in (folder, *folder.parents) if is_artifact(one)), None)

    def touch(self) -> None:
        """Mark it as used now, so that it is not soon removed as old."""
        with suppress(OSError):  # a read-only file system: nothing is removed there either
            os.utime(self.path)

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
