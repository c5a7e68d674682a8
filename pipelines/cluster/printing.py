"""Prints the logs of a run's tasks."""

import sys
import time
from collections.abc import Collection, Iterator, Mapping

from components.errors import UserError
from pipelines.cluster import watching
from pipelines.cluster.connection import UnavailableError
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
    printer = _Printer(Logs(server, seen.id, seen.workflow, place))
    wanted = _named(seen, task) if task else _telling(seen, (STARTED,) if follow else (FAILURE, CANCELLED))
    if not wanted:
        problem = f"no task {'runs' if follow else 'has failed'}; name a task"
        raise _unknown(seen, f"no task {task!r} has started" if task else problem)
    keys = {node.key for node in wanted}
    while True:
        nodes = [leaf for node in wanted for leaf in node.leaves()]
        problems = [printer.show(node, follow=follow and len(nodes) == 1) for node in nodes]
        if not follow or not any(node.state in (STARTED, WAITING) for node in wanted):
            break
        time.sleep(poll)
        seen = watching.look_patiently(server, seen.id, poll)
        wanted = [node for node in _all(seen.tasks.nodes) if node.key in keys]
    if not follow and not any(node.pods for node in nodes):
        raise _unknown(seen, f"no task {task!r} has started")
    for error in problems:
        if error is not None:
            raise error


def _all(nodes: Mapping[str, Node]) -> Iterator[Node]:
    """Loops, iterations and other tasks."""
    for node in nodes.values():
        yield node
        yield from _all(node.children)


def _telling(seen: watching.Look, states: Collection[str]) -> list[Node]:
    """Tasks in these states that have had a pod."""
    return [node for node in seen.tasks.leaves() if node.pods and node.state in states]


def _named(seen: watching.Look, name: str) -> list[Node]:
    """The task or loop of a name, else the iteration: as people or as the pipeline call them."""
    plain = name.lower().replace(" ", "_")
    fitting = [
        n for n in _all(seen.tasks.nodes) if plain in (n.name, n.key.rpartition("/")[2].replace("-", "_"))
    ]
    top = [node for node in fitting if node.key in seen.tasks.nodes]
    return top or fitting


def _unknown(seen: watching.Look, problem: str) -> UserError:
    nodes = seen.tasks.nodes.values()
    begun = [one for one in nodes if any(leaf.pods for leaf in one.leaves())]
    started = ", ".join(repr(one.label) for one in begun) or "none"
    return UserError(f"in the run {seen.id} {problem}; started: {started}")


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
        self._is_open = False
        """Whether that line has no end yet."""

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
                self._print(f"{title}, {pod.name}", pod, follow and is_last)
            except UserError as error:
                problem = error if is_last else None
                if not is_last:
                    print(f"{title}: {error}", file=sys.stderr)
                if isinstance(error, UnavailableError):
                    continue  # the rest of it may come at the next look
            if pod.phase in ENDED and problem is None:
                self._whole.add(pod.id)
        return problem

    def _print(self, title: str, pod: Pod, follow: bool) -> None:
        skip = self._shown.get(pod.id, 0)
        for piece in self._logs.pieces(pod, follow=follow):
            new, skip = piece[skip:], max(0, skip - len(piece))
            if self._last != pod.id and (new or pod.id not in self._shown):
                print("\n" * self._is_open + f"==> {title} <==")
                self._last, self._is_open = pod.id, False
            self._shown[pod.id] = self._shown.get(pod.id, 0) + len(new)
            sys.stdout.flush()
            sys.stdout.buffer.write(new)
            sys.stdout.buffer.flush()
            self._is_open = not new.endswith(b"\n") if new else self._is_open
