"""Runs a pipeline on this machine: `b1k run`.

A child process (`engine.py`) runs the compiled pipeline with kfp.local; here its progress is shown and
recorded. Nothing outlives us: the kernel kills the child and its tasks when we end, and a helper process
removes containers (`containers.py`).
"""

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.runtime.processes import Child, describe_exit, log_tail
from components.runtime.progress import format_seconds
from components.store.artifact import RESULT, Artifact
from pipelines.definitions.choosing import Set, choose, find_pipeline
from pipelines.definitions.compiling import compile_pipeline
from pipelines.definitions.component import pipeline_documentation
from pipelines.definitions.profiles import load_local_profile
from pipelines.display import Display
from pipelines.local.containers import Setup, absolute_folders, cleaning, set_up
from pipelines.local.engine import Request
from pipelines.local.records import (
    FAILED,
    FORMAT,
    INTERRUPTED,
    RUN,
    RUNNING,
    SUCCEEDED,
    Containers,
    Run,
    exclusive,
    load_runs,
    new_run,
    now,
    unfinished_run,
)
from pipelines.tree import CACHED, DONE, Tree

_EVENTS = "events-{}.jsonl"
"""The events of an attempt, by its number."""
_REFRESH = 0.1
_GRACE = 15.0
LEADERBOARD = "leaderboard"
_SUMMARISED = ("news", LEADERBOARD, "promote")
REFUSED = 2
"""Exit code of a task that does not accept its input."""


@dataclass(frozen=True)
class Options:
    """Run a pipeline on this machine."""

    profile: str = "laptop"
    """How large: laptop or smoke. The others are for clusters (b1k pipeline)."""
    pipeline: str = "train_and_evaluate"
    """Which pipeline: train_and_evaluate, evaluate, retrain or demo."""
    workspace: Path = Path("workspace")
    """Folder for everything that the run makes."""
    set: Set = ()
    """Values that differ from the profile's: name=value ..., such as steps=500 or
    train.learning_rate.peak=3e-5. `b1k run --fields` lists all."""
    list: bool = False
    """List the runs of the workspace instead; the last one's folder is also runs/latest."""
    fields: bool = False
    """List the names for --set instead, with their defaults and what they mean."""
    resume: bool = False
    """Continue the last run, which failed or was interrupted, with its inputs; finished stages are kept."""
    containers: bool = False
    """Run every task in its container image, through the socket of Docker or Podman (DOCKER_HOST)."""
    registry: str = ""
    """With --containers: registry and path before the names of our images; empty for localhost/b1k."""
    network: str = "none"
    """With --containers: network of the tasks; none, bridge, host or one by its name."""
    mount: tuple[Path, ...] = ()
    """With --containers: more folders that tasks can read, such as a DVC remote outside the workspace."""


def run(options: Options) -> int:
    """Run a pipeline, or continue the last run, and show it.

    Returns:
        Exit code: 0 done, 1 a task failed, 2 a task refused its input, 130 interrupted.
    """
    workspace = options.workspace.resolve()
    if options.list:
        for one in reversed(load_runs(workspace)):
            spent = format_seconds(sum(one.seconds.values()))
            print(
                f"{one.id:<18} {one.pipeline:<19} {one.profile:<8} {one.status:<12} {one.started} {spent:>8}"
            )
        return 0
    if options.fields:
        print(pipeline_documentation(find_pipeline(options.pipeline), ""))
        return 0
    prepared = prepare(options, workspace)
    with exclusive(workspace):
        record, code = start(prepared, workspace, resume=options.resume)
    if code == 0:
        print_results(record, workspace)
        print(f"done; record: {record.folder(workspace) / RUN}")
    return code


def prepare(options: Options, workspace: Path) -> Run:
    """A new run, or with `resume` the one to continue.

    Everything that can be checked is checked before the workspace is touched.

    Raises:
        UserError: unknown names, values that a stage would refuse, or nothing to resume.
    """
    mounts = tuple(os.path.abspath(folder) for folder in options.mount)
    chosen = Containers(options.registry, options.network, mounts)
    if chosen != Containers() and not options.containers:
        raise UserError("--registry, --network and --mount are for runs in containers; add --containers")
    containers = chosen if options.containers else None
    if options.resume:
        return _unfinished(options, workspace, containers)
    load_local_profile(options.profile)
    given = choose(options.pipeline, options.profile, options.set, workspace=workspace)
    if options.containers:
        given = absolute_folders(given)
    return new_run(workspace, options.pipeline, options.profile, given.as_dict(), containers)


def _unfinished(options: Options, workspace: Path, containers: Containers | None) -> Run:
    """The run to continue."""
    if options.set:
        raise UserError("--resume continues with the run's own values; leave --set out, or start a new run")
    last = unfinished_run(workspace)
    if last is None:
        raise UserError(f"{workspace} has no unfinished run to resume; leave --resume out")
    if last.format != FORMAT:
        raise UserError(
            f"the run {last.id} was started by an earlier version, whose values have other names; start a "
            "new run: `b1k run --fields` lists the names"
        )
    if containers not in (None, last.containers):
        raise UserError(
            f"the run {last.id} was started with other options; --resume continues with its own: leave "
            "--containers and what belongs to it out, or start a new run"
        )
    return last


