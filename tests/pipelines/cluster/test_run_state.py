"""Runs as trees of tasks, from workflows as Argo writes them."""

import io
from typing import Any

import pytest

from pipelines.cluster import run_state
from pipelines.cluster.workflow import read, seconds
from pipelines.display import Display
from pipelines.tree import CACHED, CANCELLED, DONE, FAILURE, SKIPPED, STARTED, WAITING, Tasks

FORBIDDEN = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
FULL = "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def _tasks(workflow: Any, state: str = "running") -> Tasks:
    return run_state.tasks(read(workflow.manifest()), state)


def _said(tasks: Tasks) -> dict[str, tuple[str, str]]:
    return {node.label: (node.state, node.message) for node in tasks.nodes.values()}


def _shown(tasks: Tasks) -> str:
    stream = io.StringIO()
    display = Display(tasks, "title", stream)
    display.console.print(display.render(), soft_wrap=True)
    return stream.getvalue()


@pytest.fixture
def templates(argo: Any) -> list[dict[str, Any]]:
    """A pipeline with a condition, a nested pipeline in it, and an exit handler around all."""
    run = "retry-system-container-executor"
    loop = {"name": "iteration-iterations", "template": "comp-loop-iteration", "withSequence": {"count": "2"}}
    return [
        *argo.executor_templates(),
        argo.dag(
            "entrypoint", {"name": "root-driver", "template": "d"}, {"name": "root", "template": "root"}
        ),
        argo.dag(
            "root",
            *argo.pair(
                "exit-handler-1", "All", "comp-all", hooks={"exit": {"template": "exit-hook-root-tell"}}
            ),
        ),
        argo.dag("exit-hook-root-tell", *argo.pair("tell", "Tell", run)),
        argo.dag(
            "comp-all",
            *argo.pair("condition-1", "If there is news", "comp-condition", after="news"),
            *argo.pair("news", "News", run),
        ),
        argo.dag("comp-condition", *argo.pair("all", "Train and evaluate", "comp-nested")),
        argo.dag(
            "comp-nested",
            {"name": "evaluate", "template": "comp-loop-iterator", "depends": "train.Succeeded"},
            *argo.pair("train", "Train common", run),
        ),
        argo.dag(
            "comp-loop-iterator",
            *argo.pair("iteration", "Evaluate common", "unused")[1:],
            {**loop, "depends": "iteration-driver.Succeeded"},
        ),
    ]


ALL = "(0).root(0).exit-handler-1(0)"


def test_what_has_not_begun_is_known_from_the_templates(argo: Any, templates: list[Any]) -> None:
    workflow = argo.Workflow(templates=templates)
    workflow.step(ALL.removesuffix("(0)"), "Retry", "Running")
    workflow.step(ALL, "DAG", "Running")
    workflow.task("news", "Running", place=ALL)
    tasks = _tasks(workflow)
    assert _said(tasks) == {
        "News": (STARTED, ""),
        "Train common": (WAITING, ""),
        "Evaluate common": (WAITING, ""),
        "Tell": (WAITING, ""),
    }
    assert tasks.nodes["exit-handler-1/condition-1/all/evaluate"].is_loop


def test_a_false_condition_is_why_all_in_it_is_skipped(argo: Any, templates: list[Any]) -> None:
    workflow = argo.Workflow("Succeeded", templates=templates)
    workflow.task("news", place=ALL)
    workflow.step(f"{ALL}.condition-1", "Skipped", "Skipped", "when 'false != false' evaluated false")
    workflow.task("tell", place=f"{ALL.removesuffix('(0)')}.onExit(0)")
    false = (SKIPPED, "condition 'If there is news' is false")
    assert _said(_tasks(workflow, "succeeded")) == {
        "News": (DONE, ""),
        "Tell": (DONE, ""),
        "Train common": false,
        "Evaluate common": false,
    }


