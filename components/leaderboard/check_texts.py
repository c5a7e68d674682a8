"""Checks of what a submission says of itself: its manifest, the policies' mapping, and the README."""

import shlex
from collections.abc import Iterator, Set
from pathlib import Path

from components.errors import UserError
from components.evaluation import records
from components.evaluation.records import ServedPolicy
from components.evaluation.serving import SERVER
from components.leaderboard.manifest import MANIFEST, MAPPING, README, Manifest


def lacks(manifest: Manifest) -> Iterator[str]:
    """Why a manifest is none of a submission to the challenge, a line each."""
    if manifest.reduced or manifest.conditions.evaluator != "omnigibson":
        yield "the results are of the household simulator; they are none of the challenge"
    if manifest.conditions.true_stage:
        yield "the evaluator told the policy the true stage, which no track allows"
    if not manifest.videos:
        yield "no address of the videos is given; set leaderboard.videos"
    if not manifest.policies or not all(manifest.policies.values()):
        yield f"{MANIFEST} names no digest of a policy"


def contradictions_of_texts(folder: Path, manifest: Manifest, results: Set[str]) -> Iterator[str]:
    """Where manifest, mapping and README do not fit each other or the names of the results, a line each."""
    wanted = {
        f"{task}_{instance}_{rollout}"
        for task, instances in manifest.instances.items()
        for instance in instances
        for rollout in range(manifest.rollouts)
    }
    missing = set(manifest.missing)
    for name in sorted(wanted - results - missing):
        yield f"{name} was prescribed, and has neither a result nor a word why it is missing"
    for name in sorted(results & missing):
        yield f"{name} has a result, and is said to have never finished"
    for name in sorted(results - wanted):
        yield f"{name} was not prescribed"
    if (folder / MAPPING).is_file():
        yield from _mapping(folder / MAPPING, manifest)
    if (folder / README).is_file():
        yield from _readme((folder / README).read_text(errors="replace"), manifest)


def _mapping(file: Path, manifest: Manifest) -> Iterator[str]:
    try:
        rows = records.read(file, dict[str, dict[str, ServedPolicy]], "package it again")
    except UserError as error:
        yield str(error).replace(f"{file.parent}/", "")
        return
    policies = rows.get("checkpoints", {})
    served = {task: name for name, row in policies.items() for task in row.tasks}
    for name, digest in sorted(manifest.policies.items()):
        if name in policies and policies[name].digest != digest:
            yield f"{MAPPING} has another digest of the policy {name} than {MANIFEST}"
    for task, policy in sorted(manifest.tasks.items()):
        if served.get(task) != policy:
            yield f"{MAPPING} does not serve {task} with {policy}, which its results are of"


def _readme(text: str, manifest: Manifest) -> Iterator[str]:
    commands = [_words(line) for line in text.splitlines() if "eval" in line]
    for task in sorted(manifest.tasks):
        if not any({task, f"task.name={task}"} & set(words) for words in commands):
            yield f"{README} lacks the evaluator's command of {task}"
    if SERVER not in text:
        yield f"{README} lacks the policy server's command"
    for name, digest in sorted(manifest.policies.items()):
        if digest not in text:
            yield f"{README} lacks the digest of the policy {name}"


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return []
