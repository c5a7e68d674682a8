"""`b1k demo`: the whole pipeline on this machine, from demonstrations to leaderboard.

Runs the pipeline `demo` on reduced tasks: one room, one or two objects. Interrupted or killed, the same
command continues.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from components.errors import UserError
from components.store.files import write_atomic
from pipelines.definitions.choosing import Set
from pipelines.definitions.profiles import load_local_profile
from pipelines.local import run as local
from pipelines.local.records import Run, exclusive, unfinished_run
from pipelines.tools.rendering import rendering_problem

PIPELINE = "demo"
DEMONSTRATIONS = "demonstrations"
RESULT = "result.json"
UNTRAINED = "untrained"
_SAME = ("pipeline", "profile", "arguments", "containers")
"""What two runs have in common that are one, continued."""


@dataclass(frozen=True)
class Options:
    """Run the whole pipeline on this machine; started again it continues.

    The tasks are reduced ones (one room, one or two objects): their scores are not BEHAVIOR scores.
    """

    workspace: Path = Path("workspace")
    """Folder for everything that the demo makes; delete it to start over."""
    profile: str = "laptop"
    """How large: laptop, or smoke for a test of the machinery."""
    episodes: int = 80
    """Demonstrations per task."""
    workers: int = 2
    """Processes that collect demonstrations in parallel."""
    seed: int = 0
    """Seed of demonstrations, training and rollouts."""
    set: Set = ()
    """Values of the run that differ from the profile's, as for `b1k run`; with edition=2025 the
    demonstrations too have that edition's layout."""


def run(options: Options) -> int:
    """Run the demo; returns the exit code, as `b1k run` has it."""
    load_local_profile(options.profile)
    workspace = options.workspace.resolve()
    with exclusive(workspace):
        check_rendering()
        prepared, resume = _prepare(options, workspace)
        record, code = local.start(prepared, workspace, resume=resume)
        if code:
            return code
        board = workspace / record.outputs[local.LEADERBOARD]
        result = summarise(board, record.seconds)
        _print_table(result)
        result["report"] = str(local.print_results(record, workspace))
        write_atomic(workspace / RESULT, json.dumps(result, indent=2) + "\n")
        print(
            f"to look at it: b1k report open --workspace {options.workspace}, or, from another machine, "
            f"b1k results serve --workspace {options.workspace}"
        )
        print(workspace / RESULT)
    return 0


def check_rendering() -> None:
    """Check that MuJoCo can render without a screen; UserError with what to install if it cannot."""
    reason = rendering_problem()
    if reason:
        raise UserError(
            f"MuJoCo cannot render with MUJOCO_GL={os.environ['MUJOCO_GL']} ({reason}). Without a GPU, EGL "
            "needs Mesa: on Debian or Ubuntu `apt-get install libegl1 libgl1-mesa-dri`, on Fedora `dnf "
            "install mesa-libEGL mesa-dri-drivers`; or install OSMesa (libosmesa6) and set MUJOCO_GL=osmesa"
        )


def _prepare(options: Options, workspace: Path) -> tuple[Run, bool]:
    """The run, and whether it is the last one, which did not finish, continued."""
    wanted = {
        "repository": workspace / DEMONSTRATIONS,
        "episodes": options.episodes,
        "seed": options.seed,
        "collect.processes": options.workers,
    }
    words = tuple(f"{name}={value}" for name, value in wanted.items())
    new = local.Options(options.profile, PIPELINE, workspace, set=(words, *options.set))
    this, last = local.prepare(new, workspace), unfinished_run(workspace)
    if last is None or any(getattr(last, name) != getattr(this, name) for name in _SAME):
        return this, False
    return local.prepare(local.Options(workspace=workspace, resume=True), workspace), True


def summarise(board: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """The content of `result.json`, from the folder of the leaderboard and the seconds per stage.

    Returns:
        {"tasks": {name: {"trained", "untrained": {"q", "low", "high", "n"}}}, "seconds", "leaderboard"}, but
        for "report"; `trained` is the policy that was chosen on validation, scored on test instances.
    """
    tasks: dict[str, Any] = {}
    for name, entry in json.loads((board / "scores.json").read_text())["tasks"].items():
        shown = {"trained": entry["chosen"], UNTRAINED: UNTRAINED}
        tasks[name] = {
            label: {key: entry["policies"][policy]["reported"][key] for key in ("q", "low", "high", "n")}
            for label, policy in shown.items()
            if policy in entry["policies"]
        }
    return {"tasks": tasks, "seconds": seconds, "leaderboard": str(board)}


def _print_table(result: dict[str, Any]) -> None:
    table = Table(title="q score on test instances, 95 % intervals (reduced: one room, one or two objects)")
    table.add_column("task")
    for name in ("trained", UNTRAINED, "episodes"):
        table.add_column(name, justify="right")
    for name, scores in result["tasks"].items():
        cells = [
            f"{score['q']:.2f} ({score['low']:.2f} to {score['high']:.2f})" if score else ""
            for score in (scores["trained"], scores.get(UNTRAINED))
        ]
        table.add_row(name, *cells, str(scores["trained"]["n"]))
    Console(highlight=False).print(table)
