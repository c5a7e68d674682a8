"""Which versions of the demonstrations the champion and its challengers were made from, by their lineage."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluation.plan import COMMON
from components.promote.stage import CHAMPION
from components.promote.stage import STAGE as PROMOTE
from components.runtime.errors import UserError
from components.store import lineage
from components.store.artifact import LINEAGE, Artifact

DEMONSTRATIONS = "demonstrations"


@dataclass(frozen=True)
class Judged:
    """A version that a policy was made from which went through promotion."""

    rev: str
    """Git commit."""
    md5: str
    """DVC's digest of the folder, without `.dir`."""
    finished: str
    """When promotion ended, ISO 8601 in UTC."""


@dataclass(frozen=True)
class Champion:
    """The promoted policy."""

    data: Judged
    """The demonstrations that it was made from."""
    checkpoint: Path
    """Folder of its common policy's checkpoint."""


def champion(folder: Path, workspace: Path) -> Champion | None:
    """The champion, None where there is none yet.

    Args:
        folder: folder of the champion's record.
        workspace: the workspace in which its artifacts lie.

    Raises:
        UserError: its leaderboard or checkpoint is not there any more, or is another.
    """
    path = folder / CHAMPION
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    board = Artifact.load(workspace / record["leaderboard"]["uri"])
    if board.digest != record["leaderboard"]["digest"]:
        raise UserError(
            f"{board.path} has the digest {board.digest}; the champion {path} has {record['leaderboard']}. "
            f"`b1k lineage verify {board.path}` names what changed"
        )
    checkpoint = workspace / record["checkpoints"][COMMON]["path"]
    if not checkpoint.is_dir():
        raise UserError(f"the champion's checkpoint {checkpoint} is missing; it is recorded in {path}")
    return Champion(_demonstrations(board), checkpoint)


def challengers(folder: Path, workspace: Path) -> list[Judged]:
    """What went through promotion against this champion, promoted or not, oldest first.

    Args:
        folder: folder of the champion's record.
        workspace: the workspace in which the artifacts lie.
    """
    return sorted(_challengers(folder, workspace), key=lambda judged: judged.finished)


def _challengers(folder: Path, workspace: Path) -> Iterator[Judged]:
    for path in (workspace / "artifacts" / PROMOTE.name).glob(f"*/{LINEAGE}"):
        if path.parent.suffix:  # .partial: not finished
            continue
        against = _build(path)["externalParameters"]["champion"] or workspace / "champion"
        if Path(against).resolve() == folder.resolve():
            yield _demonstrations(Artifact.load(path.parent))


def _build(path: Path) -> dict[str, Any]:
    build: dict[str, Any] = json.loads(path.read_text())["predicate"]["buildDefinition"]
    return build


def _demonstrations(artifact: Artifact) -> Judged:
    finished = ""
    try:
        for node in lineage.chain(artifact):
            finished = finished or node.lineage["predicate"]["runDetails"]["metadata"]["finishedOn"]
            for dependency in node.dependencies:
                if dependency["name"] == DEMONSTRATIONS:
                    digest = dependency["digest"]
                    return Judged(digest["gitCommit"], digest["md5"], finished)
    except FileNotFoundError as error:
        raise UserError(
            f"the lineage of {artifact.path} cannot be followed to its demonstrations: {error.filename} is "
            "missing. Give the revision to compare with (since)"
        ) from error
    raise UserError(
        f"the lineage of {artifact.path} names no demonstrations. Give the revision to compare with (since)"
    )
