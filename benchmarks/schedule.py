"""Play evaluations through and compare ways to share them: `python -m benchmarks.schedule [--draws N]`.

The queue is the one of the stage evaluate: the same rules decide here and there. Beside it: shards of equal
expected length (McNaughton's rule, as in earlier versions), whole tasks dealt out longest first, and equal
counts of rollouts. Every way gets the same rollouts with the same durations and crashes. With --check the
exit code is 1 where the queue takes longer than it may.
"""

import itertools
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tyro

from components.evaluation.forecast import Span, Work, forecast
from components.evaluation.schedule import Rules
from pi_behavior.challenge import EDITIONS, TASKS

FPS = 30
INSTANCES = 10
EARLY, EARLIEST, CRASHES = 0.26, 0.35, 0.02
"""Shares: of rollouts that end before the time limit, and from where in it on; of rollouts that crash."""
REPORT_DAYS, REPORT_CREW_DAYS, REPORT_CREW = 10, 2, 20
"""The 2025 winner's report, section 8.3: 500 rollouts on one machine, and on 20."""
ALLOWED: Mapping[tuple[int, int, bool], float] = {
    (500, 20, False): 1.03,
    (500, 20, True): 1.05,
    (1000, 64, False): 1.10,
    (1000, 64, True): 1.10,
}
"""Largest mean of finishing time / lower bound with one environment, by rollouts, workers, and whether some
crash."""


@dataclass(frozen=True)
class Config:
    """Compare ways to share an evaluation."""

    draws: int = 100
    """Evaluations with other durations and crashes, of each kind."""
    seed: int = 1000
    """Seed of the first. The constants of `components.evaluation.schedule` were chosen with 0 to 99."""
    steps_per_second: float = 15.0
    """Control steps of one environment per second."""
    startup: float = 240.0
    """Seconds to load a scene."""
    environments: tuple[int, ...] = (1, 4, 10)
    """Environments per process."""
    slowdown: float = 0.25
    """What every further environment of a process adds to the time of a step, as a share of it."""
    check: bool = False
    """Exit with 1 if the queue takes longer than it may."""


@dataclass(frozen=True)
class Case:
    """One evaluation as it comes out: what every rollout takes, and where in it it crashes."""

    expected: Sequence[float]
    """Seconds per rollout, by task."""
    seconds: Sequence[Sequence[float]]
    crash: Sequence[Sequence[float | None]]
    """Seconds until its first start crashes."""

    def draw(self) -> Callable[[int, int, float], tuple[float, bool]]:
        """Durations of starts, one after the other."""
        left = {(job, place): at for job, row in enumerate(self.crash) for place, at in enumerate(row) if at}

        def of(job: int, place: int, _: float) -> tuple[float, bool]:
            at = left.pop((job, place), None)
            return (self.seconds[job][place], False) if at is None else (at, True)

        return of


def make_case(year: str, config: Config, *, early: bool, crashes: bool, seed: int) -> Case:
    """The edition's tasks, ten instances of each."""
    random = np.random.default_rng(seed)
    tasks = [task for task in TASKS.values() if task.challenge <= int(year)]
    limits = [EDITIONS[year].time_limit * task.duration * FPS / config.steps_per_second for task in tasks]
    shares = np.ones((len(tasks), INSTANCES))
    is_early = random.random(shares.shape) < EARLY if early else np.zeros(shares.shape, bool)
    shares[is_early] = random.uniform(EARLIEST, 1.0, is_early.sum())
    seconds = (np.array(limits)[:, None] * shares).tolist()
    crashed = random.random(shares.shape) < (CRASHES if crashes else 0.0)
    places = random.random(shares.shape)
    return Case(
        limits,
        seconds,
        [
            [s * p if c else None for s, p, c in zip(*rows, strict=True)]
            for rows in zip(seconds, places, crashed, strict=True)
        ],
    )


