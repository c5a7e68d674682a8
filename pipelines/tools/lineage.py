"""Show, verify or draw what an artifact was made from."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from components.runtime.errors import UserError
from components.store import lineage
from components.store.artifact import LINEAGE, RECORD, SUMS, Artifact, write_atomic

Format = Literal["mermaid", "dot"]
_DIGITS = 16
_SOFTWARE = ("source", "commit", "image")
_KEY_PARAMETERS = (
    *("revision", "name", "tasks", "model", "network", "steps", "batch_size", "flow_samples"),
    *("peak_learning_rate", "evaluator", "edition", "sets", "worker", "team"),
)
"""Parameters that tell one artifact of a stage from another at a glance; `lineage.json` has all."""
_LONGEST_VALUE = 40


@dataclass(frozen=True)
class Show:
    """Print what an artifact was made from, up to the raw demonstrations."""

    artifact: tyro.conf.Positional[str]
    """The artifact's folder or record."""


@dataclass(frozen=True)
class Verify:
    """Recompute all digests of the chain; names what does not match, and exits with 1."""

    artifact: tyro.conf.Positional[Path]
    """The artifact's folder or record."""


@dataclass(frozen=True)
class Graph:
    """Draw the chain as text: Mermaid, which GitHub, GitLab and JupyterLab show, or Graphviz DOT."""

    artifact: tyro.conf.Positional[str]
    """The artifact's folder or record."""
    output: Path | None = None
    """File to write; the standard output when not given."""
    format: Format | None = None
    """mermaid or dot; when not given, dot for an output that ends with .dot or .gv, and else mermaid."""


Command = Show | Verify | Graph


def run(command: Command) -> int:
    """Run one of the commands; returns the exit code.

    Raises:
        UserError: there is no artifact at the path, or the graph cannot be written.
    """
    if isinstance(command, Show):
        return show(Artifact.load(command.artifact))
    if isinstance(command, Verify):
        return verify(command.artifact)
    is_dot = command.output is not None and command.output.suffix in (".dot", ".gv")
    text = draw(Artifact.load(command.artifact), command.format or ("dot" if is_dot else "mermaid"))
    if command.output is None:
        print(text, end="")
        return 0
    try:
        write_atomic(command.output, text)
    except OSError as error:
        raise UserError(f"--output {command.output} cannot be written: {error}") from error
    print(command.output)
    return 0


def show(artifact: Artifact) -> int:
    """Print what an artifact was made from, up to the raw demonstrations.

    Returns:
        Exit code 0.
    """
    for node in lineage.chain(artifact):
        indent = "  " * node.depth
        metadata = node.lineage["predicate"]["runDetails"]["metadata"]
        place = node.path.relative_to(artifact.workspace)
        print(
            f"{indent}{node.name}: {place}  sha256:{_digest(node)}  {metadata['finishedOn']}  "
            f"run {metadata['invocationId']}"
        )
        for dependency in node.dependencies:
            if not dependency["uri"].startswith("artifacts/"):
                print(f"{indent}  - {dependency['name']}: {dependency['uri']}  {_short(dependency)}")
    return 0


def verify(path: Path) -> int:
    """Recompute the digests of an artifact and of all that it came from, and name what does not match.

    Returns:
        Exit code: 0 whole, 1 not.

    Raises:
        UserError: there is no artifact at the path.
    """
    if (path / RECORD).is_file():
        path = Artifact.load(path).path
    if not (path / LINEAGE).exists() and not (path / SUMS).exists():
        raise UserError(
            f"{path} is not an artifact; give the folder of one, <workspace>/artifacts/<stage>/<fingerprint>"
        )
    checked, problems = lineage.verify(path)
    for problem in problems:
        print(f"{problem.path}: {problem.message}", file=sys.stderr)
    if problems:
        print(f"{len(problems)} problems in a chain of {len(checked)} artifacts", file=sys.stderr)
        return 1
    print(f"{len(checked)} artifacts are as their lineage says, up to the raw demonstrations")
    return 0


