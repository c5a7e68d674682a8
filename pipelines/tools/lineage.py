"""Show, verify or draw what an artifact was made from."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from components.errors import UserError
from components.store import lineage
from components.store.artifact import LINEAGE, RECORD, Artifact
from components.store.champion import artifacts_of
from components.store.files import write_atomic
from components.store.sums import SUMS

Format = Literal["mermaid", "dot"]
_DIGITS = 16
_SOFTWARE = ("source", "commit", "image")
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
class Show(_Target):
    """Print what an artifact was made from, up to the raw demonstrations."""


@dataclass(frozen=True)
class Verify(_Target):
    """Recompute all digests of the chain, and name what does not match; exit code 1 if anything does not."""

    shallow: bool = False
    """Check this artifact alone, not what it was made from."""


@dataclass(frozen=True)
class Graph(_Target):
    """Draw the chain as text: Mermaid, which GitHub, GitLab and JupyterLab show, or Graphviz DOT."""

    output: Path | None = None
    """File to write; the standard output when not given."""
    format: Format | None = None
    """mermaid or dot; when not given, dot for an output that ends with .dot or .gv, and else mermaid."""


Command = Show | Verify | Graph


def run(command: Command) -> int:
    """Run one of the commands; returns the exit code."""
    path = command.artifact
    tops = artifacts_of(path, command.workspace or path.resolve().parent)
    if isinstance(command, Verify):
        return verify(tops or {_folder(path): ""}, command.shallow)
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


def verify(artifacts: Mapping[Path, str], shallow: bool) -> int:
    """Check folders, with their digests in a champion's record; returns exit code 1 if one does not match."""
    checked, problems = lineage.verify(artifacts, shallow)
    for problem in problems:
        print(f"{problem.path}: {problem.message}", file=sys.stderr)
    if problems:
        print(f"{len(problems)} problems in a chain of {len(checked)} artifacts", file=sys.stderr)
        return 1
    whole = "" if shallow else ", up to the raw demonstrations"
    print(f"{len(checked)} artifacts are as their lineage says{whole}")
    return 0


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
