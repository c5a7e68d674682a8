"""Local runs of a small pipeline through kfp.local: values, failures, kills, resuming, one run at a time."""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.errors import UserError
from components.settings.sections import DECLARATIONS, PIPELINES
from pipelines.definitions.compiling import BUILDERS, compile_pipeline
from pipelines.local import run as local
from pipelines.local.engine import Request
from pipelines.local.records import Run, load_runs, new_run

HERE = Path(__file__).parent
DRIVER = """
    import sys
    from pathlib import Path
    import small_stage
    from pipelines.local import run as local
    small_stage.register()
    resume = "--resume" in sys.argv
    options = local.Options(profile="smoke", pipeline="small", workspace=Path(sys.argv[1]), resume=resume)
    sys.exit(local.run(options))
"""


@pytest.fixture(autouse=True)
def _small_pipeline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    spec = importlib.util.spec_from_file_location("small_stage", HERE / "small_stage.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "small_stage", module)
    spec.loader.exec_module(module)
    before = [(known, dict(known)) for known in (BUILDERS, PIPELINES, DECLARATIONS)]
    module.register()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    yield
    for known, content in before:
        known.clear()
        known.update(content)


def _run(workspace: Path, *settings: str, resume: bool = False, pipeline: str = "small") -> int:
    return local.run(
        local.Options(
            profile="smoke",
            pipeline=pipeline,
            workspace=workspace,
            set=(settings,) if settings else (),
            resume=resume,
        )
    )


def _last(workspace: Path) -> Run:
    return load_runs(workspace)[-1]


def _calls(workspace: Path) -> dict[str, int]:
    files = workspace.glob("calls-*")
    return {path.name.removeprefix("calls-"): len(path.read_text().splitlines()) for path in files}


def _text(workspace: Path, task: str) -> str:
    return (workspace / _last(workspace).outputs[task] / "text").read_text()


def _wait(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_values_pass_as_on_a_cluster_and_a_second_run_is_cached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, "number=7") == 0
    # parameters, items of the loop and collected artifacts each reach the right task, in order
    assert _text(tmp_path, "last") == "last7(left7ab(first7()) right7c(first7()))"
    shown = capsys.readouterr().out
    for line in ("First: done", "Middle / left: done", "Middle / right: done", "Last: done"):
        assert line in shown
    run = _last(tmp_path)
    assert (run.status, run.arguments) == ("succeeded", {"settings": {"small": {"number": 7}}})
    assert run.seconds.keys() == {"first", "middle", "last"}
    lines = (run.folder(tmp_path) / "events-1.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["task"] for event in events if event.get("description") == "counting"} == {
        "first",
        "for-loop-1-iteration-0/middle",
        "for-loop-1-iteration-1/middle",
        "last",
    }

    assert (tmp_path / "runs" / "latest").readlink() == Path(run.id)
    assert _run(tmp_path, "number=7") == 0
    assert "First: cached" in capsys.readouterr().out
    assert _calls(tmp_path) == {"first": 1, "left": 1, "right": 1, "last": 1}


def test_a_pipeline_inside_a_condition_runs_on_yes_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, "reply=no", pipeline="branching") == 0
    assert _calls(tmp_path) == {"ask": 1}
    assert _last(tmp_path).outputs.keys() == {"ask"}
    assert "Ask: done" in capsys.readouterr().out
    assert _run(tmp_path, "reply=yes", "number=7", pipeline="branching") == 0
    # a pipeline input keeps its value inside the inner loop
    assert _text(tmp_path, "last") == "last7(left7ab(first7()) right7c(first7()))"
    assert "Middle / left: done" in capsys.readouterr().out


