"""Lineage: one in-toto Statement (v1) with an SLSA provenance predicate (v1) in every artifact.

The statement's subject is the artifact's tree digest; its resolved dependencies hold the tree digest and
the lineage digest of every input. So one lineage file pins, step by step, every byte up to the raw episodes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from components.store.artifact import LINEAGE, SUMS, Artifact, hash_files, parse_sums, tree_digest

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:b1k:stage:v1"


@dataclass(frozen=True)
class Dependency:
    """One thing that a stage used: an input artifact, a data revision, a source tree, an image."""

    name: str
    uri: str
    """A path relative to the workspace for artifacts, otherwise any URI."""
    digest: dict[str, str]
    """Digests by algorithm, such as sha256, md5 or gitCommit."""
    annotations: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, artifact: Artifact) -> "Dependency":
        """The dependency on an input artifact, its own lineage included."""
        return cls(
            name, artifact.uri, {"sha256": artifact.digest}, {"lineage_sha256": artifact.lineage_digest}
        )

    @classmethod
    def of_folder(cls, name: str, folder: Path) -> "Dependency":
        """The dependency on a folder that is no artifact, by the digest of its content."""
        return cls(name, folder.resolve().as_uri(), {"sha256": tree_digest(hash_files(folder))})


def statement(
    *,
    subject: str,
    digest: str,
    stage: str,
    fingerprint: str,
    parameters: dict[str, Any],
    dependencies: list[Dependency],
    version: str,
    invocation: str,
    started: str,
    finished: str,
) -> dict[str, Any]:
    """Build a lineage statement.

    Args:
        subject: the artifact's place relative to the workspace.
        digest: hex SHA-256 tree digest of the artifact.
        stage: name of the stage.
        fingerprint: the stage's key over configuration, inputs and code.
        parameters: the resolved configuration.
        dependencies: everything that the stage used.
        version: version of the software.
        invocation: run and task ids of the pipeline engine, or of the shell.
        started: start, ISO 8601 in UTC.
        finished: end, ISO 8601 in UTC.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": subject, "digest": {"sha256": digest}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "internalParameters": {"stage": stage, "fingerprint": fingerprint},
                "resolvedDependencies": [
                    {
                        "name": d.name,
                        "uri": d.uri,
                        "digest": d.digest,
                        **({"annotations": d.annotations} if d.annotations else {}),
                    }
                    for d in dependencies
                ],
            },
            "runDetails": {
                "builder": {"id": f"urn:b1k:version:{version}"},
                "metadata": {"invocationId": invocation, "startedOn": started, "finishedOn": finished},
            },
        },
    }


@dataclass(frozen=True)
class Node:
    """One artifact of a chain."""

    path: Path
    depth: int
    """Steps from the artifact that was asked for."""
    name: str
    """The name under which the next stage used it."""
    lineage: dict[str, Any]

    @property
    def dependencies(self) -> list[dict[str, Any]]:
        """The resolved dependencies."""
        found: list[dict[str, Any]] = self.lineage["predicate"]["buildDefinition"]["resolvedDependencies"]
        return found


def _is_artifact(dependency: dict[str, Any]) -> bool:
    return str(dependency["uri"]).startswith("artifacts/")


def chain(artifact: Artifact) -> Iterator[Node]:
    """Walk from an artifact to the raw data, each artifact once, inputs after what used them."""
    seen: set[Path] = set()
    waiting = [(artifact.path, 0, artifact.stage)]
    while waiting:
        path, depth, name = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        node = Node(path, depth, name, json.loads((path / LINEAGE).read_text()))
        yield node
        waiting.extend(
            (artifact.workspace / d["uri"], depth + 1, d["name"])
            for d in node.dependencies
            if _is_artifact(d)
        )


def _verify_folders(node: Node) -> list["Problem"]:
    """Compare folders that are no artifacts with what was recorded of them, where they are still there."""
    problems = []
    for dependency in node.dependencies:
        place = urlsplit(str(dependency["uri"]))
        folder = Path(unquote(place.path))
        if place.scheme == "file" and folder.is_dir():
            digest = tree_digest(hash_files(folder))
            if digest != dependency["digest"]["sha256"]:
                problems.append(
                    Problem(
                        folder,
                        f"is not the {dependency['name']} that {node.path} was made from: its content has "
                        f"the digest {digest}, recorded is {dependency['digest']['sha256']}",
                    )
                )
    return problems


