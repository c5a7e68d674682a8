"""`b1k pipeline` over real HTTP against a small server of the Kubeflow Pipelines API."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster.commands import six_fields
from pipelines.definitions.compiling import compile_pipeline

SMALL = ("--profile", "smoke", "--set", "repository=/data/repository")
END = {"finished_at": "2026-01-02T03:05:00Z"}


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


def test_waiting_shows_the_tasks_until_the_run_ends(stub: Any, kfp_stub: Any, b1k: Any) -> None:
    common = {"dataset": "SUCCEEDED", "statistics": "SUCCEEDED", "train": "SUCCEEDED", "plan": "SUCCEEDED"}
    stub.snapshots = [
        {"state": "PENDING"},
        {"state": "RUNNING", **kfp_stub.argo_nodes(dataset="RUNNING")},
        {"state": "RUNNING", **kfp_stub.argo_nodes(dataset="SUCCEEDED", statistics="PENDING")},
        {"state": "RUNNING", **kfp_stub.argo_nodes(**common, evaluate__0="SUCCEEDED", evaluate__1="RUNNING")},
        {
            "state": "SUCCEEDED",
            **END,
            **kfp_stub.argo_nodes(**common, evaluate__0="SUCCEEDED", evaluate__1="SUCCEEDED"),
        },
    ]
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


def test_without_news_the_rest_is_skipped(stub: Any, kfp_stub: Any, b1k: Any) -> None:
    b1k("submit", "--pipeline", "retrain", *SMALL)
    done = kfp_stub.argo_nodes(news="SUCCEEDED")
    skipped = kfp_stub.node("condition-1", "SKIPPED", 2)
    done["run_details"]["task_details"].append(skipped)
    stub.snapshots = [{"state": "SUCCEEDED", **END, **done}]
    code, out, _ = b1k("status", "run-0")
    assert code == 0
    assert "✓ News" in out
    assert re.search(r"- Train common +skipped", out)


def test_servers_with_tasks_of_their_own_are_understood(stub: Any, kfp_stub: Any, b1k: Any) -> None:
    b1k("submit", "--pipeline", "retrain", *SMALL)
    pod = {"type": "EXECUTOR", "name": "pod-news"}
    task = {**kfp_stub.node("News", "", 3), "name": "news", "status": "FAILED", "pods": [pod]}
    del task["state"]
    task["end_time"] = "2026-01-02T03:04:05Z"
    stub.snapshots = [{"state": "FAILED", **END, "tasks": [task]}]
    code, out, err = b1k("status", "run-0")
    assert code == 1
    assert "✗ News" in out
    assert "the run run-0 failed" in err
    stub.logs = {"pod-news": "why it failed\n"}
    assert b1k("logs", "run-0")[1] == "==> News, pod-news <==\nwhy it failed\n"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_does_not_succeed_ends_with_1(state: str, stub: Any, kfp_stub: Any, b1k: Any) -> None:
    nodes = kfp_stub.argo_nodes(dataset="SUCCEEDED", statistics="FAILED")
    end = {"state": state, "error": {"message": "out of memory"}, **END}
    stub.snapshots = [{"state": "RUNNING"}, {**end, **nodes}]
    code, out, err = b1k("submit", *SMALL, "--wait", "--poll", "0.01")
    assert code == 1
    assert "Statistics: failed after 0:01" in out
    assert f"the run run-0 {state.lower()}: out of memory" in err
    assert "b1k pipeline logs run-0" in err


def test_a_server_that_restarts_is_waited_for(stub: Any, kfp_stub: Any, started: None, b1k: Any) -> None:
    stub.snapshots = [{"state": "RUNNING"}, {"state": "SUCCEEDED", **END}]
    looks: list[int] = []

    def first_answer(handler: Any) -> None:
        looks.append(1)
        kfp_stub.send(handler, 200, json.dumps({**stub.runs["run-0"], "state": "RUNNING"}))

    stub.trouble(r"GET .*/runs/run-0", first_answer)
    stub.trouble(r"GET .*/runs/run-0", (503, "upstream connect error"))
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
    stub.trouble("POST .*/recurringruns", (500, "{}"))
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
    assert six_fields("0 3 * * *") == "0 0 3 * * *"
    assert six_fields("5 0 3 * * *") == "5 0 3 * * *"
    assert six_fields("@daily") == "@daily"


def test_runs_of_an_experiment_are_listed(stub: Any, b1k: Any) -> None:
    b1k("submit", *SMALL, "--run-name", "one [bold]")
    b1k("submit", *SMALL, "--run-name", "two")
    code, out, _ = b1k("status")
    assert code == 0
    assert out.index("two") < out.index("one [bold]")
    code, _, err = b1k("status", "--experiment", "other")
    assert code == 2
    assert "has no experiment 'other'; it has: b1k" in err


def test_logs_are_those_of_the_failed_tasks_or_of_the_named_one(
    stub: Any, kfp_stub: Any, started: None, b1k: Any
) -> None:
    stub.logs = {"node-dataset-0": "fetched\n", "node-statistics-0": "it broke\n"}
    nodes = kfp_stub.argo_nodes(dataset="SUCCEEDED", statistics="FAILED")
    stub.snapshots = [{"state": "FAILED", **END, **nodes}]
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


def test_compile_prints_the_file(b1k: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert b1k("compile", "--output", "out.yaml")[:2] == (0, "out.yaml\n")
    assert (tmp_path / "out.yaml").stat().st_size > 10_000
