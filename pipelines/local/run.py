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
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.runtime.processes import Child, describe_exit, log_tail
from components.runtime.progress import format_seconds
from components.store.artifact import RESULT
from pipelines.definitions.compiling import Set, choose, compile_pipeline, find_pipeline
from pipelines.definitions.component import pipeline_documentation
from pipelines.definitions.profiles import load_local_profile
from pipelines.display import Display
from pipelines.local.engine import Request
from pipelines.local.records import (
    FAILED,
    FORMAT,
    INTERRUPTED,
    RUN,
    RUNNING,
    SUCCEEDED,
    Run,
    exclusive,
    load_runs,
    new_run,
    now,
    resumed,
    unfinished_run,
)
from pipelines.tree import CACHED, DONE, Node, Tree

if TYPE_CHECKING:
    from pipelines.local.containers import Setup

_KFP = (2, 17)
"""Earlier versions of kfp.local start tasks before the loops that they wait for."""
_REFRESH = 0.1
_GRACE = 15.0
LEADERBOARD = "leaderboard"
_SUMMARISED = ("news", LEADERBOARD, "promote")
REPORT = "report/index.html"
REFUSED = 2
"""Exit code of a task that does not accept its input."""


@dataclass(frozen=True)
class Options:
    """Run a pipeline on this machine."""

    profile: str = "laptop"
    """How large: laptop or smoke. The others are for clusters (b1k pipeline)."""
    pipeline: str = "train_and_evaluate"
    """Which pipeline: train_and_evaluate, evaluate or retrain."""
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
        return list_runs(workspace)
    if options.fields:
        print(pipeline_documentation(find_pipeline(options.pipeline), ""))
        return 0
    prepared = prepare(options, workspace)
    with exclusive(workspace):
        record, code = start(prepared, workspace, resume=options.resume)
    if code == 0:
        for line in summaries(record, workspace):
            print(line)
        board = leaderboard_folder(record, workspace)
        if board is not None:
            print(f"report: {board / REPORT}")
        print(f"done; record: {record.folder(workspace) / RUN}")
    return code


def prepare(options: Options, workspace: Path) -> Run:
    """A new run, or with `resume` the one to continue.

    Everything that can be checked is checked before the workspace is touched.

    Raises:
        UserError: unknown names, values that a stage would refuse, or nothing to resume.
    """
    _check_version()
    chosen = _settings(options)
    if options.resume:
        run = _unfinished(options, workspace, chosen)
        load_local_profile(run.profile)
        return run
    find_pipeline(options.pipeline)
    load_local_profile(options.profile)
    given = choose(options.pipeline, options.profile, options.set, workspace=workspace)
    if options.containers:
        from pipelines.local.containers import absolute_folders

        given = absolute_folders(given)
    run = new_run(workspace, options.pipeline, options.profile, given.as_dict())
    return dataclasses.replace(run, containers=chosen)


def _unfinished(options: Options, workspace: Path, chosen: dict[str, Any] | None) -> Run:
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
    if chosen not in (None, last.containers):
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
    folder = run.folder(workspace)
    registry = (run.containers or {}).get("registry", "")
    print(f"compiling {run.pipeline} for the profile {run.profile}", flush=True)
    package = folder / "pipeline.yaml"
    spec = compile_pipeline(run.pipeline, run.profile, package, registry=registry, workspace=workspace)
    if resume:
        run = _resume(run, workspace, Tree(spec))
    containers = _set_up(run, spec, workspace)
    run.save(workspace)
    tree = Tree(spec)
    code = _execute(run, workspace, tree, containers)
    run = _record(run, workspace, tree, code)
    _conclude(run, workspace, tree, code)
    return run, code


def list_runs(workspace: Path) -> int:
    """Print the runs of a workspace, newest first; returns exit code 0."""
    for run in reversed(load_runs(workspace)):
        spent = format_seconds(sum(run.seconds.values()))
        print(f"{run.id:<18} {run.pipeline:<19} {run.profile:<8} {run.status:<12} {run.started} {spent:>8}")
    return 0


def _settings(options: Options) -> dict[str, Any] | None:
    """The options for containers as a run records them."""
    mounts = [os.path.abspath(folder) for folder in options.mount]
    chosen = {"registry": options.registry, "network": options.network, "mounts": mounts}
    if options.containers:
        return chosen
    if chosen != {"registry": "", "network": "none", "mounts": []}:
        raise UserError("--registry, --network and --mount are for runs in containers; add --containers")
    return None


def _set_up(run: Run, spec: Mapping[str, Any], workspace: Path) -> "Setup | None":
    """What the run's containers need; None where tasks are processes of this machine."""
    if run.containers is None:
        return None
    from pipelines.local.containers import Settings, set_up

    name = f"{workspace}:{run.id}:{run.attempts}"
    return set_up(Settings(**run.containers), spec, run.arguments, workspace, name)


def _resume(run: Run, workspace: Path, tree: Tree) -> Run:
    """The next attempt of a run; if the last one was killed, its results are recorded first."""
    if run.status == RUNNING:
        reader = _Events(_events_file(run, workspace))
        for _ in reader.feed(tree):
            pass
        tree.close()
        run = _record(run, workspace, tree, 130)
    return resumed(run)


def _events_file(run: Run, workspace: Path) -> Path:
    return run.folder(workspace) / f"events-{run.attempts}.jsonl"


