"""Plays an evaluation through before it runs: who does what when, by the rules that the workers follow."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from components.evaluation.schedule import Lane, Rules, Turn, choose


@dataclass(frozen=True)
class Span:
    """Rollouts that a worker did together, or the one that it did."""

    worker: int
    job: int
    """Number of the job."""
    begin: float
    """Seconds since the evaluation began; a process that starts for it, starts here."""
    end: float
    instances: int = 1
    startup: float = 0.0
    """Seconds of that which the start of a process took."""
    failed: bool = False


@dataclass(frozen=True)
class Work:
    """A job as far as its duration is concerned."""

    policy: str
    instances: int
    seconds: float
    """Expected duration of an instance."""


Draw = Callable[[int, int, float], tuple[float, bool]]
"""Gives the duration of a rollout, from the number of its job, its place in it and what is expected, and
whether it ends in a crash."""
Pace = Callable[[int], float]
"""How much longer a rollout takes when so many are simulated together."""


@dataclass
class _Worker:
    turn: Turn | None = None
    left: tuple[int, ...] = ()
    """What it goes on with after what it does now."""
    now: tuple[int, ...] = ()
    crashed: bool = False
    policy: str | None = None


def forecast(
    jobs: Sequence[Work],
    workers: int,
    rules: Rules,
    draw: Draw = lambda job, place, seconds: (seconds, False),
    pace: Pace = lambda together: 1.0,
) -> list[Span]:
    """Who does what when.

    Args:
        jobs: what is to be done.
        workers: how many do it, all from the beginning to the end.
        rules: what the evaluator can do.
        draw: what a rollout really takes; by default what is expected.
        pace: what simulating several together costs; by default nothing.
    """
    lanes = [Lane(job.policy, job.seconds, list(range(job.instances))) for job in jobs]
    crew = [_Worker() for _ in range(workers)]
    spans: list[Span] = []
    events = [(0.0, number) for number in range(workers)]
    idle: list[int] = []
    while events:
        now, number = heapq.heappop(events)
        _finish(crew[number], lanes)
        waiting, idle = [number, *idle], []
        for one in waiting:
            span = _begin(one, crew[one], lanes, now, workers, rules, draw, pace)
            if span is None:
                idle.append(one)
            else:
                spans.append(span)
                heapq.heappush(events, (span.end, one))
    return spans


def _finish(worker: _Worker, lanes: Sequence[Lane]) -> None:
    if worker.turn is None:
        return
    lane = lanes[worker.turn.lane]
    for place in worker.now:
        del lane.held[place]
        if worker.crashed:
            lane.failures[place] += 1
            lane.free = sorted([*lane.free, place])
    if worker.crashed:
        worker.left = ()


def _begin(
    number: int,
    worker: _Worker,
    lanes: Sequence[Lane],
    now: float,
    workers: int,
    rules: Rules,
    draw: Draw,
    pace: Pace,
) -> Span | None:
    """Let a worker go on with its process, or start another; None where it has nothing to do."""
    startup = 0.0
    if worker.turn is None or not worker.left or worker.left[0] not in lanes[worker.turn.lane].free:
        worker.turn = choose(lanes, str(number), worker.policy, workers, rules)
        if worker.turn is None:
            worker.now = worker.left = ()
            return None
        worker.left, startup = worker.turn.places, rules.startup
    turn = worker.turn
    lane = lanes[turn.lane]
    count = len(worker.left) if turn.together else 1
    worker.now, worker.left, worker.policy = worker.left[:count], worker.left[count:], lane.policy
    for place in worker.now:
        lane.free.remove(place)
        lane.held[place] = str(number)
    drawn = [draw(turn.lane, place, lane.seconds) for place in worker.now]
    crashes = [seconds for seconds, crashed in drawn if crashed]
    worker.crashed = bool(crashes)
    alone = [seconds for seconds, _ in drawn]
    # all end with the first crash; else those that run together end together, and others one by one
    together = bool(rules.environments)
    takes = min(crashes) if crashes else max(alone) if together else sum(alone)
    takes *= pace(count) if together else 1.0
    return Span(number, turn.lane, now, now + startup + takes, count, startup, worker.crashed)
