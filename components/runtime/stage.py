"""The contract of a stage: one command, one artifact, the same for a shell, DVC, and Kubeflow Pipelines.

A stage's output folder is named by a fingerprint of its configuration, inputs and code. It is built aside
and renamed when whole. So a stage that is started again returns at once when its output is there, and
continues from its own partial folder when it was killed.
"""

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Generic, NoReturn, get_args

import tyro

from components.errors import UserError, is_passing
from components.runtime import attempts
from components.runtime.declaration import C, Declaration, In
from components.runtime.executor import FLAG, RUN_ID, TASK_ID, KfpTask
from components.runtime.progress import Progress
from components.store import lineage
from components.store.artifact import RESULT, Artifact
from components.store.files import write_atomic
from components.store.identity import code_digest, fingerprint, software
from components.store.lineage import Dependency
from components.store.making import exclusive, lock_of, partial_of, publish

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

    def save(self, folder: Path) -> None:
        """Write it into the artifact."""
        if self.html is not None:
            write_atomic(folder / SUMMARY, self.html)
        kept = {name: getattr(self, name) for name in ("metrics", "parameters", "metadata", "summary")}
        write_atomic(folder / RESULT, json.dumps(kept, indent=2, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Invocation:
    """Who started the stage: ids of the pipeline engine."""

    run_id: str = "shell"
    task_id: str = ""


@dataclass(frozen=True)
class Made(Generic[C]):
    """A stage's finished work."""

    artifact: Artifact
    result: Result
    cached: bool
    """Whether it was there already."""
    config: C
    """The configuration after `Stage.resolve`."""


def _as_given(config: C, inputs: In, workspace: Path) -> C:
    return config


def _nothing(config: object, inputs: object, workspace: Path) -> tuple[Dependency, ...]:
    return ()


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
        try:
            self._main(given)
        except UserError as error:
            print(f"{self.name}: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print(
                f"{self.name}: interrupted; started again with the same inputs it continues", file=sys.stderr
            )
            sys.exit(130)
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            raise
        except Exception as error:
            traceback.print_exc()
            sys.exit(os.EX_TEMPFAIL if is_passing(error) else 1)
        sys.exit(0)

    def _main(self, arguments: list[str]) -> None:
        call = self._call(arguments)
        made = self.execute(call.config, call.inputs, call.workspace, call.invocation)
        if call.output is not None:
            made.artifact.write_record(call.output)
        if call.task is not None:
            page = made.artifact.path / SUMMARY
            call.task.write(
                made.artifact,
                cached=made.cached,
                metrics={**made.result.metrics, "attempts": attempts.number_of_this()},
                parameters=made.result.parameters,
                html=page.read_text() if page.exists() else None,
            )
        if made.result.summary:
            print(f"{self.name}: {made.result.summary}")
        print(f"{self.name}: {'already there' if made.cached else 'done'}: {made.artifact.path}", flush=True)

    def _call(self, arguments: list[str]) -> "Call[C, In]":
        task = KfpTask.from_arguments(arguments)
        if task is None:
            return self._parse(arguments)
        workspace = Path(arguments[arguments.index("--workspace") + 1])
        given = {name: str(task.parameters.get(name, "")) for name in (RUN_ID, TASK_ID)}
        config, inputs = task.config(self.declaration), task.inputs(self.declaration)
        return Call(config, inputs, workspace, None, Invocation(**given), task)

    def _parse(self, arguments: list[str]) -> "Call[C, In]":
        kinds = self.declaration
        has_inputs = bool(kinds.artifacts())
        config, arguments = _with_presets(kinds.config(), arguments)
        parser: Any = dataclasses.make_dataclass(
            "Call",
            [
                ("workspace", Annotated[Path, tyro.conf.arg(help="folder shared by all stages")]),
                ("config", kinds.config, field(default=config)),
                *([("inputs", kinds.inputs)] if has_inputs else []),
                (
                    "output",
                    Annotated[Path | None, tyro.conf.arg(help="also write the artifact's record here")],
                    None,
                ),
                (RUN_ID, Annotated[str, tyro.conf.arg(help="run id of the pipeline engine")], "shell"),
                (TASK_ID, Annotated[str, tyro.conf.arg(help="task id of the pipeline engine")], ""),
            ],
            kw_only=True,
        )
        by_name = Path(sys.argv[0]).name == "b1k"
        try:
            parsed = tyro.cli(
                parser,
                args=arguments,
                prog=f"b1k {self.name}" if by_name else f"python -m components.{self.name}",
                description=sys.modules[self.run.__module__].__doc__ or "",
                registry=_registry(),
            )
        except ValueError as error:  # a configuration's own check of its fields
            raise UserError(str(error)) from error
        inputs = parsed.inputs if has_inputs else kinds.inputs()
        invocation = Invocation(parsed.run_id, parsed.task_id)
        return Call(parsed.config, inputs, parsed.workspace, parsed.output, invocation)

    def place(self, config: C, inputs: In, workspace: Path, external: Sequence[Dependency] = ()) -> Path:
        """The output folder of a resolved configuration."""
        digest = code_digest(self.code)
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
        used += [Artifact.load(workspace / one.uri) for one in external if one.uri.startswith("artifacts/")]
        waiting = f"{self.name}: another process makes the same artifact; waiting for it"
        with exclusive(lock_of(final), waiting):
            for artifact in used:  # `b1k gc` leaves alone what was used after the lock was taken
                artifact.touch()
            cached = final.is_dir()
            if not cached:
                self._make(final, config, inputs, external, workspace, invocation or Invocation())
            artifact = Artifact.load(final)
            artifact.touch()
        return Made(artifact, Result(**json.loads((final / RESULT).read_text())), cached, config)

    def work_on(self, config: C, inputs: In, work: Work) -> Result:
        """Do the work in the partial folder."""
        return self.run(config, inputs, work)

    def _make(
        self,
        final: Path,
        config: C,
        inputs: In,
        external: Sequence[Dependency],
        workspace: Path,
        invocation: Invocation,
    ) -> None:
        started = _now()
        partial = partial_of(final)
        partial.mkdir(exist_ok=True)
        result = self.work_on(config, inputs, Work(partial, workspace, Progress()))
        result.save(partial)
        used = [
            Dependency.of(name if len(group) == 1 else f"{name}[{i}]", artifact, workspace)
            for name, group in _artifacts(inputs)
            for i, artifact in enumerate(group)
        ]

        def statement(digest: str) -> dict[str, Any]:
            return lineage.statement(
                subject=final.relative_to(workspace).as_posix(),
                digest=digest,
                stage=self.name,
                fingerprint=final.name,
                parameters=dataclasses.asdict(config),  # type: ignore[call-overload]
                dependencies=[*used, *external, *result.dependencies, *software(self.code)],
                version=version("b1k"),
                invocation=f"{invocation.run_id}/{invocation.task_id}".rstrip("/"),
                attempts=attempts.number_of_this(),
                started=started,
                finished=_now(),
            )

        publish(partial, final, statement)


@dataclass(frozen=True)
class Call(Generic[C, In]):
    """A parsed command line."""

    config: C
    inputs: In
    workspace: Path
    output: Path | None
    invocation: Invocation
    task: KfpTask | None = None
    """The task, where Kubeflow Pipelines calls."""


def _with_presets(config: C, arguments: list[str]) -> tuple[C, list[str]]:
    """Take words such as `--config.model full` out: they name where the options `--config.model.*` begin."""
    rest = list(arguments)
    for one in dataclasses.fields(config):  # type: ignore[arg-type]
        presets = getattr(getattr(config, one.name), "presets", None)
        option = f"--config.{one.name.replace('_', '-')}"
        words = [word for word in rest if word.partition("=")[0] == option]
        if presets is None or not words:
            continue
        place = rest.index(words[-1])
        name = words[-1].partition("=")[2] or "".join(rest[place + 1 : place + 2])
        if name not in presets:
            raise UserError(f"{option} is {name!r}; expected one of {', '.join(presets)}")
        del rest[place : place + (1 if "=" in words[-1] else 2)]
        config = dataclasses.replace(config, **{one.name: presets[name]})  # type: ignore[type-var]
    return config, rest


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Let the command line take artifacts by path."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def _artifact(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
        optional = set(get_args(info.type)) == {Artifact, NoneType}
        if info.type is not Artifact and not optional:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="ARTIFACT",
            instance_from_str=lambda words: Artifact.load(words[0]),
            is_instance=lambda value: isinstance(value, Artifact) or (optional and value is None),
            str_from_instance=lambda value: ["none" if value is None else str(value.path)],
        )

    return registry


def _artifacts(inputs: object) -> Iterator[tuple[str, tuple[Artifact, ...]]]:
    """The artifacts of a stage's inputs by their names."""
    for item in dataclasses.fields(inputs):  # type: ignore[arg-type]
        value = getattr(inputs, item.name)
        yield item.name, () if value is None else value if isinstance(value, tuple) else (value,)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
