"""Metrics of a training in MLflow: a real server from the package index, on loopback."""

import json
import socket
import time
import urllib.parse
import urllib.request
from contextlib import suppress

import pytest

from components.train.tracking import tracked

CONFIG = {"steps": 4, "learning_rate": {"peak": 0.001}, "tasks": ["a", "b"]}


@pytest.fixture(autouse=True)
def _no_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for name in ("RUN_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME", "TRACKING_TOKEN", "WORKSPACE"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)


def ask(mlflow, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{mlflow}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def runs(mlflow, experiment):
    query = urllib.parse.urlencode({"experiment_name": experiment})
    identity = ask(mlflow, f"experiments/get-by-name?{query}")["experiment"]["experiment_id"]
    return ask(mlflow, "runs/search", {"experiment_ids": [identity]}).get("runs", [])


@pytest.mark.slow
def test_attempts_of_a_training_share_a_run(mlflow, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "shared")
    with suppress(RuntimeError), tracked(tmp_path, "common-1", "1", CONFIG) as (hook,):
        hook(1, {"loss": 0.5, "bad": float("nan")})
        raise RuntimeError
    assert [one["info"]["status"] for one in runs(mlflow, "shared")] == ["FAILED"]
    with tracked(tmp_path, "common-1", "1", CONFIG) as (hook,):
        assert runs(mlflow, "shared")[0]["info"]["status"] == "RUNNING"
        hook(2, {"loss": 0.25})
    (run,) = runs(mlflow, "shared")
    assert (run["info"]["status"], run["info"]["run_name"]) == ("FINISHED", "common-1")
    assert {one["key"]: one["value"] for one in run["data"]["params"]} == {
        "steps": "4",
        "learning_rate.peak": "0.001",
        "tasks": "['a', 'b']",
    }
    history = ask(mlflow, f"metrics/get-history?run_id={run['info']['run_id']}&metric_key=loss")["metrics"]
    assert [(one["step"], one["value"]) for one in history] == [(1, 0.5), (2, 0.25)]
    assert [one["key"] for one in run["data"]["metrics"]] == ["loss"]
    with tracked(tmp_path, "good-2", "2", CONFIG):
        pass
    assert len(runs(mlflow, "shared")) == 2


@pytest.mark.slow
def test_the_run_of_a_task_of_kubeflow_is_taken_and_left_open(mlflow, tmp_path, monkeypatch):
    experiment = ask(mlflow, "experiments/create", {"name": "kubeflow"})["experiment_id"]
    made = ask(mlflow, "runs/create", {"experiment_id": experiment, "run_name": "train"})["run"]["info"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    monkeypatch.setenv("MLFLOW_RUN_ID", made["run_id"])
    for step in (1, 2):
        with tracked(tmp_path, "common-1", "1", CONFIG) as (hook,):
            hook(step, {"loss": 1 / step})
    (run,) = runs(mlflow, "kubeflow")
    assert (run["info"]["run_id"], run["info"]["status"]) == (made["run_id"], "RUNNING")
    assert run["data"]["metrics"][0]["step"] == 2


def test_a_server_that_is_not_there_is_told_once_and_does_not_hold_up(tmp_path, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free.getsockname()[1]}")
    begun = time.monotonic()
    with tracked(tmp_path, "common-1", "1", CONFIG) as (hook,):
        for step in range(100):
            hook(step, {"loss": 1.0})
    assert time.monotonic() - begun < 30
    assert capsys.readouterr().out.count("continues without MLflow, which failed: ") == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with tracked(tmp_path, "common-1", "1", CONFIG) as hooks:
        assert hooks == []
