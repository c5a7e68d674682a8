"""`b1k pipeline`: compile pipelines, and run them on a cluster with Kubeflow Pipelines."""

import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from components.errors import UserError
from components.settings.checks import Arguments
from pipelines.cluster import schedules, versions, watching
from pipelines.cluster.connection import Connection
from pipelines.cluster.logs import Kubeconfig
from pipelines.cluster.printing import print_logs
from pipelines.cluster.run_state import ENDED
from pipelines.cluster.schedules import six_fields
from pipelines.cluster.server import Job, Server
from pipelines.definitions.choosing import Set, choose
from pipelines.definitions.images import image
from pipelines.definitions.profiles import load_profile


@dataclass(frozen=True)
class Pipeline:
    """Which pipeline, and how large."""

    profile: str = "h200x8"
    """How large, and what the steps need of the cluster: h200x8, h200x8_2026, one_gpu, cluster_small,
    laptop or smoke."""
    pipeline: str = "train_and_evaluate"
    """Which pipeline: train_and_evaluate, evaluate, retrain or demo."""
    registry: str = ""
    """Registry and path before the names of the images, such as registry.example.org/robots."""
    queue: str = ""
    """Queue of Kueue (a LocalQueue of the namespace) that admits the pods that ask for GPUs."""
    set: Set = ()
    """Values that differ from the profile's: name=value ...; `b1k run --fields` lists the names. They become
    arguments of a run, defaults of a compiled file."""


@dataclass(frozen=True)
class Compile(Pipeline):
    """Compile a pipeline; prints the path of the YAML file, to be uploaded as it is."""

    output: Path | None = None
    """File to write; <pipeline>-<profile>.yaml here when not given."""


@dataclass(frozen=True)
class Upload(Pipeline):
    """Compile a pipeline and upload it as a version of the pipeline of its name and profile; prints both.

    Nothing is uploaded if it is there already. Values of --set become defaults of its inputs.
    """

    connection: tyro.conf.OmitArgPrefixes[Connection] = field(default_factory=Connection)


@dataclass(frozen=True)
class Waiting:
    """Whether to watch a run."""

    wait: bool = False
    """Show the run's tasks until it ends; exit code 1 if it failed, was cancelled or is lost."""
    poll: float = 5.0
    """Seconds between two looks at the run."""
    place: tyro.conf.OmitArgPrefixes[Kubeconfig] = field(default_factory=Kubeconfig)


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
    """Compile a pipeline, upload it if it is not there, and start a run of it; prints the run's ID."""

    run_name: str = ""
    """Name of the run; pipeline, profile and time when not given."""


@dataclass(frozen=True)
class Schedule(Run):
    """Run a pipeline regularly: one run at a time, and missed times are not caught up on.

    Prints the schedule's ID.
    """

    pipeline: str = "retrain"
    """Which pipeline: train_and_evaluate, evaluate, retrain or demo."""
    cron: str = "0 3 * * *"
    """When: minute, hour, day of month, month, day of week, in the server's time zone; or with seconds first;
    or @daily, @weekly, ..."""
    name: str = ""
    """Name of the schedule; the pipeline and the profile when not given."""
    replace: bool = False
    """End the schedule that has the name, but not its run."""


@dataclass(frozen=True)
class Status(Waiting):
    """Show a run's tasks, or without a run the last runs and the schedules of an experiment.

    Exit code 1 if the run failed, was cancelled or is lost.
    """

    run: tyro.conf.Positional[str] = ""
    """ID of a run, or its beginning."""
    experiment: str = "b1k"
    """Experiment whose runs are listed."""
    connection: tyro.conf.OmitArgPrefixes[Connection] = field(default_factory=Connection)


@dataclass(frozen=True)
class Logs:
    """Print what the tasks of a run wrote: the given one, or those that did not succeed.

    The logs come from the pods where the kubeconfig reaches them, else from the server.
    """

    run: tyro.conf.Positional[str]
    """ID of the run, or its beginning."""
    task: tyro.conf.Positional[str] = ""
    """Name of the task as `b1k pipeline status` shows it, such as "Train common" or "Evaluate common 12"."""
    follow: bool = False
    """Go on until the task ends; without a task, until those end that run now."""
    poll: float = 5.0
    """Seconds between two looks at the run."""
    place: tyro.conf.OmitArgPrefixes[Kubeconfig] = field(default_factory=Kubeconfig)
    connection: tyro.conf.OmitArgPrefixes[Connection] = field(default_factory=Connection)