def _check_version() -> None:
    found = version("kfp")
    if tuple(int(part) for part in found.split(".")[:2]) < _KFP:
        wanted = ".".join(map(str, _KFP))
        raise UserError(f"kfp {found} is installed, local runs need {wanted}; install kfp>={wanted}")


def _environment(workspace: Path, in_containers: bool) -> dict[str, str]:
    """Variables for the stages; values that the user has set are kept where they mean the same for stages."""
    folder = str(Path(sys.executable).parent)
    cache = {"JAX_COMPILATION_CACHE_DIR": str(workspace / "cache" / "jax")}
    tracking = {"WANDB_MODE": os.environ.get("WANDB_MODE", "offline")}
    if in_containers:  # which see neither our programs nor our other folders; images choose their renderer
        return {**cache, **tracking, "PYTHONUNBUFFERED": "1"}
    defaults = {**cache, "MUJOCO_GL": "egl"}
    chosen = {name: os.environ.get(name, value) for name, value in defaults.items()}
    path = f"{folder}:{os.environ.get('PATH', '')}"
    return {**chosen, **tracking, "PATH": path, "PYTHONUNBUFFERED": "1"}


def _execute(run: Run, workspace: Path, tree: Tree, containers: "Setup | None") -> int:
    folder = run.folder(workspace)
    events = _events_file(run, workspace)
    request = Request(
        str(folder / "pipeline.yaml"),
        run.arguments,
        str(folder),
        str(events),
        _environment(workspace, containers is not None),
        dataclasses.asdict(containers) if containers is not None else None,
    )
    request_file = folder / "request.json"
    request.save(request_file)
    command = [sys.executable, "-m", "pipelines.local.engine", str(request_file)]
    title = f"{run.pipeline}, profile {run.profile}, run {run.id}"
    with (
        _terminations(),
        _cleaning(containers, folder),
        Child("the pipeline engine", command, folder / "engine.log") as engine,
    ):
        reader = _Events(events)
        with Display(tree, title) as display:
            try:
                code = engine.poll()
                while code is None:
                    _show(reader, tree, display)
                    time.sleep(_REFRESH)
                    code = engine.poll()
            except KeyboardInterrupt:
                engine.stop(_GRACE)
                code = 130
            _show(reader, tree, display)
            tree.close()
    return code


def _cleaning(containers: "Setup | None", folder: Path) -> AbstractContextManager[None]:
    if containers is None:
        return nullcontext()
    from pipelines.local.containers import cleaning

    return cleaning(containers, folder / "containers.log")


def _show(reader: "_Events", tree: Tree, display: Display) -> None:
    for node, event in reader.feed(tree):
        display.changed(node, event)


@contextmanager
def _terminations() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Events:
    """Reads a growing file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def feed(self, tree: Tree) -> Iterator[tuple[Node, str]]:
        """Update the tree with the new whole lines; yields the tasks and kinds of event."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            event = json.loads(line)
            node = tree.update(event)
            if node is not None:
                yield node, event.get("event", "progress")


def _record(run: Run, workspace: Path, tree: Tree, code: int) -> Run:
    seconds, outputs = dict(run.seconds), dict(run.outputs)
    for node in tree.nodes.values():
        spent = node.seconds(time.time())
        # the time of a cached stage is that of an earlier attempt
        if node.started is not None and not (node.state == CACHED and node.name in seconds):
            seconds[node.name] = round(seconds.get(node.name, 0.0) + spent, 1)
    for leaf in tree.leaves():
        if leaf.state in (DONE, CACHED):
            outputs[leaf.key] = leaf.artifact
    status = {0: SUCCEEDED, 130: INTERRUPTED}.get(code, FAILED)
    run = dataclasses.replace(run, status=status, finished=now(), seconds=seconds, outputs=outputs)
    run.save(workspace)
    return run


def leaderboard_folder(run: Run, workspace: Path) -> Path | None:
    """Folder of the run's leaderboard artifact, if it got so far."""
    place = run.outputs.get(LEADERBOARD)
    return workspace / place if place else None


def summaries(run: Run, workspace: Path) -> Iterator[str]:
    """The results of a run, a line each: news, scores, promotion."""
    for task, place in run.outputs.items():
        path = workspace / place / RESULT
        said = json.loads(path.read_text()).get("summary", "") if path.is_file() else ""
        if said and task in _SUMMARISED:
            yield f"{task}: {said}"


def _conclude(run: Run, workspace: Path, tree: Tree, code: int) -> None:
    """Print how it ended and how to continue."""
    again = f"b1k run --resume --workspace {workspace}"
    if code == 0:
        return
    if code == 130:
        print(f"interrupted; continue with: {again}", file=sys.stderr)
        return
    failures = tree.failures()
    for node in failures:
        print(_failure(node), file=sys.stderr)
    if not failures:
        log = run.folder(workspace) / "engine.log"
        print(f"the pipeline engine ended with {describe_exit(code)}{log_tail(log)}", file=sys.stderr)
    if code == REFUSED:
        hint = "if a value of the run was refused, start a new one; if it was something else, fix it and"
    else:
        hint = "when it is fixed,"
    print(f"finished stages are kept; {hint} continue with: {again}", file=sys.stderr)


def _failure(node: Node) -> str:
    return f"{node.label} failed with {describe_exit(node.code)}{log_tail(Path(node.log))}"
