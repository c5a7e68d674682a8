"""Garbage of a workspace: artifacts and kept intermediates that nothing needs, and what killed work left."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from pathlib import Path

from components.errors import UserError
from components.store.artifact import is_artifact
from components.store.champion import artifacts_of
from components.store.files import is_leftover, sync
from components.store.lineage import UNREADABLE, Node
from components.store.making import exclusive, is_held, lock_of

_REMOVED = ".removed"
_MARGIN = 60.0
"""Seconds: stages mark their inputs as used before they take their lock, and clocks of nodes differ."""


@dataclass(frozen=True)
class Garbage:
    """One folder or file that nothing needs."""

    path: Path
    size: int
    """In bytes."""
    reason: str
    inputs: tuple[Path, ...] = ()
    """The artifacts of the workspace that it was made from."""


@dataclass(frozen=True)
class Survey:
    """What can be removed from a workspace, artifacts before what they were made from."""

    garbage: tuple[Garbage, ...]
    kept: Counter[str]
    """Number of artifacts that stay, by reason."""
    since: float
    """What was used or made since then stays; POSIX time."""


@dataclass(frozen=True)
class _Entry:
    """An artifact that lies in the workspace."""

    used: float
    """When it was last used or made."""
    inputs: tuple[Path, ...] | None = None
    """None where its lineage is damaged: unknown."""
    digest: str = ""
    champion: str | None = None
    """Of a promotion: the champion's folder in its configuration."""


def _read(path: Path) -> _Entry:
    used = path.stat().st_mtime
    try:
        node = Node.read(path)
        used = max(used, datetime.fromisoformat(node.run["finishedOn"]).timestamp())
        champion = node.parameters.get("champion", "") if path.parent.name == "promote" else None
        return _Entry(used, tuple(place for _, place in node.inputs()), node.digest, champion)
    except UNREADABLE:
        return _Entry(used)


def survey(
    workspace: Path, now: float, *, days: float, champions: int, running_since: float | None = None
) -> Survey:
    """Find what nothing in a workspace needs: no champion, no recent or running run, no kept artifact.

    Args:
        workspace: the folder shared by all stages. What other workspaces use of it is not known here.
        now: POSIX time.
        days: what was used or made in so many days stays.
        champions: number of former champions whose artifacts stay.
        running_since: when the oldest running run on the cluster began, POSIX time; runs on this file system
            are known by their locks.

    Raises:
        UserError: there is no workspace, or it cannot be known what is needed.
    """
    workspace = workspace.resolve()
    if not (workspace / "artifacts").is_dir():
        raise UserError(f"{workspace} has no artifacts; give the --workspace of stages that ran")
    locks = [*workspace.glob("artifacts/*/*.lock"), *workspace.glob(".lock")]
    begun = [lock.stat().st_mtime for lock in locks if is_held(lock)]
    begun += [running_since] if running_since is not None else []
    since = min([now - days * 86400, *(time - _MARGIN for time in begun)])
    entries = {path: _read(path) for path in workspace.glob("artifacts/*/*") if is_artifact(path)}
    graph = {path: entry.inputs or () for path, entry in entries.items()}
    order = [path for path in reversed([*TopologicalSorter(graph).static_order()]) if path in entries]
    kept = _wanted(workspace, entries, since, champions)
    for path in order:
        if path not in kept:
            continue
        if entries[path].inputs is None:
            raise UserError(
                f"{path} is needed ({kept[path]}), but its lineage is damaged: what it was made from is not "
                f"known. Nothing was removed. `b1k lineage verify {path}` names what changed"
            )
        for one in graph[path]:
            kept.setdefault(one, "what those were made from")
    kept = {path: why for path, why in kept.items() if path in entries}
    garbage = [
        Garbage(path, _measure(path)[0], f"last used {_date(entries[path].used)}", graph[path])
        for path in order
        if path not in kept
    ]
    digests = {entries[path].digest[:16] for path in kept}
    return Survey((*garbage, *_others(workspace, digests, since)), Counter(kept.values()), since)


