"""Schedules of pipelines: how one ends without ending its runs, when it runs next, what its last run was."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any

from cronsim import CronSim, CronSimError

from components.errors import UserError
from pipelines.cluster import run_state
from pipelines.cluster.server import Job, Server

CRON_WORDS = {
    "@yearly": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_SETTLING = 5.0
"""Seconds after which a run that a schedule has just started is in the server's list."""
_ENDING = 60.0
"""Seconds that cancelled runs are given to end."""
_LOOK = 2.0
_NEWEST = 20
"""Runs of a schedule that may be active: it starts the next when the last has ended."""


def six_fields(cron: str) -> str:
    """A cron expression as the server reads it, with seconds first.

    It takes five fields as well, but for seconds to hours: `0 3 * * *` would run every hour.

    Raises:
        UserError: it has neither five nor six fields.
    """
    if cron in CRON_WORDS:
        return cron
    count = len(cron.split())
    if count not in (5, 6):
        raise UserError(
            f"--cron {cron!r} has {count} fields; expected minute, hour, day of month, month, day of week, "
            f"such as '0 3 * * *' for every night at three, or one of {', '.join(CRON_WORDS)}"
        )
    return " ".join(["0"] * (6 - count) + cron.split())


def next_time(cron: str, now: datetime) -> datetime | None:
    """When a cron expression of six fields fires next; None if it does not, or cannot be read."""
    with suppress(CronSimError, StopIteration):
        return next(CronSim(CRON_WORDS.get(cron, cron).replace("?", "*"), now))
    return None


def run_state_of(server: Server, run: Mapping[str, Any]) -> str:
    """The run's state in a word; of an active one the server is asked whether its schedule is still there."""
    found = run_state.state(run)
    if run.get("recurring_run_id") and found not in run_state.ENDED:
        return run_state.state(run, server.schedules(str(run.get("experiment_id"))))
    return found


def of_name(server: Server, experiment: str, name: str) -> list[dict[str, Any]]:
    """The schedules of a name; there are several while the runs of replaced ones go on."""
    return [one for one in server.schedules(experiment) if one.get("display_name") == name]


def create(server: Server, job: Job, cron: str, *, replace: bool) -> Iterator[str]:
    """Run a pipeline regularly.

    Args:
        server: where.
        job: the pipeline.
        cron: when, six fields.
        replace: end the schedules that have the name, but not their runs.

    Yields:
        The new schedule's ID, then what became of the others.

    Raises:
        UserError: there is a schedule of the name, and it is not to be replaced.
    """
    before = of_name(server, job.experiment, job.name)
    if before and not replace:
        raise UserError(f"there is a schedule {job.name!r} already; give --replace, or another --name")
    yield server.schedule(job, cron)  # first, so that a failure changes nothing
    for one in before:
        yield end(server, one)


def end(server: Server, schedule: Mapping[str, Any], *, and_its_runs: bool = False) -> str:
    """Let a schedule start no more runs, and delete it if none is active: that would delete the run.

    Args:
        server: where.
        schedule: as the server describes it.
        and_its_runs: cancel its runs and delete it in any case.

    Returns:
        What has become of it.
    """
    identity, name = str(schedule.get("recurring_run_id")), schedule.get("display_name")
    if schedule.get("status") != "DISABLED":
        server.disable(identity)
        time.sleep(_SETTLING)
    runs = _active(server, schedule)
    if runs and not and_its_runs:
        return (
            f"disabled the schedule {name} ({identity}); its run {', '.join(runs)} goes on. When that has "
            "ended, delete the schedule with b1k pipeline cancel --schedule; or now, with --and-its-runs"
        )
    for run in runs:
        with suppress(UserError):  # it has just ended, or its workflow is lost
            server.cancel(run)
    patience = time.monotonic() + _ENDING
    while runs and time.monotonic() < patience and _active(server, schedule):
        time.sleep(_LOOK)
    server.unschedule(identity)
    return f"deleted the schedule {name} ({identity})" + (f" and ended {', '.join(runs)}" if runs else "")


def describe(server: Server, schedule: Mapping[str, Any], now: datetime) -> str:
    """A schedule in a line: when, whether it is enabled, its last run and its next.

    Args:
        server: where.
        schedule: as the server describes it.
        now: the time, of the server's time zone or else UTC.
    """
    trigger = schedule.get("trigger") or {}
    cron = str((trigger.get("cron_schedule") or {}).get("cron") or "")
    period = (trigger.get("periodic_schedule") or {}).get("interval_second")
    status = str(schedule.get("status") or "").lower()
    words = [f"schedule {schedule.get('display_name')}: {cron or f'every {period} s'}, {status}"]
    identity = str(schedule.get("recurring_run_id"))
    experiment = str(schedule.get("experiment_id"))
    last = next(server.runs(experiment, page_size=1, recurring_run_id=identity), None)
    if last is not None:
        started = str(last.get("scheduled_at") or last.get("created_at"))
        words.append(f"last run {last.get('run_id')} {run_state.state(last)}, {started}")
    else:
        words.append("no run yet")
    following = next_time(cron, now) if status == "enabled" else None
    if following is not None:
        words.append(f"next {following:%Y-%m-%d %H:%M:%S}, if the server's time zone is UTC")
    return "; ".join(words)


def _active(server: Server, schedule: Mapping[str, Any]) -> list[str]:
    runs = server.runs(
        str(schedule.get("experiment_id")), recurring_run_id=str(schedule.get("recurring_run_id"))
    )
    newest = islice(runs, _NEWEST)
    return [str(one.get("run_id")) for one in newest if run_state.state(one) not in run_state.ENDED]
