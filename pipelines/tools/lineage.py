"""Show, verify, sign or draw what an artifact was made from."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from components.errors import UserError
from components.store import lineage, signing
from components.store.artifact import LINEAGE, RECORD, Artifact
from components.store.champion import artifacts_of
from components.store.files import write_atomic
from components.store.sums import ENVELOPE, SUMS
from pipelines.tools.lineage_search import artifacts_of_run, artifacts_with

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

Format = Literal["mermaid", "dot"]
_DIGITS = 16
_SOFTWARE = ("source", "commit", "image", "sbom")
_KEY_PARAMETERS = (
    *("revision", "name", "tasks", "model.width", "model.depth", "steps", "batch_size", "flow_samples"),
    *("learning_rate.peak", "evaluator", "edition", "splits", "worker", "team"),
)
"""Parameters that tell one artifact of a stage from another at a glance; `lineage.json` has all."""
_LONGEST_VALUE = 40


@dataclass(frozen=True)
class _Target:
    artifact: tyro.conf.Positional[Path]
    """The artifact's folder or record, or a champion's folder, for its leaderboard and its policies."""
    workspace: Path | None = None
    """Workspace of the champion; when not given, the folder that the champion's folder lies in."""


@dataclass(frozen=True)
class Show:
    """Print what an artifact was made from, up to the raw demonstrations.

    Or list the artifacts of a run, or those in which a file lies.
    """

    artifact: tyro.conf.Positional[str] = ""
    """The artifact's folder or record, a champion's folder, or the name of a run of the workspace, here or on
    a cluster; a unique beginning is enough."""
    workspace: Path | None = None
    """The workspace; when not given, the folder that a champion's folder lies in, and for runs and digests
    the folder `workspace`."""
    digest: str = ""
    """SHA-256 of a file or an artifact, or its first digits, or a file, such as the zip of a submission: list
    the artifacts that hold it."""


@dataclass(frozen=True)
class Verify(_Target):
    """Recompute all digests of the chain, and name what does not match; exit code 1 if anything does not."""

    shallow: bool = False
    """Check this artifact alone, not what it was made from."""
    key: tuple[Path, ...] = ()
    """Public keys (PEM) that may have signed: the present one, then earlier ones. Says who signed each
    artifact; what none of them signed is a problem."""


@dataclass(frozen=True)
class Sign(_Target):
    """Sign the chain, after its digests were checked: with a new key, or what was made without one."""

    key: Annotated[Path, tyro.conf.arg(metavar="PRIVATE-KEY")] = Path("key.pem")
    """The private key (PEM, Ed25519 or ECDSA over P-256)."""
    shallow: bool = False
    """Sign this artifact alone, not what it was made from."""


@dataclass(frozen=True)
class Graph(_Target):
    """Draw the chain as text: Mermaid, which GitHub, GitLab and JupyterLab show, or Graphviz DOT."""

    output: Path | None = None
    """File to write; the standard output when not given."""
    format: Format | None = None
    """mermaid or dot; when not given, dot for an output that ends with .dot or .gv, and else mermaid."""


Command = Show | Verify | Sign | Graph


def run(command: Command) -> int:
    """Run one of the commands; returns the exit code."""
    if isinstance(command, Show):
        workspace = command.workspace or Path("workspace")
        if command.digest:
            return _list(artifacts_with(command.digest, workspace))
        if not Path(command.artifact).exists():
            return _list(artifacts_of_run(command.artifact, workspace))
    path = Path(command.artifact)
    tops = artifacts_of(path, command.workspace or path.resolve().parent)
    if isinstance(command, Verify):
        return verify(tops or {_folder(path): ""}, command.shallow, signing.read_keys(command.key))
    if isinstance(command, Sign):
        return sign(tops or {_folder(path): ""}, command.shallow, signing.read_signer(command.key))
    artifacts = [Artifact.load(one) for one in tops or (path,)]
    if isinstance(command, Show):
        return show(artifacts)
    is_dot = command.output is not None and command.output.suffix in (".dot", ".gv")
    text = draw(artifacts, command.format or ("dot" if is_dot else "mermaid"))
    if command.output is None:
        print(text, end="")
        return 0
    try:
        write_atomic(command.output, text)
    except OSError as error:
        raise UserError(f"--output {command.output} cannot be written: {error}") from error
    print(command.output)
    return 0


def _list(lines: Sequence[str]) -> int:
    print(*lines, sep="\n")
    return 0


def show(artifacts: Sequence[Artifact]) -> int:
    """Print what artifacts were made from, up to the raw demonstrations; returns exit code 0."""
    workspace = artifacts[0].workspace
    for node in lineage.chain(*artifacts):
        indent = "  " * node.depth
        place = node.path.relative_to(workspace) if node.path.is_relative_to(workspace) else node.path
        print(
            f"{indent}{node.name}: {place}  sha256:{node.digest[:_DIGITS]}  "
            f"{node.run['finishedOn']}  run {node.run['invocationId']}"
        )
        for dependency in node.dependencies:
            if node.place(dependency) is None:
                print(f"{indent}  - {dependency['name']}: {dependency['uri']}  {_short(dependency)}")
    return 0