def remove(survey: Survey) -> Iterator[tuple[Garbage, bool]]:
    """Remove what a survey found, but not what has been used since; yields whether each was removed.

    Killed at any moment, it leaves every artifact whole or gone.
    """
    spared: set[Path] = set()
    for item in survey.garbage:
        removed = item.path not in spared and _remove(item.path, survey.since)
        if not removed and item.path.exists():
            spared.update(item.inputs)
        yield item, removed


def _wanted(workspace: Path, entries: dict[Path, _Entry], since: float, champions: int) -> dict[Path, str]:
    """The artifacts that stay whatever was made from them, and why."""
    wanted = {path: f"used or made since {_date(since)}" for path, e in entries.items() if e.used >= since}
    for record in workspace.glob("runs/*/run.json"):  # written when a run begins and when it ends
        if record.stat().st_mtime >= since:
            uris = json.loads(record.read_text()).get("outputs", {}).values()
            wanted |= dict.fromkeys((workspace / uri for uri in uris), "of a run since then")
    # the last promotion tells which demonstrations were judged
    last = {e.champion: path for path, e in sorted(entries.items(), key=lambda item: item[1].used)}
    last.pop(None, None)
    wanted |= dict.fromkeys(last.values(), "the last comparison with a champion")
    named = {root / name for name in last if name for root in (workspace, Path.cwd())}
    for folder in (workspace / "champion", *sorted(named)):
        wanted |= dict.fromkeys(artifacts_of(folder, workspace, champions), "a champion's")
    return wanted


def _others(workspace: Path, digests: set[str], since: float) -> Iterator[Garbage]:
    """What is no artifact: folders of killed work, copied columns of datasets that go or are gone, records of
    runs' tasks, kept sums of statistics, and what checks gave.

    `digests` are the beginnings of the digests of artifacts that stay, which name their columns.
    """
    killed = (path for path in workspace.glob("artifacts/*/*") if is_leftover(path))
    columns = (path for path in workspace.glob("columns/*") if path.name not in digests)
    folders = (
        *((path, "left by killed work") for path in killed),
        *((path, "copied columns of a dataset that is gone") for path in columns),
        *((path, "records of a run that no message was made from") for path in workspace.glob("outcomes/*")),
    )
    sums = sorted(path for kind in ("keys", "sums") for path in workspace.glob(f"statistics/task-*.{kind}"))
    found = [
        *((path, reason) for path, reason in folders if path.is_dir()),
        *((path, "sums of demonstrations that no statistics read") for path in sums),
        *((path, "what checks of other code gave") for path in workspace.glob("checks/*.jsonl")),
    ]
    for path, reason in found:
        if not is_held(_lock(path)):
            size, changed = _measure(path)
            if changed < since or path.suffix == _REMOVED:
                yield Garbage(path, size, reason)


def _lock(path: Path) -> Path:
    """The lock of an artifact, also for its folder under construction or in removal."""
    return lock_of(path.with_name(path.name.removeprefix(".")))


def _remove(path: Path, since: float) -> bool:
    """Remove a folder or file, unless it is in use or was used since a time."""
    lock = _lock(path)
    aside = path.with_name(f".{lock.stem}{_REMOVED}")
    with exclusive(lock, None) as is_free:
        if not is_free or not path.exists() or (path != aside and path.stat().st_mtime >= since):
            return False
        if path.is_file():
            path.unlink()
        else:
            if path != aside:
                shutil.rmtree(aside, ignore_errors=True)  # of a removal that was killed
                path.rename(aside)
                sync(path.parent)
            shutil.rmtree(aside)
        lock.unlink()
    return True


def _measure(place: Path) -> tuple[int, float]:
    """Bytes of a file or of a folder's files, and the last time at which something in it changed."""
    status = place.stat()
    size, changed = status.st_size if place.is_file() else 0, status.st_mtime
    for parent, folders, names in os.walk(place):
        for name in (*folders, *names):
            with suppress(FileNotFoundError):  # somebody removes it now
                status = os.lstat(os.path.join(parent, name))
                size += status.st_size if name in names else 0
                changed = max(changed, status.st_mtime)
    return size, changed


def _date(time: float) -> str:
    return datetime.fromtimestamp(time).astimezone().isoformat(sep=" ", timespec="minutes")
