"""Which versions of the demonstrations the champion and its challengers were made from, by their lineage."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.demonstrations.versions import DEMONSTRATIONS
from components.errors import UserError
from components.evaluation.plan import COMMON
from components.evaluation.records import Champion as Record
from components.store import lineage
from components.store.artifact import LINEAGE, Artifact
from components.store.champion import CHAMPION

_PROMOTE = "promote"
"""Name of the stage that judges challengers."""


@dataclass(frozen=True)
class Judged:
    """A version of the demonstrations whose policy went through promotion."""

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
    """The champion whose record is in a folder; None where there is none yet.

    Raises:
        UserError: its record is damaged, or its leaderboard or checkpoint is missing or another.
    """
    record = Record.load(folder)
    if record is None:
        return None
    board = Artifact.load(lineage.locate(record.leaderboard.uri, workspace))
    if board.digest != record.leaderboard.digest:
        raise UserError(
            f"{board.path} has the digest {board.digest}; the champion {folder / CHAMPION} has "
            f"{record.leaderboard.digest}. `b1k lineage verify {board.path}` names what changed"
        )
    checkpoint = lineage.locate(record.checkpoints[COMMON].uri, workspace) / "checkpoint"
    if not checkpoint.is_dir():
        raise UserError(
            f"the champion's checkpoint {checkpoint} is missing; it is recorded in {folder / CHAMPION}"
        )
    return Champion(_demonstrations(board), checkpoint)


def challengers(folder: Path, workspace: Path) -> list[Judged]:
    """What went through promotion against the champion of a folder, promoted or not, oldest first."""
    return sorted(_challengers(folder, workspace), key=lambda judged: judged.finished)


def _challengers(folder: Path, workspace: Path) -> Iterator[Judged]:
    for path in (workspace / "artifacts" / _PROMOTE).glob(f"*/{LINEAGE}"):
        if path.parent.suffix:  # .partial: not finished
            continue
        build = lineage.Node.read(path.parent).lineage["predicate"]["buildDefinition"]
        against = build["externalParameters"]["champion"] or workspace / "champion"
        if Path(against).resolve() == folder.resolve():
            yield _demonstrations(Artifact.load(path.parent))


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