@pytest.mark.parametrize(
    ("phase", "pods", "state", "message", "attempt"),
    [
        ("Running", [("Running", "")], STARTED, "", 1),
        ("Running", [("Pending", FULL)], WAITING, FULL, 1),
        ("Running", [("Error", FORBIDDEN)], STARTED, f"attempt 1 failed: {FORBIDDEN}", 1),
        ("Running", [("Error", FORBIDDEN), ("Pending", "")], WAITING, f"attempt 1 failed: {FORBIDDEN}", 2),
        ("Running", [("Error", "pod deleted"), ("Running", "")], STARTED, "attempt 1 failed: pod deleted", 2),
        ("Running", [("Pending", "ImagePullBackOff: none")], WAITING, "ImagePullBackOff: none", 1),
        ("Succeeded", [("Error", "a\n b"), ("Succeeded", "")], DONE, "attempt 1 failed: a b", 2),
        ("Error", [("Error", FORBIDDEN)] * 3, FAILURE, FORBIDDEN, 3),
        ("Failed", [("Failed", "OOMKilled (exit code 137)")], FAILURE, "OOMKilled (exit code 137)", 1),
        ("Omitted", [], SKIPPED, "", 1),
    ],
)  # fmt: skip
def test_a_task_is_what_its_pods_are(
    phase: str, pods: list[Any], state: str, message: str, attempt: int, argo: Any
) -> None:
    workflow = argo.Workflow().task("train", phase, *pods, label="Train common")
    node = _tasks(workflow).nodes["train"]
    assert (node.label, node.state, node.message, node.attempt) == ("Train common", state, message, attempt)
    assert "-1:" not in _shown(_tasks(workflow)), "times of year 1 are none"


def test_a_task_that_runs_says_how_far_it_is_as_far_as_argo_knows(argo: Any) -> None:
    workflow = (
        argo.Workflow().task("train", "Running").task("group", "Running", ("Running", ""), ("Error", ""))
    )
    pods = [node for node in workflow.nodes.values() if node["type"] == "Pod" and "executor" in node["name"]]
    for pod in pods:
        pod["progress"] = "300/20000"
    nodes = _tasks(workflow).nodes
    assert not nodes["group"].progress, "of the attempt that failed"
    assert "Train              running" in _shown(_tasks(workflow))
    assert _shown(_tasks(workflow)).count("300/20,000") == 1
    pods[0]["progress"] = "0/1"
    assert not _tasks(workflow).nodes["train"].progress, "Argo's own, of a program that says nothing"


def test_attempts_at_the_steps_around_a_task_count(argo: Any) -> None:
    workflow = argo.Workflow().task("train", "Error", ("Error", FORBIDDEN), ("Error", FORBIDDEN))
    workflow.step("(0).root(1)", "DAG", "Running")
    node = _tasks(workflow).nodes
    assert not node, "the new attempt has not begun a task"
    workflow.task("train", "Running", ("Pending", ""), place="(0).root(1)")
    node = _tasks(workflow).nodes["train"]
    assert (node.state, node.attempt, node.message) == (WAITING, 3, f"attempt 2 failed: {FORBIDDEN}")


def test_more_than_nine_attempts_are_in_order(argo: Any) -> None:
    pods = [("Error", f"number {number}") for number in range(12)]
    node = _tasks(argo.Workflow().task("train", "Error", *pods)).nodes["train"]
    assert [pod.message for pod in node.pods] == [f"number {number}" for number in range(12)]


def test_a_driver_that_failed_is_a_task_of_its_own(argo: Any) -> None:
    workflow = argo.Workflow("Failed").task("train", "Omitted", driver="Failed", label="Train common")
    workflow.nodes["0-root-0-train-driver-0"]["message"] = "main: Error (exit code 1)"
    assert _said(_tasks(workflow, "failed")) == {
        "Train common driver": (FAILURE, "main: Error (exit code 1)"),
        "Train common": (SKIPPED, ""),
    }


@pytest.mark.parametrize(
    ("driver", "message", "state", "said"),
    [
        ("Running", "", STARTED, "its driver"),
        ("Pending", FULL, WAITING, FULL),
    ],
)
def test_a_driver_at_work_is_the_beginning_of_its_task(
    driver: str, message: str, state: str, said: str, argo: Any
) -> None:
    workflow = argo.Workflow().task("train", "", driver=driver)
    workflow.nodes["0-root-0-train-driver-0"]["message"] = message
    assert _said(_tasks(workflow)) == {"Train": (state, said)}


def test_what_was_found_in_the_cache(argo: Any) -> None:
    assert _said(_tasks(argo.Workflow().task("train", cached=True))) == {"Train": (CACHED, "")}


