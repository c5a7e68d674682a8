"""Lineage: one in-toto Statement (v1) with an SLSA provenance predicate (v1) in every artifact.

The statement's subject is the artifact's tree digest; its resolved dependencies hold the tree digest and
the lineage digest of every input. So one lineage file pins, step by step, every byte up to the raw episodes.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from components.store.artifact import Artifact
from components.store.sums import LINEAGE, SUMS, hash_files, parse_sums, tree_digest

LINEAGE_DIGEST = "lineage_sha256"
FINGERPRINT = "fingerprint"
FOLDER = "path"
"""Annotations of a dependency on an artifact: SHA-256 of its lineage, its stage's key, and the folder in it
that was used, where that is not the whole."""
UNREADABLE = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What reading a damaged file raises."""


@dataclass(frozen=True)
class Dependency:
    """One thing that a stage used: an input artifact, a data revision, a source tree, an image."""

    name: str
    uri: str
    """A path relative to the workspace for artifacts in it, otherwise any URI."""
    digest: dict[str, str]
    """Digests by algorithm, such as sha256, md5 or gitCommit."""
    annotations: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, artifact: Artifact, workspace: Path) -> "Dependency":
        """The dependency of a stage that works in a workspace on an artifact, its lineage included."""
        uri = artifact.uri if artifact.workspace == workspace.resolve() else artifact.path.as_uri()
        annotations = {LINEAGE_DIGEST: artifact.lineage_digest, FINGERPRINT: artifact.fingerprint}
        return cls(name, uri, {"sha256": artifact.digest}, annotations)

    @classmethod
    def of_folder(cls, name: str, folder: Path, workspace: Path) -> "Dependency":
        """The dependency on a folder: on the artifact that it lies in, else by the digest of its content."""
        folder = folder.resolve()
        artifact = Artifact.containing(folder)
        if artifact is None:
            return cls(name, folder.as_uri(), {"sha256": tree_digest(hash_files(folder))})
        whole = cls.of(name, artifact, workspace)
        inside = folder.relative_to(artifact.path).as_posix()
        return cls(name, whole.uri, whole.digest, {**whole.annotations, FOLDER: inside})


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
    attempts: int = 1,
    gpus: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build a lineage statement.

    `subject` is the artifact's path relative to the workspace, `digest` its hex SHA-256 tree digest,
    `invocation` the run and task ids of the pipeline engine, `attempts` how often the stage was started in
    its pod until it was done, `gpus` what `components.runtime.gpus` recorded; times are ISO 8601 in UTC.
    """
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": subject, "digest": {"sha256": digest}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:b1k:stage:v1",
                "externalParameters": parameters,
                "internalParameters": {"stage": stage, "fingerprint": fingerprint},
                "resolvedDependencies": [
                    {name: value for name, value in asdict(d).items() if value} for d in dependencies
                ],
            },
            "runDetails": {
                "builder": {"id": f"urn:b1k:version:{version}"},
                "metadata": {
                    "invocationId": invocation,
                    "startedOn": started,
                    "finishedOn": finished,
                    "b1k_attempts": attempts,
                    **({} if gpus is None else {"b1k_gpus": gpus}),
                },
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

    @classmethod
    def read(cls, path: Path, depth: int = 0, name: str = "") -> "Node":
        """Read the lineage of an artifact's folder."""
        return cls(path, depth, name, json.loads((path / LINEAGE).read_text()))

    @property
    def subject(self) -> str:
        """The artifact's path relative to its workspace, when it was made."""
        return str(self.lineage["subject"][0]["name"])

    @property
    def digest(self) -> str:
        """The artifact's hex SHA-256 tree digest."""
        return str(self.lineage["subject"][0]["digest"]["sha256"])

    @property
    def stage(self) -> str:
        """Name of the stage that made it."""
        return str(self.lineage["predicate"]["buildDefinition"]["internalParameters"]["stage"])

    @property
    def parameters(self) -> dict[str, Any]:
        """The resolved configuration of the stage."""
        return self.lineage["predicate"]["buildDefinition"]["externalParameters"]

    @property
    def run(self) -> dict[str, Any]:
        """How it was made: `startedOn`, `finishedOn`, `invocationId`, `b1k_attempts`, maybe `b1k_gpus`."""
        return self.lineage["predicate"]["runDetails"]["metadata"]

    @property
    def dependencies(self) -> list[dict[str, Any]]:
        """The resolved dependencies."""
        return self.lineage["predicate"]["buildDefinition"]["resolvedDependencies"]

    def place(self, dependency: dict[str, Any]) -> Path | None:
        """Folder of the artifact that a dependency is on; None where it is no artifact."""
        annotations = dependency.get("annotations", {})
        return artifact_of(str(dependency["uri"]), annotations, self.path.parents[2])

    def inputs(self) -> Iterator[tuple[str, Path]]:
        """The artifacts that it was made from: names and folders."""
        for dependency in self.dependencies:
            place = self.place(dependency)
            if place is not None:
                yield dependency["name"], place


def artifact_of(uri: str, annotations: Mapping[str, str], workspace: Path) -> Path | None:
    """Folder of the artifact that a dependency of a stage in a workspace is on; None where it is none."""
    is_one = uri.startswith("artifacts/") or LINEAGE_DIGEST in annotations
    return locate(uri, workspace) if is_one else None


