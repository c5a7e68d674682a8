"""Are there new demonstrations, and what should a policy that learns them start from?

Ends with `yes` or `no`, so that the pipeline `retrain` trains only when there is something to learn. The
version to compare with is the one that the champion was made from, by its lineage. A challenger
made from it which went through promotion makes it old as well, whatever came of it.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from components.demonstrations.news import Options, read_version, whats_new
from components.demonstrations.repository import dvc_environment
from components.demonstrations.versions import resolve_revision
from components.news import judged
from components.runtime.errors import UserError
from components.runtime.stage import Invocation, Result, Stage, Work
from components.store.artifact import Artifact, write_atomic
from components.store.lineage import Dependency

_SITE_CACHE = ".dvc-site"


@dataclass(frozen=True)
class Config:
    """Which demonstrations, and which champion."""

    repository: str = ""
    """Folder or URL of a git repository in which DVC keeps the dataset."""
    revision: str = "HEAD"
    """Branch, tag or commit of the version that may be new."""
    path: str = "data"
    """The dataset's folder in the repository."""
    remote: str = ""
    """DVC remote: a name, a folder or a URL (s3://bucket/prefix); empty for the repository's default."""
    since: str = ""
    """Version to compare with; empty for that of the champion and its challengers."""
    champion: str = ""
    """Folder of the champion's record; empty means `champion` in the workspace."""
    initial_checkpoint: str = ""
    """What to train from where there is no champion; empty for random values."""


@dataclass(frozen=True)
class Inputs:
    """Nothing: the question is about the world outside."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Compare the versions that `NewsStage` resolved, and write `news.json`."""
    options = Options(config.repository, config.since, config.revision, config.path, config.remote)
    with dvc_environment(work.workspace / _SITE_CACHE):
        found = whats_new(options)
    write_atomic(work.path / "news.json", json.dumps(found, indent=2) + "\n")
    new = found["revision"]
    return Result(
        metrics={
            "news": float(found["news"]),
            "commits": float(len(found["commits"])),
            **{f"files_{kind}": float(count) for kind, count in found["files"].items()},
        },
        parameters={
            "Output": "yes" if found["news"] else "no",
            "commit": new["rev"],
            "checkpoint": config.initial_checkpoint,
        },
        metadata={"news": found["news"], "rev": new["rev"], "since": config.since},
        dependencies=(
            Dependency(
                judged.DEMONSTRATIONS,
                f"dvc+{config.repository}#{config.path}",
                {"gitCommit": new["rev"], "md5": new["md5"].removesuffix(".dir")},
            ),
        ),
    )


class NewsStage(Stage[Config, Inputs]):
    """A stage whose key is what the revisions and the champion are now."""

    def execute(
        self, config: Config, inputs: Inputs, workspace: Path, invocation: Invocation | None = None
    ) -> tuple[Artifact, Result, bool]:
        """Resolve revisions and champion, then compare, or return the comparison that is there."""
        if not config.repository:
            raise UserError("no repository given; expected the git and DVC repository of the demonstrations")
        if Path(config.repository).is_dir():
            config = dataclasses.replace(config, repository=str(Path(config.repository).resolve()))
        with dvc_environment(workspace.resolve() / _SITE_CACHE):
            config = _resolve(config, workspace.resolve())
        artifact, result, cached = super().execute(config, inputs, workspace, invocation)
        print(f"news: {result.parameters['Output']}, commit {result.parameters['commit']}")
        return artifact, result, cached


def _resolve(config: Config, workspace: Path) -> Config:
    """Replace names by what they stand for now, and say so."""
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
        since = _last(config, commit, champion, judged.challengers(folder, workspace))
    print(f"comparing {commit} with {since or 'nothing'}")
    return dataclasses.replace(
        config, revision=commit, since=since, champion=str(folder), initial_checkpoint=checkpoint
    )


def _last(
    config: Config, commit: str, champion: judged.Champion | None, challengers: list[judged.Judged]
) -> str:
    """The version to compare with: one with the same files if it was judged, else the champion's."""
    if not challengers and champion is None:
        return ""
    known = [*challengers, champion.data] if champion is not None else challengers
    md5 = read_version(config.repository, commit, config.path, config.remote).md5.removesuffix(".dir")
    same = [one for one in known if one.md5 == md5]
    return (same or known)[-1].rev


STAGE = NewsStage(
    "news",
    Config,
    Inputs,
    run,
    ("components.demonstrations.news", "components.demonstrations.versions", "pi_behavior.challenge"),
)