def queue(case: Case, workers: int, rules: Rules, pace: Callable[[int], float]) -> list[Span]:
    """The stage's queue."""
    jobs = [
        Work("common", len(row), expected) for row, expected in zip(case.seconds, case.expected, strict=True)
    ]
    return forecast(jobs, workers, rules, case.draw(), pace)


Part = tuple[int, Sequence[int]]
"""A task's number and places of its instances."""


def shards(case: Case, workers: int, startup: float) -> list[list[Part]]:
    """Shards of equal expected length, cut from all tasks laid end to end (McNaughton's rule)."""

    def fill(limit: float) -> list[list[Part]] | None:
        parts: list[list[Part]] = [[]]
        used = 0.0
        for job, each in enumerate(case.expected):
            rest = list(range(INSTANCES))
            while rest:
                fits = int((limit - used - startup) / each + 1e-9)
                if fits >= 1:
                    parts[-1].append((job, rest[:fits]))
                    used += startup + each * len(rest[:fits])
                    rest = rest[fits:]
                if rest:
                    if len(parts) == workers:
                        return None
                    parts.append([])
                    used = 0.0
        return parts

    high = sum(startup + each * INSTANCES for each in case.expected)
    low = high / workers
    best: list[list[Part]] = [[(job, range(INSTANCES)) for job in range(len(case.expected))]]
    for _ in range(40):
        middle = (low + high) / 2
        found = fill(middle)
        if found is None:
            low = middle
        else:
            high, best = middle, found
    return best


def whole_tasks(case: Case, workers: int, startup: float) -> list[list[Part]]:
    """Whole tasks, the longest first, each to the worker who has least."""
    dealt: list[list[Part]] = [[] for _ in range(workers)]
    loads = [0.0] * workers
    for job in sorted(range(len(case.expected)), key=lambda job: -case.expected[job]):
        least = loads.index(min(loads))
        dealt[least].append((job, range(INSTANCES)))
        loads[least] += startup + INSTANCES * case.expected[job]
    return dealt


def equal_counts(case: Case, workers: int, startup: float) -> list[list[Part]]:
    """The same number of rollouts for every worker, in the order of tasks."""
    every = [(job, place) for job in range(len(case.expected)) for place in range(INSTANCES)]
    cuts = [round(i * len(every) / workers) for i in range(workers + 1)]
    dealt: list[list[Part]] = []
    for begin, end in itertools.pairwise(cuts):
        mine: dict[int, list[int]] = {}
        for job, place in every[begin:end]:
            mine.setdefault(job, []).append(place)
        dealt.append(list(mine.items()))
    return dealt


def dealt_out(
    dealt: Sequence[Sequence[Part]], case: Case, rules: Rules, pace: Callable[[int], float]
) -> Iterator[tuple[float, int]]:
    """When every worker ends that has its work from the beginning, and how many processes it starts."""
    draw = case.draw()
    for parts in dealt:
        now, starts = 0.0, 0
        for job, places in parts:
            left, running = list(places), False
            while left:
                group = left[: rules.environments or 1]
                if rules.environments or not running:
                    now, starts, running = now + rules.startup, starts + 1, True
                drawn = [draw(job, place, 0.0) for place in group]
                crashed = [seconds for seconds, is_crash in drawn if is_crash]
                now += (min(crashed) if crashed else max(s for s, _ in drawn)) * pace(len(group))
                if crashed:
                    running = False
                else:
                    left = left[len(group) :]
        yield now, starts


def lower_bound(case: Case, workers: int, rules: Rules, pace: Callable[[int], float]) -> float:
    """No schedule ends sooner: every scene is loaded once for every so many environments, nothing crashes, no
    worker waits for another, and no environment of a process for another.
    """
    together = rules.environments or 1
    loads = math.ceil(INSTANCES / together) if rules.environments else 1
    work = sum(map(sum, case.seconds)) * pace(together) / together + loads * rules.startup * len(
        case.expected
    )
    return max(work / workers, rules.startup + max(map(max, case.seconds)))