@pytest.mark.parametrize(("how", "code", "said"), [("BREAK", 1, "broken as"), ("REFUSE", 2, "refused as")])
def test_a_failed_stage_is_shown_and_the_run_continues_after_it(
    how: str,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(how, "right")
    assert _run(tmp_path, "number=3") == code
    told = capsys.readouterr()
    assert "Middle / right: failed" in told.out
    assert said in told.err, "the end of the task's log"
    assert "for-loop-1-iteration-1.middle.log" in told.err, "and its path"
    assert f"b1k run --resume --workspace {tmp_path}" in told.err
    assert _last(tmp_path).status == "failed"
    assert "last" not in _calls(tmp_path)

    monkeypatch.delenv(how)
    assert _run(tmp_path, resume=True) == 0
    assert _text(tmp_path, "last") == "last3(left3ab(first3()) right3c(first3()))"
    assert _calls(tmp_path) == {"first": 1, "left": 1, "right": 2, "last": 1}
    run = _last(tmp_path)
    assert (run.status, run.attempts, len(load_runs(tmp_path))) == ("succeeded", 2, 1)


def test_a_stage_that_crashes_fails_the_run_with_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CRASH", "first")
    assert _run(tmp_path) == 1
    assert "First failed with signal SIGABRT" in capsys.readouterr().err


def _drive(workspace: Path, *words: str, **variables: str) -> subprocess.Popen[bytes]:
    # a shell starts what it puts into the background with Ctrl-C ignored, these tests too
    command = ["env", "--default-signal=INT", sys.executable, "-c", textwrap.dedent(DRIVER)]
    return subprocess.Popen(
        [*command, str(workspace), *words],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _stage_pid(workspace: Path, name: str) -> int:
    path = workspace / f"calls-{name}"
    _wait(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text().split()[-1])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_a_run_that_is_stopped_and_it_can_be_resumed(
    number: signal.Signals, tmp_path: Path
) -> None:
    run = _drive(tmp_path, SLOW="last", SLEEP="30")
    pid = _stage_pid(tmp_path, "last")
    run.send_signal(number)
    code = run.wait(30)
    assert code == (-number if number == signal.SIGKILL else 130)
    _wait(lambda: not _alive(pid))
    assert _last(tmp_path).status == ("running" if number == signal.SIGKILL else "interrupted")

    assert _run(tmp_path, resume=True) == 0
    assert _calls(tmp_path) == {"first": 1, "left": 1, "right": 1, "last": 2}
    last = _last(tmp_path)
    assert (last.status, last.attempts) == ("succeeded", 2)
    assert last.seconds.keys() == {"first", "middle", "last"}


def test_one_run_at_a_time_in_a_workspace(tmp_path: Path) -> None:
    run = _drive(tmp_path, SLOW="first", SLEEP="30")
    try:
        _stage_pid(tmp_path, "first")
        with pytest.raises(UserError, match=f"process {run.pid}"):
            _run(tmp_path)
    finally:
        run.kill()
        run.wait()


def test_resuming_needs_a_run_that_did_not_finish(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no unfinished run"):
        _run(tmp_path, resume=True)
    with pytest.raises(UserError, match="leave --set out"):
        _run(tmp_path, "number=1", resume=True)


def test_required_inputs_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="repository is empty"):
        local.run(local.Options(profile="smoke", workspace=tmp_path))


def test_a_run_of_an_earlier_version_is_not_half_continued(tmp_path: Path) -> None:
    old = dataclasses.replace(
        new_run(tmp_path, "train_and_evaluate", "smoke", {"peak_learning_rate": 1}), format=1
    )
    old.save(tmp_path)
    with pytest.raises(UserError, match="was started by an earlier version"):
        _run(tmp_path, resume=True)


def test_runs_are_listed_newest_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for status in ("succeeded", "failed"):
        dataclasses.replace(new_run(tmp_path, "retrain", "smoke", {}), status=status).save(tmp_path)
    assert local.run(local.Options(workspace=tmp_path, list=True)) == 0
    shown = capsys.readouterr().out
    assert shown.index("failed") < shown.index("succeeded")
    assert len(load_runs(tmp_path)) == 2, "the link to the last one is no third"


def test_the_names_of_all_values_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert local.run(local.Options(fields=True)) == 0
    shown = capsys.readouterr().out
    assert "    steps: Gradient steps." in shown
    assert "plan.policy.inpainting = soft: How the next chunk" in shown


def test_a_compiled_pipeline_refuses_wrong_values_by_itself(tmp_path: Path) -> None:
    """As on a cluster, where a run from the UI was checked by nobody before its first task."""
    package = tmp_path / "pipeline.yaml"
    compile_pipeline("train_and_evaluate", "smoke", package, workspace=tmp_path / "w")
    given = {"repository": "/r", "batch_size": 0, "settings": {"group": {"best": 1.5}, "plan": {"polcy": {}}}}
    request = Request(str(package), given, str(tmp_path), str(tmp_path / "events.jsonl"), {})
    request.save(tmp_path / "request.json")
    command = [sys.executable, "-m", "pipelines.local.engine", str(tmp_path / "request.json")]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 2
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["settings.log"]
    said = (tmp_path / "logs" / "settings.log").read_text()
    for mistake in ("3 mistakes", "batch_size is 0", "group.best is 1.5", "plan.polcy does not exist"):
        assert mistake in said