def verify(
    artifacts: Mapping[Path, str], shallow: bool, keys: Mapping[str, signing.PublicKey] | None = None
) -> int:
    """Check folders, with their digests in a champion's record; returns exit code 1 if one does not match.

    With keys, say who signed each, and count as a problem what none of them signed.
    """
    checked, problems = lineage.verify(artifacts, shallow)
    for path in checked if keys else ():
        found = signing.check(path, keys or {})
        if found.problem:
            problems.append(lineage.Problem(path / LINEAGE, found.problem))
        else:
            print(f"{path}: signed by {' and '.join(found.by)}")
    if problems:
        return _report(checked, problems)
    whole = "" if shallow else ", up to the raw demonstrations"
    print(f"{len(checked)} artifacts are as their lineage says{', all signed' if keys else ''}{whole}")
    if not keys and any((path / ENVELOPE).exists() for path in checked):
        print("There are signatures, which were not checked: give the public key with --key")
    return 0


def sign(artifacts: Mapping[Path, str], shallow: bool, signer: "CryptoSigner") -> int:
    """Sign folders and what they were made from; nothing, and exit code 1, if a digest does not match."""
    checked, problems = lineage.verify(artifacts, shallow)
    problems += [
        lineage.Problem(path / LINEAGE, found.problem)
        for path in checked
        if (path / ENVELOPE).exists() and (found := signing.check(path)).problem
    ]
    if problems:
        return _report(checked, problems)
    for path in checked:
        signing.sign(path, signer)
        print(f"{path}: signed by {signing.short(signer.public_key.keyid)}")
    return 0


def _report(checked: Sequence[Path], problems: Sequence[lineage.Problem]) -> int:
    for problem in problems:
        print(f"{problem.path}: {problem.message}", file=sys.stderr)
    print(f"{len(problems)} problems in a chain of {len(checked)} artifacts", file=sys.stderr)
    return 1


def _folder(path: Path) -> Path:
    """The folder of an artifact that may be damaged, from the folder or the record."""
    if (path / RECORD).is_file():
        return Artifact.load(path).path
    if not (path / LINEAGE).exists() and not (path / SUMS).exists():
        raise UserError(
            f"{path} is not an artifact; give the folder of one, <workspace>/artifacts/<stage>/<fingerprint>"
        )
    return path


Boxes = dict[str, tuple[str, ...]]
"""The lines of each box of a graph, by its key in the text."""
Arrows = list[tuple[str, str, str]]
"""From which box to which, and the name under which the stage read its input."""


def draw(artifacts: Sequence[Artifact], form: Format) -> str:
    """The chain of artifacts as a graph, from the raw data on the left to the artifacts on the right.

    Every box has the stage, the fingerprint, the digest, the key parameters, the run and the commit; every
    arrow the name under which the next stage read its input.
    """
    ours, others, arrows = Boxes(), Boxes(), Arrows()
    boxes: dict[str, str] = {}

    def box(thing: Path | str) -> str:
        return boxes.setdefault(str(thing), f"n{len(boxes)}")

    for node in lineage.chain(*artifacts):
        ours[box(node.path)] = tuple(_describe(node))
        for dependency in node.dependencies:
            name, uri, digest = dependency["name"], dependency["uri"], _short(dependency)
            place = node.place(dependency)
            if place is None and name in _SOFTWARE:
                continue
            source = box(place or f"{uri} {digest}")
            if place is None:
                others[source] = (name, uri, digest)
            arrows.append((source, box(node.path), name))
    return (_mermaid if form == "mermaid" else _dot)(ours, others, arrows)


def _short(dependency: dict[str, Any]) -> str:
    kind, value = next(iter(dependency["digest"].items()))
    return f"{kind}:{value[:_DIGITS]}"


def _describe(node: lineage.Node) -> Iterator[str]:
    stage = node.lineage["predicate"]["buildDefinition"]["internalParameters"]["stage"]
    yield f"{stage} {node.path.name}"
    yield f"sha256:{node.digest[:_DIGITS]}"
    for name in _KEY_PARAMETERS:
        value: Any = node.parameters
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value not in (None, "", []):
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            shortened = text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
            yield f"{name} {shortened}"
    yield f"run {node.run['invocationId']}"
    yield from (f"commit {_short(d)}" for d in node.dependencies if d["name"] == "commit")


def _mermaid(ours: Boxes, others: Boxes, arrows: Arrows) -> str:
    def text(line: str) -> str:
        # Mermaid reads entities in the form #name;, which also keeps its own syntax out of labels
        for sign, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("`", "#96;")):
            line = line.replace(sign, entity)
        return line

    lines = ["flowchart LR"]
    lines += [f'  {key}["{"<br>".join(map(text, words))}"]' for key, words in ours.items()]
    lines += [f'  {key}[("{"<br>".join(map(text, words))}")]' for key, words in others.items()]
    lines += [f'  {source} -->|"{text(name)}"| {target}' for source, target, name in arrows]
    return "\n".join(lines) + "\n"


def _dot(ours: Boxes, others: Boxes, arrows: Arrows) -> str:
    def text(*lines: str) -> str:
        return "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)

    lines = ["digraph lineage {", "  rankdir=LR;", "  node [shape=box];"]
    lines += [f'  {key} [label="{text(*words)}"];' for key, words in ours.items()]
    lines += [f'  {key} [label="{text(*words)}", shape=cylinder];' for key, words in others.items()]
    lines += [f'  {source} -> {target} [label="{text(name)}"];' for source, target, name in arrows]
    return "\n".join([*lines, "}"]) + "\n"
