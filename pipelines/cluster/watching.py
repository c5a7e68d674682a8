"""Shows runs on a cluster: all of an experiment, or one until it ends."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from rich.console import Console

from pipelines.cluster import run_state, schedules
from pipelines.cluster.connection import UnavailableError
from pipelines.cluster.logs import Kubeconfig, Logs
from pipelines.cluster.server import Server
from pipelines.cluster.workflow import Workflow, read
from pipelines.display import Display
from pipelines.tree import CANCELLED, FAILURE, SKIPPED, STARTED, WAITING, Node, Tasks

_LISTED = 20
_WIDTH = 10_000
"""Characters of a line where no terminal wraps it: nothing is cut."""
_PATIENCE = 600.0
"""Seconds without an answer after which waiting for a run ends; the run itself goes on."""
_PROGRESS = 15.0
"""Seconds between two looks into the logs."""
_LOGS = 8
"""Logs that are read in one look."""


@dataclass(frozen=True)
class Look:
    """A run as it is at a moment."""

    run: Mapping[str, Any]
    """As the server describes it."""
    state: str
    """In a word."""
    workflow: Workflow | None
    tasks: Tasks

    @property
    def id(self) -> str:
        """The run's ID."""
        return str(self.run.get("run_id"))

    def title(self) -> str:
        """Name, state and ID in a line."""
        return f"{self.run.get('display_name')}, {self.state}, run {self.id}"


def look(server: Server, identity: str) -> Look:
    """See how a run is.

    Args:
        server: where it runs.
        identity: its ID, or the beginning of it.
    """
    run = server.run(identity)
    word = schedules.run_state_of(server, run)
    workflow = read(server.workflow(str(run.get("run_id"))))
    return Look(run, word, workflow, run_state.tasks(workflow, word))


def look_patiently(server: Server, identity: str, poll: float) -> Look:
    """See how a run is; a server that restarts is waited for.

    Args:
        server: where it runs.
        identity: its ID, or the beginning of it.
        poll: seconds between two tries.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return look(server, identity)
        except UnavailableError:
            if time.monotonic() > end:
                raise
            time.sleep(poll)


def show(server: Server, identity: str, place: Kubeconfig) -> int:
    """Show a run as it is.

    Args:
        server: where it runs.
        identity: its ID, or the beginning of it.
        place: how its pods are reached.

    Returns:
        Exit code: 1 if it failed, was cancelled or is lost, else 0.
    """
    seen = look(server, identity)
    if seen.workflow is not None:
        logs = Logs(server, seen.id, seen.workflow, place)
        speaking = [node for node in seen.tasks.leaves() if node.state in (STARTED, FAILURE)]
        with suppress(UnavailableError):  # the tasks are shown without what their logs say
            for node in speaking[:_LOGS]:
                logs.explain(node)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(Display(seen.tasks, seen.title()).render())
    return conclude(seen)


def watch(server: Server, identity: str, poll: float, place: Kubeconfig) -> int:
    """Show a run until it ends.

    Args:
        server: where it runs.
        identity: its ID, or the beginning of it.
        poll: seconds between two looks.
        place: how its pods are reached.

    Returns:
        Exit code: 0 succeeded, 1 failed, cancelled or lost, 130 interrupted, after which the run goes on.
    """
    try:
        seen = look_patiently(server, identity, poll)
        with Display(seen.tasks, seen.title()) as display:
            watcher = _Watcher(server, display, place)
            while True:
                watcher.take(seen)
                if seen.state in run_state.ENDED:
                    break
                time.sleep(poll)
                seen = look_patiently(server, seen.id, poll)
    except KeyboardInterrupt:
        again, end = f"b1k pipeline status {identity} --wait", f"b1k pipeline cancel {identity}"
        print(f"the run goes on; see it with {again}, end it with {end}", file=sys.stderr)
        return 130
    return conclude(seen)


class _Watcher:
    """Tells what is new in a run, and reads now and then what the logs say."""

    def __init__(self, server: Server, display: Display, place: Kubeconfig) -> None:
        self._server, self._display, self._place = server, display, place
        self._logs: Logs | None = None
        self._known: dict[str, Node] = {}
        self._unexplained: set[str] = set()
        """Failed tasks whose logs have not been read."""
        self._explained: dict[str, float] = {}
        """When the log of a task was last read."""
        self._read = -_PROGRESS

    def take(self, seen: Look) -> None:
        """Show how the run is now."""
        self._display.tree, self._display.title = seen.tasks, seen.title()
        if self._logs is None and seen.workflow is not None:
            self._logs = Logs(self._server, seen.id, seen.workflow, self._place)
        nodes, known = list(seen.tasks.leaves()), self._known
        for node in nodes:
            before = known.get(node.key, Node(node.key, node.label))
            if node.state == before.state:
                node.progress = before.progress if before.progress.get("description") else node.progress
                node.message = before.message if node.state == FAILURE else node.message
            elif node.state == FAILURE:
                self._unexplained.add(node.key)
            else:
                self._unexplained.discard(node.key)
        self._known = known | {node.key: node for node in nodes}
        self._explain(nodes, is_last=seen.state in run_state.ENDED)
        for node in nodes:
            before = known.get(node.key, Node(node.key, node.label))
            told = node.state != before.state and (node.state != SKIPPED or node.message)
            told = told or (node.state in (WAITING, FAILURE) and node.message != before.message)
            if told:
                self._display.changed(node, node.state)
            elif node.state == STARTED and node.progress != before.progress:
                self._display.changed(node, "progress")

    def _explain(self, nodes: Sequence[Node], *, is_last: bool) -> None:
        """Read logs: in the last look at a run of all new failures, else of a few, longest unread first."""
        if self._logs is None:
            return
        due = time.monotonic() - self._read >= _PROGRESS
        if due:
            self._read = time.monotonic()
        failed = [node for node in nodes if node.key in self._unexplained]
        running = [node for node in nodes if node.state == STARTED] if due else []
        running.sort(key=lambda node: self._explained.get(node.key, 0.0))
        try:
            for node in [*failed, *running][: None if is_last else _LOGS]:
                self._logs.explain(node)
                self._explained[node.key] = time.monotonic()
                self._unexplained.discard(node.key)
        except UnavailableError:
            return  # the next look reads them


def conclude(seen: Look) -> int:
    """Say what went wrong with a run.

    Returns:
        Exit code: 1 if it failed, was cancelled or is lost, else 0.
    """
    if seen.state not in run_state.UNSUCCESSFUL:
        return 0
    said = (seen.run.get("error") or {}).get("message") or (seen.workflow and seen.workflow.message)
    if seen.state == "lost":
        said = "its schedule was deleted while it was active, and its workflow with that"
    elif seen.state == "cancelled":
        said = ""
    print(f"the run {seen.id} {seen.state}{f': {said}' if said else ''}", file=sys.stderr)
    if any(node.state in (FAILURE, CANCELLED) for node in seen.tasks.leaves()):
        print(f"logs of what did not succeed: b1k pipeline logs {seen.id}", file=sys.stderr)
    return 1


def show_runs(server: Server, name: str) -> None:
    """Print the last runs and the schedules of an experiment, each in a line.

    Raises:
        UserError: there is no such experiment.
    """
    experiment = server.experiment(name, create=False)
    known = server.schedules(experiment)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"experiment {name}")
    for one in islice(server.runs(experiment), _LISTED):
        word, created = run_state.state(one, known), one.get("created_at")
        console.print(f"{one.get('run_id')}  {word:<10}  {created}  {one.get('display_name')}")
    for one in known:
        console.print(schedules.describe(server, one, datetime.now(UTC)))
