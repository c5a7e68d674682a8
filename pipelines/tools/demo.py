"""`b1k demo`: the whole pipeline on this machine, from demonstrations to leaderboard.

Collects demonstrations in the household simulator (reduced tasks: one room, one or two objects), puts them
under DVC in the workspace, and runs `train_and_evaluate`. Interrupted or killed, the same command continues.
"""

import json
import os
import subprocess
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
from pipelines.definitions.profiles import load_local_profile
from pipelines.definitions.profiles.profile import Profile
from pipelines.local import run as local
from pipelines.local.records import exclusive, unfinished_run

DEMONSTRATIONS = "demonstrations"
DATA = "data"
RESULT = "result.json"
UNTRAINED = "untrained"
_EPISODE_FILES = "meta/episodes/**/episode_*.json"
_REFRESH = 0.5
_GRACE = 10.0


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


def run(options: Options) -> int:
    """Run the demo.

    Returns:
        Exit code: 0 done, 1 a task failed, 2 a mistake in the input, 130 interrupted.
    """
    profile = load_local_profile(options.profile)
    workspace = options.workspace.resolve()
    with exclusive(workspace):
        check_rendering()
        data = workspace / DEMONSTRATIONS / DATA
        code = collect(options, profile, data)
        if code:
            return code
        print("putting the demonstrations under version control (DVC)")
        commit = _version(options, workspace)
        wanted = {"repository": str(workspace / DEMONSTRATIONS), "revision": commit}
        chosen = _run_options(options, workspace, wanted)
        record, code = local.start(local.prepare(chosen, workspace), workspace, resume=chosen.resume)
        if code:
            return code
        board = local.leaderboard_folder(record, workspace)
        if board is None:
            raise RuntimeError(f"the run {record.id} ended without a leaderboard")
        seconds = {"collect": _spent(workspace), **record.seconds}
        path = workspace / RESULT
        result = summarise(board, seconds)
        write_atomic(path, json.dumps(result, indent=2) + "\n")
        _print_table(result)
        for line in local.summaries(record, workspace):
            print(line)
        print(f"report: {result['report']}")
        print(path)
    return 0


def _version(options: Options, workspace: Path) -> str:
    """Put the dataset under DVC; returns the commit of its version."""
    repository = workspace / DEMONSTRATIONS
    return version_dataset(repository, DATA, workspace / "remote", f"{options.episodes} episodes per task")


def check_rendering() -> None:
    """Check that MuJoCo can render without a screen; UserError with what to install if it cannot."""
    backend = os.environ.setdefault("MUJOCO_GL", "egl")
    # in a process of its own: a library that is missing or broken may end the process
    probe = "import mujoco; mujoco.GLContext(16, 16).make_current()"
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or [describe_exit(answer.returncode)])[-1]
        raise UserError(
            f"MuJoCo cannot render with MUJOCO_GL={backend} ({reason}). Without a GPU, EGL needs Mesa: on "
            "Debian or Ubuntu `apt-get install libegl1 libgl1-mesa-dri`, on Fedora `dnf install "
            "mesa-libEGL mesa-dri-drivers`; or install OSMesa (libosmesa6) and set MUJOCO_GL=osmesa"
        )


def collect(options: Options, profile: Profile, data: Path) -> int:
    """Collect the missing demonstrations of the profile's tasks into `data`; returns the exit code."""
    workspace = options.workspace.resolve()
    tasks = str(profile.values.inputs["tasks"]).split()
    log = workspace / "logs" / "collect.log"
    command = [sys.executable, "-m", "household.collect", "--output", str(data), "--tasks", *tasks]
    command += ["--episodes", str(options.episodes), "--workers", str(options.workers)]
    command += ["--image-size", str(profile.values.settings["plan"]["image_size"])]
    command += ["--seed", str(options.seed)]
    before, began = _spent(workspace), time.monotonic()
    total = options.episodes * len(tasks)
    had = _episodes(data)
    with (
        Progress(sys.stdout).task("collecting demonstrations", total) as bar,
        Child("the collection", command, log) as child,
    ):
        code = child.poll()
        while code is None:
            time.sleep(_REFRESH)
            bar.update(completed=_episodes(data))
            code = child.poll()
        bar.update(completed=_episodes(data))
    if had < total:  # otherwise all were there
        spent = {"seconds": round(before + time.monotonic() - began, 1)}
        write_atomic(workspace / "logs" / "collect.json", json.dumps(spent) + "\n")
    if code:
        print(f"collecting demonstrations failed with {describe_exit(code)}{log_tail(log)}", file=sys.stderr)
    return 1 if code < 0 else code


def _episodes(data: Path) -> int:
    return sum(1 for _ in data.glob(_EPISODE_FILES))


def _spent(workspace: Path) -> float:
    """Seconds that the collection took so far, over all attempts that were not killed."""
    path = workspace / "logs" / "collect.json"
    return float(json.loads(path.read_text())["seconds"]) if path.exists() else 0.0


def _run_options(options: Options, workspace: Path, wanted: dict[str, str]) -> local.Options:
    """Continue the last run if it was this one and did not finish, else start one."""
    last = unfinished_run(workspace)
    same = (
        last is not None
        and last.containers is None
        and last.profile == options.profile
        and last.arguments == wanted
    )
    words = tuple(f"{name}={value}" for name, value in wanted.items())
    return local.Options(
        profile=options.profile, workspace=workspace, set=() if same else (words,), resume=same
    )


def summarise(board: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """The content of `result.json`, from the folder of the leaderboard and the seconds per stage.

    Returns:
        {"tasks": {name: {"trained", "untrained": {"q", "low", "high", "n"}}}, "seconds", "report",
        "leaderboard"}; `trained` is the policy that was chosen on validation, scored on test instances.
    """
    scores = json.loads((board / "scores.json").read_text())
    tasks: dict[str, Any] = {}
    for name, entry in scores["tasks"].items():
        tasks[name] = {"trained": _interval(entry["policies"][entry["chosen"]]["reported"])}
        if UNTRAINED in entry["policies"]:
            tasks[name][UNTRAINED] = _interval(entry["policies"][UNTRAINED]["reported"])
    return {
        "tasks": tasks,
        "seconds": seconds,
        "report": str(board / local.REPORT),
        "leaderboard": str(board),
    }


def _interval(score: dict[str, Any]) -> dict[str, Any]:
    return {key: score[key] for key in ("q", "low", "high", "n")}


def _print_table(result: dict[str, Any]) -> None:
    table = Table(title="q score on test instances, 95 % intervals (reduced: one room, one or two objects)")
    table.add_column("task")
    table.add_column("trained", justify="right")
    table.add_column("untrained", justify="right")
    table.add_column("episodes", justify="right")
    for name, scores in result["tasks"].items():
        cells = [_cell(scores[kind]) if kind in scores else "" for kind in ("trained", UNTRAINED)]
        table.add_row(name, *cells, str(scores["trained"]["n"]))
    Console(highlight=False).print(table)


def _cell(score: dict[str, Any]) -> str:
    return f"{score['q']:.2f} ({score['low']:.2f} to {score['high']:.2f})"
