"""`b1k demo`: the whole pipeline on this machine, from demonstrations to leaderboard.

Collects demonstrations in the household simulator (reduced tasks: one room, one or two objects), puts them
under DVC in the workspace, and runs `train_and_evaluate`. Interrupted or killed, the same command continues.
"""

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from components.demonstrations.repository import version_dataset
from components.errors import UserError
from components.runtime.processes import Child, describe_exit, log_tail
from components.runtime.progress import Progress
from components.store.files import write_atomic
from pi_behavior.challenge import DEFAULT_EDITION
from pipelines.definitions.choosing import Set, choose
from pipelines.definitions.profiles import load_local_profile
from pipelines.definitions.profiles.profile import Profile
from pipelines.local import run as local
from pipelines.local.records import exclusive, unfinished_run
from pipelines.tools.rendering import rendering_problem

DEMONSTRATIONS = "demonstrations"
DATA = "data"
RESULT = "result.json"
UNTRAINED = "untrained"
_EPISODE_FILES = "meta/episodes/**/episode_*.json"
_PIPELINE = "train_and_evaluate"
_REFRESH = 0.5


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
    """Seed of the demonstrations."""
    set: Set = ()
    """Values of the run that differ from the profile's, as for `b1k run`; with edition=2025 the
    demonstrations too have that edition's layout."""


def run(options: Options) -> int:
    """Run the demo; returns the exit code, as `b1k run` has it."""
    profile = load_local_profile(options.profile)
    _inputs(options, profile)
    workspace = options.workspace.resolve()
    repository = workspace / DEMONSTRATIONS
    with exclusive(workspace):
        check_rendering()
        code = collect(options, profile, repository / DATA)
        if code:
            return code
        print("putting the demonstrations under version control (DVC)")
        message = f"{options.episodes} episodes per task"
        commit = version_dataset(repository, DATA, workspace / "remote", message)
        wanted = {"repository": str(repository), "revision": commit}
        chosen = _run_options(options, workspace, wanted)
        record, code = local.start(local.prepare(chosen, workspace), workspace, resume=chosen.resume)
        if code:
            return code
        board = workspace / record.outputs[local.LEADERBOARD]
        result = summarise(board, {"collect": _spent(workspace), **record.seconds})
        write_atomic(workspace / RESULT, json.dumps(result, indent=2) + "\n")
        _print_table(result)
        local.print_results(record, workspace)
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


def collect(options: Options, profile: Profile, data: Path) -> int:
    """Collect the missing demonstrations of the profile's tasks into `data`; returns the exit code."""
    workspace = options.workspace.resolve()
    inputs = _inputs(options, profile)
    tasks = str(inputs["tasks"]).split()
    log = workspace / "logs" / "collect.log"
    command = [sys.executable, "-m", "household.collect", "--output", str(data), "--tasks", *tasks]
    command += ["--episodes", str(options.episodes), "--workers", str(options.workers)]
    command += ["--image-size", str(profile.values.settings["plan"]["image_size"])]
    command += ["--seed", str(options.seed), "--edition", str(inputs["edition"])]
    before, began = _spent(workspace), time.monotonic()
    total = options.episodes * len(tasks)
    had = _episodes(data)
    with (
        Progress(sys.stdout).task("collecting demonstrations", total) as bar,
        Child("the collection", command, log) as child,
    ):
        while (code := child.poll()) is None:
            time.sleep(_REFRESH)
            bar.update(completed=_episodes(data))
        bar.update(completed=_episodes(data))
    if had < total:  # otherwise all were there
        spent = {"seconds": round(before + time.monotonic() - began, 1)}
        write_atomic(workspace / "logs" / "collect.json", json.dumps(spent) + "\n")
    if code:
        print(f"collecting demonstrations failed with {describe_exit(code)}{log_tail(log)}", file=sys.stderr)
    return 1 if code < 0 else code


def _inputs(options: Options, profile: Profile) -> dict[str, Any]:
    """The run's inputs that the demonstrations have to fit; UserError for one that no run would take."""
    given = choose(_PIPELINE, options.profile, options.set, complete=False)
    return {"edition": DEFAULT_EDITION, **profile.values.inputs, **given.inputs}


def _episodes(data: Path) -> int:
    return sum(1 for _ in data.glob(_EPISODE_FILES))


def _spent(workspace: Path) -> float:
    """Seconds that the collection took so far, over all attempts that were not killed."""
    path = workspace / "logs" / "collect.json"
    return float(json.loads(path.read_text())["seconds"]) if path.exists() else 0.0


def _run_options(options: Options, workspace: Path, wanted: dict[str, str]) -> local.Options:
    """Continue the last run if it was this one and did not finish, else start one."""
    last = unfinished_run(workspace)
    given = choose(_PIPELINE, options.profile, options.set, complete=False)
    given = dataclasses.replace(given, inputs={**given.inputs, **wanted})
    this = (options.profile, given.as_dict(), None)
    same = last is not None and (last.profile, last.arguments, last.containers) == this
    words = () if same else (tuple(f"{name}={value}" for name, value in wanted.items()), *options.set)
    return local.Options(profile=options.profile, workspace=workspace, set=words, resume=same)


def summarise(board: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """The content of `result.json`, from the folder of the leaderboard and the seconds per stage.

    Returns:
        {"tasks": {name: {"trained", "untrained": {"q", "low", "high", "n"}}}, "seconds", "report",
        "leaderboard"}; `trained` is the policy that was chosen on validation, scored on test instances.
    """
    tasks: dict[str, Any] = {}
    for name, entry in json.loads((board / "scores.json").read_text())["tasks"].items():
        shown = {"trained": entry["chosen"], UNTRAINED: UNTRAINED}
        tasks[name] = {
            label: {key: entry["policies"][policy]["reported"][key] for key in ("q", "low", "high", "n")}
            for label, policy in shown.items()
            if policy in entry["policies"]
        }
    return {
        "tasks": tasks,
        "seconds": seconds,
        "report": str(board / local.REPORT),
        "leaderboard": str(board),
    }


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
