"""Training curves as small static SVG: lines only, with labels set in HTML so that they stay readable."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_POINTS = 240
_LOG_FROM = 8.0
"""Ratio of largest to smallest loss above which the axis is logarithmic."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    label: str
    place: float
    """Per cent of the axis, from the left or the bottom."""


@dataclass(frozen=True)
class Curve:
    """One figure."""

    name: str
    metric: str
    path: str
    """SVG path data in a box of 100 x 100, y down."""
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    summary: str
    """Text in place of the figure, for screen readers."""


def draw(name: str, metric: str, rows: Sequence[dict[str, float]]) -> Curve | None:
    """Draw a metric over the `step` of the rows; None with fewer than two finite points."""
    points = [(row["step"], row[metric]) for row in rows if math.isfinite(row.get(metric, math.nan))]
    points = _thin(sorted(points))
    if len(points) < 2:
        return None
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    logarithmic = "loss" in metric and low > 0 and high / low > _LOG_FROM
    y_values = _powers(low, high) if logarithmic else _ticks(min(low, 0.0), high)
    bottom, top = min(y_values[0], low), max(y_values[-1], high)
    x_values = [x for x in _ticks(0.0, steps[-1]) if x <= steps[-1]]

    def y_place(value: float) -> float:
        if logarithmic:
            return 100 * math.log(value / bottom) / math.log(top / bottom)
        return 100 * (value - bottom) / ((top - bottom) or 1.0)

    places = [(100 * x / (steps[-1] or 1), 100 - y_place(y)) for x, y in points]
    return Curve(
        name=name,
        metric=metric,
        path="M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in places),
        x_ticks=[Tick(f"{x:,.0f}", 100 * x / (steps[-1] or 1)) for x in x_values],
        y_ticks=[Tick(f"{y:g}", y_place(y)) for y in y_values],
        summary=f"{metric.replace('_', ' ')} of {name}: {values[0]:.3g} at step {steps[0]:,.0f}, "
        f"{values[-1]:.3g} at step {steps[-1]:,.0f}",
    )


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
    """The powers of ten that cover an interval of positive numbers."""
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
