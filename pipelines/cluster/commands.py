"""`b1k pipeline`: compile pipelines, and run them on a cluster with Kubeflow Pipelines."""

import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml
from rich.console import Console

from components.runtime.errors import UserError
from components.settings.checks import Arguments
from pipelines.cluster import run_state, watching
from pipelines.cluster.server import Connection, Job, Server
from pipelines.definitions.compiling import Set, choose, compile_pipeline
from pipelines.definitions.images import image
from pipelines.definitions.profiles import load_profile
from pipelines.display import Display

_CRON_WORDS = ("@yearly", "@monthly", "@weekly", "@daily", "@hourly")


@dataclass(frozen=True)
class Pipeline:
    """Which pipeline, and how large."""

    profile: str = "h200x8"
    """How large, and what the steps need of the cluster: h200x8, one_gpu, laptop or smoke."""
    pipeline: str = "train_and_evaluate"
    """Which pipeline: train_and_evaluate, evaluate or retrain."""
    registry: str = ""
    """Registry and path before the names of the images, such as registry.example.org/robots."""
    set: Set = ()
    """Values that differ from the profile's: name=value ...; `b1k run --fields` lists the names. They become
    arguments of a run, defaults of a compiled file."""


@dataclass(frozen=True)
class Compile(Pipeline):
    """Compile a pipeline; prints the path of the YAML file, to be uploaded as it is."""

    output: Path | None = None
    """File to write; <pipeline>-<profile>.yaml here when not given."""


@dataclass(frozen=True)
class Waiting:
    """Whether to watch a run."""

    wait: bool = False
    """Show the run's tasks until it ends; exit code 1 if it failed or was cancelled."""
    poll: float = 5.0
    """Seconds between two looks at the run."""


@dataclass(frozen=True)
class Run(Pipeline):
    """Options of runs, started now or by a schedule."""

    experiment: str = "b1k"
    """Experiment of the run; made if there is none of that name."""
    service_account: str = "b1k-runner"
    """Kubernetes service account of the pods, as the chart makes it; empty for the server's default."""
    connection: tyro.conf.OmitArgPrefixes[Connection] = field(default_factory=Connection)


@dataclass(frozen=True)
class Submit(Run, Waiting):
    """Compile a pipeline and start a run of it; prints the run's ID."""

    run_name: str = ""
    """Name of the run; pipeline, profile and time when not given."""


@dataclass(frozen=True)
class Schedule(Run):
    """Run a pipeline regularly: one run at a time, and missed times are not caught up on."""

    pipeline: str = "retrain"
    """Which pipeline: train_and_evaluate, evaluate or retrain."""
    cron: str = "0 3 * * *"
    """When: minute, hour, day of month, month, day of week, in the server's time zone; or with seconds first;
    or @daily, @weekly, ..."""
    name: str = ""
    """Name of the schedule; the pipeline and the profile when not given."""
    replace: bool = False
    """Delete the schedule of that name first, which ends its runs."""


@dataclass(frozen=True)
class Status(Waiting):
    """Show a run's tasks, or without a run the last runs and the schedules of an experiment.

    Exit code 1 if the run failed or was cancelled.
    """

    run: tyro.conf.Positional[str] = ""
    """ID of a run."""
    experiment: str = "b1k"
    """Experiment whose runs are listed."""
    connection: tyro.conf.OmitArgPrefixes[Connection] = field(default_factory=Connection)


@dataclass(frozen=True)
class Logs:
    """Print what the tasks of a run wrote: those that failed, or the given one."""

    run: tyro.conf.Positional[str]
    """ID of the run."""
    task: tyro.conf.Positional[str] = ""
    """Name of the task as `b1k pipeline status` shows it, such as "Train common"."""
    connection: tyro.conf.OmitArgPrefixes[Connection] = field(default_factory=Connection)


@dataclass(frozen=True)
class Cancel:
    """End a run, or delete a schedule."""

    run: tyro.conf.Positional[str] = ""
    """ID of the run."""
    schedule: str = ""
    """Name of a schedule to delete, which ends its runs."""
    experiment: str = "b1k"
    """Experiment of the schedule."""
    connection: tyro.conf.OmitArgPrefixes[Connection] = field(default_factory=Connection)


Command = (
    Annotated[Compile, tyro.conf.subcommand("compile")]
    | Annotated[Submit, tyro.conf.subcommand("submit")]
    | Annotated[Schedule, tyro.conf.subcommand("schedule")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Logs, tyro.conf.subcommand("logs")]
    | Annotated[Cancel, tyro.conf.subcommand("cancel")]
)


def run(command: Compile | Submit | Schedule | Status | Logs | Cancel) -> int:
    """Run one of the commands.

    Returns:
        Exit code: 0 done, 1 the run failed or was cancelled, 130 interrupted.

    Raises:
        UserError: bad input, or the server does not do what is asked.
    """
    match command:
        case Compile():
            output = command.output or Path(f"{command.pipeline}-{command.profile}.yaml")
            given = choose(command.pipeline, command.profile, command.set, complete=False)
            _compile(command, output, given=given)
            print(output)
            return 0
        case Submit():
            return _submit(command)
        case Schedule():
            return _schedule(command)
        case Status():
            return _status(command)
        case Logs():
            return _logs(command)
        case Cancel():
            return _cancel(command)


