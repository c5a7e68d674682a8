"""`b1k pipeline` over real HTTP against a small server of the Kubeflow Pipelines API."""

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from components.runtime.errors import UserError
from pipelines import cli
from pipelines.cluster import commands as remote
from pipelines.definitions.compiling import compile_pipeline

SECRET = "token-3f1b7c"
SMALL = ("--profile", "smoke", "--set", "repository=/data/repository")


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kfp_stub", Path(__file__).parent / "kfp_stub.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kfp_stub = _module()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    stub = kfp_stub.Stub()
    yield stub
    stub.close()
    assert not list((tmp_path / "home").iterdir()), "nothing is kept in the user's home"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("ir") / "pipeline.yaml"
    return compile_pipeline("train_and_evaluate", "smoke", path)


@pytest.fixture
def started(stub: Any, compiled: dict[str, Any]) -> None:
    """A run is there already."""
    experiment = stub._new_experiment({"display_name": "b1k"})["experiment_id"]
    body = {"display_name": "mine", "experiment_id": experiment, "pipeline_spec": compiled}
    stub._new_run({**body, "runtime_config": {"parameters": {"repository": "/data/repository"}}})


@pytest.fixture
def b1k(
    stub: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `b1k pipeline`; returns exit code, output and errors."""

    def call(*words: str, host: str = "") -> tuple[int, str, str]:
        place = () if words[0] == "compile" else ("--host", host or stub.host)
        monkeypatch.setattr(sys, "argv", ["b1k", "pipeline", *words, *place])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err
        assert "Traceback" not in said.err
        return int(stop.value.code or 0), said.out, said.err

    return call


def _asked(stub: Any, method: str) -> list[str]:
    return [path.removeprefix("/apis/v2beta1/") for verb, path in stub.requests if verb == method]


def test_submit_starts_a_run_with_typed_arguments(stub: Any, b1k: Any) -> None:
    code, out, err = b1k(
        "submit", *SMALL, "steps=7", "augment=true", "peak_learning_rate=1", "--run-name", "mine"
    )
    assert (code, out, err) == (0, "run-0\n", "")
    run = stub.runs["run-0"]
    assert run["runtime_config"]["parameters"] == {
        "repository": "/data/repository",
        "steps": 7,
        "augment": True,
        "peak_learning_rate": 1.0,
    }
    assert (run["display_name"], run["service_account"]) == ("mine", "b1k-runner")
    assert stub.experiments[run["experiment_id"]]["display_name"] == "b1k"
    b1k("submit", *SMALL)
    assert len(stub.experiments) == 1, "the experiment is used again"
    assert re.fullmatch(r"train_and_evaluate smoke [\d-]+ [\d:]+", stub.runs["run-1"]["display_name"])


def test_settings_of_the_cluster_go_with_the_pipeline(stub: Any, b1k: Any) -> None:
    assert b1k("submit", "--pipeline", "retrain", "--registry", "registry.example.org/robots")[0] == 0
    sent = stub.runs["run-0"]["pipeline_spec"]
    executors = sent["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-train"]["nodeSelector"]["labels"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
    assert "registry.example.org/robots/trainer:" in json.dumps(sent["pipeline_spec"])


def test_images_that_a_cluster_may_not_have_are_mentioned(stub: Any, b1k: Any) -> None:
    assert "note: the pods' images are localhost/b1k/toolbox" in b1k("submit")[2]
    assert b1k("submit", "--registry", "registry.example.org/robots")[2] == ""
    assert b1k("submit", "--profile", "smoke", "--set", "repository=x")[2] == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "repositry=x"), "did you mean repository?"),
        (("--set", "repository=x", "steps=many"), "expected an integer"),
        ((), "needs repository"),
        (("--pipeline", "evaluate"), "needs policy"),
        (("--pipeline", "retrian"), "there is no pipeline 'retrian'"),
    ],
)
def test_bad_arguments_are_found_before_the_server_is_asked(
    words: tuple[str, ...], message: str, stub: Any, b1k: Any
) -> None:
    code, _, err = b1k("submit", "--profile", "smoke", *words)
    assert code == 2
    assert message in err
    assert not stub.requests


def _snapshots(stub: Any, *snapshots: dict[str, Any]) -> None:
    stub.snapshots = list(snapshots)


def test_waiting_shows_the_tasks_until_the_run_ends(stub: Any, b1k: Any) -> None:
    common = {"dataset": "SUCCEEDED", "statistics": "SUCCEEDED", "train": "SUCCEEDED", "plan": "SUCCEEDED"}
    _snapshots(
        stub,
        {"state": "PENDING"},
        {"state": "RUNNING", **kfp_stub.argo_nodes(dataset="RUNNING")},
        {"state": "RUNNING", **kfp_stub.argo_nodes(dataset="SUCCEEDED", statistics="PENDING")},
        {"state": "RUNNING", **kfp_stub.argo_nodes(**common, evaluate__0="SUCCEEDED", evaluate__1="RUNNING")},
        {
            "state": "SUCCEEDED",
            "finished_at": "2026-01-02T03:05:00Z",
            **kfp_stub.argo_nodes(**common, evaluate__0="SUCCEEDED", evaluate__1="SUCCEEDED"),
        },
    )
    code, out, err = b1k("submit", *SMALL, "--wait", "--poll", "0.01")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "run-0"
    for line in (
        "Dataset: done 0:01",
        "Evaluate common / Evaluate common 0: done 0:01",
        "Evaluate common / Evaluate common 1: done 0:01",
    ):
        assert line in lines
    assert lines.index("Dataset: done 0:01") < lines.index("Statistics: done 0:01")
    assert not [line for line in lines if "driver" in line or "executor" in line]


def test_without_news_the_rest_is_skipped(stub: Any, b1k: Any) -> None:
    b1k("submit", "--pipeline", "retrain", *SMALL)
    done = kfp_stub.argo_nodes(news="SUCCEEDED")
    skipped = kfp_stub.node("condition-1", "SKIPPED", 2)
    done["run_details"]["task_details"].append(skipped)
    _snapshots(stub, {"state": "SUCCEEDED", "finished_at": "2026-01-02T03:05:00Z", **done})
    code, out, _ = b1k("status", "run-0")
    assert code == 0
    assert "✓ News" in out
    assert re.search(r"- Train common +skipped", out)


def test_servers_with_tasks_of_their_own_are_understood(stub: Any, b1k: Any) -> None:
    b1k("submit", "--pipeline", "retrain", *SMALL)
    pod = {"type": "EXECUTOR", "name": "pod-news"}
    task = {**kfp_stub.node("News", "", 3), "name": "news", "status": "FAILED", "pods": [pod]}
    del task["state"]
    task["end_time"] = "2026-01-02T03:04:05Z"
    _snapshots(stub, {"state": "FAILED", "finished_at": "2026-01-02T03:05:00Z", "tasks": [task]})
    code, out, err = b1k("status", "run-0")
    assert code == 1
    assert "✗ News" in out
    assert "the run run-0 failed" in err
    stub.logs = {"pod-news": "why it failed\n"}
    assert b1k("logs", "run-0")[1] == "==> News, pod-news <==\nwhy it failed\n"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_does_not_succeed_ends_with_1(state: str, stub: Any, b1k: Any) -> None:
    nodes = kfp_stub.argo_nodes(dataset="SUCCEEDED", statistics="FAILED")
    end = {"state": state, "error": {"message": "out of memory"}, "finished_at": "2026-01-02T03:05:00Z"}
    _snapshots(stub, {"state": "RUNNING"}, {**end, **nodes})
    code, out, err = b1k("submit", *SMALL, "--wait", "--poll", "0.01")
    assert code == 1
    assert "Statistics: failed after 0:01" in out
    assert f"the run run-0 {state.lower()}: out of memory" in err
    assert "b1k pipeline logs run-0" in err


def test_a_server_that_restarts_is_waited_for(stub: Any, started: None, b1k: Any) -> None:
    _snapshots(stub, {"state": "RUNNING"}, {"state": "SUCCEEDED", "finished_at": "2026-01-02T03:05:00Z"})
    looks: list[int] = []

    def first_answer(handler: Any) -> None:
        looks.append(1)
        kfp_stub.send(handler, 200, json.dumps({**stub.runs["run-0"], "state": "RUNNING"}))

    stub.trouble(r"GET .*/runs/run-0", first_answer)
    stub.trouble(r"GET .*/runs/run-0", lambda handler: kfp_stub.send(handler, 503, "upstream connect error"))
    stub.trouble(r"GET .*/runs/run-0", lambda handler: handler.connection.close(), times=1)
    code, _, err = b1k("status", "run-0", "--wait", "--poll", "0.01")
    assert (code, err, looks) == (0, "", [1])
    assert not stub.troubles


def test_a_schedule_runs_one_at_a_time_and_does_not_catch_up(stub: Any, b1k: Any) -> None:
    code, out, _ = b1k("schedule", *SMALL, "--cron", "30 2 * * 1-5")
    assert code == 0
    (one,) = stub.schedules.values()
    assert out.strip() == one["recurring_run_id"]
    assert one["trigger"] == {"cron_schedule": {"cron": "0 30 2 * * 1-5"}}
    assert (one["no_catchup"], int(one["max_concurrency"]), one["mode"]) == (True, 1, "ENABLE")
    assert one["display_name"] == "retrain smoke"
    code, _, err = b1k("schedule", *SMALL)
    assert code == 2
    assert "there is a schedule 'retrain smoke'" in err
    assert "--replace" in err

    assert b1k("schedule", *SMALL, "--replace")[0] == 0
    (other,) = stub.schedules.values()
    assert other["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert one["recurring_run_id"] != other["recurring_run_id"]

    assert "schedule retrain smoke: 0 0 3 * * *, enabled" in b1k("status")[1]
    assert b1k("cancel", "--schedule", "retrain smoke")[:2] == (0, "deleted the schedule retrain smoke\n")
    assert not stub.schedules
    assert "there is no schedule" in b1k("cancel", "--schedule", "retrain smoke")[2]


def test_a_replacement_that_fails_says_that_the_old_schedule_is_gone(stub: Any, b1k: Any) -> None:
    b1k("schedule", *SMALL)
    stub.trouble("POST .*/recurringruns", lambda handler: kfp_stub.send(handler, 500, "{}"))
    code, _, err = b1k("schedule", *SMALL, "--replace")
    assert code == 2
    assert "the schedule 'retrain smoke' that was there is deleted" in err


@pytest.mark.parametrize("cron", ["0 3 * *", "every night", ""])
def test_a_cron_expression_that_the_server_would_misread_is_refused(cron: str, stub: Any, b1k: Any) -> None:
    code, _, err = b1k("schedule", *SMALL, "--cron", cron)
    assert code == 2
    assert "expected minute, hour" in err
    assert not stub.requests


def test_cron_expressions_get_seconds() -> None:
    assert remote.six_fields("0 3 * * *") == "0 0 3 * * *"
    assert remote.six_fields("5 0 3 * * *") == "5 0 3 * * *"
    assert remote.six_fields("@daily") == "@daily"


def test_runs_of_an_experiment_are_listed(stub: Any, b1k: Any) -> None:
    b1k("submit", *SMALL, "--run-name", "one [bold]")
    b1k("submit", *SMALL, "--run-name", "two")
    code, out, _ = b1k("status")
    assert code == 0
    assert out.index("two") < out.index("one [bold]")
    code, _, err = b1k("status", "--experiment", "other")
    assert code == 2
    assert "has no experiment 'other'; it has: b1k" in err


def test_all_pages_are_read(stub: Any, b1k: Any) -> None:
    for number in range(120):
        stub._new_experiment({"display_name": f"old-{number}"})
    stub._new_experiment({"display_name": "b1k"})
    assert b1k("submit", *SMALL)[0] == 0
    assert stub.runs["run-0"]["experiment_id"] == "experiment-120"


def test_logs_are_those_of_the_failed_tasks_or_of_the_named_one(stub: Any, started: None, b1k: Any) -> None:
    stub.logs = {"node-dataset-0": "fetched\n", "node-statistics-0": "it broke\n"}
    nodes = kfp_stub.argo_nodes(dataset="SUCCEEDED", statistics="FAILED")
    _snapshots(stub, {"state": "FAILED", "finished_at": "2026-01-02T03:05:00Z", **nodes})
    assert b1k("logs", "run-0")[:2] == (0, "==> Statistics, node-statistics-0 <==\nit broke\n")
    assert b1k("logs", "run-0", "dataset")[1] == "==> Dataset, node-dataset-0 <==\nfetched\n"
    code, _, err = b1k("logs", "run-0", "promote")
    assert code == 2
    assert "no task 'promote' has started; started: 'Dataset', 'Statistics'" in err
    del stub.logs["node-dataset-0"]
    code, _, err = b1k("logs", "run-0", "dataset")
    assert code == 2
    assert "cannot read the log" in err
    assert "kubectl logs --selector pipeline/runid=run-0" in err


def test_cancel_ends_a_run(stub: Any, started: None, b1k: Any) -> None:
    assert b1k("cancel", "run-0")[:2] == (0, "asked to end the run run-0\n")
    assert stub.runs["run-0"]["state"] == "CANCELING"
    assert b1k("cancel", "run-9")[0] == 2
    assert "give the ID of a run" in b1k("cancel")[2]


HTML = "<!doctype html><html><title>Log in to Dex</title></html>"


@pytest.mark.parametrize(
    ("code", "text", "message"),
    [
        (401, '{"message": "no identity"}', "does not know who asks (401, no token)"),
        (403, '{"message": "no"}', "not allowed to start a run (403); ask for the role"),
        (404, '{"message": "no such experiment"}', "does not have it (404); is this the address"),
        (409, '{"error": "duplicate"}', "it exists already (409). It says: duplicate"),
        (400, '{"message": "bad\\ninput"}', "the server refuses (400). It says: bad input"),
        (500, '{"message": "database is locked"}', "the server failed (500); try again"),
        (200, "{not json", "is not the Kubeflow Pipelines API v2beta1"),
        (200, HTML, "or its login page"),
        (200, "{}", "is not the Kubeflow Pipelines API v2beta1"),
        (200, "[]", "is not the Kubeflow Pipelines API v2beta1"),
    ],
)
def test_errors_of_the_server_are_said_in_words(
    code: int, text: str, message: str, stub: Any, b1k: Any
) -> None:
    stub.trouble("POST .*/runs", lambda handler: kfp_stub.send(handler, code, text))
    exit_code, out, err = b1k("submit", *SMALL)
    assert (exit_code, out) == (2, "")
    assert message in err
    assert "<" not in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("asked", ["GET .*/healthz", "GET .*/experiments", "GET .*/runs/run-0"])
@pytest.mark.parametrize(("code", "text"), [(500, "{}"), (200, HTML), (200, "{"), (403, "forbidden")])
def test_errors_are_said_at_every_step(
    asked: str, code: int, text: str, stub: Any, started: None, b1k: Any
) -> None:
    stub.trouble(asked, lambda handler: kfp_stub.send(handler, code, text))
    stop = b1k("status", "run-0") if "run-0" in asked else b1k("status")
    assert stop[0] == 2 or (asked.endswith("healthz") and code == 200)
    assert len(stop[2].splitlines()) <= 1


def test_a_slow_server_is_not_waited_for_longer_than_said(stub: Any, started: None, b1k: Any) -> None:
    stub.trouble("GET .*/healthz", lambda handler: kfp_stub.send(handler, 200, "{}", wait=30), times=9)
    code, _, err = b1k("status", "--timeout", "1")
    assert code == 2
    assert "no answer within 1 s" in err
    stub.troubles.clear()
    stub.trouble("GET .*/runs/run-0", lambda handler: kfp_stub.send(handler, 200, "{}", wait=30), times=9)
    assert "no answer within 1 s" in b1k("status", "run-0", "--timeout", "1")[2]


def test_no_server(stub: Any, b1k: Any) -> None:
    code, _, err = b1k("status", host="http://127.0.0.1:1")
    assert code == 2
    assert "no server answers at http://127.0.0.1:1" in err
    assert "kubectl port-forward" in err
    assert "expected the URL" in b1k("status", host="ml-pipeline:8888")[2]


def test_the_token_is_read_from_a_file_for_every_request(stub: Any, b1k: Any, tmp_path: Path) -> None:
    stub.token = SECRET
    code, _, err = b1k("submit", *SMALL)
    assert code == 2
    assert "(401, no token)" in err
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    assert b1k("submit", *SMALL, "--token-file", str(file))[0] == 0

    def rotate(handler: Any) -> None:
        stub.token = "another"
        file.write_text("another")
        kfp_stub.send(handler, 200, json.dumps({**stub.runs["run-0"], "state": "RUNNING"}))

    stub.trouble("GET .*/runs/run-0", rotate)
    _snapshots(stub, {"state": "SUCCEEDED", "finished_at": "2026-01-02T03:05:00Z"})
    assert b1k("status", "run-0", "--wait", "--poll", "0.01", "--token-file", str(file))[0] == 0


def test_a_service_accounts_token_is_found_where_it_is_mounted(
    stub: Any, b1k: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.token = SECRET
    (tmp_path / "mounted").write_text(SECRET)
    monkeypatch.setattr("pipelines.cluster.server.MOUNTED_TOKEN", tmp_path / "mounted")
    assert b1k("submit", *SMALL)[0] == 0
    (tmp_path / "wrong").write_text("wrong")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "wrong"))
    assert f"(401, the token in {tmp_path / 'wrong'})" in b1k("submit", *SMALL)[2]


@pytest.mark.parametrize(("content", "message"), [(None, "cannot read the token file"), (" \n", "is empty")])
def test_a_bad_token_file_is_named(content: str | None, message: str, b1k: Any, tmp_path: Path) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    code, _, err = b1k("status", "--token-file", str(file))
    assert code == 2
    assert message in err


def test_a_token_that_the_server_repeats_is_not_shown(stub: Any, b1k: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    answer = json.dumps({"message": f"bad token Bearer {SECRET}"})
    stub.trouble("GET .*/experiments", lambda handler: kfp_stub.send(handler, 401, answer))
    assert "bad token Bearer ***" in b1k("status", "--token-file", str(tmp_path / "token"))[2]


def test_the_namespace_of_multi_user_kubeflow_is_used(stub: Any, b1k: Any) -> None:
    assert b1k("submit", *SMALL, "--namespace", "team")[0] == 0
    (experiment,) = stub.experiments.values()
    assert experiment["namespace"] == "team"
    assert "healthz" not in _asked(stub, "GET")
    stub.trouble("POST .*/runs", lambda handler: kfp_stub.send(handler, 403, "{}"))
    assert (
        "not allowed to start a run in the namespace team" in b1k("submit", *SMALL, "--namespace", "team")[2]
    )


def test_an_experiment_that_somebody_else_makes_at_the_same_time(stub: Any, b1k: Any) -> None:
    def other(handler: Any) -> None:
        stub._new_experiment({"display_name": "b1k"})
        kfp_stub.send(handler, 409, '{"message": "Already exist error"}')

    stub.trouble("POST .*/experiments", other)
    assert b1k("submit", *SMALL)[0] == 0
    assert len(stub.experiments) == 1


def test_the_stub_refuses_what_is_not_the_api(stub: Any) -> None:
    with pytest.raises(kfp_stub.RefusedError, match="unknown fields"):
        kfp_stub.read(b'{"display_name": "x", "colour": "red"}', "V2beta1Experiment")
    with pytest.raises(kfp_stub.RefusedError, match="is 3, not str"):
        kfp_stub.read(b'{"display_name": 3}', "V2beta1Run")


def test_compile_prints_the_file(b1k: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert b1k("compile", "--output", "out.yaml")[:2] == (0, "out.yaml\n")
    assert (tmp_path / "out.yaml").stat().st_size > 10_000


def test_errors_are_mistakes_of_the_user() -> None:
    with pytest.raises(UserError):
        remote.six_fields("x")
