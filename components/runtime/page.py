"""Small pages for the Kubeflow UI: one self-contained HTML file, without scripts and network."""

from collections.abc import Iterable, Sequence
from html import escape

from components.runtime.curves import Curve

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
img { width: min(100%, 690px); image-rendering: pixelated; border: 1px solid #8884; }
svg { width: 100%; height: auto; font-size: 12px; }
svg text { fill: currentColor; }
svg path { fill: none; stroke-width: 1.5; vector-effect: non-scaling-stroke; }
svg line { stroke: #8886; }
"""
_COLOURS = ("#0a7d6e", "#b5541c", "#3b6fb6", "#8a4fa3", "#7a7a1f", "#c03a5b")
_WIDTH, _HEIGHT, _LEFT, _BELOW = 640, 260, 64, 24


def page(title: str, *parts: str) -> str:
    """A whole page with a heading, from parts that are HTML already."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{escape(title)}</title><style>{_STYLE}</style></head><body>'
        + "\n".join([f"<h1>{escape(title)}</h1>", *parts])
        + "</body></html>\n"
    )


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of plain text; the first column to the left, the others to the right."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def figure(curve: Curve) -> str:
    """A figure of lines with its axes."""
    wide, high = _WIDTH - _LEFT, _HEIGHT - _BELOW
    marks = []
    for tick in curve.y_ticks:
        y = 4 + (high - 8) * (1 - tick.place / 100)
        marks.append(f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(tick.label)}</text>')
    for tick in curve.x_ticks:
        x = _LEFT + wide * tick.place / 100
        anchor = "end" if tick.place > 95 else "middle"
        marks.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{escape(tick.label)}</text>'
        )
    coloured = [(_COLOURS[i % len(_COLOURS)], line) for i, line in enumerate(curve.lines)]
    paths = "".join(f'<path style="stroke: {colour}" d="{escape(line.path)}"/>' for colour, line in coloured)
    key = " ".join(f'<b style="color: {colour}">{escape(line.label)}</b>' for colour, line in coloured)
    return (
        f"<h2>{escape(curve.metric)}</h2>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(curve.summary)}">'
        + "".join(marks)
        + f'<svg x="{_LEFT}" y="4" width="{wide}" height="{high - 8}" viewBox="0 0 100 100" '
        f'preserveAspectRatio="none" overflow="visible">{paths}</svg></svg>'
        f"<p>{key if len(coloured) > 1 else escape(curve.summary)}</p>"
    )
