"""Are there new demonstrations, and what should a policy that learns them start from?

Ends with `yes` or `no`, so that the pipeline `retrain` trains only when there is something to learn. The
version to compare with is the one that the champion was made from, by its lineage; a version whose challenger
went through promotion is not new either, promoted or not.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from components.demonstrations.news import read_version, whats_new
from components.demonstrations.repository import dvc_environment
from components.demonstrations.versions import DEMONSTRATIONS, absolute, dependency, resolve_revision
from components.errors import UserError
from components.evaluation.champion import Champion
from components.evaluation.plan import COMMON
from components.news.config import DECLARATION, Config, Inputs
from components.runtime.declaration import LOOP
from components.runtime.page import page, paragraph, table
from components.runtime.stage import Result, Stage, Work
from components.store import lineage
from components.store.artifact import Artifact, is_artifact
from components.store.champion import CHAMPION, champion_folder
from components.store.files import write_atomic

Digests = dict[str, str]
"""A version of the demonstrations: gitCommit, and md5, which is DVC's digest of the folder without `.dir`."""
_SITE_CACHE = ".dvc-site"


def resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
    """Replace revisions and champion by what they stand for now, and print that."""
    config = dataclasses.replace(config, repository=absolute(config.repository))
    folder = champion_folder(config.champion, workspace)
    commit = resolve_revision(config.repository, config.revision)
    known = [] if config.since else _challengers(folder, workspace)
    champion = _champion(folder, workspace)
    if champion is None:
        start = config.initial_checkpoint
        print(f"no champion in {folder}; training would start from {start or 'random values'}")
    else:
        data, start = champion
        known.append(data)
        print(f"champion: {start}, made from the demonstrations {data['gitCommit']}; to train from")
    since = resolve_revision(config.repository, config.since) if config.since else ""
    if known and not since:
        with dvc_environment(workspace / _SITE_CACHE):
            version = read_version(config.repository, commit, config.path, config.remote)
        # a version with the same files if one was judged, else the champion's
        same = [one for one in known if one["md5"] == version.md5.removesuffix(".dir")]
        since = (same or known)[-1]["gitCommit"]
    print(f"comparing {commit} with {since or 'nothing'}")
    return dataclasses.replace(
        config, revision=commit, since=since, champion=str(folder), initial_checkpoint=start
    )


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Compare the versions that `resolve` found, and write `news.json`."""
    with dvc_environment(work.workspace / _SITE_CACHE):
        found = whats_new(config, config.since)
    write_atomic(work.path / "news.json", json.dumps(found, indent=2) + "\n")
    new = found["revision"]
    return Result(
        metrics={
            "news": float(found["news"]),
            "commits": float(len(found["commits"])),
            **{f"files_{kind}": float(count) for kind, count in found["files"].items()},
        },
        parameters={
            LOOP: "yes" if found["news"] else "no",
            "commit": new["rev"],
            "checkpoint": config.initial_checkpoint,
        },
        metadata={"news": found["news"], "rev": new["rev"], "since": config.since},
        summary=_summary(found),
        html=page(
            "New demonstrations" if found["news"] else "No new demonstrations",
            paragraph(_summary(found)),
            table(("files", "number"), found["files"].items()),
        ),
        dependencies=(dependency(config.repository, config.path, new["rev"], new["md5"]),),
    )


def _summary(found: dict[str, Any]) -> str:
    rev, files = found["revision"]["rev"], found["files"]
    if found["news"]:
        counts = ", ".join(f"{count} {kind}" for kind, count in files.items())
        return f"yes: commit {rev} has new demonstrations (files: {counts})"
    relation = "is an older version than" if any(files.values()) else "has the same demonstrations as"
    return f"no news, nothing to train: commit {rev} {relation} commit {found['since']['rev']}"


def _champion(folder: Path, workspace: Path) -> tuple[Digests, str] | None:
    """What the champion of a folder was made from, and its common policy's checkpoint; None if there is none.

    Raises:
        UserError: its record is damaged, or its leaderboard or checkpoint is missing or another.
    """
    record = Champion.load(folder)
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
    return _demonstrations(board), str(checkpoint)


def _challengers(folder: Path, workspace: Path) -> list[Digests]:
    """What those were made from that were compared with the champion of a folder, oldest comparison first."""
    compared = [lineage.Node.read(p) for p in workspace.glob("artifacts/promote/*") if is_artifact(p)]
    return [
        _demonstrations(Artifact.load(node.path))
        for node in sorted(compared, key=lambda node: str(node.run["finishedOn"]))
        if champion_folder(node.parameters["champion"], workspace).resolve() == folder.resolve()
    ]


def _demonstrations(artifact: Artifact) -> Digests:
    try:
        for node in lineage.chain(artifact):
            for dependency in node.dependencies:
                if dependency["name"] == DEMONSTRATIONS:
                    return dict(dependency["digest"])
    except FileNotFoundError as error:
        raise UserError(
            f"the lineage of {artifact.path} cannot be followed to its demonstrations: {error.filename} is "
            "missing. Give the revision to compare with (since)"
        ) from error
    raise UserError(
        f"the lineage of {artifact.path} names no demonstrations. Give the revision to compare with (since)"
    )


STAGE = Stage(DECLARATION, run, resolve)
