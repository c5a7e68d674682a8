"""Shows runs on a cluster: all of an experiment, or one until it ends."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.cluster import run_state
from pipelines.cluster.server import Server, UnavailableError
from pipelines.display import Display
from pipelines.tree import Tree

_LISTED = 20
_PATIENCE = 600.0
"""Seconds without an answer after which waiting for a run ends; the run itself goes on."""


def watch(server: Server, identity: str, poll: float) -> int:
    """Show a run until it ends.

    Args:
        server: where it runs.
        identity: its ID.
        poll: seconds between two looks.

    Returns:
        Exit code: 0 succeeded, 1 failed or cancelled, 130 interrupted, after which the run goes on.
    """
    found = server.run(identity)
    tree = Tree(run_state.spec(found))
    try:
        with Display(tree, title(found)) as display:
            while True:
                for node in run_state.update(tree, found):
                    display.changed(node, node.state)
                if run_state.state(found) in run_state.ENDED:
                    break
                time.sleep(poll)
                found = _patiently(server, identity, poll)
    except KeyboardInterrupt:
        look, end = f"b1k pipeline status {identity} --wait", f"b1k pipeline cancel {identity}"
        print(f"the run goes on; see it with {look}, end it with {end}", file=sys.stderr)
        return 130
    return conclude(found)


def _patiently(server: Server, identity: str, poll: float) -> dict[str, Any]:
    """The run; a server that restarts is waited for."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return server.run(identity)
        except UnavailableError:
            if time.monotonic() > end:
                raise
            time.sleep(poll)


def title(found: Mapping[str, Any]) -> str:
    """A run's name, state and ID in a line."""
    return f"{found.get('display_name')}, {run_state.state(found).lower()}, run {found.get('run_id')}"


def conclude(found: Mapping[str, Any]) -> int:
    """Say what went wrong with a run.

    Returns:
        Exit code: 1 if it failed or was cancelled, else 0.
    """
    state = run_state.state(found)
    if state not in run_state.FAILED:
        return 0
    identity = found.get("run_id")
    reason = (found.get("error") or {}).get("message")
    print(f"the run {identity} {state.lower()}{f': {reason}' if reason else ''}", file=sys.stderr)
    print(f"logs of what failed: b1k pipeline logs {identity}", file=sys.stderr)
    return 1


def show_runs(server: Server, name: str) -> None:
    """Print the last runs and the schedules of an experiment.

    Raises:
        UserError: there is no such experiment.
    """
    experiment = server.experiment(name, create=False)
    table = Table("run", "name", "state", "created", title=f"experiment {escape(name)}")
    for one in server.runs(experiment, _LISTED):
        words = (one.get("run_id"), one.get("display_name"), run_state.state(one), one.get("created_at"))
        table.add_row(*(escape(str(word)) for word in words))
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    for one in server.schedules(experiment):
        when = (one.get("trigger") or {}).get("cron_schedule", {}).get("cron", "")
        said = f"schedule {one.get('display_name')}: {when}, {str(one.get('status')).lower()}"
        console.print(said, markup=False)
