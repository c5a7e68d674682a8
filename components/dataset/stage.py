"""Fetch a version of the demonstrations from a git and DVC repository, check it, and record what it is.

What the workspace holds of other versions is linked, not fetched, and not checked again.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.dataset import report
from components.dataset.check_whole import length_outliers
from components.dataset.checks import (
    File,
    Memory,
    Options,
    check_complete,
    check_dataset,
    dataset_files,
    missing_files,
)
from components.dataset.config import DECLARATION, Config, Inputs
from components.dataset.findings import Finding
from components.demonstrations.fetching import MANIFEST, Fetch
from components.demonstrations.repository import dvc_environment
from components.demonstrations.selection import chosen_files, meta_files, task_indices
from components.demonstrations.versions import (
    Version,
    absolute,
    dependency,
    manifest,
    open_version,
    resolve_revision,
)
from components.errors import UserError
from components.runtime.stage import Result, Stage, Work
from components.store.files import write_atomic
from components.store.identity import code_digest
from pi_behavior.data.curation import CURATION, Curation, name_of
from pi_behavior.data.lerobot import DatasetError, LeRobotDataset
from pi_behavior.layout import CAMERAS


def resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
    """Replace the revision by its commit: under the name `HEAD`, new data would have the same fingerprint."""
    repository = absolute(config.repository)
    commit = resolve_revision(repository, config.revision)
    return dataclasses.replace(config, repository=repository, revision=commit)


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Fetch and check, and write `data/`, `version.json`, `dvc.json` and `checks.json`."""
    try:
        version, names, sums = _fetch(config, work)
        curation, findings = _check(config, work, sums)
        data = work.path / "data"
        curation.save(data)
        dataset = LeRobotDataset(data)
        left_out = curation.left_out
        cut = sum(e.before + e.after for e in dataset.episodes)
    except DatasetError as error:
        raise UserError(str(error)) from error
    checks = report.as_json(findings, left_out, cut)
    files = {name: version.files[name] for name in names}
    facts = _facts(config, version, files, dataset)
    write_atomic(work.path / "checks.json", json.dumps(checks, indent=2) + "\n")
    write_atomic(work.path / MANIFEST, manifest(files))
    write_atomic(work.path / "version.json", json.dumps(facts, indent=2) + "\n")
    counts = {name: facts[name] for name in ("episodes", "frames", "files", "bytes")}
    without = f", without {len(left_out)} that were left out" if left_out else ""
    return Result(
        metrics={**{name: float(value) for name, value in counts.items()}, "left_out": float(len(left_out))},
        metadata={"rev": version.rev, "md5": version.md5, **counts},
        summary=f"{counts['episodes']} episodes, {counts['frames']} frames, of commit {version.rev}{without}",
        html=report.as_page(
            checks,
            f"Commit {version.rev} of {config.repository}, {len(files):,} files.",
            facts["tasks"],
        ),
        dependencies=(dependency(config.repository, config.path, version.rev, version.md5),),
        sums={name: digest for name, digest in sums.items() if name != f"data/{CURATION}"},
    )


def _fetch(config: Config, work: Work) -> tuple[Version, list[str], Mapping[str, str]]:
    """The version, the names of its files that were chosen and are there now, and their SHA-256."""
    with dvc_environment(work.workspace / ".dvc-site"):
        system, version = open_version(config.repository, config.revision, config.path, config.remote)
        fetch = Fetch(system, version, config.path, work.path)
        names = list(version.files)
        if config.tasks or config.cameras or config.modalities:
            fetch(meta_files(names))
            names = chosen_files(
                LeRobotDataset(fetch.data, Curation()),
                names,
                tasks=task_indices(config.tasks),
                cameras=config.cameras,
                modalities=config.modalities,
            )
        fetch.remove_others(names)
        fetch.check_space(names)
        with work.progress.task("fetching files", total=len(names)) as files:
            fetch(names, files.advance)
    return version, names, fetch.finish()


def _check(config: Config, work: Work, sums: Mapping[str, str]) -> tuple[Curation, list[Finding]]:
    """Check what was fetched; returns what of it is used, and what was found in the rest.

    Raises:
        UserError: something is wrong in what is used.
    """
    curation = Curation(tasks=task_indices(config.tasks))
    dataset = LeRobotDataset(work.path / "data", curation)
    has_pictures = not config.modalities or "rgb" in config.modalities
    cameras = [c for c in CAMERAS if has_pictures and c in (config.cameras or CAMERAS)]
    files = dataset_files(dataset, cameras)
    if not config.quarantine:
        check_complete(dataset, files)
    findings, used = _check_files(config, work, dataset, files, sums)
    left_out = length_outliers(dataset.episodes, config.length_factor)
    if config.quarantine:
        for finding in findings:
            left_out |= dict.fromkeys(finding.episodes, f"{finding.check}: {finding.message}")
    wrong = [f for f in findings if not config.quarantine or not f.episodes]
    if not wrong and len(left_out) == len(dataset.episodes):
        raise UserError(f"no episode is left of {len(left_out)}; first: {next(iter(left_out.values()), '')}")
    if wrong:
        checks = report.as_json(findings, {}, 0)
        write_atomic(work.path / "checks.json", json.dumps(checks, indent=2) + "\n")
        intro = f"Commit {config.revision} of {config.repository} has problems."
        write_atomic(work.path / "checks.html", report.as_page(checks, intro, {}))
        raise UserError(
            f"problems in the dataset: {len(wrong)}; all are in {work.path / 'checks.json'} and checks.html. "
            f"Mend them, or leave their episodes out with --config.quarantine\n{report.as_text(wrong)}"
        )
    (work.path / "checks.html").unlink(missing_ok=True)  # of an earlier attempt
    parts = {
        name_of(e): used[name_of(e)]
        for e in dataset.episodes
        if name_of(e) not in left_out and used.get(name_of(e), (0, e.length)) != (0, e.length)
    }
    return Curation(curation.tasks, dict(sorted(left_out.items())), parts), findings


def _check_files(
    config: Config, work: Work, dataset: LeRobotDataset, files: Sequence[File], sums: Mapping[str, str]
) -> tuple[list[Finding], dict[str, tuple[int, int]]]:
    memory = Memory(work.workspace / "checks" / f"{code_digest((check_dataset.__module__,))[:12]}.jsonl")
    with work.progress.task("checking files", total=len(files)) as bar:
        findings, used = check_dataset(
            dataset,
            files,
            Options(config.decode_all, config.limit_tolerance, config.joint_tolerance, config.idle_tolerance),
            digests={work.path / name: digest for name, digest in sums.items()},
            memory=memory,
            processes=config.processes or os.cpu_count() or 1,
            on_file=bar.advance,
        )
    return [*missing_files(files), *findings], used


def _facts(
    config: Config, version: Version, files: Mapping[str, str], dataset: LeRobotDataset
) -> dict[str, Any]:
    tasks = {
        name: {"episodes": len(lengths), "frames": sum(lengths)}
        for index, name in dataset.task_names.items()
        for lengths in [[e.length for e in dataset.episodes if e.task == index]]
    }
    return {
        "repository": config.repository,
        "rev": version.rev,
        "path": config.path,
        "md5": version.md5,
        "files": len(files),
        "bytes": sum((dataset.root / name).stat().st_size for name in files),
        "episodes": len(dataset.episodes),
        "frames": sum(e.length for e in dataset.episodes),
        "tasks": tasks,
        "fps": dataset.fps,
        "codebase_version": dataset.codebase_version,
    }


STAGE = Stage(DECLARATION, run, resolve)