WAYS: Mapping[str, Callable[[Case, int, float], list[list[Part]]]] = {
    "shards": shards,
    "whole tasks": whole_tasks,
    "equal counts": equal_counts,
}


def compare(config: Config) -> bool:
    """Print the table; whether the queue is as fast as it has to be."""
    good = True
    print(
        f"{'rollouts':>8} {'workers':>7} {'envs':>4} {'durations':>9} {'crashes':>7}  {'way':<13}"
        f"{'hours':>7}{'bound':>7}{'ratio':>8}{'worst':>8}{'starts':>8}"
    )
    for year, workers in (("2025", 20), ("2025", 64), ("2026", 64)):
        for environments in config.environments:
            rules = Rules(config.startup, environments if environments > 1 else 0, in_order=environments == 1)
            for early, crashes in ((False, False), (False, True), (True, False), (True, True)):
                good &= _row(config, year, workers, rules, early=early, crashes=crashes)
    return good


def _row(config: Config, year: str, workers: int, rules: Rules, *, early: bool, crashes: bool) -> bool:
    def pace(together: int) -> float:
        return 1.0 + config.slowdown * (together - 1)

    draws = config.draws if early or crashes else 1
    cases = [
        make_case(year, config, early=early, crashes=crashes, seed=config.seed + i) for i in range(draws)
    ]
    count = len(cases[0].expected) * INSTANCES
    ends: dict[str, list[tuple[float, float, int]]] = {}
    for case in cases:
        bound = lower_bound(case, workers, rules, pace)
        spans = queue(case, workers, rules, pace)
        done = sum(span.instances for span in spans if not span.failed)
        assert done == count, f"{done} of {count} rollouts are done"
        starts = sum(span.startup > 0 for span in spans)
        ends.setdefault("queue", []).append((max(span.end for span in spans), bound, starts))
        for name, deal in WAYS.items():
            found = list(dealt_out(deal(case, workers, rules.startup), case, rules, pace))
            ends.setdefault(name, []).append((max(end for end, _ in found), bound, sum(n for _, n in found)))
    good = True
    for name, rows in ends.items():
        ratios = [end / bound for end, bound, _ in rows]
        ratio = statistics.mean(ratios)
        allowed = ALLOWED.get((count, workers, crashes)) if name == "queue" and rules.in_order else None
        is_late = allowed is not None and ratio > allowed
        good &= not is_late
        hours, bound, starts = (statistics.mean(column) for column in zip(*rows, strict=True))
        print(
            f"{count:8} {workers:7} {rules.environments or 1:4} {'random' if early else 'fixed':>9} "
            f"{CRASHES if crashes else 0:7.0%}  {name:<13}{hours / 3600:7.2f}{bound / 3600:7.2f}{ratio:8.3f}"
            f"{max(ratios):8.3f}{starts:8.0f}{f'  MORE THAN {allowed}' if is_late else ''}",
            flush=True,
        )
    return good


def report() -> None:
    """Print what the report's two figures say about the simulator's speed."""
    tasks = [task for task in TASKS.values() if task.challenge == 2025]
    limit = EDITIONS["2025"].time_limit * FPS * INSTANCES * sum(task.duration for task in tasks)
    early = limit * (1 - EARLY * (1 - (1 + EARLIEST) / 2))
    for what, seconds in (
        (f"{REPORT_DAYS} days on one machine", REPORT_DAYS * 86400),
        (f"{REPORT_CREW_DAYS} days on {REPORT_CREW} machines", REPORT_CREW_DAYS * 86400 * REPORT_CREW),
    ):
        print(
            f"500 rollouts in {what}: {limit / seconds:.1f} steps/s per machine if all run to the time "
            f"limit, {early / seconds:.1f} if {EARLY:.0%} end early"
        )


def main() -> None:
    """Run the command."""
    config = tyro.cli(Config, description=__doc__)
    good = compare(config)
    report()
    sys.exit(config.check and not good)


if __name__ == "__main__":
    main()
