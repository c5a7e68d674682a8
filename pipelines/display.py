"""Shows a run: a live tree of tasks on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text
from rich.tree import Tree as RichTree

from components.runtime.progress import format_count, format_seconds
from pipelines.tree import CACHED, CANCELLED, DONE, FAILURE, SKIPPED, STARTED, WAITING, Node, Tasks

_MARKS = {
    WAITING: ("·", "dim"),
    STARTED: ("▶", "cyan"),
    DONE: ("✓", "green"),
    CACHED: ("=", "green"),
    FAILURE: ("✗", "bold red"),
    CANCELLED: ("■", "yellow"),
    SKIPPED: ("-", "dim"),
}
_BAR = 20
_LINE_INTERVAL = 15.0
_ITERATIONS = 12
"""Iterations of a loop that are all shown; of more, those that run, failed or have a message."""


class Display:
    """Shows a tree of tasks while it changes, below a title; a context manager."""

    def __init__(self, tree: Tasks, title: str, stream: TextIO | None = None) -> None:
        self.tree = tree
        self.title = title
        self.console = Console(file=sys.stdout if stream is None else stream, highlight=False)
        is_live = self.console.is_terminal
        self._live = Live(get_renderable=self.render, console=self.console) if is_live else None
        self._told: dict[str, float] = {}

    def __enter__(self) -> "Display":
        if self._live is not None:
            self._live.start()
        else:
            self._print(self.title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def changed(self, node: Node, event: str) -> None:
        """Print a change where there is no live tree."""
        if self._live is not None:
            return
        if event == "progress":
            now = time.monotonic()
            if now - self._told.get(node.key, 0.0) < _LINE_INTERVAL:
                return
            self._told[node.key] = now
        self._print(f"{self._label(node)}: {_state(node)}")

    def render(self) -> Group:
        """The tree as it is now."""
        root = RichTree(Text(self.title, style="bold"), guide_style="dim")
        for node in self.tree.nodes.values():
            _add(root, node)
        return Group(root)

    def _label(self, node: Node) -> str:
        for parent in self.tree.nodes.values():
            if parent is not node and any(leaf is node for leaf in parent.leaves()):
                return f"{parent.label} / {node.label}"
        return node.label

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


def _add(branch: RichTree, node: Node) -> None:
    line = branch.add(_line(node))
    for child in _shown(node):
        _add(line, child)


def _shown(loop: Node) -> list[Node]:
    children = list(loop.children.values())
    if len(children) <= _ITERATIONS:
        return children
    return [one for one in children if one.message or one.state in (STARTED, FAILURE, CANCELLED)]


def _line(node: Node) -> Text:
    mark, style = _MARKS[node.state]
    line = Text.assemble((f"{mark} ", style), (f"{node.label:<18} ", "" if node.state != WAITING else "dim"))
    return line.append(_state(node), style=style if node.state == FAILURE else "dim")


def _state(node: Node) -> str:
    """A task's state in words: `running 0:12 steps ━━━━ 120/900 3:20 left loss 0.42`."""
    words = node.state
    if node.started is not None and node.state != SKIPPED:
        words += " after " if node.state in (FAILURE, CANCELLED) else " "
        words += format_seconds(node.seconds(time.time()))
    if node.count:
        words += f", {node.count}"
    if node.attempt > 1:
        words += f", attempt {node.attempt}"
    if node.message:
        words += f" ({node.message})" if node.state in (STARTED, DONE, CACHED) else f": {node.message}"
    return f"{words} {_progress(node)}" if node.state == STARTED and node.progress else words


def _progress(node: Node) -> str:
    step = node.progress
    words = [str(step["description"])] if step["description"] else []
    if step["total"]:
        filled = min(_BAR, round(_BAR * step["completed"] / step["total"]))
        words += ["━" * filled + "╌" * (_BAR - filled)]
        words += [f"{format_count(step['completed'])}/{format_count(step['total'])}"]
    else:
        words.append(format_count(step["completed"]))
    if step.get("left") is not None:
        words.append(f"{format_seconds(step['left'])} left")
    if step["note"]:
        words.append(str(step["note"]))
    return " ".join(words)