def test_a_loop_counts_its_items_and_shows_those_that_matter(argo: Any) -> None:
    phases = ["Succeeded"] * 12 + ["Running"] * 2
    workflow = argo.Workflow().loop("for-loop-1", "evaluate", phases, total=24, label="Evaluate common")
    tasks = _tasks(workflow)
    loop = tasks.nodes["for-loop-1"]
    assert (loop.label, loop.state, loop.count) == ("Evaluate common", STARTED, "12 of 24")
    assert [node.label for node in tasks.leaves()] == [f"Evaluate common {number}" for number in range(14)]
    shown = _shown(tasks)
    assert "12 of 24" in shown
    assert "▶ Evaluate common 12" in shown
    assert "Evaluate common 11" not in shown


def test_a_failed_item_of_a_loop(argo: Any) -> None:
    workflow = argo.Workflow("Failed").loop(
        "for-loop-1", "evaluate", ["Failed", "Succeeded"], label="Evaluate"
    )
    tasks = _tasks(workflow, "failed")
    assert (tasks.nodes["for-loop-1"].state, tasks.nodes["for-loop-1"].count) == (FAILURE, "1 of 2")
    assert [node.label for node in tasks.failures()] == ["Evaluate 0"]


@pytest.mark.parametrize("message", ["Step exceeded its deadline", "Stopped with strategy 'Terminate'"])
def test_a_cancelled_run_has_no_failures_but_those_before(message: str, argo: Any) -> None:
    workflow = argo.Workflow("Failed")
    workflow.task("dataset", "Failed", ("Failed", "main: Error (exit code 1)"))
    workflow.task("train", "Failed", ("Failed", message))
    tasks = _tasks(workflow, "cancelled")
    assert [node.state for node in tasks.nodes.values()] == [FAILURE, CANCELLED]


def test_what_ran_in_a_lost_run_is_lost(argo: Any) -> None:
    workflow = argo.Workflow().task("dataset").task("train", "Running").task("plan", "", driver="")
    assert _said(_tasks(workflow, "lost")) == {
        "Dataset": (DONE, ""),
        "Train": (FAILURE, "lost with its workflow"),
        "Plan": (SKIPPED, ""),
    }


def test_servers_without_argos_default_of_retries(argo: Any) -> None:
    workflow = argo.Workflow()
    workflow.nodes.clear()
    for path, kind, phase in (
        ("", "DAG", "Running"),
        (".root", "DAG", "Running"),
        (".root.train-driver", "Pod", "Succeeded"),
        (".root.train", "DAG", "Running"),
        (".root.train.executor", "Retry", "Running"),
        (".root.train.executor(0)", "Pod", "Error"),
        (".root.train.executor(1)", "Pod", "Running"),
        (".root.plan-driver", "Pod", "Running"),
    ):
        template = "system-container-driver" if "driver" in path else ""
        workflow.step(path, kind, phase, "gone" if phase == "Error" else "", templateName=template)
    assert _said(_tasks(workflow)) == {
        "Train": (STARTED, "attempt 1 failed: gone"),
        "Plan": (STARTED, "its driver"),
    }


def test_states_of_runs() -> None:
    history = [{"state": one} for one in ("PENDING", "RUNNING", "CANCELING", "FAILED")]
    assert run_state.state({}) == "pending"
    assert run_state.state({"state": "FAILED"}) == "failed"
    assert run_state.state({"state": "FAILED", "state_history": history}) == "cancelled"
    again = [*history, *({"state": one} for one in ("PENDING", "RUNNING", "FAILED"))]
    assert run_state.state({"state": "FAILED", "state_history": again}) == "failed", "when tried again"
    assert run_state.state({"state": "FAILED", "state_history": [*again[:-1], *history]}) == "cancelled"
    assert run_state.state({"state": "CANCELING"}) == "cancelling"
    running = {"state": "RUNNING", "recurring_run_id": "nightly"}
    assert run_state.state(running) == "running", "nobody was asked"
    assert run_state.state(running, [{"recurring_run_id": "nightly"}]) == "running"
    assert run_state.state(running, [{"recurring_run_id": "weekly"}]) == "lost"
    assert run_state.state({**running, "state": "SUCCEEDED"}, []) == "succeeded"


def test_times() -> None:
    assert seconds("2026-01-02T03:04:05Z") == 1767323045.0
    assert [seconds(one) for one in ("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", None, "x")] == [None] * 4
