"""Fetch a version of the demonstrations from a git and DVC repository, check it, and record what it is."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

from components.dataset.checks import CHECKS, Finding, check_complete, check_dataset, dataset_files
from components.dataset.config import DECLARATION, Config, Inputs
from components.demonstrations.repository import dvc_environment
from components.demonstrations.versions import (
    Version,
    absolute,
    dependency,
    fetch,
    manifest,
    open_version,
    resolve_revision,
)
from components.errors import UserError
from components.runtime.page import page, paragraph, table
from components.runtime.stage import Result, Stage, Work
from components.store.files import write_atomic
from pi_behavior.data.lerobot import DatasetError, LeRobotDataset

_SHOWN = 5


def resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
    """Replace the revision by its commit: under the name `HEAD`, new data would have the same fingerprint."""
    repository = absolute(config.repository)
    commit = resolve_revision(repository, config.revision)
    return dataclasses.replace(config, repository=repository, revision=commit)


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Fetch and check, and write `data/`, `version.json`, `dvc.json` and `checks.json`."""
    data = work.path / "data"
    with dvc_environment(work.workspace / ".dvc-site"):
        system, version = open_version(config.repository, config.revision, config.path, config.remote)
        with work.progress.task("fetching files", total=len(version.files)) as files:
            fetch(system, version, config.path, data, files.advance)
    try:
        dataset = LeRobotDataset(data)
        check_complete(dataset)
    except DatasetError as error:
        raise UserError(str(error)) from error
    with work.progress.task("checking files", total=len(dataset_files(dataset))) as bar:
        findings = check_dataset(
            dataset,
            decode_all=config.decode_all,
            tolerance=config.limit_tolerance,
            on_file=bar.advance,
        )
    write_atomic(work.path / "checks.json", json.dumps(_report(findings), indent=2) + "\n")
    if findings:
        shown = "".join(f"\n  {f.check}: {f.message}" for f in findings[:_SHOWN])
        rest = f"\n  and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
        raise UserError(
            f"problems in the dataset: {len(findings)}; all are in {work.path / 'checks.json'}{shown}{rest}"
        )
    facts = _facts(config, version, dataset, data)
    write_atomic(work.path / "dvc.json", manifest(version))
    write_atomic(work.path / "version.json", json.dumps(facts, indent=2) + "\n")
    counts = {name: facts[name] for name in ("episodes", "frames", "files", "bytes")}
    return Result(
        metrics={name: float(value) for name, value in counts.items()},
        metadata={"rev": version.rev, "md5": version.md5, **counts},
        summary=f"{counts['episodes']} episodes, {counts['frames']} frames, of commit {version.rev}",
        html=_page(config, version, facts),
        dependencies=(dependency(config.repository, config.path, version.rev, version.md5),),
    )


def _page(config: Config, version: Version, facts: dict[str, Any]) -> str:
    tasks = [(name, one["episodes"], one["frames"]) for name, one in facts["tasks"].items()]
    return page(
        "Demonstrations",
        paragraph(
            f"Commit {version.rev} of {config.repository}, {facts['files']:,} files, all checks passed."
        ),
        table(("task", "episodes", "frames"), tasks),
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
        "codebase_version": dataset.codebase_version,
    }


STAGE = Stage(DECLARATION, run, resolve)