@dataclass(frozen=True)
class _Box:
    """One thing in the graph."""

    key: str
    lines: tuple[str, ...]
    external: bool
    """Whether it is no artifact of ours: a data revision, a checkpoint that was imported."""


def draw(artifact: Artifact, form: Format) -> str:
    """The chain of an artifact as a graph, from the raw data on the left to the artifact on the right.

    Every box has the stage, the fingerprint, the digest, the key parameters, the run and the commit; every
    arrow the name under which the next stage read its input.

    Args:
        artifact: the artifact at the right end.
        form: mermaid or dot.
    """
    boxes: dict[str, _Box] = {}
    arrows: list[tuple[str, str, str]] = []
    for node in lineage.chain(artifact):
        uri = node.path.relative_to(artifact.workspace).as_posix()
        boxes[uri] = _Box(f"n{len(boxes)}", tuple(_describe(node)), external=False)
        for dependency in node.dependencies:
            source = dependency["uri"]
            if not source.startswith("artifacts/"):
                if dependency["name"] in _SOFTWARE:
                    continue
                lines = (dependency["name"], source, _short(dependency))
                source = f"{source} {_short(dependency)}"
                boxes.setdefault(source, _Box(f"n{len(boxes)}", lines, external=True))
            arrows.append((source, uri, dependency["name"]))
    named = [(boxes[source].key, boxes[target].key, name) for source, target, name in arrows]
    return (_mermaid if form == "mermaid" else _dot)(list(boxes.values()), named)


def _digest(node: lineage.Node) -> str:
    return str(node.lineage["subject"][0]["digest"]["sha256"])[:_DIGITS]


def _short(dependency: dict[str, Any]) -> str:
    kind, value = next(iter(dependency["digest"].items()))
    return f"{kind}:{value[:_DIGITS]}"


def _describe(node: lineage.Node) -> Iterator[str]:
    predicate = node.lineage["predicate"]
    definition = predicate["buildDefinition"]
    yield f"{definition['internalParameters']['stage']} {node.path.name}"
    yield f"sha256:{_digest(node)}"
    parameters = definition["externalParameters"]
    for name in _KEY_PARAMETERS:
        value = parameters.get(name)
        if value not in (None, "", [], ()):
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            shortened = text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
            yield f"{name} {shortened}"
    yield f"run {predicate['runDetails']['metadata']['invocationId']}"
    yield from (f"commit {_short(d)}" for d in node.dependencies if d["name"] == "commit")


def _mermaid(boxes: list[_Box], arrows: list[tuple[str, str, str]]) -> str:
    def text(line: str) -> str:
        # Mermaid reads entities in the form #name;, which also keeps its own syntax out of labels
        for sign, entity in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("`", "#96;")):
            line = line.replace(sign, entity)
        return line

    lines = ["flowchart LR"]
    for box in boxes:
        left, right = ("[(", ")]") if box.external else ("[", "]")
        label = "<br>".join(map(text, box.lines))
        lines.append(f'  {box.key}{left}"{label}"{right}')
    lines += [f'  {source} -->|"{text(name)}"| {target}' for source, target, name in arrows]
    return "\n".join(lines) + "\n"


def _dot(boxes: list[_Box], arrows: list[tuple[str, str, str]]) -> str:
    def text(line: str) -> str:
        return line.replace("\\", "\\\\").replace('"', '\\"')

    lines = ["digraph lineage {", "  rankdir=LR;", "  node [shape=box];"]
    for box in boxes:
        shape = ", shape=cylinder" if box.external else ""
        label = "\\n".join(map(text, box.lines))
        lines.append(f'  {box.key} [label="{label}"{shape}];')
    lines += [f'  {source} -> {target} [label="{text(name)}"];' for source, target, name in arrows]
    return "\n".join([*lines, "}"]) + "\n"
