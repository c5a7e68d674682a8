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
from components.demonstrations.versions import absolute, dependency, resolve_revision
from components.news import judged
from components.news.config import DECLARATION, Config, Inputs
from components.runtime.declaration import LOOP
from components.runtime.stage import Result, Stage, Work
from components.store.files import write_atomic

_SITE_CACHE = ".dvc-site"


def resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
    """Replace revisions and champion by what they stand for now, and print that."""
    config = dataclasses.replace(config, repository=absolute(config.repository))
    folder = Path(config.champion) if config.champion else workspace / "champion"
    commit = resolve_revision(config.repository, config.revision)
    champion = judged.champion(folder, workspace)
    checkpoint = config.initial_checkpoint
    if champion is not None:
        checkpoint = str(champion.checkpoint)
        print(f"champion: {checkpoint}, made from the demonstrations {champion.data.rev}; to train from")
    else:
        print(f"no champion in {folder}; training would start from {checkpoint or 'random values'}")
    if config.since:
        since = resolve_revision(config.repository, config.since)
    else:
        with dvc_environment(workspace / _SITE_CACHE):
            since = _last(config, commit, champion, judged.challengers(folder, workspace))
    print(f"comparing {commit} with {since or 'nothing'}")
    return dataclasses.replace(
        config, revision=commit, since=since, champion=str(folder), initial_checkpoint=checkpoint
    )


def _last(
    config: Config, commit: str, champion: judged.Champion | None, challengers: list[judged.Judged]
) -> str:
    """The version to compare with: one with the same files if it was judged, else the champion's."""
    known = [*challengers, champion.data] if champion is not None else challengers
    if not known:
        return ""
    md5 = read_version(config.repository, commit, config.path, config.remote).md5.removesuffix(".dir")
    same = [one for one in known if one.md5 == md5]
    return (same or known)[-1].rev


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
        dependencies=(dependency(config.repository, config.path, new["rev"], new["md5"]),),
    )


def _summary(found: dict[str, Any]) -> str:
    rev, files = found["revision"]["rev"], found["files"]
    if found["news"]:
        counts = ", ".join(f"{count} {kind}" for kind, count in files.items())
        return f"yes: commit {rev} has new demonstrations (files: {counts})"
    relation = "is an older version than" if any(files.values()) else "has the same demonstrations as"
    return f"no news, nothing to train: commit {rev} {relation} commit {found['since']['rev']}"


STAGE = Stage(DECLARATION, run, resolve)
