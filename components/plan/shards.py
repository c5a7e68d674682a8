"""Shards of equal expected duration. Report, section 8.3: an offline balancer spreads tasks evenly."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from components.evaluation.plan import Split

_HALVINGS = 40


@dataclass(frozen=True)
class Unit:
    """Work of one kind that can be cut between instances: one policy, task, split and video flag."""

    policy: str
    task: str
    split: Split
    video: bool
    instances: tuple[int, ...]
    startup: float
    """Seconds that every process of this unit takes before its first rollout."""
    each: float
    """Seconds per instance."""

    @property
    def seconds(self) -> float:
        """Expected duration when it is done by one process."""
        return self.startup + self.each * len(self.instances)


def shard(units: Sequence[Unit], workers: int) -> list[list[Unit]]:
    """Spread units over workers so that the slowest worker ends as early as possible.

    Fills one worker after the other up to a common limit and cuts the unit that crosses it (McNaughton's
    wrap-around rule), with the least limit for which all units fit. Compared with longest-first greedy
    packing this needs at most workers - 1 cuts, so few evaluator processes, and keeps neighbours together, so
    few policy servers; and even a single long task is spread. Shards without work are left out.
    """
    total = sum(unit.seconds for unit in units)
    low, high, best = total / workers, total, [list(units)]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        shards = _fill(units, workers, middle)
        if shards is None:
            low = middle
        else:
            high, best = middle, shards
    return [part for part in best if part]


def _fill(units: Sequence[Unit], workers: int, limit: float) -> list[list[Unit]] | None:
    """Fill workers in order up to `limit` seconds each; None where that does not hold all units."""
    shards: list[list[Unit]] = [[]]
    used = 0.0
    for unit in units:
        rest = unit.instances
        while rest:
            fits = int((limit - used - unit.startup) / unit.each + 1e-9)
            if fits >= 1:
                part = replace(unit, instances=rest[:fits])
                shards[-1].append(part)
                used += part.seconds
                rest = rest[fits:]
            if rest:
                if len(shards) == workers:
                    return None
                shards.append([])
                used = 0.0
    return shards
