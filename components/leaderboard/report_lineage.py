"""The lineage of a leaderboard as a drawing: each artifact stands to the right of what it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass

from components.store.lineage import Node

WIDTH, HEIGHT = 150, 34
_GAP_X, _GAP_Y = 46, 10
_MOST = 12
"""Artifacts of a column that are drawn, so that the drawing stays readable; a last box counts the rest."""


@dataclass(frozen=True)
class Box:
    """An artifact in the drawing."""

    x: int
    y: int
    stage: str
    label: str
    link: str
    """Fragment of the artifact's entry in the table below; empty for a box that counts the rest."""


@dataclass(frozen=True)
class Drawing:
    """Boxes and the paths between them."""

    boxes: list[Box]
    paths: list[str]
    width: int
    height: int


def draw(sources: Sequence[Node]) -> Drawing:
    """Lay out the artifacts of a chain, each to the right of all that it was made from."""
    by_path = {node.path: node for node in sources}
    inputs = {
        path: [place for _, place in node.inputs() if place in by_path] for path, node in by_path.items()
    }
    columns: dict[int, list[Node]] = {}
    depths: dict[object, int] = {}

    def depth(node: Node) -> int:
        if node.path not in depths:
            depths[node.path] = 1 + max((depth(by_path[one]) for one in inputs[node.path]), default=-1)
        return depths[node.path]

    for node in sorted(sources, key=lambda one: (one.stage, one.run["startedOn"], one.path)):
        columns.setdefault(depth(node), []).append(node)
    tallest = max((min(len(nodes), _MOST + 1) for nodes in columns.values()), default=0)
    boxes, places = [], {}
    for column, nodes in sorted(columns.items()):
        shown = nodes[:_MOST]
        count = len(shown) + (len(nodes) > _MOST)
        x, top = column * (WIDTH + _GAP_X), (tallest - count) * (HEIGHT + _GAP_Y) // 2
        for row, node in enumerate(shown):
            y = top + row * (HEIGHT + _GAP_Y)
            places[node.path] = x, y
            boxes.append(Box(x, y, node.stage, node.path.name[:12], anchor(node)))
        if len(nodes) > _MOST:
            y = top + _MOST * (HEIGHT + _GAP_Y)
            places |= {node.path: (x, y) for node in nodes[_MOST:]}
            boxes.append(Box(x, y, f"{len(nodes) - _MOST} more", "", ""))
    paths = {_curve(places[source], places[path]) for path, used in inputs.items() for source in used}
    width = len(columns) * (WIDTH + _GAP_X) - _GAP_X
    return Drawing(boxes, sorted(paths), max(width, 1), max(tallest * (HEIGHT + _GAP_Y) - _GAP_Y, 1))


def anchor(node: Node) -> str:
    """The id of an artifact's entry on the page."""
    return f"artifact-{node.stage}-{node.path.name}"


def _curve(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x, y), (to_x, to_y) = start, end
    x, y, to_y = x + WIDTH, y + HEIGHT // 2, to_y + HEIGHT // 2
    middle = (x + to_x) // 2
    return f"M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}"
