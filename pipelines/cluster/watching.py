"""Shows runs on a cluster: all of an experiment, or one until it ends."""

import sys
import time
from collections.abc import Mapping
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


def state(server: Server, run: Mapping[str, Any]) -> str:
    """The run's state in a word; of an active one the server is asked whether its schedule is still there."""
    found = run_state.state(run)
    if run.get("recurring_run_id") and found not in run_state.ENDED:
        return run_state.state(run, server.schedules(str(run.get("experiment_id"))))
    return found


def look(server: Server, identity: str) -> Look:
    """See how a run is.

    Args:
        server: where it runs.
        identity: its ID, or the beginning of it.
    """
    run = server.run(identity)
    word = state(server, run)
    workflow = read(server.workflow(str(run.get("run_id"))))
    return Look(run, word, workflow, run_state.tasks(workflow, word))


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
    seen = look(server, identity)
    try:
        with Display(seen.tasks, seen.title()) as display:
            watcher = _Watcher(server, display, place)
            while True:
                watcher.take(seen)
                if seen.state in run_state.ENDED:
                    break
                time.sleep(poll)
                seen = _patiently(server, seen.id, poll)
    except KeyboardInterrupt:
        again, end = f"b1k pipeline status {seen.id} --wait", f"b1k pipeline cancel {seen.id}"
        print(f"the run goes on; see it with {again}, end it with {end}", file=sys.stderr)
        return 130
    return conclude(seen)


class _Watcher:
    """Tells what is new in a run, and reads now and then what the logs say."""

    def __init__(self, server: Server, display: Display, place: Kubeconfig) -> None:
        self._server, self._display, self._place = server, display, place
        self._logs: Logs | None = None
        self._known: dict[str, Node] = {}
        self._read = -_PROGRESS

    def take(self, seen: Look) -> None:
        """Show how the run is now."""
        self._display.tree, self._display.title = seen.tasks, seen.title()
        if self._logs is None and seen.workflow is not None:
            self._logs = Logs(self._server, seen.id, seen.workflow, self._place)
        due = time.monotonic() - self._read >= _PROGRESS
        logs_left = _LOGS
        for node in seen.tasks.leaves():
            before = self._known.get(node.key, Node(node.key, node.label))
            changed = node.state != before.state
            if not changed:
                node.progress = before.progress
                node.message = before.message if node.state == FAILURE else node.message
            speaks = (node.state == FAILURE and changed) or (node.state == STARTED and due)
            if speaks and self._logs is not None and logs_left:
                logs_left -= 1
                self._logs.explain(node)
            self._known[node.key] = node
            told = changed and (node.state != SKIPPED or node.message)
            told = told or (node.state == WAITING and node.message != before.message)
            if told:
                self._display.changed(node, node.state)
            elif node.state == STARTED and node.progress != before.progress:
                self._display.changed(node, "progress")
        if due:
            self._read = time.monotonic()


def _patiently(server: Server, identity: str, poll: float) -> Look:
    """The run; a server that restarts is waited for."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return look(server, identity)
        except UnavailableError:
            if time.monotonic() > end:
                raise
            time.sleep(poll)


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