def start(run: Run, workspace: Path, *, resume: bool) -> tuple[Run, int]:
    """Run what `prepare` returned, and show it; the caller holds the workspace's lock.

    Returns:
        The run's record and the exit code.
    """
    print(f"compiling {run.pipeline} for the profile {run.profile}", flush=True)
    package = run.folder(workspace) / "pipeline.yaml"
    registry = run.containers.registry if run.containers else ""
    spec = compile_pipeline(run.pipeline, run.profile, package, registry=registry, workspace=workspace)
    if resume:
        run = dataclasses.replace(run, status=RUNNING, finished="", attempts=run.attempts + 1)
    setup = None
    if run.containers is not None:
        name = f"{workspace}:{run.id}:{run.attempts}"
        setup = set_up(run.containers, spec, run.arguments, workspace, name)
    run.save(workspace)
    tree = Tree(spec)
    code = _execute(run, workspace, tree, setup)
    run = _record(run, workspace, spec, code)
    if code:
        _explain(run, workspace, tree, code)
    return run, code


def _environment(workspace: Path, in_containers: bool) -> dict[str, str]:
    """Variables for the stages; those that the user has set are kept where they mean the same for stages."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(workspace / "cache" / "jax")}
    if in_containers:  # which see neither our programs nor our other folders; images choose their renderer
        return {**cache, "WANDB_MODE": os.environ.get("WANDB_MODE", "offline"), "PYTHONUNBUFFERED": "1"}
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    defaults = {**cache, "WANDB_MODE": "offline", "MUJOCO_GL": "egl"}
    return {"PATH": path, **{name: v for name, v in defaults.items() if name not in os.environ}}


def _execute(run: Run, workspace: Path, tree: Tree, setup: Setup | None) -> int:
    """Run the engine to its end, and show the tree meanwhile; returns the exit code."""
    folder = run.folder(workspace)
    events = folder / _EVENTS.format(run.attempts)
    request = Request(
        package=str(folder / "pipeline.yaml"),
        arguments=run.arguments,
        folder=str(folder),
        events=str(events),
        environment=_environment(workspace, setup is not None),
        containers=setup,
    )
    request.save(folder / "request.json")
    command = [sys.executable, "-m", "pipelines.local.engine", str(folder / "request.json")]
    with ExitStack() as stack:
        # SIGTERM as Ctrl-C
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        stack.callback(signal.signal, signal.SIGTERM, before)
        if setup is not None:
            stack.enter_context(cleaning(setup, folder / "containers.log"))
        engine = stack.enter_context(Child("the pipeline engine", command, folder / "engine.log"))
        title = f"{run.pipeline}, profile {run.profile}, run {run.id}"
        display = stack.enter_context(Display(tree, title))
        try:
            while (code := engine.poll()) is None:
                for node, event in tree.read(events):
                    display.changed(node, event)
                time.sleep(_REFRESH)
        except KeyboardInterrupt:
            engine.stop(_GRACE)
            code = 130
        for node, event in tree.read(events):
            display.changed(node, event)
        tree.close()
    return code


def _record(run: Run, workspace: Path, spec: Mapping[str, Any], code: int) -> Run:
    """Record how a run ended, from the events of all its attempts, those that were killed included."""
    seconds: dict[str, float] = {}
    outputs: dict[str, str] = {}
    for attempt in range(1, run.attempts + 1):
        tree = Tree(spec)
        for _ in tree.read(run.folder(workspace) / _EVENTS.format(attempt)):
            pass
        tree.close()
        for node in tree.nodes.values():
            # the time of a cached stage is that of an earlier attempt
            if node.started is not None and not (node.state == CACHED and node.name in seconds):
                seconds[node.name] = round(seconds.get(node.name, 0.0) + node.seconds(time.time()), 1)
        outputs |= {leaf.key: leaf.artifact for leaf in tree.leaves() if leaf.state in (DONE, CACHED)}
    status = {0: SUCCEEDED, 130: INTERRUPTED}.get(code, FAILED)
    run = dataclasses.replace(run, status=status, finished=now(), seconds=seconds, outputs=outputs)
    run.save(workspace)
    return run


def leaderboard_folder(run: Run, workspace: Path) -> Path | None:
    """Folder of the run's leaderboard artifact, if it got so far."""
    place = run.outputs.get(LEADERBOARD)
    return workspace / place if place else None


def print_results(run: Run, workspace: Path) -> Path | None:
    """Print the results of a run, a line each: news, scores, promotion, and where the report is.

    Returns:
        The report's page, which is made here, as the leaderboard's own does not know what promotion decided.
    """
    for task, place in run.outputs.items():
        path = workspace / place / RESULT
        said = json.loads(path.read_text()).get("summary", "") if path.is_file() else ""
        if said and task in _SUMMARISED:
            print(f"{task}: {said}")
    board = leaderboard_folder(run, workspace)
    if board is None:
        return None
    from pipelines.tools.report import current  # which takes a second to import

    page = current(Artifact.load(board))
    print(f"report: {page}")
    return page


def _explain(run: Run, workspace: Path, tree: Tree, code: int) -> None:
    """Say why it did not finish and how to continue."""
    again = f"b1k run --resume --workspace {workspace}"
    if code == 130:
        print(f"interrupted; continue with: {again}", file=sys.stderr)
        return
    failures = tree.failures()
    for node in failures:
        reason = f"{describe_exit(node.code)}{log_tail(Path(node.log))}"
        print(f"{node.label} failed with {reason}", file=sys.stderr)
    if not failures:
        log = run.folder(workspace) / "engine.log"
        print(f"the pipeline engine ended with {describe_exit(code)}{log_tail(log)}", file=sys.stderr)
    hint = "when it is fixed,"
    if code == REFUSED:
        hint = "if a value of the run was refused, start a new one; if it was something else, fix it and"
    print(f"finished stages are kept; {hint} continue with: {again}", file=sys.stderr)
