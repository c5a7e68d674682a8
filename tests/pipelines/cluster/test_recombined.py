"""Recorded runs as if they had stopped elsewhere, been nested deeper, or lost parts of the record."""

import base64
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cluster import run_state
from pipelines.cluster.workflow import read
from pipelines.display import Display
from pipelines.tree import CANCELLED, DONE, FAILURE, STARTED, WAITING, Node, Tasks

RUNS = Path(__file__).parents[2] / "golden" / "kfp-api" / "runs"
NAMES = ("succeeded", "failed-stage", "failed-importer", "cancelled", "pod-lost", "no-news")
TASKS = "(0).root(0)"
# state of the run; phase and message of a pod, phase of what is around it; what becomes of the task
FATES = {
    "ended with an error": ("failed", "Failed", "main: Error (exit code 1)", "Failed", FAILURE),
    "was killed for its memory": ("failed", "Failed", "OOMKilled (exit code 137)", "Failed", FAILURE),
    "was lost": ("failed", "Error", "pod deleted", "Error", FAILURE),
    "was cancelled": ("cancelled", "Failed", "Step exceeded its deadline", "Failed", CANCELLED),
    "runs": ("running", "Running", "", "Running", STARTED),
    "waits": ("running", "Pending", "Unschedulable: 0/1 nodes are available", "Running", WAITING),
}


def _nodes(name: str) -> list[dict[str, Any]]:
    """The nodes of a recorded workflow, whose names begin with the attempt at the whole."""
    recorded = json.loads((RUNS / f"{name}.v1beta1.json").read_text())
    workflow = json.loads(recorded["pipeline_runtime"]["workflow_manifest"])
    status = workflow["status"]
    packed = status.get("compressedNodes")
    nodes = json.loads(gzip.decompress(base64.b64decode(packed))) if packed else status["nodes"]
    return [{**one, "name": one["name"].removeprefix(workflow["metadata"]["name"])} for one in nodes.values()]


def _tasks(nodes: list[dict[str, Any]], state: str, *, compressed: bool = False) -> tuple[Tasks, str]:
    """The tasks of a run with these nodes, and all that is shown of them."""
    named = {str(number): {**one, "name": f"run{one['name']}"} for number, one in enumerate(nodes)}
    status: dict[str, Any] = {"nodes": named}
    if compressed:
        status = {"compressedNodes": base64.b64encode(gzip.compress(json.dumps(named).encode())).decode()}
    tasks = run_state.tasks(read(json.dumps({"metadata": {"name": "run"}, "status": status})), state)
    stream = io.StringIO()
    display = Display(tasks, "run", stream)
    display.console.width = 1000
    display.console.print(display.render())
    return tasks, stream.getvalue()


def _of(tasks: Tasks, pod: str) -> list[Node]:
    return [node for node in tasks.leaves() if any(one.id == pod for one in node.pods)]


def _is_around(step: dict[str, Any], inner: dict[str, Any]) -> bool:
    return inner["name"].startswith((f"{step['name']}.", f"{step['name']}("))


def _is_driver(node: dict[str, Any]) -> bool:
    return "driver" in node["name"].rpartition(".")[2]


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("name", ["succeeded", "pod-lost", "no-news"])
def test_a_run_that_stops_at_any_of_its_pods_is_shown_so(name: str, fate: str) -> None:
    state, phase, message, around, expected = FATES[fate]
    recorded = _nodes(name)
    for number, one in enumerate(recorded):
        if one["type"] != "Pod" or one["phase"] != "Succeeded":
            continue
        nodes = []
        for node in recorded:
            if node["name"] == one["name"]:
                nodes.append({**node, "phase": phase, "message": message})
            elif _is_around(node, one):
                said = "retry exceeded workflow deadline" if expected == CANCELLED else ""
                nodes.append({**node, "phase": around, "message": said if node["type"] == "Retry" else ""})
            elif node["startedAt"] <= one["startedAt"]:
                nodes.append(node)
        tasks, shown = _tasks(nodes, state, compressed=number % 8 == 0)
        leaves = list(tasks.leaves())
        if not _is_driver(one):
            (task,) = _of(tasks, one["id"])
            assert (task.state, task.message if expected == FAILURE else message) == (expected, message), one
            assert expected in [node.state for node in leaves], shown
        assert expected == CANCELLED or message in shown, "the reason"
        assert sum(node.state in (FAILURE, CANCELLED) for node in leaves) == (state != "running"), shown
        if state != "running":
            assert not [node for node in leaves if node.state in (STARTED, WAITING)], shown


def test_loops_in_loops_are_shown_with_all_their_items() -> None:
    nodes = _nodes("succeeded")
    outer = f"{TASKS}.for-loop-2"
    item = f"{outer}(0).iteration-iterations(1:1)(0).iteration-item(0)"
    inner = re.compile(re.escape(f"{TASKS}.for-loop-1") + r"(?=[-(.]|$)")
    moved = [
        {**one, "name": inner.sub(f"{item}.for-loop-1", one["name"]), "id": f"moved-{number}"}
        for number, one in enumerate(nodes)
        if inner.match(one["name"])
    ]
    (pod,) = [
        one for one in moved if one["name"].endswith("(1:1)(0).iteration-item(0).evaluate(0).executor(0)")
    ]
    pod |= {"phase": "Failed", "message": "main: Error (exit code 1)"}
    for one in moved:
        if _is_around(one, pod):
            one["phase"] = "Failed"
    tasks, shown = _tasks([*nodes, *moved], "failed")
    (task,) = _of(tasks, pod["id"])
    assert (task.label, task.state) == ("Evaluate common 1.1", FAILURE)
    assert tasks.failures() == [task]
    assert f"{task.label} " in shown
    assert "Evaluate common 1 " in shown, "the loop inside"
    (other,) = _of(
        tasks, next(o["id"] for o in moved if "(0:0)(0).iteration-item(0).evaluate(0).exec" in o["name"])
    )
    assert (other.label, other.state) == ("Evaluate common 1.0", DONE)


@given(st.sampled_from(NAMES), st.sampled_from(["running", "failed", "succeeded", "lost"]), st.data())
def test_records_with_gaps_are_read(name: str, state: str, data: st.DataObject) -> None:
    nodes = _nodes(name)
    for number in data.draw(st.lists(st.integers(0, len(nodes) - 1), max_size=4)):
        key = data.draw(st.sampled_from(sorted(nodes[number].keys() - {"name", "id"})))
        phases = st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Error", "Skipped", "Omitted"])
        nodes[number][key] = data.draw(phases if key == "phase" else st.none())
    gone = data.draw(st.sets(st.integers(0, len(nodes) - 1), max_size=4))
    kept = [node for number, node in enumerate(nodes) if number not in gone]
    tasks, _ = _tasks(kept, state)
    for node in kept:
        if node["name"].endswith(".executor(0)") and node["type"] == "Pod" and node["phase"] != "Omitted":
            assert len(_of(tasks, node["id"])) == (node["phase"] != "Skipped"), "each pod is of one task"
    if state != "running":
        assert not [node for node in tasks.leaves() if node.state in (STARTED, WAITING)]
