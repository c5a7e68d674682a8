"""`b1k pipeline` over real HTTP against a small server of the Kubeflow Pipelines API."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

SMALL = ("--profile", "smoke", "--set", "repository=/data/repository")
END = {"finished_at": "2026-01-02T03:05:00Z"}


@pytest.fixture
def started(stub: Any, b1k: Any) -> None:
    """A run is there already."""
    b1k("submit", *SMALL, "--run-name", "mine")
    stub.requests.clear()


def test_submit_starts_a_run_with_typed_arguments(stub: Any, b1k: Any) -> None:
    values = ("steps=7", "train.augment=true", "train.learning_rate.peak=1")
    code, out, err = b1k("submit", *SMALL, *values, "--run-name", "mine")
    assert (code, out, err) == (0, "run-0\n", "")
    run = stub.runs["run-0"]
    assert run["runtime_config"]["parameters"] == {
        "repository": "/data/repository",
        "steps": 7,
        "settings": {"train": {"augment": True, "learning_rate": {"peak": 1.0}}},
    }
    assert (run["display_name"], run["service_account"]) == ("mine", "b1k-runner")
    assert stub.experiments[run["experiment_id"]]["display_name"] == "b1k"
    b1k("submit", *SMALL)
    assert len(stub.experiments) == 1, "the experiment is used again"
    assert re.fullmatch(r"train_and_evaluate smoke [\d-]+ [\d:]+", stub.runs["run-1"]["display_name"])


def test_settings_of_the_cluster_go_with_the_pipeline(stub: Any, b1k: Any) -> None:
    assert b1k("submit", "--pipeline", "retrain", "--registry", "registry.example.org/robots")[0] == 0
    sent = stub.versions["version-0"]["pipeline_spec"]
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
        (("--set", "repository=x", "steps=many"), "expected a whole number"),
        ((), "repository is empty; expected"),
        (("--pipeline", "evaluate"), "policy is empty; expected"),
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


def test_a_pipeline_is_uploaded_once_and_then_referred_to(stub: Any, b1k: Any) -> None:
    code, out, _ = b1k("upload", *SMALL)
    assert code == 0
    assert re.fullmatch(r"train-and-evaluate-smoke, version [0-9a-f]{12}-\d{8}-\d{6}\n", out)
    assert b1k("upload", *SMALL)[1] == out, "it is there"
    b1k("submit", "--profile", "smoke", "--set", "repository=/data/repository", "steps=3")
    assert len(stub.versions) == 2, "an upload's values are its defaults, those of a run are not"
    b1k("submit", *SMALL)
    b1k("schedule", *SMALL, "--pipeline", "train_and_evaluate")
    assert len(stub.versions) == 2
    reference = {"pipeline_id": "pipeline-0", "pipeline_version_id": "version-1"}
    for one in (*stub.runs.values(), *stub.schedules.values()):
        assert one["pipeline_version_reference"] == reference
    version = stub.versions["version-1"]
    assert version["tags"]["profile"] == "smoke"
    assert re.match(r"commit [0-9a-f]{40}, profile smoke, sha256 [0-9a-f]{64}$", version["description"])
    b1k("submit", *SMALL, "--registry", "registry.example.org/robots")
    assert (len(stub.versions), len(stub.pipelines)) == (3, 1), "another version of the same pipeline"


def test_waiting_shows_the_tasks_until_the_run_ends(stub: Any, argo: Any, b1k: Any) -> None:
    label = "Evaluate common"
    first = argo.Workflow().task("dataset", "Running")
    second = argo.Workflow().task("dataset").task("train", "Running", ("Pending", "Unschedulable: no node"))
    third, fourth = (argo.Workflow(one).task("dataset").task("train") for one in ("Running", "Succeeded"))
    third.loop("for-loop-1", "evaluate", ["Succeeded", "Running"], label=label)
    fourth.loop("for-loop-1", "evaluate", ["Succeeded", "Succeeded"], label=label)
    running = [{"state": "RUNNING", "workflow": one.manifest()} for one in (first, second, third)]
    stub.snapshots = [
        {"state": "PENDING"},
        *running,
        {"state": "SUCCEEDED", "workflow": fourth.manifest(compressed=True), **END},
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
    assert re.search(r"Train: waiting \S+: Unschedulable: no node\n", out)
    assert lines.index("Dataset: done 0:01") < lines.index("Train: done 0:01")
    assert not [line for line in lines if "driver" in line or "executor" in line]


def test_a_run_that_fails_ends_with_1(stub: Any, argo: Any, b1k: Any) -> None:
    failed = argo.Workflow("Failed", "workflow says so").task("dataset")
    failed.task("train", "Failed", ("Failed", "main: Error (exit code 1)"))
    pod = next(key for key in failed.nodes if key.endswith("train-0-executor-0"))
    stub.logs[pod] = "loading\nout of memory\n"
    stub.snapshots = [{"state": "RUNNING"}, {"state": "FAILED", "workflow": failed.manifest(), **END}]
    code, out, err = b1k("submit", *SMALL, "--wait", "--poll", "0.01")
    assert code == 1
    assert "Train: failed after 0:01: main: Error (exit code 1): out of memory" in out
    assert "the run run-0 failed: workflow says so" in err
    assert "b1k pipeline logs run-0" in err


def test_status_shows_how_far_a_stage_is(stub: Any, argo: Any, started: None, b1k: Any) -> None:
    workflow = argo.Workflow().task("train", "Running")
    pod = next(key for key in workflow.nodes if key.endswith("train-0-executor-0"))
    stub.logs[pod] = (
        "I1127 21:01:08.557194 16 main.go:67] hello\ntraining 300/20,000 (2%), 2:10 left, loss 0.4\n"
    )
    stub.snapshots = [{"state": "RUNNING", "workflow": workflow.manifest()}]
    code, out, _ = b1k("status", "run-0")
    assert code == 0
    assert re.search(r"Train +running \S+ training ╌+ 300/20,000 2:10 left loss 0.4", out)


def test_every_running_task_shows_its_progress(
    stub: Any, argo: Any, started: None, b1k: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cluster.watching._PROGRESS", 0.0)
    workflow = argo.Workflow().loop("for-loop-1", "evaluate", ["Running"] * 12, label="Evaluate")
    for node in workflow.nodes:
        stub.logs[node] = "rollouts 3/10 (30%), 2:10 left\n"
    running = {"state": "RUNNING", "workflow": workflow.manifest()}
    stub.snapshots = [running, running, {"state": "SUCCEEDED", **END}]
    code, out, _ = b1k("status", "run-0", "--wait", "--poll", "0.01")
    assert code == 0
    for number in range(12):
        assert re.search(rf"Evaluate {number}: running .*3/10", out)
    asked = [path for _, path in stub.requests if path.endswith("/log")]
    assert len({path for path in asked if "executor" in path}) >= 12


@pytest.mark.parametrize("state", ["RUNNING", "FAILED"])
def test_every_failed_task_says_why(state: str, stub: Any, argo: Any, started: None, b1k: Any) -> None:
    workflow = argo.Workflow().loop("for-loop-1", "evaluate", ["Failed"] * 12, label="Evaluate")
    for node in workflow.nodes:
        stub.logs[node] = f"reason of {node}\n"
    seen = {"workflow": workflow.manifest()}
    stub.snapshots = [{"state": state, **seen}, {"state": "FAILED", **seen, **END}]
    code, out, _ = b1k("status", "run-0", "--wait", "--poll", "0.01")
    assert code == 1
    for number in range(12):
        assert len(re.findall(rf"^Evaluate / Evaluate {number}: .*: reason of ", out, re.MULTILINE)) == 1


def test_a_server_that_gives_no_logs_is_asked_again_at_the_next_look(
    stub: Any, argo: Any, started: None, b1k: Any
) -> None:
    workflow = argo.Workflow().task("dataset", "Failed").task("plan", "Failed")
    for node in workflow.nodes:
        stub.logs[node] = "no space left\n"
    seen = {"workflow": workflow.manifest()}
    stub.snapshots = [{"state": "RUNNING", **seen}, {"state": "FAILED", **seen, **END}]
    stub.trouble("GET .*/log", (503, "upstream connect error"))
    code, out, _ = b1k("status", "run-0", "--wait", "--poll", "0.01")
    assert code == 1
    assert "Dataset: failed after 0:01: no space left" in out
    assert "Plan: failed after 0:01: no space left" in out
    stub.requests.clear()
    stub.trouble("GET .*/log", (503, "upstream connect error"))
    code, out, _ = b1k("status", "run-0")
    assert code == 1
    assert "Dataset" in out
    assert len([path for _, path in stub.requests if path.endswith("/log")]) == 1, "it is asked for no other"


def test_a_server_that_restarts_before_the_first_look_is_waited_for(
    stub: Any, started: None, b1k: Any
) -> None:
    stub.snapshots = [{"state": "SUCCEEDED", **END}]
    stub.trouble(r"GET .*/v2beta1/runs/run-0", (503, "upstream connect error"))
    code, _, err = b1k("status", "run-0", "--wait", "--poll", "0.01")
    assert (code, err) == (0, "")


def test_a_server_that_restarts_is_waited_for(stub: Any, kfp_stub: Any, started: None, b1k: Any) -> None:
    stub.snapshots = [{"state": "RUNNING"}, {"state": "SUCCEEDED", **END}]
    looks: list[int] = []

    def first_answer(handler: Any) -> None:
        looks.append(1)
        kfp_stub.send(handler, 200, json.dumps({**stub.runs["run-0"], "state": "RUNNING"}))

    stub.trouble(r"GET .*/v2beta1/runs/run-0", first_answer)
    stub.trouble(r"GET .*/v2beta1/runs/run-0", (503, "upstream connect error"))
    stub.trouble(r"GET .*/v2beta1/runs/run-0", lambda handler: handler.connection.close())
    code, _, err = b1k("status", "run-0", "--wait", "--poll", "0.01")
    assert (code, err, looks) == (0, "", [1])
    assert not stub.troubles


def test_runs_of_an_experiment_are_listed(stub: Any, b1k: Any) -> None:
    b1k("submit", *SMALL, "--run-name", "one [bold]")
    b1k("submit", *SMALL, "--run-name", "two")
    code, out, _ = b1k("status")
    assert code == 0
    assert out.index("two") < out.index("one [bold]")
    code, _, err = b1k("status", "--experiment", "other")
    assert code == 2
    assert "has no experiment 'other'; it has: b1k" in err


def test_cancel_ends_a_run(stub: Any, started: None, b1k: Any) -> None:
    assert b1k("cancel", "run-0")[:2] == (0, "asked to end the run run-0\n")
    assert stub.runs["run-0"]["state"] == "CANCELING"
    assert b1k("cancel", "run-9")[0] == 2
    stub.runs["run-0"]["state"] = "SUCCEEDED"
    assert "the run run-0 cannot be ended: it is succeeded" in b1k("cancel", "run-0")[2]
    assert "give the ID of a run" in b1k("cancel")[2]


def test_compile_prints_the_file(b1k: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert b1k("compile", "--output", "out.yaml")[:2] == (0, "out.yaml\n")
    assert (tmp_path / "out.yaml").stat().st_size > 10_000
