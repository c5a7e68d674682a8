"""Finds artifacts of a workspace: those of a run, and those that hold a file."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from components.errors import UserError
from components.store.artifact import is_artifact
from components.store.lineage import UNREADABLE, Node
from components.store.sums import SUMS, parse_sums, sha256_file

_DIGITS = 16


def artifacts_with(digest: str, workspace: Path) -> list[str]:
    """Lines on the artifacts that hold a file, or have a content.

    Args:
        digest: a SHA-256, its first digits, or a file to take it of.
        workspace: where to look.

    Raises:
        UserError: there is none, or it is no digest.
    """
    wanted = sha256_file(Path(digest)) if Path(digest).is_file() else digest.removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{8,64}", wanted):
        raise UserError(f"--digest {digest} is neither a file nor 8 to 64 hex digits of a SHA-256")
    lines = [_line(node, held) for node in _nodes(workspace) for held in _holding(node, wanted)]
    if not lines:
        raise UserError(
            f"no artifact of {workspace} holds sha256:{wanted}; give its workspace with --workspace"
        )
    return lines


def artifacts_of_run(run: str, workspace: Path) -> list[str]:
    """Lines on the artifacts that a run made, and of a run on this machine also on those that it used again.

    Args:
        run: its name or id, or a unique beginning.
        workspace: where to look.

    Raises:
        UserError: there is none, or there are several.
    """
    nodes = list(_nodes(workspace))
    recorded = {file.parent.name: file for file in workspace.glob("runs/2*/run.json")}
    known = {*recorded, *(_engine_run(node) for node in nodes)}
    matching = {run} & known or {name for name in known if run and name.startswith(run)}
    if len(matching) != 1:
        what = "the beginning of several runs" if matching else "neither a folder nor a run"
        raise UserError(
            f"{run!r} is {what} of {workspace}, which has {', '.join(sorted(matching or known)) or 'none'}; "
            "give the workspace with --workspace"
        )
    (name,) = matching
    used: set[str] = set()
    if name in recorded:
        with suppress(*UNREADABLE):
            outputs = json.loads(recorded[name].read_text())["outputs"].values()
            used = {uri for one in outputs for uri in ([one] if isinstance(one, str) else one)}
    chosen = [
        n
        for n in nodes
        if _engine_run(n) == name or n.path.relative_to(workspace.resolve()).as_posix() in used
    ]
    return [_line(node) for node in sorted(chosen, key=lambda node: str(node.run["startedOn"]))]


def _nodes(workspace: Path) -> Iterator[Node]:
    for folder in sorted(workspace.resolve().glob("artifacts/*/*")):
        if is_artifact(folder):
            with suppress(*UNREADABLE):  # `b1k lineage verify` names what is damaged
                node = Node.read(folder)
                if node.digest and _engine_run(node) and node.run["startedOn"]:
                    yield node


def _engine_run(node: Node) -> str:
    return str(node.run["invocationId"]).split("/")[0]


def _holding(node: Node, digest: str) -> Iterator[str]:
    """Names of what an artifact holds with a digest: itself, or files."""
    if node.digest.startswith(digest):
        yield "all of its content"
    with suppress(*UNREADABLE):
        sums = parse_sums((node.path / SUMS).read_text())
        yield from (name for name, one in sums.items() if one.startswith(digest))


def _line(node: Node, *more: str) -> str:
    made = f"{node.run['finishedOn']}  run {node.run['invocationId']}"
    return "  ".join((str(node.path), f"sha256:{node.digest[:_DIGITS]}", made, *more))
