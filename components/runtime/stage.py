"""The contract of a stage: one command, one artifact, the same for a shell, DVC, and Kubeflow Pipelines.

A stage's output folder is named by a fingerprint of its configuration, inputs and code. It is built aside
and renamed when whole. So a stage that is started again returns at once when its output is there, and
continues from its own partial folder when it was killed.
"""

import dataclasses
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, NoReturn

from components.errors import UserError, is_passing
from components.runtime import attempts
from components.runtime.command_line import Call, Invocation, read_call
from components.runtime.declaration import C, Declaration, In
from components.runtime.executor import FLAG, RUN_ID, STATUS, KfpTask
from components.runtime.gpus import Gpus
from components.runtime.outcomes import Recorder, recorder
from components.runtime.progress import Progress
from components.store import lineage
from components.store.artifact import RESULT, Artifact
from components.store.files import write_atomic
from components.store.identity import code_digest, fingerprint, software
from components.store.lineage import Dependency
from components.store.making import CONTENT, exclusive, joined, lock_of, partial_of, publish
from components.store.signing import signer_of_environment

SUMMARY = "summary.html"


@dataclass(frozen=True)
class Work:
    """Where a stage works."""

    path: Path
    """The output folder under construction. It survives a kill: resume from what is in it."""
    workspace: Path
    """The folder shared by all stages."""
    progress: Progress


@dataclass(frozen=True)
class Result:
    """What a stage hands on besides its files."""

    metrics: dict[str, float] = field(default_factory=dict)
    """Shown as metrics in the Kubeflow UI."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """KFP output parameters by name."""
    metadata: dict[str, str | float | int | bool] = field(default_factory=dict)
    """Facts about the artifact, shown in the Kubeflow UI."""
    summary: str = ""
    """What came out, in a line for people; empty where there is nothing to say."""
    html: str | None = None
    """A page for the Kubeflow UI."""
    dependencies: tuple[Dependency, ...] = ()
    """What the stage used besides its input artifacts, such as a data revision."""
    sums: Mapping[str, str] = field(default_factory=dict)
    """Hex SHA-256 of files that need not be read again, by their path in the artifact."""

    def save(self, folder: Path) -> None:
        """Write it into the artifact."""
        if self.html is not None:
            write_atomic(folder / SUMMARY, self.html)
        kept = {name: getattr(self, name) for name in ("metrics", "parameters", "metadata", "summary")}
        write_atomic(folder / RESULT, json.dumps(kept, indent=2, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Made(Generic[C]):
    """A stage's finished work."""

    artifact: Artifact
    result: Result
    cached: bool
    """Whether it was there already."""
    config: C
    """The configuration after `Stage.resolve`."""


def _no_modules(config: object) -> tuple[str, ...]:
    return ()


def _as_given(config: C, inputs: In, workspace: Path) -> C:
    return config


def _nothing(config: object, inputs: object, workspace: Path) -> tuple[Dependency, ...]:
    return ()


def _no_parameters(config: object, artifact: Artifact) -> dict[str, Any]:
    return {}


def _no_details(config: object, artifact: Artifact) -> str:
    return ""


