"""What an evaluation is expected to take, and what it took: a table of its jobs and a line per worker."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from components.evaluation.durations import Duration, Times, measured
from components.evaluation.forecast import Span, Work, forecast
from components.evaluation.plan import UNTRAINED, Job, Plan
from components.runtime.progress import format_seconds

_COLUMNS = 60


def with_measured(plan: Plan, workspace: Path) -> Plan:
    """The plan with what earlier evaluations of the workspace took in place of estimates.

    Estimates that are left get the mean factor by which the others were wrong.
    """
    found = measured(plan, workspace)

    def known(job: Job) -> float | None:
        return found.rollouts.get((job.task, job.policy == UNTRAINED)) or found.rollouts.get(
            (job.task, job.policy != UNTRAINED)
        )

    pairs = [
        (seconds * plan.rollouts, job.seconds) for job in plan.jobs if (seconds := known(job)) is not None
    ]
    factor = sum(true for true, _ in pairs) / sum(estimate for _, estimate in pairs) if pairs else 1.0
    jobs = []
    for job in plan.jobs:
        seconds = known(job)
        new = job.seconds * factor if seconds is None else seconds * plan.rollouts
        jobs.append(dataclasses.replace(job, seconds=round(new, 1), measured=seconds is not None))
    startup = plan.startup if found.startup is None else round(found.startup, 1)
    return dataclasses.replace(plan, jobs=tuple(jobs), startup=startup)


def expected(plan: Plan, workers: int) -> list[Span]:
    """Who will do what when, if everything takes what is expected."""
    work = [Work(job.policy, len(job.instances), job.seconds) for job in plan.jobs]
    return forecast(work, workers, plan.rules)


def table(plan: Plan, done: Iterable[Duration] = ()) -> str:
    """A line per policy, task and split: what is expected of it, and, where it was done, what it took."""
    took: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for one in done:
        took[one.policy, one.task, one.split].append(one.seconds)
    width = max(len(job.task) for job in plan.jobs)
    rows = [
        f"{'task':{width}}  {'policy':12}  {'split':12}  {'rollouts':>8}  {'expected':>9}  {'source':8}"
        f"{'  took' if took else ''}"
    ]
    jobs: dict[tuple[str, str, str], list[Job]] = defaultdict(list)
    for job in plan.jobs:
        jobs[job.policy, job.task, job.split].append(job)
    for (policy, task, split), those in jobs.items():
        count = sum(len(job.instances) for job in those) * plan.rollouts
        source = "measured" if those[0].measured else "limit"
        expects = sum(job.seconds * len(job.instances) for job in those)
        row = f"{task:{width}}  {policy:12}  {split:12}  {count:8}  {format_seconds(expects):>9}  {source:8}"
        seconds = took[policy, task, split] if took else []
        rows.append(row + (f"  {format_seconds(sum(seconds))}" if seconds else ""))
    return "\n".join(rows)


def timeline(plan: Plan, workers: int) -> str:
    """A line per worker of what is expected."""
    spans = expected(plan, workers)
    end = max(span.end for span in spans)
    head = f"expected: {format_seconds(end)} with {workers} worker{'s' * (workers > 1)}"
    return f"{head}, all to the time limit where nothing was measured\n{_queue(plan, workers)}{_lines(spans)}"


def _queue(plan: Plan, workers: int) -> str:
    """What it means that a queue lets fewer workers run at a time; empty where that is hours."""
    fewer = [2**power for power in range(workers.bit_length()) if 2**power < workers]
    days = {n: max(span.end for span in expected(plan, n)) / 86400 for n in reversed(fewer)}
    if not days or max(days.values()) < 1:
        return ""
    return f"in days, if a queue lets fewer run: {', '.join(f'{n}: {d:.1f}' for n, d in days.items())}\n"


def comparison(plan: Plan, done: Sequence[Duration]) -> str:
    """What workers did, beside what is expected of as many."""
    if not done:
        return "nothing was finished"
    spans = spans_of(done)
    workers = len({span.worker for span in spans})
    took, planned = max(span.end for span in spans), max(span.end for span in expected(plan, workers))
    return f"done in {format_seconds(took)}, expected {format_seconds(planned)}\n{_lines(spans)}"


def spans_of(done: Iterable[Duration]) -> list[Span]:
    """What workers did, from the moment when the first one began; their clocks are taken to agree."""
    done = list(done)
    first = min(one.times.begin for one in done)
    together: Mapping[Times, list[Duration]] = defaultdict(list)
    for one in done:
        together[one.times].append(one)
    return [
        Span(t.worker, 0, t.begin - first, t.end - first, len(those), t.startup)
        for t, those in together.items()
    ]


def _lines(spans: Sequence[Span]) -> str:
    """A line per worker: when it ends, its rollouts and starts, and its time in columns."""
    end = max(span.end for span in spans) or 1.0
    rows = [f"worker      end  rollouts  starts  a column is {format_seconds(end / _COLUMNS)}"]
    by_worker: dict[int, list[Span]] = defaultdict(list)
    for span in spans:
        by_worker[span.worker].append(span)
    for worker, mine in sorted(by_worker.items()):
        columns = [" "] * _COLUMNS
        for span in mine:
            begin, run, stop = (
                min(_COLUMNS - 1, int(at / end * _COLUMNS))
                for at in (span.begin, span.begin + span.startup, span.end)
            )
            columns[run : stop + 1] = "=" * len(columns[run : stop + 1])
            if span.startup:
                columns[begin : max(run, begin + 1)] = "+" * max(run - begin, 1)
        last, count = max(span.end for span in mine), sum(span.instances for span in mine if not span.failed)
        starts = sum(span.startup > 0 for span in mine)
        rows.append(f"{worker:6} {format_seconds(last):>8}  {count:8}  {starts:6}  {''.join(columns)}")
    return "\n".join([*rows, "+ a process starts, = rollouts run"])
