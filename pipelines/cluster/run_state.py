"""A run on a cluster as a tree of tasks, from its workflow.

Kubeflow Pipelines makes of a task `train` two steps: `train-driver`, which computes its inputs, and `train`
with its pod `executor`; of a loop `iteration-driver` and an `iteration-iterations(i:i)` for each item.
Conditions, nested pipelines and exit handlers are steps around the tasks.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.cluster.workflow import DRIVER, FAILED, SKIPPED, Pod, Step, Workflow
from pipelines.tree import CACHED, CANCELLED, DONE, FAILURE, STARTED, WAITING, Node, Tasks
from pipelines.tree import SKIPPED as LEFT_OUT

SUCCEEDED = "succeeded"
UNSUCCESSFUL = ("failed", "cancelled", "lost")
ENDED = (SUCCEEDED, "skipped", *UNSUCCESSFUL)
_WORDS = {"CANCELING": "cancelling", "CANCELED": "cancelled"}
_STOPPED = re.compile("deadline|terminat|shutdown|stopped with", re.IGNORECASE)
"""What Argo says of what it stops when a run is cancelled."""
_ITEM = re.compile(r"iteration-iterations\((\d+):")


def state(run: Mapping[str, Any], schedules: Sequence[Mapping[str, Any]] | None = None) -> str:
    """The run's state in a word, such as running.

    Args:
        run: the run as the server describes it.
        schedules: those of its experiment; with them a run is `lost` whose schedule was deleted while it was
            active, which deletes its workflow: the server says for ever that it is running.
    """
    said = str(run.get("state") or "PENDING")
    history = [one.get("state") for one in run.get("state_history") or []]
    # what came before does not count: a cancelled run may have been started again
    if said == "FAILED" and next((one for one in reversed(history) if one != said), "") == "CANCELING":
        return "cancelled"
    word = _WORDS.get(said, said.lower())
    parent = run.get("recurring_run_id")
    if parent and schedules is not None and word not in ENDED:
        return word if any(one.get("recurring_run_id") == parent for one in schedules) else "lost"
    return word


def tasks(workflow: Workflow | None, run_state: str) -> Tasks:
    """The tasks of a run.

    Args:
        workflow: the run's workflow; None before there is one.
        run_state: the run's state in a word.
    """
    found = Tasks()
    if workflow is None:
        return found
    _Reader(run_state).walk(workflow.root.inside(), found.nodes)
    return found


class _Reader:
    """Makes tasks of steps."""

    def __init__(self, run_state: str) -> None:
        self.ended = run_state in ENDED
        self.lost = run_state == "lost"
        self.cancelled = run_state in ("cancelled", "cancelling")

    def walk(
        self,
        steps: Mapping[str, Step],
        nodes: dict[str, Node],
        place: str = "",
        item: str = "",
        why: str = "",
    ) -> None:
        """Add the tasks of steps.

        Args:
            steps: by name, with their drivers.
            nodes: what they are added to.
            place: the beginning of their keys.
            item: the number of the loop's item that they belong to, after a space; ` 2.0` in loops in loops.
            why: why all of them are skipped.
        """
        for name, driver, step in _pairs(steps):
            inner, key = step.inside(), place + name
            label = f"{_label(name, driver, step)}{item}"
            # other drivers that work are the beginning of their task
            if driver.phase in FAILED or (name == "root" and driver.phase in ("Pending", "Running")):
                self._add(nodes, f"{key}{DRIVER}", f"{label} driver", Step(), driver)
            if "iteration-driver" in inner or step.template.endswith("-iterator"):
                nodes[key] = self._loop(key, label, item, step, why)
            elif "executor" in inner or (not inner and name != "root"):
                self._add(nodes, key, label, driver, step, why)
            else:
                reason = f"condition {label!r} is false" if step.phase == "Skipped" else why
                self.walk(inner, nodes, place if name == "root" else f"{key}/", item, reason)

    def _loop(self, key: str, label: str, item: str, step: Step, why: str) -> Node:
        inner, nodes = step.inside(), dict[str, Node]()
        driver = inner.get("iteration-driver", Step())
        if driver.phase in FAILED:
            self._add(nodes, f"{key}/driver", f"{label} driver", Step(), driver)
        items = {int(match[1]): inner[name] for name in inner if (match := _ITEM.match(name))}
        for number in sorted(items):
            steps = items[number].inside() or {"iteration-item": items[number]}
            inner_item = f"{item}.{number}" if item else f" {number}"
            self.walk(steps, nodes, f"{key}/{number}/", inner_item, why)
        made: dict[str, Node] = {}
        loop = self._add(made, key, label, Step(), step, why)
        loop.is_loop, loop.children = True, nodes
        if not items and loop.state == STARTED:
            loop.message = "".join(pod.message for pod in driver.pods[-1:])
        explained = any(leaf.state in (FAILURE, CANCELLED) for one in nodes.values() for leaf in one.leaves())
        if explained or (nodes and loop.state != FAILURE):
            loop.message = ""
        total = int(driver.parameter("outputs", "iteration-count") or 0) or len(items)
        if total:
            loop.count = f"{sum(one.phase == 'Succeeded' for one in items.values())} of {total}"
        if nodes and all(one.state == CACHED for one in nodes.values()):
            loop.state = CACHED
        for one in nodes.values():  # the item's steps have the name of the loop until its task begins
            one.label = one.label.replace("Iteration item", label.removesuffix(item))
        return loop

    def _add(
        self, nodes: dict[str, Node], key: str, label: str, driver: Step, step: Step, why: str = ""
    ) -> Node:
        pods = step.pods
        node = nodes[key] = Node(key, label, attempt=max(1, len(pods)), pods=pods)
        node.started = driver.started if step.started is None else step.started
        node.ended = step.ended
        if len(pods) > 1:
            node.message = f"attempt {len(pods) - 1} failed: {pods[-2].message}"
        phase = step.phase
        if why or phase in SKIPPED:
            node.state, node.message = LEFT_OUT, why or _condition(step)
        elif phase == "Succeeded":
            node.state = CACHED if _is_cached(driver, step) else DONE
        elif phase in FAILED:
            node.message = "; ".join(dict.fromkeys(filter(None, _messages(step))))
            stopped = self.cancelled and _STOPPED.search(node.message)
            node.state, node.message = (CANCELLED, "") if stopped else (FAILURE, node.message)
        elif phase:
            _run(node, pods)
        elif driver.phase and driver.phase not in (*FAILED, *SKIPPED):
            _run(node, driver.pods)
            node.message = node.message or "its driver"
        if node.state in (STARTED, WAITING) and self.ended:
            begun = self.lost and bool(phase or driver.phase)
            node.state, node.message = (FAILURE, "lost with its workflow") if begun else (LEFT_OUT, "")
            node.started = None
        return node


def _pairs(steps: Mapping[str, Step]) -> list[tuple[str, Step, Step]]:
    """Names, drivers and steps in the order in which they began; an empty step for what is missing."""
    owners = {name: name.removesuffix(DRIVER) for name in steps if name.endswith(DRIVER)}
    owners = {
        name: owner
        for name, owner in owners.items()
        if owner != "iteration" and (owner in steps or steps[name].template.endswith(DRIVER))
    }
    drivers = {owner: steps[name] for name, owner in owners.items()}
    names = dict.fromkeys(owners.get(name, name) for name in steps)
    pairs = [(name, drivers.get(name, Step()), steps.get(name, Step())) for name in names]
    return sorted(pairs, key=lambda one: one[1].started or one[2].started or float("inf"))


def _label(name: str, driver: Step, step: Step) -> str:
    """The task's name for people; made of its name in the workflow if it has none."""
    inner = step.inside()
    of_loop = inner["iteration-driver"].label() if "iteration-driver" in inner else ""
    label = of_loop or driver.label() or step.label() or name.replace("-", " ").capitalize()
    is_importer = "importer" in step.template and "import" not in label.lower()
    return f"{label} importer" if is_importer else label


def _condition(step: Step) -> str:
    return "its condition is false" if step.phase == "Skipped" else ""


def _is_cached(driver: Step, step: Step) -> bool:
    executor = step.inside().get("executor")
    skipped = executor is not None and executor.phase in SKIPPED
    return skipped or driver.parameter("outputs", "cached-decision") == "true"


def _messages(step: Step) -> Iterator[str]:
    yield from (pod.message for pod in step.pods[-1:])
    executor = step.inside().get("executor")
    if executor is not None:
        yield executor.message
    yield step.message


def _run(node: Node, pods: Sequence[Pod]) -> None:
    """The state of what has begun and not ended; a pod that waits says why, such as that no node fits."""
    node.state = STARTED
    if not pods:
        return
    last = pods[-1]
    if last.phase == "Pending":
        node.state, node.message = WAITING, last.message or node.message
    elif last.phase in FAILED:
        node.message = f"attempt {len(pods)} failed: {last.message}"
    elif found := last.progress:
        # the log says more, where it is within reach
        node.progress = {"description": "", "completed": found[0], "total": found[1], "note": ""}
