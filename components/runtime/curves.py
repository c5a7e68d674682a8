"""Training curves as small static SVG: lines only, with labels set in HTML so that they stay readable."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_POINTS = 240
_HELD_OUT = ("held_out_", "heldout_", "validation_")
"""Prefixes of metrics on demonstrations that are not trained on."""
_JOINTS = "action_loss_"
_POWERS = 7
_LOGARITHMIC = ("loss", "spectrum")
_LOG_FROM = 8.0
"""Ratio of largest to smallest value above which the axis is logarithmic."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    label: str
    place: float
    """Per cent of the axis, from the left or the bottom."""


@dataclass(frozen=True)
class Line:
    """One line of a figure."""

    label: str
    path: str
    """SVG path data in a box of 100 x 100, y down."""


@dataclass(frozen=True)
class Curve:
    """One figure."""

    name: str
    """The policy."""
    metric: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    summary: str
    """Text in place of the figure, for screen readers."""


def draw_all(name: str, rows: Sequence[dict[str, float]]) -> list[Curve]:
    """The figures of a policy's training, as far as its metrics allow."""
    found = sorted({metric for row in rows for metric in row})
    figures = {
        "loss": [m for m in found if m == "loss" or (m.endswith("loss") and m.startswith(_HELD_OUT))],
        "loss by group of joints": [m for m in found if m.startswith(_JOINTS)],
        **{metric: [metric] for metric in ("stage_accuracy", "learning_rate", "gradient_norm")},
    }
    drawn = (draw(name, title, rows, metrics) for title, metrics in figures.items())
    return [curve for curve in drawn if curve is not None]


def draw(
    name: str, title: str, rows: Sequence[dict[str, float]], metrics: Sequence[str] = (), over: str = "step"
) -> Curve | None:
    """Draw metrics, by default the one of the title, over a value of the rows, with one scale.

    Returns:
        The figure, of the metrics with at least two finite points; None where none has them.
    """
    series = {metric: _points(rows, metric, over) for metric in metrics or (title,)}
    series = {metric: points for metric, points in series.items() if len(points) > 1}
    if not series:
        return None
    values = [value for points in series.values() for _, value in points]
    last, low, high = max(points[-1][0] for points in series.values()), min(values), max(values)
    logarithmic = title.startswith(_LOGARITHMIC) and low > 0 and high / low > _LOG_FROM
    y_values = _powers(low, high) if logarithmic else _ticks(min(low, 0.0), high)
    bottom, top = min(y_values[0], low), max(y_values[-1], high)
    x_values = [x for x in _ticks(0.0, last) if x <= last and x == round(x)]

    def y_place(value: float) -> float:
        if logarithmic:
            return 100 * math.log(value / bottom) / math.log(top / bottom)
        return 100 * (value - bottom) / ((top - bottom) or 1.0)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{100 * x / (last or 1):.2f} {100 - y_place(y):.2f}" for x, y in points)

    return Curve(
        name=name,
        metric=title.replace("_", " "),
        lines=[Line(_label(metric), path(points)) for metric, points in series.items()],
        x_ticks=[Tick(f"{x:,.0f}", 100 * x / (last or 1)) for x in x_values],
        y_ticks=[Tick(f"{y:g}", y_place(y)) for y in y_values],
        summary="; ".join(_in_words(name, metric, points, over) for metric, points in series.items()),
    )


def _label(metric: str) -> str:
    return metric.removeprefix(_JOINTS).replace("_", " ")


def _in_words(name: str, metric: str, points: Sequence[tuple[float, float]], over: str) -> str:
    (first, start), (last, end) = points[0], points[-1]
    said = f"{start:.3g} at {over} {first:,.0f}, {end:.3g} at {over} {last:,.0f}"
    return f"{metric.replace('_', ' ')} of {name}: {said}"


def _points(rows: Sequence[dict[str, float]], metric: str, over: str) -> list[tuple[float, float]]:
    points = [(row[over], row[metric]) for row in rows if math.isfinite(row.get(metric, math.nan))]
    return _thin(sorted(points))


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbours so that at most `_POINTS` points are left."""
    size = math.ceil(len(points) / _POINTS) or 1
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def _ticks(low: float, high: float) -> list[float]:
    """Round values that cover an interval: about four steps of 1, 2 or 5 times a power of ten."""
    raw = ((high - low) or abs(high) or 1.0) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten that cover an interval of positive numbers, at most eight."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = -(-(last - first) // _POWERS)
    return [10.0**power for power in range(first, last + every, every)]