@dataclass(frozen=True)
class Stage(Generic[C, In]):
    """One stage of the pipeline."""

    declaration: Declaration[C, In]
    run: Callable[[C, In, Work], Result]
    """The stage's work: writes its content into work.path."""
    resolve: Callable[[C, In, Path], C] = _as_given
    """Replaces what a configuration names by what it stands for now, such as a branch by its commit; called
    with the workspace before the fingerprint is computed. Refuses what is missing."""
    external: Callable[[C, In, Path], tuple[Dependency, ...]] = _nothing
    """What a configuration names that is no input, such as a folder: its digests are part of the fingerprint,
    and it is part of the lineage. Checks that it is what it should be."""
    programs: tuple[str, ...] = ()
    """Modules that the stage runs as programs of their own: their code is part of the fingerprint too."""
    imports: Callable[[C], tuple[str, ...]] = _no_modules
    """Modules that a configuration makes the stage import by name, which no statement shows: likewise."""
    share: Callable[[C, In, Work], None] | None = None
    """Of a stage whose artifact several processes make together: does a part of the work, and returns once
    all of it is done. Its `work.path` has room for what they tell each other, and the folder `content` in it,
    which disappears when another process has finished the artifact. `run` completes the content, in one of
    the processes."""
    parameters: Callable[[C, Artifact], dict[str, Any]] = _no_parameters
    """Output parameters that depend on operational fields: told at every call, also if the artifact was there
    already."""
    details: Callable[[C, Artifact], str] = _no_details
    """Lines for people that the stage's command prints before the summary."""

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.declaration.name

    @property
    def code(self) -> tuple[str, ...]:
        """The modules from which all code that decides the result is imported."""
        return (self.run.__module__, *self.programs)

    def main(self, arguments: Sequence[str] | None = None) -> NoReturn:
        """Run as a command: parse, execute, write what the caller expects, exit.

        Exit codes: 0 done, 1 a defect of ours, 2 a mistake in the input, 75 an error that passes, 130
        interrupted.
        """
        given = list(sys.argv[1:] if arguments is None else arguments)
        if FLAG in given:
            if arguments is None:
                attempts.take_over()
            os.umask(0o027)  # the executor of a cluster sets none: all could write what a stage writes
        record = _recorder(self.name, given)
        record(None, "")
        try:
            record(0, self._main(given))
        except UserError as error:
            print(f"{self.name}: {error}", file=sys.stderr)
            code = os.EX_TEMPFAIL if is_passing(error) else 2
            record(code, str(error))
            sys.exit(code)
        except KeyboardInterrupt:
            print(
                f"{self.name}: interrupted; started again with the same inputs it continues", file=sys.stderr
            )
            sys.exit(130)
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            raise
        except Exception as error:
            traceback.print_exc()
            code = os.EX_TEMPFAIL if is_passing(error) else 1
            record(code, f"{type(error).__name__}: {error}")
            sys.exit(code)
        sys.exit(0)

    def _main(self, arguments: list[str]) -> str:
        """Do what a command line asks for; returns what came out, in a line."""
        signer = signer_of_environment()
        call = self.call(arguments)
        invocation = dataclasses.replace(call.invocation, signer=signer)
        made = self.execute(call.config, call.inputs, call.workspace, invocation)
        if call.output is not None:
            made.artifact.write_record(call.output)
        if call.task is not None:
            page = made.artifact.path / SUMMARY
            call.task.write(
                self.declaration,
                made.artifact,
                cached=made.cached,
                metrics={**made.result.metrics, "attempts": attempts.number_of_this()},
                parameters=made.result.parameters,
                html=page.read_text() if page.exists() else None,
            )
        if details := self.details(made.config, made.artifact):
            print(details)
        if made.result.summary:
            print(f"{self.name}: {made.result.summary}")
        print(f"{self.name}: {'already there' if made.cached else 'done'}: {made.artifact.path}", flush=True)
        return made.result.summary

    def call(self, arguments: list[str]) -> Call[C, In]:
        """What a command line asks for.

        Raises:
            UserError: bad input.
        """
        return read_call(self.declaration, sys.modules[self.run.__module__].__doc__ or "", arguments)

    def place(self, config: C, inputs: In, workspace: Path, external: Sequence[Dependency] = ()) -> Path:
        """The output folder of a resolved configuration."""
        digest = code_digest((*self.code, *self.imports(config)))
        name = fingerprint(self.name, config, dict(_artifacts(inputs)), external, digest)
        return workspace / "artifacts" / self.name / name

    def execute(
        self, config: C, inputs: In, workspace: Path, invocation: Invocation | None = None
    ) -> Made[C]:
        """Make the artifact, or return the one that is there."""
        workspace = workspace.resolve()
        config = self.resolve(config, inputs, workspace)
        external = self.external(config, inputs, workspace)
        final = self.place(config, inputs, workspace, external)
        used = [artifact for _, group in _artifacts(inputs) for artifact in group]
        places = [lineage.artifact_of(one.uri, one.annotations, workspace) for one in external]
        used += [Artifact.load(place) for place in places if place is not None]
        waiting = f"{self.name}: another process makes the same artifact; waiting for it"
        with exclusive(lock_of(final), waiting) if self.share is None else joined(lock_of(final)):
            for artifact in used:  # `b1k gc` leaves alone what was used after the lock was taken
                artifact.touch()
            cached = final.is_dir()
            if not cached:
                with Gpus() as gpus:
                    arguments = (config, inputs, external, workspace, invocation or Invocation(), gpus)
                    if self.share is None:
                        self._make(partial_of(final), final, *arguments)
                    else:
                        self._make_together(final, *arguments)
            artifact = Artifact.load(final)
            artifact.touch()
        result = Result(**json.loads((final / RESULT).read_text()))
        told = {**result.parameters, **self.parameters(config, artifact)}
        return Made(artifact, dataclasses.replace(result, parameters=told), cached, config)

    def work_on(self, config: C, inputs: In, work: Work) -> Result:
        """Do the work in the partial folder."""
        return self.run(config, inputs, work)

    def _make_together(
        self,
        final: Path,
        config: C,
        inputs: In,
        external: Sequence[Dependency],
        workspace: Path,
        invocation: Invocation,
        gpus: Gpus,
    ) -> None:
        """Do a part of the work; the first process that sees the end of it publishes the artifact."""
        assert self.share is not None
        partial = partial_of(final)
        (partial / CONTENT).mkdir(parents=True, exist_ok=True)
        if not final.is_dir():  # made while we came
            self.share(config, inputs, Work(partial, workspace, Progress()))
        waiting = f"{self.name}: another process completes the artifact; waiting for it"
        with exclusive(final.with_suffix(".completing.lock"), waiting):
            if not final.is_dir():
                self._make(partial / CONTENT, final, config, inputs, external, workspace, invocation, gpus)
            shutil.rmtree(partial, ignore_errors=True)

    def _make(
        self,
        partial: Path,
        final: Path,
        config: C,
        inputs: In,
        external: Sequence[Dependency],
        workspace: Path,
        invocation: Invocation,
        gpus: Gpus,
    ) -> None:
        started = _now()
        partial.mkdir(exist_ok=True)
        result = self.work_on(config, inputs, Work(partial, workspace, Progress()))
        result.save(partial)
        used = [
            Dependency.of(name if len(group) == 1 else f"{name}[{i}]", artifact, workspace)
            for name, group in _artifacts(inputs)
            for i, artifact in enumerate(group)
        ]

        code = (*self.code, *self.imports(config))

        def statement(digest: str) -> dict[str, Any]:
            return lineage.statement(
                subject=final.relative_to(workspace).as_posix(),
                digest=digest,
                stage=self.name,
                fingerprint=final.name,
                parameters=dataclasses.asdict(config),  # type: ignore[call-overload]
                dependencies=[*used, *external, *result.dependencies, *software(code)],
                version=version("b1k"),
                invocation=f"{invocation.run_id}/{invocation.task_id}".rstrip("/"),
                attempts=attempts.number_of_this(),
                started=started,
                finished=_now(),
                gpus=gpus.record(),
            )

        publish(partial, final, statement, invocation.signer, result.sums)


def _recorder(stage: str, arguments: Sequence[str]) -> Recorder:
    """Records what becomes of a task of Kubeflow, also of one whose parameters cannot be read."""
    with suppress(UserError, ValueError, IndexError):
        task = KfpTask.from_arguments(list(arguments))
        on_cluster = attempts.NUMBER in os.environ  # elsewhere no task tells of the others
        if task is not None and on_cluster and STATUS not in task.parameters:
            workspace = Path(arguments[arguments.index("--workspace") + 1])
            detail = task.parameters.get("worker", task.parameters.get("name", ""))
            return recorder(workspace, str(task.parameters.get(RUN_ID, "")), stage, str(detail))
    return recorder(Path(), "", stage, "")


def _artifacts(inputs: object) -> Iterator[tuple[str, tuple[Artifact, ...]]]:
    """The artifacts of a stage's inputs by their names."""
    for item in dataclasses.fields(inputs):  # type: ignore[arg-type]
        value = getattr(inputs, item.name)
        yield item.name, () if value is None else value if isinstance(value, tuple) else (value,)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