@dataclass(frozen=True)
class Problem:
    """One thing in a chain that is not as it was recorded."""

    path: Path
    """The file at fault."""
    message: str


def verify_folder(path: Path, expected: dict[str, str]) -> list[Problem]:
    """Recompute every digest of one artifact folder.

    Args:
        path: the artifact's folder.
        expected: what the next stage recorded: `digest` and `lineage_digest`, either may be missing.

    Returns:
        The files that do not match. Where two records contradict each other, a third decides which is wrong.
    """
    if not path.is_dir():
        return [Problem(path, "the folder is missing")]
    actual = hash_files(path)
    problems = []
    lineage_path = path / LINEAGE
    if "lineage_digest" in expected and actual.get(LINEAGE) != expected["lineage_digest"]:
        problems.append(Problem(lineage_path, "is not the lineage that the next stage recorded"))
    try:
        subject = json.loads(lineage_path.read_text())["subject"][0]["digest"]["sha256"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        return [Problem(lineage_path, f"cannot be read: {type(error).__name__}: {error}")]
    try:
        listed = parse_sums((path / SUMS).read_text())
    except (OSError, ValueError) as error:
        return [*problems, Problem(path / SUMS, f"cannot be read: {error}")]
    content_digest = tree_digest(actual)
    content_is_right = content_digest in (expected.get("digest"), subject)
    differing = sorted(n for n in actual.keys() | listed.keys() if actual.get(n) != listed.get(n))
    for name in differing:
        if name == LINEAGE:
            if expected.get("lineage_digest") == actual.get(LINEAGE):
                problems.append(Problem(path / SUMS, f"its line for {LINEAGE} is wrong"))
            elif not problems:
                problems.append(Problem(lineage_path, f"does not match its line in {SUMS}"))
        elif content_is_right:
            problems.append(Problem(path / SUMS, f"its line for {name} is wrong"))
        else:
            what = "missing" if name not in actual else "not recorded" if name not in listed else "changed"
            problems.append(
                Problem(path / name, f"{what}: SHA-256 {actual.get(name)}, {SUMS} has {listed.get(name)}")
            )
    if not differing and content_digest != subject:
        problems.append(
            Problem(lineage_path, f"names the digest {subject}; the content has {content_digest}")
        )
    if not problems and "digest" in expected and content_digest != expected["digest"]:
        problems.append(Problem(path, "is not the artifact that the next stage recorded"))
    return problems


def verify(artifact_path: Path) -> tuple[list[Path], list[Problem]]:
    """Recompute the digests of an artifact and of everything it came from.

    Returns:
        The artifact folders that were checked, and the files that do not match; none means that the chain
        is whole up to the raw data. A folder whose lineage cannot be read ends its branch, as a problem.
    """
    top = artifact_path.resolve()
    checked: list[Path] = []
    problems: list[Problem] = []
    waiting: list[tuple[Path, dict[str, str]]] = [(top, {})]
    while waiting:
        path, expected = waiting.pop(0)
        if path in checked:
            continue
        checked.append(path)
        found = verify_folder(path, expected)
        problems.extend(found)
        try:
            node = Node(path, 0, "", json.loads((path / LINEAGE).read_text()))
            dependencies = [d for d in node.dependencies if _is_artifact(d)]
            problems.extend(_verify_folders(node))
        except (OSError, ValueError, KeyError, TypeError):
            if not found:
                problems.append(Problem(path / LINEAGE, "cannot be read"))
            continue
        for dependency in dependencies:
            recorded = {"digest": dependency["digest"]["sha256"]}
            if "lineage_sha256" in dependency.get("annotations", {}):
                recorded["lineage_digest"] = dependency["annotations"]["lineage_sha256"]
            waiting.append((top.parents[2] / dependency["uri"], recorded))
    return checked, problems
