"""Schedules over real HTTP: how they end without ending their runs, and what is said of them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.cluster.schedules import next_time, six_fields

SMALL = ("--profile", "smoke", "--set", "repository=/data/repository")
NAME = "retrain smoke"


def _run_of(stub: Any, schedule: str, state: str = "RUNNING") -> str:
    """A run that the schedule has started."""
    identity = f"run-{len(stub.runs)}"
    stub.runs[identity] = {
        "run_id": identity,
        "display_name": "nightly",
        "experiment_id": stub.schedules[schedule]["experiment_id"],
        "recurring_run_id": schedule,
        "state": state,
        "scheduled_at": "2026-01-02T03:00:00Z",
    }
    return identity


@pytest.fixture
def schedule(stub: Any, b1k: Any) -> str:
    code, out, _ = b1k("schedule", *SMALL, "--cron", "30 2 * * 1-5")
    assert code == 0
    return str(out.strip())


def test_a_schedule_runs_one_at_a_time_and_does_not_catch_up(stub: Any, schedule: str, b1k: Any) -> None:
    one = stub.schedules[schedule]
    assert one["trigger"] == {"cron_schedule": {"cron": "0 30 2 * * 1-5"}}
    assert (one["no_catchup"], int(one["max_concurrency"]), one["mode"]) == (True, 1, "ENABLE")
    assert one["display_name"] == NAME
    code, _, err = b1k("schedule", *SMALL)
    assert code == 2
    assert f"there is a schedule {NAME!r} already; give --replace" in err


def test_a_schedule_without_active_runs_is_deleted(stub: Any, schedule: str, b1k: Any) -> None:
    _run_of(stub, schedule, "SUCCEEDED")
    code, out, _ = b1k("cancel", "--schedule", NAME)
    assert (code, out) == (0, f"deleted the schedule {NAME} ({schedule})\n")
    asked = [path for method, path in stub.requests if schedule in path]
    assert asked[0].endswith(":disable"), "before it is looked whether a run is active"
    assert not stub.schedules
    assert "there is no schedule" in b1k("cancel", "--schedule", NAME)[2]


def test_a_schedule_whose_run_is_active_is_disabled(stub: Any, schedule: str, b1k: Any) -> None:
    run = _run_of(stub, schedule)
    _run_of(stub, schedule, "SUCCEEDED")
    code, out, _ = b1k("cancel", "--schedule", NAME)
    assert code == 0
    assert f"disabled the schedule {NAME} ({schedule}); its run {run} goes on" in out
    assert stub.schedules[schedule]["status"] == "DISABLED"
    stub.runs[run]["state"] = "FAILED"
    assert b1k("cancel", "--schedule", NAME)[1] == f"deleted the schedule {NAME} ({schedule})\n"
    assert not stub.killed


def test_a_schedule_ends_with_its_runs_if_told(stub: Any, schedule: str, b1k: Any) -> None:
    run = _run_of(stub, schedule)

    def end(handler: Any) -> None:
        stub.runs[run]["state"] = "FAILED"
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"{}")

    stub.trouble(f"POST .*/{run}:terminate", end)
    code, out, _ = b1k("cancel", "--schedule", NAME, "--and-its-runs")
    assert (code, out) == (0, f"deleted the schedule {NAME} ({schedule}) and ended {run}\n")
    assert not stub.killed, "the run had ended before its schedule was deleted"


def test_a_replaced_schedule_lets_its_run_end(stub: Any, schedule: str, b1k: Any) -> None:
    run = _run_of(stub, schedule)
    code, out, _ = b1k("schedule", *SMALL, "--replace")
    assert code == 0
    new, said = out.splitlines()
    assert stub.schedules[new]["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert f"its run {run} goes on" in said
    assert {key: one["status"] for key, one in stub.schedules.items()} == {
        schedule: "DISABLED",
        new: "ENABLED",
    }
    assert not stub.killed


def test_a_replacement_that_fails_changes_nothing(stub: Any, schedule: str, b1k: Any) -> None:
    stub.trouble("POST .*/recurringruns", (500, "{}"))
    assert b1k("schedule", *SMALL, "--replace")[0] == 2
    assert stub.schedules[schedule]["status"] == "ENABLED"


def test_status_says_the_last_run_and_the_next(stub: Any, schedule: str, b1k: Any) -> None:
    assert f"schedule {NAME}: 0 30 2 * * 1-5, enabled; no run yet; next 20" in b1k("status")[1]
    run = _run_of(stub, schedule)
    assert f"last run {run} running, 2026-01-02T03:00:00Z; next 20" in b1k("status")[1]
    stub.schedules[schedule]["status"] = "DISABLED"
    out = b1k("status")[1]
    assert f"schedule {NAME}: 0 30 2 * * 1-5, disabled; last run {run}" in out
    assert "next" not in out


def test_a_run_whose_schedule_is_gone_is_lost(stub: Any, schedule: str, argo: Any, b1k: Any) -> None:
    run = _run_of(stub, schedule)
    stub.workflows[run] = argo.Workflow().task("train", "Running").manifest()
    assert b1k("status", run)[0] == 0
    del stub.schedules[schedule]
    stub.killed.append(run)
    assert f"{run}  lost " in b1k("status")[1]
    for words in (("status", run), ("status", run, "--wait")):
        code, out, err = b1k(*words)
        assert code == 1
        assert f", lost, run {run}" in out
        assert "Train" in out
        assert f"the run {run} lost: its schedule was deleted while it was active" in err
    assert "cannot be ended: it is lost" in b1k("cancel", run)[2]


@pytest.mark.parametrize("cron", ["0 3 * *", "every night", ""])
def test_a_cron_expression_that_the_server_would_misread_is_refused(cron: str, stub: Any, b1k: Any) -> None:
    code, _, err = b1k("schedule", *SMALL, "--cron", cron)
    assert code == 2
    assert "expected minute, hour" in err
    assert not stub.requests


def test_cron_expressions_get_seconds() -> None:
    assert six_fields("0 3 * * *") == "0 0 3 * * *"
    assert six_fields("5 0 3 * * *") == "5 0 3 * * *"
    assert six_fields("@daily") == "@daily"


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 0 3 * * *", "2026-11-28 03:00:00"),
        ("5 30 2 ? * MON-FRI", "2026-11-30 02:30:05"),
        ("@hourly", "2026-11-27 22:00:00"),
        ("@weekly", "2026-11-29 00:00:00"),
        ("0 */2 * * * *", "2026-11-27 21:02:00"),
        ("nonsense", None),
        ("0 0 0 31 2 *", None),
    ],
)
def test_when_a_schedule_runs_next(cron: str, expected: str | None) -> None:
    found = next_time(cron, datetime(2026, 11, 27, 21, 0, 30, tzinfo=UTC))
    assert (found and f"{found:%Y-%m-%d %H:%M:%S}") == expected
