"""`b1k pipeline status` and `logs` of runs that a real Kubeflow Pipelines server had; see golden/kfp-api."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

LOGS = Path(__file__).parents[2] / "golden" / "kfp-api" / "logs"
STAGE = "train-and-evaluate-26cvd-2084478546"
"""The node of the stage that failed, by which the server was asked for its log."""
POD = "train-and-evaluate-26cvd-retry-system-container-impl-1501516448"


def _tasks(out: str) -> dict[str, str]:
    """What is said of each task, in its order."""
    found = (re.fullmatch(r"[│ ]*[├└]── . (.{18,}?) (\S.*)", line) for line in out.splitlines())
    return {match[1].strip(): match[2] for match in found if match}


def test_a_run_that_succeeded(replay: Any, b1k: Any) -> None:
    run, _ = replay("succeeded")
    code, out, err = b1k("status", run["run_id"])
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{run['display_name']}, succeeded, run {run['run_id']}"
    tasks = _tasks(out)
    assert list(tasks) == [
        "Dataset", "Statistics", "Train common", "Plan validation", "Evaluate common", "Evaluate common 0",
        "Evaluate common 1", "Group", "Train groups", "Train group 0", "Train group 1", "Plan reported",
        "Evaluate groups", "Evaluate groups 0", "Evaluate groups 1", "Leaderboard", "Promote",
    ]  # fmt: skip
    assert all(said.startswith("done") for said in tasks.values())
    assert tasks["Train groups"] == "done 1:53, 2 of 2"
    code, _, err = b1k("logs", run["run_id"])
    assert code == 2
    assert "no task has failed; name a task; started: 'Dataset', 'Statistics', 'Train common'" in err


def test_a_stage_that_failed(replay: Any, stub: Any, b1k: Any) -> None:
    run, _ = replay("failed-stage")
    stub.logs[STAGE] = (LOGS / "failed-stage.txt").read_text()
    code, out, err = b1k("status", run["run_id"][:5])
    assert code == 1
    assert f"run {run['run_id']}" in out, "whole, though its beginning was enough"
    tasks = _tasks(out)
    assert tasks["Dataset"].startswith(
        "failed after 0:10: main: Error (exit code 1): dataset: /dataset/repository has no revision 'nothere'"
    )
    assert tasks["Train"] == "skipped"
    assert f"the run {run['run_id']} failed" in err
    assert f"b1k pipeline logs {run['run_id']}" in err
    code, out, err = b1k("logs", run["run_id"])
    assert (code, err) == (0, "")
    assert out == f"==> Dataset, {POD} <==\n{stub.logs[STAGE]}"


def test_an_importer_that_failed_is_a_task(replay: Any, stub: Any, b1k: Any) -> None:
    run, _ = replay("failed-importer")
    code, out, _ = b1k("status", run["run_id"])
    assert code == 1
    tasks = _tasks(out)
    assert tasks["Policy importer"] == "failed after 0:10: main: Error (exit code 1)"
    assert {said for name, said in tasks.items() if name != "Policy importer"} == {"skipped"}
    stub.logs["evaluate-policy-6wkj4-4289748625"] = "no provider scheme found in artifact URI\n"
    assert "no provider scheme" in b1k("logs", run["run_id"], "Policy importer")[1]


def test_a_cancelled_run(replay: Any, stub: Any, b1k: Any) -> None:
    run, _ = replay("cancelled")
    code, out, err = b1k("status", run["run_id"])
    assert code == 1
    assert f", cancelled, run {run['run_id']}" in out
    tasks = _tasks(out)
    assert (tasks["Train"], tasks["Plan"], tasks["Group"]) == ("done 0:33", "cancelled after 0:10", "skipped")
    assert f"the run {run['run_id']} cancelled\n" in err
    assert "cannot be ended: it is cancelled" in b1k("cancel", run["run_id"])[2]
    stub.logs["train-and-evaluate-4986w-3530005100"] = "planning\n"
    code, out, err = b1k("logs", run["run_id"])
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == "planning", "of the task that was stopped"


def test_a_lost_pod_was_tried_again(replay: Any, stub: Any, b1k: Any) -> None:
    run, workflow = replay("pod-lost")
    code, out, _ = b1k("status", run["run_id"])
    assert code == 0
    tasks = _tasks(out)
    assert tasks["Train"] == "done 1:28, attempt 2 (attempt 1 failed: pod deleted)"
    assert tasks["For loop 2"] == "done 4:23, 2 of 2"
    assert tasks["For loop 3"].startswith("running")
    pods = [
        node["id"].replace("t586m", "t586m-retry-system-container-impl")
        for attempt in (0, 1)
        for node in workflow["status"]["nodes"].values()
        if node["name"].endswith(f"root(0).train({attempt}).executor(0)")
    ]
    stub.logs[pods[1]] = "trained\n"
    code, out, err = b1k("logs", run["run_id"], "train")
    assert (code, out) == (0, f"==> Train, attempt 2, {pods[1]} <==\ntrained\n")
    assert f"Train, attempt 1: cannot read the log of {pods[0]}" in err
    code, out, _ = b1k("logs", run["run_id"], "evaluate 1")
    assert code == 2, "only the loop's second item is asked for"


def test_no_news(replay: Any, stub: Any, b1k: Any) -> None:
    run, _ = replay("no-news")
    code, out, err = b1k("status", run["run_id"])
    assert (code, err) == (0, "")
    assert _tasks(out) == {"News": "done 0:10", "Condition 1": "skipped: its condition is false"}
    stub.logs["retrain-2pwqx-2987405343"] = "nothing new\n"
    assert b1k("logs", run["run_id"], "News")[1].endswith("<==\nnothing new\n")


def test_compressed_or_not_is_the_same(replay: Any, stub: Any, b1k: Any) -> None:
    run, workflow = replay("failed-stage")
    plain = b1k("status", run["run_id"])
    nodes = workflow["status"].pop("nodes")
    workflow["status"]["compressedNodes"] = base64.b64encode(
        gzip.compress(json.dumps(nodes).encode())
    ).decode()
    stub.workflows[run["run_id"]] = json.dumps(workflow)
    assert b1k("status", run["run_id"]) == plain


def test_a_log_that_is_gone_is_an_error_that_says_where_it_may_be(replay: Any, stub: Any, b1k: Any) -> None:
    run, _ = replay("succeeded")
    error = (LOGS / "not-found.json").read_text()
    pod = "train-and-evaluate-9scmc-retry-system-container-impl-4008564132"
    stub.logs[pod] = error
    code, out, err = b1k("logs", run["run_id"], "Train common")
    assert (code, out) == (2, "")
    assert f"cannot read the log of {pod}. It says: BadRequestError" in err
    assert "executor-logs is at minio://mlpipeline/v2/artifacts/train-and-evaluate/738a6de3-" in err
    assert "{" not in err

    run, _ = replay("failed-stage")
    code, out, err = b1k("logs", run["run_id"])
    assert (code, out) == (2, "")
    assert "Argo keeps it at s3://mlpipeline/private-artifacts/kubeflow/train-and-evaluate-26cvd/" in err


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"metadata": {"name": "x"}, "status": 3}'])
def test_a_workflow_that_cannot_be_read_is_an_error(manifest: str, replay: Any, stub: Any, b1k: Any) -> None:
    run, _ = replay("no-news")
    stub.workflows[run["run_id"]] = manifest
    code, _, err = b1k("status", run["run_id"])
    assert code == 2
    assert "the server's workflow cannot be read" in err


def test_ids(replay: Any, b1k: Any) -> None:
    runs = [replay(name)[0]["run_id"] for name in ("cancelled", "succeeded", "no-news")]
    code, out, _ = b1k("status", "9")
    assert code == 1
    assert runs[0] in out
    assert "no run whose ID begins with 'abc'" in b1k("status", "abc")[2]
    unknown = "00000000-0000-0000-0000-000000000000"
    assert f"does not have the run {unknown} (404): it was deleted, or lost" in b1k("status", unknown)[2]
    replay("pod-lost")
    replay("failed-stage")
    replay("failed-importer")
    code, _, err = b1k("status", "7")
    assert code == 2
    assert "2 runs begin with '7': " in err
    assert runs[1] in err
