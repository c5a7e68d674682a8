"""The artifacts that the record of a champion, `champion.json`, names."""

import json
from pathlib import Path

from components.errors import UserError
from components.store.lineage import UNREADABLE, locate

CHAMPION = "champion.json"
FORMER_CHAMPIONS = "history.jsonl"
"""Beside `champion.json`: the former champions, one per line, oldest first."""


def champion_folder(given: str, workspace: Path) -> Path:
    """The absolute folder of a champion that a setting names; where it names none, that of the workspace."""
    return Path(given).resolve() if given else workspace / "champion"


def artifacts_of(folder: Path, workspace: Path, former: int = 0) -> dict[Path, str]:
    """Folders and tree digests of the leaderboard and the policies of a champion; empty where there is none.

    Args:
        folder: the champion's folder.
        workspace: what the URIs of the record are relative to.
        former: number of former champions to add, the last ones.
    """
    found = {}
    for path, count in ((folder / FORMER_CHAMPIONS, former), (folder / CHAMPION, 1)):
        try:
            text = path.read_text() if path.exists() else ""
            records = text.splitlines() if path.suffix == ".jsonl" else [text] if text else []
            for record in map(json.loads, records[max(0, len(records) - count) :]):
                for one in (record["leaderboard"], *record["checkpoints"].values()):
                    found[locate(one["uri"], workspace.resolve())] = str(one["digest"])
        except UNREADABLE as error:
            raise UserError(
                f"{path} is no champion's record ({type(error).__name__}: {error}); expected its leaderboard "
                "and checkpoints, each with uri and digest. Fix the file or move it away"
            ) from error
    return found
