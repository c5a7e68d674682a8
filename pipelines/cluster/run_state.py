"""A run on a cluster as a tree of tasks, from what the Kubeflow Pipelines API says of it.

Servers that tell of Argo's nodes list every node of the workflow, drivers and executors too, under the names
of its tasks; servers with tasks of their own list those, and name some fields differently. We look for the
names of our tasks and leave the rest.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from components.runtime.errors import UserError
from pipelines.tree import DONE, FAILURE, SKIPPED, STARTED, WAITING, Node, Tree

SUCCEEDED = "SUCCEEDED"
ENDED = (SUCCEEDED, "SKIPPED", "FAILED", "CANCELED")
_STATES: Mapping[str, str] = {
    SUCCEEDED: DONE,
    "CACHED": DONE,
    "SKIPPED": SKIPPED,
    "OMITTED": SKIPPED,
    "FAILED": FAILURE,
    "ERROR": FAILURE,
    "CANCELED": FAILURE,
    "RUNNING": STARTED,
    "CANCELING": STARTED,
    "PAUSED": STARTED,
}
_EXECUTOR = "executor"


def state(run: Mapping[str, Any]) -> str:
    """The run's state, such as RUNNING; PENDING before the server says one."""
    return str(run.get("state") or "PENDING")


def error(run: Mapping[str, Any]) -> str:
    """What the server says went wrong; empty where it says nothing."""
    return str((run.get("error") or {}).get("message") or "")


def spec(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The compiled pipeline of a run.

    Raises:
        UserError: the server does not tell it.
    """
    found = run.get("pipeline_spec") or {}
    found = found.get("pipeline_spec", found)
    if "root" not in found:
        raise UserError(
            f"the server does not say which pipeline the run {run.get('run_id')} has; see it in the UI"
        )
    return found


def update(tree: Tree, run: Mapping[str, Any]) -> Iterator[Node]:
    """Take what is known of a run's tasks into its tree.

    Yields:
        The tasks whose state has changed.
    """
    details = sorted(task_details(run), key=lambda one: _time(one, "start_time") or float("inf"))
    for detail in details:
        node = _node(tree, detail)
        if node is None:
            continue
        before = node.state
        node.state = _STATES.get(_state(detail), WAITING)
        if node.state not in (WAITING, SKIPPED):
            node.started = _time(detail, "start_time")
        if node.state in (DONE, FAILURE):
            node.ended = _time(detail, "end_time")
        node.log = str(detail.get("task_id") or "")
        if node.state != before:
            yield node
    tree.roll_up()
    if state(run) in ENDED:
        tree.close(_time(run, "finished_at"))


def task_details(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the server says of each task or node."""
    return list((run.get("run_details") or {}).get("task_details") or run.get("tasks") or [])


def pods(run: Mapping[str, Any], task: str) -> list[str]:
    """Nodes of a task's main containers, one per attempt, by which the server finds their logs.

    Args:
        run: the run as the server describes it.
        task: `task_id` of the task.
    """
    details = task_details(run)
    by_node = {one["pod_name"]: one for one in details if one.get("pod_name")}
    found: list[str] = []
    waiting = [one for one in details if one.get("task_id") == task]
    while waiting:
        detail = waiting.pop(0)
        for child in detail.get("child_tasks") or []:
            name = child.get("pod_name") or ""
            below = by_node.get(name)
            if below is None:
                found += [name] if name else []
            elif _name(below).startswith(_EXECUTOR):
                inner = below.get("child_tasks") or []
                waiting += [below] if inner else []
                found += [] if inner else [name]
        for pod in detail.get("pods") or []:
            if pod.get("type") == "EXECUTOR" and pod.get("name"):
                found.append(pod["name"])
    return found


def _name(detail: Mapping[str, Any]) -> str:
    return str(detail.get("name") or detail.get("display_name") or "")


def _state(detail: Mapping[str, Any]) -> str:
    return str(detail.get("state") or detail.get("status") or "").upper()


def _node(tree: Tree, detail: Mapping[str, Any]) -> Node | None:
    name = _name(detail)
    if name in tree.nodes:
        node = tree.nodes[name]
        return None if node.is_loop else node
    loop = tree.bodies.get(name)
    if loop is None:
        return None
    key = f"{loop.key}/{detail.get('task_id')}"
    if key not in loop.children:
        loop.children[key] = Node(key, f"{loop.label} {len(loop.children)}")
    return loop.children[key]


def _time(detail: Mapping[str, Any], key: str) -> float | None:
    """Seconds since the epoch; None for a time that has not come, which servers write as that of year 1."""
    text = str(detail.get(key) or "")
    try:
        seconds = datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
    return seconds if seconds > 0 else None
