"""What a folder holds: leaderboards, promotions, and runs of this machine."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.evaluation import records
from components.evaluation.plan import Plan
from components.evaluation.records import SCORES, Scores
from components.leaderboard.report_data import read_json
from components.promote.stage import DECISION, Decision
from components.store.artifact import is_artifact
from components.store.champion import CHAMPION
from components.store.lineage import UNREADABLE, Node

_DEPTH = 4
"""Folders below the root in which leaderboards are looked for."""
_SKIPPED = frozenset(
    {"videos", "rollouts", "checkpoint", "initial", "frames", "logs", "demonstrations", "remote"}
)


@dataclass(frozen=True)
class Board:
    """A leaderboard."""

    place: str
    """Its folder, relative to the root."""
    digest: str
    finished: str
    """ISO 8601."""
    q: float
    low: float
    high: float
    success: float
    tasks: int
    n: int
    policies: tuple[str, ...]
    """The chosen ones."""
    evaluator: str
    edition: str
    champion: bool
    """Whether a champion of the workspace was promoted on it."""


def boards(root: Path) -> list[Board]:
    """The leaderboards in a folder, the newest first; what cannot be read is left out."""
    champions = _champions(root)
    found = []
    for folder in _leaderboards(root):
        try:
            found.append(_board(root, folder, champions))
        except (*UNREADABLE, UserError):
            continue
    return sorted(found, key=lambda one: one.finished, reverse=True)


def unread(root: Path, found: list[Board]) -> list[str]:
    """Places of leaderboards that are damaged or of another version, which have no numbers here."""
    known = {board.place for board in found}
    places = (folder.relative_to(root).as_posix() for folder in _leaderboards(root))
    return [place for place in places if place not in known]


def _leaderboards(folder: Path, depth: int = 0) -> Iterator[Path]:
    if is_artifact(folder):  # inside of which is no other one
        if (folder / SCORES).is_file():
            yield folder
    elif depth <= _DEPTH:
        try:
            inside = sorted(folder.iterdir())
        except OSError:
            return
        for one in inside:
            if one.is_dir() and not one.is_symlink() and one.name not in _SKIPPED and one.name[0] != ".":
                yield from _leaderboards(one, depth + 1)


def _board(root: Path, folder: Path, champions: set[str]) -> Board:
    node, scores = Node.read(folder), Scores.load(folder)
    total = scores.overall
    plans = [place for name, place in node.inputs() if name == "plan"]
    plan = Plan.load(plans[0]) if plans and plans[0].is_dir() else None
    return Board(
        place=folder.relative_to(root).as_posix(),
        digest=node.digest,
        finished=str(node.run["finishedOn"]),
        q=total.q,
        low=total.low,
        high=total.high,
        success=total.success,
        tasks=total.tasks,
        n=total.n,
        policies=tuple(sorted(set(scores.chosen.values()))),
        evaluator=plan.evaluator if plan else "",
        edition=plan.edition if plan else "",
        champion=node.digest in champions,
    )


def _champions(root: Path) -> set[str]:
    """Digests of the leaderboards that champions below the root were promoted on."""
    found = set()
    for pattern in (CHAMPION, f"*/{CHAMPION}", f"*/*/{CHAMPION}"):
        for path in root.glob(pattern):
            found.add(str(read_json(path).get("leaderboard", {}).get("digest", "")))
    return found


def runs(root: Path) -> list[dict[str, Any]]:
    """Records of runs on this machine, the newest first."""
    found = [read_json(path) for path in root.glob("runs/*/run.json") if not path.parent.is_symlink()]
    return sorted(
        (one for one in found if one.get("id")), key=lambda one: str(one.get("started")), reverse=True
    )


def decision_of(board: Path) -> Decision | None:
    """The last promotion that a leaderboard went into; None where there is none that can be read."""
    found: dict[str, Decision] = {}
    for path in board.parents[1].glob(f"promote/*/{DECISION}"):
        with suppress(*UNREADABLE, UserError):
            node = Node.read(path.parent)
            if board.resolve() in {place.resolve() for _, place in node.inputs()}:
                found[str(node.run["finishedOn"])] = records.read(path, Decision, "promote again")
    return found[max(found)] if found else None