@dataclass(frozen=True)
class Cancel:
    """End a run, or a schedule: it starts no more runs, and is deleted if none of its runs is active."""

    run: tyro.conf.Positional[str] = ""
    """ID of the run, or its beginning."""
    schedule: str = ""
    """Name of a schedule."""
    and_its_runs: bool = False
    """End the runs of the schedule as well, and delete it."""
    experiment: str = "b1k"
    """Experiment of the schedule."""
    connection: tyro.conf.OmitArgPrefixes[Connection] = field(default_factory=Connection)


Command = (
    Annotated[Compile, tyro.conf.subcommand("compile")]
    | Annotated[Upload, tyro.conf.subcommand("upload")]
    | Annotated[Submit, tyro.conf.subcommand("submit")]
    | Annotated[Schedule, tyro.conf.subcommand("schedule")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Logs, tyro.conf.subcommand("logs")]
    | Annotated[Cancel, tyro.conf.subcommand("cancel")]
)


def run(command: Compile | Upload | Submit | Schedule | Status | Logs | Cancel) -> int:
    """Run one of the commands.

    Returns:
        Exit code: 0 done, 1 the run failed, was cancelled or is lost, 130 interrupted.

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
        case Upload():
            given = choose(command.pipeline, command.profile, command.set, complete=False)
            print(_upload(command, Server(command.connection), given).name)
            return 0
        case Submit():
            return _submit(command)
        case Schedule():
            return _schedule(command)
        case Status():
            return _status(command)
        case Logs():
            server, how = Server(command.connection), command.place
            print_logs(server, command.run, command.task, how, follow=command.follow, poll=command.poll)
            return 0
        case Cancel():
            return _cancel(command)


def _compile(command: Pipeline, output: Path, *, given: Arguments | None = None) -> None:
    # a second of imports that the commands which compile nothing should not wait for
    from pipelines.definitions.compiling import compile_pipeline

    compile_pipeline(
        command.pipeline, command.profile, output, registry=command.registry, queue=command.queue, given=given
    )
    profile = load_profile(command.profile)
    if not command.registry and not profile.is_local:
        first = next(iter(profile.steps.values())).image
        print(
            f"note: the pods' images are {image(first)} and so on, which only nodes have that were given "
            "them; for images of a registry say --registry registry.example.org/robots",
            file=sys.stderr,
        )


def _upload(command: Pipeline, server: Server, given: Arguments | None = None) -> versions.Version:
    """The version of the compiled pipeline on the server."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "pipeline.yaml"
        _compile(command, package, given=given)
        return versions.ensure(server, command.pipeline, command.profile, package)


def _prepare(command: Run, name: str) -> tuple[Server, Job]:
    # values are checked before anything is asked of the server
    arguments = choose(command.pipeline, command.profile, command.set).as_dict()
    server = Server(command.connection)
    version = _upload(command, server)
    experiment = server.experiment(command.experiment, create=True)
    account = command.service_account
    return server, Job(name, version.pipeline, version.id, arguments, experiment, account)


def _submit(command: Submit) -> int:
    name = command.run_name or f"{command.pipeline} {command.profile} {datetime.now():%Y-%m-%d %H:%M}"
    server, job = _prepare(command, name)
    started = server.submit(job)
    print(started, flush=True)
    return watching.watch(server, started, command.poll, command.place) if command.wait else 0


def _schedule(command: Schedule) -> int:
    cron, name = six_fields(command.cron), command.name or f"{command.pipeline} {command.profile}"
    server, job = _prepare(command, name)
    for said in schedules.create(server, job, cron, replace=command.replace):
        print(said, flush=True)
    return 0


def _status(command: Status) -> int:
    server = Server(command.connection)
    if not command.run:
        watching.show_runs(server, command.experiment)
        return 0
    if command.wait:
        return watching.watch(server, command.run, command.poll, command.place)
    return watching.show(server, command.run, command.place)


def _cancel(command: Cancel) -> int:
    if bool(command.run) == bool(command.schedule):
        raise UserError("give the ID of a run, or the name of a schedule with --schedule")
    server = Server(command.connection)
    if command.run:
        run = server.run(command.run)
        state = schedules.run_state_of(server, run)
        if state in ENDED:
            raise UserError(f"the run {run['run_id']} cannot be ended: it is {state}")
        server.cancel(run["run_id"])
        print(f"asked to end the run {run['run_id']}")
        return 0
    experiment = server.experiment(command.experiment, create=False)
    found = schedules.of_name(server, experiment, command.schedule)
    if not found:
        raise UserError(f"there is no schedule {command.schedule!r} in the experiment {command.experiment}")
    for one in found:
        print(schedules.end(server, one, and_its_runs=command.and_its_runs))
    return 0
