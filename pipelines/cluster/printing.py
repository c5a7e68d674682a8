"""Prints the logs of a run's tasks."""

import sys
import time

from components.errors import UserError
from pipelines.cluster import watching
from pipelines.cluster.logs import Kubeconfig, Logs
from pipelines.cluster.server import Server
from pipelines.cluster.workflow import ENDED, Pod
from pipelines.tree import CANCELLED, FAILURE, STARTED, WAITING, Node


def print_logs(
    server: Server, identity: str, task: str, place: Kubeconfig, *, follow: bool, poll: float
) -> None:
    """Print what tasks of a run wrote.

    Args:
        server: where it runs.
        identity: its ID, or the beginning of it.
        task: name of the task; empty for those that did not succeed, or with `follow` those that run.
        place: how its pods are reached.
        follow: go on until the tasks end.
        poll: seconds between two looks at the run.

    Raises:
        UserError: there is no such task, or its log is out of reach.
    """
    seen = watching.look(server, identity)
    if seen.workflow is None:
        raise UserError(f"no task of the run {seen.id} has started; the run is {seen.state}")
    nodes = _choose(seen, task, follow=follow)
    keys = {node.key for node in nodes}
    printer = _Printer(Logs(server, seen.id, seen.workflow, place))
    while True:
        problems = [printer.show(node, follow=follow and len(nodes) == 1) for node in nodes]
        if not follow or not any(node.state in (STARTED, WAITING) for node in nodes):
            break
        time.sleep(poll)
        nodes = [node for node in watching.look(server, seen.id).tasks.leaves() if node.key in keys]
    for problem in problems:
        if problem is not None:
            raise problem


def _choose(seen: watching.Look, task: str, *, follow: bool) -> list[Node]:
    leaves = list(seen.tasks.leaves())
    wanted = (STARTED,) if follow else (FAILURE, CANCELLED)
    nodes = [node for node in leaves if node.pods and node.state in wanted]
    if task:
        nodes = [node for one in seen.tasks.nodes.values() for node in _named(one, task)]
        nodes = [node for node in nodes if node.pods or follow]
    if nodes:
        return nodes
    started = ", ".join(repr(node.label) for node in leaves if node.pods) or "none"
    problem = f"no task {'runs' if follow else 'has failed'}; name a task"
    problem = f"no task {task!r} has started" if task else problem
    raise UserError(f"in the run {seen.id} {problem}; started: {started}")


def _named(node: Node, name: str) -> list[Node]:
    """The task itself if it has the name; of a loop, its iterations if it has, or the one that has."""
    plain = name.lower().replace(" ", "_")
    names = (node.name, node.key.rpartition("/")[2].replace("-", "_"))
    if not node.is_loop:
        return [node] if plain in names else []
    children = node.children.values()
    return [child for child in children if plain in names or _named(child, name)]


class _Printer:
    """Prints logs of tasks, each piece once.

    Args:
        logs: where they come from.
    """

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._shown: dict[str, int] = {}
        """Bytes by pod."""
        self._whole: set[str] = set()
        """Pods of which nothing new will come."""
        self._last = ""
        """The pod that the last line is from."""

    def show(self, node: Node, *, follow: bool = False) -> UserError | None:
        """Print what is new in the logs of a task's attempts.

        Args:
            node: the task.
            follow: until the last attempt ends.

        Returns:
            Why the log of its last attempt cannot be read; those of lost pods before it are only mentioned.
        """
        problem: UserError | None = None
        for number, pod in enumerate(node.pods, 1):
            is_last = number == len(node.pods)
            title = f"{node.label}, attempt {number}" if len(node.pods) > 1 else node.label
            if pod.id in self._whole:
                continue
            try:
                self._print(f"{title}, {pod.id}", pod, follow and is_last)
            except UserError as error:
                problem = error if is_last else None
                if not is_last:
                    print(f"{title}: {error}", file=sys.stderr)
            if pod.phase in ENDED and problem is None:
                self._whole.add(pod.id)
        return problem

    def _print(self, title: str, pod: Pod, follow: bool) -> None:
        skip = self._shown.get(pod.id, 0)
        for piece in self._logs.pieces(pod, follow=follow):
            new, skip = piece[skip:], max(0, skip - len(piece))
            if self._last != pod.id and (new or pod.id not in self._shown):
                print(f"==> {title} <==")
                self._last = pod.id
            self._shown[pod.id] = self._shown.get(pod.id, 0) + len(new)
            sys.stdout.flush()
            sys.stdout.buffer.write(new)
            sys.stdout.buffer.flush()
