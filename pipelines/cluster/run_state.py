"""A run on a cluster as a tree of tasks, from what the Kubeflow Pipelines API says of it.

Some servers list every node of Argo's workflow, with drivers and executors, others their own tasks, and name
some fields differently. What does not have the name of one of the pipeline's tasks is left out.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from components.runtime.errors import UserError
from pipelines.tree import DONE, FAILURE, SKIPPED, STARTED, WAITING, Node, Tree

SUCCEEDED = "SUCCEEDED"
FAILED = ("FAILED", "CANCELED")
ENDED = (SUCCEEDED, "SKIPPED", *FAILED)
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


def state(run: Mapping[str, Any]) -> str:
    """The run's state, such as RUNNING; PENDING before the server says one."""
    return str(run.get("state") or "PENDING")


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


def tree(run: Mapping[str, Any]) -> Tree:
    """The tasks of a run."""
    made = Tree(spec(run))
    update(made, run)
    return made


def update(tree: Tree, run: Mapping[str, Any]) -> list[Node]:
    """Bring the tree of a run up to date.

    Returns:
        The tasks whose state has changed.
    """
    changed: list[Node] = []
    details = sorted(_details(run), key=lambda one: _time(one, "start_time") or float("inf"))
    for detail in details:
        node = _node(tree, detail)
        if node is None:
            continue
        before = node.state
        node.state = _STATES.get(str(detail.get("state") or detail.get("status")).upper(), WAITING)
        if node.state not in (WAITING, SKIPPED):
            node.started = _time(detail, "start_time")
        if node.state in (DONE, FAILURE):
            node.ended = _time(detail, "end_time")
        node.log = str(detail.get("task_id") or "")
        if node.state != before:
            changed.append(node)
    tree.roll_up()
    if state(run) in ENDED:
        tree.close(_time(run, "finished_at"))
    return changed


def pods(run: Mapping[str, Any], task: str) -> list[str]:
    """Nodes of a task's main containers, one per attempt, by which the server finds their logs.

    Args:
        run: the run as the server describes it.
        task: `task_id` of the task.
    """
    details = _details(run)
    by_node = {one["pod_name"]: one for one in details if one.get("pod_name")}

    def below(detail: Mapping[str, Any]) -> Iterator[str]:
        for child in detail.get("child_tasks") or []:
            name = child.get("pod_name")
            inner = by_node.get(name, {})
            if not name or (inner and not _name(inner).startswith("executor")):
                continue
            if inner.get("child_tasks"):  # a node of Argo for all attempts
                yield from below(inner)
            else:
                yield name
        yield from (pod["name"] for pod in detail.get("pods") or [] if pod.get("type") == "EXECUTOR")

    return [name for detail in details if detail.get("task_id") == task for name in below(detail)]


def _details(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the server says of each task or node."""
    return list((run.get("run_details") or {}).get("task_details") or run.get("tasks") or [])


def _name(detail: Mapping[str, Any]) -> str:
    return str(detail.get("name") or detail.get("display_name") or "")


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
