"""The state of a run as a tree of tasks; of a local run, from the compiled pipeline and its events."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

WAITING = "waiting"
STARTED = "running"
DONE = "done"
CACHED = "cached"
FAILURE = "failed"
CANCELLED = "cancelled"
SKIPPED = "skipped"


@dataclass
class Node:
    """A task, or a loop with the tasks of its iterations."""

    key: str
    """Place in the pipeline, such as `train` or `for-loop-1-iteration-0/evaluate`."""
    label: str
    state: str = WAITING
    is_loop: bool = False
    children: dict[str, "Node"] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    """The last progress event: description, completed, total, left, note."""
    log: str = ""
    code: int = 0
    """Exit code once it has ended."""
    artifact: str = ""
    """Folder of the artifact relative to the workspace, once it is done."""
    started: float | None = None
    """Time of the start, seconds since the epoch."""
    ended: float | None = None
    message: str = ""
    """Why it waits, was skipped or failed."""
    attempt: int = 1
    """How often it was started."""
    count: str = ""
    """How many iterations of a loop are done, such as `12 of 24`, where that is known."""
    pods: Sequence[Any] = ()
    """Pods of all attempts on a cluster, the first attempt first."""

    @property
    def name(self) -> str:
        """The label as a key of records: `train_common`."""
        return self.label.lower().replace(" ", "_")

    def leaves(self) -> Iterator["Node"]:
        """The tasks of its iterations, also of those of loops inside; itself where it has none."""
        if not self.children:
            yield self
        for child in self.children.values():
            yield from child.leaves()

    def seconds(self, now: float) -> float:
        """Seconds of work until it ended, or until now."""
        if self.started is None:
            return 0.0
        return (self.ended if self.ended is not None else now) - self.started


class Tasks:
    """The tasks of a run in their order."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def leaves(self) -> Iterator[Node]:
        """The tasks themselves: iterations in place of their loop."""
        for node in self.nodes.values():
            yield from node.leaves()

    def failures(self) -> list[Node]:
        """Tasks that failed."""
        return [node for node in self.leaves() if node.state == FAILURE]


class Tree(Tasks):
    """All tasks of a local run."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        """Begin with the tasks of a compiled pipeline, all of which wait."""
        super().__init__()
        self._places: dict[str, Node] = {}
        self._last = 0.0
        self._offset = 0
        self._add(spec, spec["root"]["dag"]["tasks"])

    def _add(self, spec: Mapping[str, Any], tasks: Mapping[str, Any]) -> None:
        """Add the tasks of one DAG; those of conditions and of pipelines inside it stand beside them."""
        dependencies = {name: tasks[name].get("dependentTasks", []) for name in sorted(tasks)}
        for name in TopologicalSorter(dependencies).static_order():
            component = tasks[name]["componentRef"]["name"]
            is_loop = "parameterIterator" in tasks[name]
            inner = spec["components"][component].get("dag")
            if inner is not None and not is_loop:
                self._add(spec, inner["tasks"])
                continue
            label = tasks[name].get("taskInfo", {}).get("name", name)
            node = self.nodes[name] = Node(name, label, is_loop=is_loop)
            # kfp.local names the folder of a task by its component, that of a loop by its task
            self._places[name if is_loop else component.removeprefix("comp-")] = node

    def read(self, events: Path) -> Iterator[tuple[Node, str]]:
        """Take in what is new in a file of events; yields the tasks and kinds of event."""
        if not events.exists():
            return
        with events.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                event = json.loads(line)
                node = self.update(event)
                if node is not None:
                    yield node, event.get("event", "progress")

    def update(self, event: Mapping[str, Any]) -> Node | None:
        """Take in one event: the task that it is about, None for one that is not in the tree."""
        node = self._find(str(event["task"]), str(event.get("detail", "")))
        if node is None:
            return None
        self._last = max(self._last, float(event["time"]))
        kind = event.get("event", "progress")
        if kind == "started":
            node.state, node.log, node.started, node.ended = STARTED, event["log"], event["time"], None
        elif kind == "finished":
            node.code, node.ended = event["code"], event["time"]
            node.artifact = event["artifact"]
            node.state = FAILURE if node.code else CACHED if event["cached"] else DONE
        else:
            node.progress = dict(event)
        self._roll_up()
        return node

    def close(self) -> None:
        """The run has ended: waiting tasks were skipped, running ones were stopped at the last event."""
        for node in self.leaves():
            if node.state == STARTED:
                node.state, node.ended = FAILURE, self._last
        self._roll_up()
        for node in self.nodes.values():
            if node.state == WAITING:
                node.state = SKIPPED
            elif node.state == STARTED:  # a loop after its last iteration
                node.state = DONE

    def _find(self, place: str, detail: str) -> Node | None:
        first, _, rest = place.partition("/")
        loop = first.rpartition("-iteration-")[0]
        node = self._places.get(loop or first)
        if node is None or not rest:
            return node
        if place not in node.children:
            number = first.rpartition("-")[2]
            node.children[place] = Node(place, detail or f"{node.label} {number}")
        return node.children[place]

    def _roll_up(self) -> None:
        """Give loops the state of their iterations. The number of iterations is known to kfp alone."""
        order = list(self.nodes.values())
        for place, node in enumerate(order):
            if not node.is_loop or not node.children:
                continue
            children = node.children.values()
            states = {child.state for child in children}
            ends = [child.ended for child in children if child.ended is not None]
            node.started = min(
                (child.started for child in children if child.started is not None), default=None
            )
            node.ended = max(ends) if len(ends) == len(children) else None
            if FAILURE in states or STARTED in states:
                node.state = FAILURE if FAILURE in states else STARTED
            elif states == {CACHED}:
                node.state = CACHED
            else:
                # between two iterations nothing runs; the loop is done when a later task has started
                later = any(other.state != WAITING for other in order[place + 1 :])
                node.state = DONE if later else STARTED
