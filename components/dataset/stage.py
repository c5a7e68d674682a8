"""Fetch a version of the demonstrations from a git and DVC repository, check it, and record what it is."""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.dataset.checks import CHECKS, Finding, check_dataset
from components.demonstrations.repository import dvc_environment
from components.demonstrations.versions import Version, fetch, manifest, open_version, resolve_revision
from components.runtime.errors import UserError
from components.runtime.stage import Invocation, Result, Stage, Work
from components.store.artifact import Artifact, write_atomic
from components.store.lineage import Dependency
from pi_behavior.data.lerobot import DatasetError, LeRobotDataset

_SHOWN = 5


@dataclass(frozen=True)
class Config:
    """Which demonstrations."""

    repository: str = ""
    """Folder or URL of a git repository in which DVC keeps the dataset."""
    revision: str = "HEAD"
    """Branch, tag or commit of the version."""
    path: str = "data"
    """The dataset's folder in the repository."""
    remote: str = ""
    """DVC remote: a name, a folder or a URL (s3://bucket/prefix); empty for the repository's default."""
    decode_all: bool = True
    """Decode every frame of every video in the checks; otherwise count them and decode first and last."""
    limit_tolerance: float = 0.05
    """How far values may be outside the robot's limits: rad, m/s, or gripper units."""


@dataclass(frozen=True)
class Inputs:
    """Nothing: the data come from DVC."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Fetch and check, and write `data/`, `version.json`, `dvc.json` and `checks.json`."""
    data = work.path / "data"
    with (
        dvc_environment(work.workspace / ".dvc-site"),
        open_version(config.repository, config.revision, config.path, config.remote) as (system, version),
        work.progress.task("fetching files", total=len(version.files)) as files,
    ):
        fetch(system, version, config.path, data, files.advance)
    try:
        dataset = LeRobotDataset(data)
        episodes = dataset.episodes
    except DatasetError as error:
        raise UserError(str(error)) from error
    with work.progress.task("checking episodes", total=len(episodes)) as bar:
        findings = check_dataset(
            dataset,
            decode_all=config.decode_all,
            tolerance=config.limit_tolerance,
            on_episode=bar.advance,
        )
    write_atomic(work.path / "checks.json", json.dumps(_report(findings), indent=2) + "\n")
    if findings:
        shown = "".join(f"\n  {f.check}: {f.message}" for f in findings[:_SHOWN])
        rest = f"\n  and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
        raise UserError(
            f"{len(findings)} problems in the dataset; all are in {work.path / 'checks.json'}{shown}{rest}"
        )
    facts = _facts(config, version, dataset, data)
    write_atomic(work.path / "dvc.json", manifest(version))
    write_atomic(work.path / "version.json", json.dumps(facts, indent=2) + "\n")
    counts = {name: facts[name] for name in ("episodes", "frames", "files", "bytes")}
    return Result(
        metrics={name: float(value) for name, value in counts.items()},
        metadata={"rev": version.rev, "md5": version.md5, **counts},
        dependencies=(
            Dependency(
                "demonstrations",
                f"dvc+{config.repository}#{config.path}",
                {"gitCommit": version.rev, "md5": version.md5.removesuffix(".dir")},
            ),
        ),
    )


def _report(findings: list[Finding]) -> dict[str, Any]:
    counts = Counter(f.check for f in findings)
    return {
        "passed": not findings,
        "checks": {name: {"expects": text, "problems": counts[name]} for name, text in CHECKS.items()},
        "problems": [dataclasses.asdict(f) for f in findings],
    }


def _facts(config: Config, version: Version, dataset: LeRobotDataset, data: Path) -> dict[str, Any]:
    tasks = {
        name: {
            "episodes": sum(e.task == index for e in dataset.episodes),
            "frames": sum(e.length for e in dataset.episodes if e.task == index),
        }
        for index, name in dataset.task_names.items()
    }
    return {
        "repository": config.repository,
        "rev": version.rev,
        "path": config.path,
        "md5": version.md5,
        "files": len(version.files),
        "bytes": sum((data / name).stat().st_size for name in version.files),
        "episodes": len(dataset.episodes),
        "frames": sum(e.length for e in dataset.episodes),
        "tasks": tasks,
        "fps": dataset.fps,
        "codebase_version": dataset.info["codebase_version"],
    }


class DatasetStage(Stage[Config, Inputs]):
    """A stage whose key is the commit that a revision names now: `HEAD` alone would not notice new data."""

    def execute(
        self, config: Config, inputs: Inputs, workspace: Path, invocation: Invocation | None = None
    ) -> tuple[Artifact, Result, bool]:
        """Make the artifact of the revision's commit, or return the one that is there."""
        if not config.repository:
            raise UserError("no repository given; expected the git and DVC repository of the demonstrations")
        if Path(config.repository).is_dir():
            config = dataclasses.replace(config, repository=str(Path(config.repository).resolve()))
        commit = resolve_revision(config.repository, config.revision)
        return super().execute(dataclasses.replace(config, revision=commit), inputs, workspace, invocation)


STAGE = DatasetStage(
    "dataset",
    Config,
    Inputs,
    run,
    ("pi_behavior.data.lerobot", "pi_behavior.data.video", "pi_behavior.layout", "pi_behavior.challenge"),
)
