"""Which rollouts a worker does next, from what is left and what the others do.

Nothing is dealt out beforehand, as nobody knows how long rollouts take: a success ends one early, a crash
begins it again. A worker that is free takes the job with the longest rest that nobody works on, and stays
with it, because loading its scene takes minutes. It helps the one with the longest rest, from the other end,
where that would end too late, or where all have somebody and the last rollout then begins earlier.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

_OFTEN = 2
"""Failures after which an instance comes after those of all other jobs."""
_URGENT = 1.1
"""A job is helped before others are begun if it would take so many times as long as all that is left takes
all workers. With values from 0.8 to 1.5, the ratios of `benchmarks.schedule` (random durations, one
environment) differ by 0.02 at most for 500 rollouts on 20 workers and 1000 on 64. For 500 on 64 they grow
from 1.12 to 1.22, and with crashes from 1.15 to 1.25."""


@dataclass(frozen=True)
class Rules:
    """What an evaluator's processes can do."""

    startup: float
    """Seconds from the start of a process to its first step."""
    environments: int = 0
    """Instances that a process begins and ends together; 0: one after the other."""
    in_order: bool = True
    """Whether a process does its instances in the order given, so that they can be claimed one by one."""


@dataclass
class Lane:
    """What is left of a job."""

    policy: str
    seconds: float
    """Expected duration of an instance."""
    free: list[int]
    """Places of the instances that are nobody's and not finished, ascending."""
    held: dict[int, str] = field(default_factory=dict)
    """Who does which instance, by its place."""
    failures: Counter[int] = field(default_factory=Counter)
    """How often an instance was begun in vain, by its place."""


@dataclass(frozen=True)
class Turn:
    """What a worker begins now, with one process."""

    lane: int
    places: tuple[int, ...]
    together: bool
    """Whether all of them are claimed now. Else they are a wish, claimed one by one in this order, until the
    next one is somebody else's."""


def choose(lanes: Sequence[Lane], me: str, policy: str | None, workers: int, rules: Rules) -> Turn | None:
    """What a worker does next; None where nothing is left that it should do.

    Args:
        lanes: what is left.
        me: the worker.
        policy: the policy whose server it runs; another one has to be loaded.
        workers: how many there are now.
        rules: what the evaluator can do.
    """
    best: tuple[tuple[bool, bool, bool, float], int, bool] | None = None
    average = sum(lane.seconds * (len(lane.free) + len(lane.held) / 2) for lane in lanes) / workers
    for number, lane in enumerate(lanes):
        if not lane.free:
            continue
        others = len({worker for worker in lane.held.values() if worker != me}) if rules.in_order else 0
        rest = lane.seconds * len(lane.free)
        is_urgent = False
        if others:
            # without help: the rollouts that run are half done, and the last one begins after all others
            rest /= others
            if rest - lane.seconds / 2 / others <= rules.startup:
                continue
            is_urgent = rest + lane.seconds / 2 > average * _URGENT
        failed = all(lane.failures[place] >= _OFTEN for place in lane.free)
        order = (failed, others > 0 and not is_urgent, not others and lane.policy != policy, -rest)
        if best is None or order < best[0]:
            best = (order, number, others > 0)
    if best is None:
        return None
    lane = lanes[best[1]]
    if rules.in_order:
        return Turn(best[1], tuple(_path(lane, best[2])), together=False)
    # as many workers as its part of all that is left: so groups get smaller towards the end
    share = max(1.0, lane.seconds * len(lane.free) / average) if average else 1.0
    return Turn(best[1], tuple(_group(lane, math.ceil(len(lane.free) / share), rules)), together=True)


def _path(lane: Lane, has_others: bool) -> list[int]:
    """The order in which a worker goes through a lane: away from the others, and towards them.

    Instances that failed come last.
    """
    path = lane.free
    if has_others:
        gaps: list[list[int]] = []
        for place in lane.free:
            if gaps and place == gaps[-1][-1] + 1:
                gaps[-1].append(place)
            else:
                gaps.append([place])
        gap = max(gaps, key=len)
        below, above = gap[0] - 1 in lane.held, gap[-1] + 1 in lane.held
        # one who is below comes up, one who is above comes down, and both stop where they meet us
        path = gap if not below else gap[::-1] if not above else gap[len(gap) // 2 :: -1]
    return sorted(path, key=lambda place: lane.failures[place])


def _group(lane: Lane, share: int, rules: Rules) -> list[int]:
    """Instances for one process: no more than a fair share of all that is left.

    A process that fails leaves unknown which of its instances did it: so after every failure an instance is
    in a group half as large, and in the end alone.
    """
    path = sorted(lane.free, key=lambda place: lane.failures[place])
    failed = lane.failures[path[0]]
    most = (rules.environments or len(path)) >> failed if failed else rules.environments or len(path)
    alike = [place for place in path if lane.failures[place] == failed]
    return alike[: max(1, min(most, share))]