def locate(uri: str, workspace: Path) -> Path:
    """The place of a file URI, or of a path relative to a workspace."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else workspace / uri


def chain(*artifacts: Artifact) -> Iterator[Node]:
    """Walk from artifacts to the raw data, each artifact once, inputs after what used them."""
    seen: set[Path] = set()
    waiting = [(artifact.path, 0, artifact.stage) for artifact in artifacts]
    while waiting:
        path, depth, name = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        node = Node.read(path, depth, name)
        yield node
        waiting += [(place, depth + 1, used_as) for used_as, place in node.inputs()]


@dataclass(frozen=True)
class Problem:
    """One thing in a chain that is not as it was recorded."""

    path: Path
    """The file at fault."""
    message: str


@dataclass(frozen=True)
class _Record:
    """What an artifact, or a champion, recorded of a folder that it was made from."""

    by: Path | str
    place: Path
    is_artifact: bool
    digest: str
    """Tree digest; empty where unknown, as for the lineage's."""
    lineage_digest: str = ""


def verify(artifacts: Path | Mapping[Path, str], shallow: bool = False) -> tuple[list[Path], list[Problem]]:
    """Recompute the digests of an artifact and of everything that it came from.

    Args:
        artifacts: the artifact's folder; or those that a champion's record names, with their digests.
        shallow: whether to leave out what they came from.

    Returns:
        The artifact folders that were checked, and the files that do not match. A folder whose lineage cannot
        be read is a problem, and what it was made from is not checked.
    """
    tops = {artifacts: ""} if isinstance(artifacts, Path) else artifacts
    records = {path.resolve(): [_Record("the champion", path, True, digest)] for path, digest in tops.items()}
    waiting = [] if shallow else list(records)
    while waiting:
        with suppress(*UNREADABLE):  # reported by the check below
            for record in _records(waiting.pop(0)):
                if record.is_artifact and record.place not in records:
                    waiting.append(record.place)
                records.setdefault(record.place, []).append(record)
    checked, problems = [], []
    for place, recorded in records.items():
        if recorded[0].is_artifact:
            checked.append(place)
            problems += _check(place, recorded)
        elif place.is_dir():
            problems += _compare(place, tree_digest(hash_files(place)), recorded)
    return checked, problems


def _records(path: Path) -> list[_Record]:
    """What an artifact recorded of its inputs, artifacts and other folders."""
    node, found = Node.read(path), []
    for dependency in node.dependencies:
        place, digest = node.place(dependency), dependency["digest"].get("sha256", "")
        if place is not None:
            lineage_digest = dependency.get("annotations", {}).get(LINEAGE_DIGEST, "")
            found.append(_Record(path, place, True, digest, lineage_digest))
        elif dependency["uri"].startswith("file:"):
            found.append(_Record(path, locate(dependency["uri"], path), False, digest))
    return found


def _compare(path: Path, digest: str, records: list[_Record]) -> list[Problem]:
    return [
        Problem(path, f"is not what {r.by} recorded: its digest is {digest}, recorded is {r.digest}")
        for r in records
        if r.digest not in ("", digest)
    ]


def _check(path: Path, records: list[_Record]) -> list[Problem]:
    """Recompute every digest of an artifact, once, and compare it with all records.

    Returns:
        The files that do not match. Where two records contradict each other, a third decides which is wrong.
    """
    if not path.is_dir():
        return [Problem(path, "the folder is missing")]
    actual, reading = hash_files(path), LINEAGE
    try:
        node = Node.read(path)
        subject, place = node.digest, node.subject
        _records(path)
        reading = SUMS
        listed = parse_sums((path / SUMS).read_text())
    except UNREADABLE as error:
        return [Problem(path / reading, f"cannot be read: {type(error).__name__}: {error}")]
    content, lineage_digest = tree_digest(actual), actual.get(LINEAGE)
    problems = [
        Problem(path / LINEAGE, f"is not the lineage that {r.by} recorded")
        for r in records
        if r.lineage_digest not in ("", lineage_digest)
    ]
    content_is_right = content in (subject, *(r.digest for r in records))
    lineage_is_right = lineage_digest in [r.lineage_digest for r in records]
    differing = sorted(n for n in actual.keys() | listed.keys() if actual.get(n) != listed.get(n))
    for name in differing:
        if lineage_is_right if name == LINEAGE else content_is_right:
            problems.append(Problem(path / SUMS, f"its line for {name} is wrong"))
        else:
            what = "missing" if name not in actual else "not recorded" if name not in listed else "changed"
            digests = f"SHA-256 {actual.get(name)}, {SUMS} has {listed.get(name)}"
            problems.append(Problem(path / name, f"{what}: {digests}"))
    if not differing and content != subject:
        problems.append(Problem(path / LINEAGE, f"names the digest {subject}; the content has {content}"))
    if path.parts[-3] == "artifacts" and place != "/".join(path.parts[-3:]):
        problems.append(Problem(path / LINEAGE, f"is the lineage of {place}, and not of this folder"))
    return problems or _compare(path, content, records)