def _compile(command: Pipeline, output: Path, *, given: Arguments | None = None) -> None:
    compile_pipeline(command.pipeline, command.profile, output, registry=command.registry, given=given)
    if not command.registry and not load_profile(command.profile).is_local:
        print(
            f"note: the pods' images are {image('toolbox')} and so on, which only nodes have that were given "
            "them; for images of a registry say --registry registry.example.org/robots",
            file=sys.stderr,
        )


def _package(command: Run, folder: str) -> tuple[Path, dict[str, Any]]:
    """The compiled pipeline and its arguments, checked before anything is asked of the server."""
    package = Path(folder) / "pipeline.yaml"
    given = choose(command.pipeline, command.profile, command.set)
    _compile(command, package)
    return package, given.as_dict()


def _prepare(command: Run, name: str) -> tuple[Server, Job]:
    with tempfile.TemporaryDirectory() as folder:
        package, arguments = _package(command, folder)
        documents = list(yaml.safe_load_all(package.read_text()))
    server = Server(command.connection)
    experiment = server.experiment(command.experiment, create=True)
    return server, Job(name, documents, arguments, experiment, command.service_account)


def _submit(command: Submit) -> int:
    name = command.run_name or f"{command.pipeline} {command.profile} {datetime.now():%Y-%m-%d %H:%M}"
    server, job = _prepare(command, name)
    started = server.submit(job)
    print(started, flush=True)
    return watching.watch(server, started, command.poll) if command.wait else 0


def _schedule(command: Schedule) -> int:
    cron, name = six_fields(command.cron), command.name or f"{command.pipeline} {command.profile}"
    server, job = _prepare(command, name)
    before = _of_name(server, job.experiment, name)
    if before and not command.replace:
        raise UserError(
            f"there is a schedule {name!r} in {command.experiment}; give --replace, or another --name"
        )
    for identity in before:  # the API has no way to change one
        server.unschedule(identity)
    try:
        print(server.schedule(job, cron))
    except UserError as error:
        gone = f"; the schedule {name!r} that was there is deleted" if before else ""
        raise UserError(f"{error}{gone}") from error
    return 0


def six_fields(cron: str) -> str:
    """A cron expression as the server reads it, with seconds first.

    It takes five fields as well, but for seconds to hours: `0 3 * * *` would run every hour.

    Raises:
        UserError: it has neither five nor six fields.
    """
    if cron in _CRON_WORDS:
        return cron
    count = len(cron.split())
    if count not in (5, 6):
        raise UserError(
            f"--cron {cron!r} has {count} fields; expected minute, hour, day of month, month, day of week, "
            f"such as '0 3 * * *' for every night at three, or one of {', '.join(_CRON_WORDS)}"
        )
    return " ".join(["0"] * (6 - count) + cron.split())


def _of_name(server: Server, experiment: str, name: str) -> list[str]:
    found = server.schedules(experiment)
    return [str(one.get("recurring_run_id")) for one in found if one.get("display_name") == name]


def _status(command: Status) -> int:
    server = Server(command.connection)
    if not command.run:
        watching.show_runs(server, command.experiment)
        return 0
    if command.wait:
        return watching.watch(server, command.run, command.poll)
    found = server.run(command.run)
    Console(highlight=False).print(Display(run_state.tree(found), watching.title(found)).render())
    return watching.conclude(found)


def _logs(command: Logs) -> int:
    server = Server(command.connection)
    found = server.run(command.run)
    tree = run_state.tree(found)
    started = [node for node in tree.leaves() if node.started is not None]
    wanted = command.task.lower().replace(" ", "_")
    chosen = [node for node in started if node.name == wanted] if wanted else tree.failures()
    if not chosen:
        names = ", ".join(repr(node.label) for node in started) or "none"
        problem = f"no task {command.task!r} has started" if wanted else "no task has failed; name one"
        raise UserError(f"in the run {command.run} {problem}; started: {names}")
    for node in chosen:
        for pod in run_state.pods(found, node.log):
            print(f"==> {node.label}, {pod} <==", flush=True)
            try:
                print(server.log(command.run, pod).rstrip())
            except UserError as error:
                there = f"kubectl logs --selector pipeline/runid={command.run} --container main --prefix"
                raise UserError(f"{error}. While its pods are there: {there}") from error
    return 0


def _cancel(command: Cancel) -> int:
    if bool(command.run) == bool(command.schedule):
        raise UserError("give the ID of a run, or the name of a schedule with --schedule")
    server = Server(command.connection)
    if command.run:
        server.cancel(command.run)
        print(f"asked to end the run {command.run}")
        return 0
    found = _of_name(server, server.experiment(command.experiment, create=False), command.schedule)
    if not found:
        raise UserError(f"there is no schedule {command.schedule!r} in the experiment {command.experiment}")
    for identity in found:
        server.unschedule(identity)
    print(f"deleted the schedule {command.schedule}")
    return 0
