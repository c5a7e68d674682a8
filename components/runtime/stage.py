"""The contract of a stage: one command, one artifact, the same for a shell, DVC, and Kubeflow Pipelines.

A stage's output folder is named by a fingerprint of its configuration, inputs and code. It is built aside
(`<fingerprint>.partial`) and renamed when whole. So a stage that is started again returns at once when its
output is there, and continues from its own partial folder when it was killed.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Generic, NoReturn, TypeVar, get_args

import tyro

from components.runtime.errors import UserError
from components.runtime.executor import KfpTask
from components.runtime.progress import Progress
from components.store import lineage
from components.store.artifact import (
    LINEAGE,
    RESULT,
    SUMS,
    Artifact,
    format_sums,
    hash_files,
    sha256_file,
    tree_digest,
    write_atomic,
)
from components.store.identity import code_digest, software
from components.store.lineage import Dependency

C = TypeVar("C")
In = TypeVar("In")
SUMMARY = "summary.html"
PARTIAL = ".partial"


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
    html: str | None = None
    """A page for the Kubeflow UI."""
    dependencies: tuple[Dependency, ...] = ()
    """What the stage used besides its input artifacts, such as a data revision."""


@dataclass(frozen=True)
class Invocation:
    """Who started the stage."""

    run_id: str = "shell"
    """Run id of the pipeline engine."""
    task_id: str = ""
    """Task id of the pipeline engine."""


def _nothing(config: object, inputs: object) -> tuple[Dependency, ...]:
    return ()


@dataclass(frozen=True)
class Stage(Generic[C, In]):
    """One stage of the pipeline."""

    name: str
    config: type[C]
    """Frozen dataclass of parameters, all with defaults: str, int, float, bool or tuples of them."""
    inputs: type[In]
    """Frozen dataclass of artifacts: Artifact, Artifact | None, or tuple[Artifact, ...]."""
    run: Callable[[C, In, Work], Result]
    """The stage's work: writes its content into work.path."""
    code: tuple[str, ...]
    """Packages whose source is part of the fingerprint."""
    external: Callable[[C, In], tuple[Dependency, ...]] = _nothing
    """What a configuration names that is no artifact, such as a folder: its digests are part of the
    fingerprint, and it is part of the lineage. Checks that it is what it should be."""

    def main(self, arguments: Sequence[str] | None = None) -> NoReturn:
        """Run as a command: parse, execute, write what the caller expects, exit.

        Exit codes: 0 done, 1 a defect of ours, 2 a mistake in the input, 130 interrupted.
        """
        try:
            self._main(list(sys.argv[1:] if arguments is None else arguments))
        except UserError as error:
            print(f"{self.name}: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print(
                f"{self.name}: interrupted; started again with the same inputs it continues", file=sys.stderr
            )
            sys.exit(130)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        sys.exit(0)

    def _main(self, arguments: list[str]) -> None:
        task, call = self._call(arguments)
        artifact, result, cached = self.execute(call.config, call.inputs, call.workspace, call.invocation)
        if call.output is not None:
            artifact.write_record(call.output)
        if task is not None:
            page = artifact.path / SUMMARY
            task.write(
                artifact,
                cached=cached,
                metrics=result.metrics,
                parameters=result.parameters,
                html=page.read_text() if page.exists() else None,
            )
        print(f"{self.name}: {'already there' if cached else 'done'}: {artifact.path}", flush=True)

    def _call(self, arguments: list[str]) -> tuple[KfpTask | None, "Call[C, In]"]:
        task, arguments = KfpTask.from_arguments(arguments)
        if task is not None:
            arguments += task.command_line(self.config, self.inputs)
        return task, self._parse(arguments)

    def _parse(self, arguments: list[str]) -> "Call[C, In]":
        call: Any = dataclasses.make_dataclass(
            "Call",
            [
                ("workspace", Annotated[Path, tyro.conf.arg(help="folder shared by all stages")]),
                ("config", self.config, field(default_factory=self.config)),
                *([("inputs", self.inputs)] if dataclasses.fields(self.inputs) else []),  # type: ignore[arg-type]
                (
                    "output",
                    Annotated[Path | None, tyro.conf.arg(help="also write the artifact's record here")],
                    None,
                ),
                ("run_id", Annotated[str, tyro.conf.arg(help="run id of the pipeline engine")], "shell"),
                ("task_id", Annotated[str, tyro.conf.arg(help="task id of the pipeline engine")], ""),
            ],
            kw_only=True,
        )
        by_name = Path(sys.argv[0]).name == "b1k"
        try:
            parsed = tyro.cli(
                call,
                args=arguments,
                prog=f"b1k {self.name}" if by_name else f"python -m components.{self.name}",
                description=sys.modules[self.run.__module__].__doc__ or "",
                registry=_registry(),
            )
        except ValueError as error:  # a configuration's own check of its fields
            raise UserError(str(error)) from error
        inputs = parsed.inputs if dataclasses.fields(self.inputs) else self.inputs()  # type: ignore[arg-type]
        return Call(
            parsed.config, inputs, parsed.workspace, parsed.output, Invocation(parsed.run_id, parsed.task_id)
        )

    def fingerprint(self, config: C, inputs: In, external: Sequence[Dependency] = ()) -> str:
        """Key of an output: SHA-256 over stage, configuration, digests of what it reads, and code.

        16 hex digits.
        """
        key = {
            "stage": self.name,
            "config": dataclasses.asdict(config),  # type: ignore[call-overload]
            "inputs": {name: [a.digest for a in group] for name, group in _named_artifacts(inputs)},
            "external": {dependency.name: dependency.digest for dependency in external},
            "code": code_digest(("components.store.artifact", f"components.{self.name}", *self.code)),
        }
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]

    def place(self, config: C, inputs: In, workspace: Path, external: Sequence[Dependency] = ()) -> Path:
        """The output folder; while it is under construction the same with the suffix `.partial`."""
        return workspace / "artifacts" / self.name / self.fingerprint(config, inputs, external)

    def execute(
        self, config: C, inputs: In, workspace: Path, invocation: Invocation | None = None
    ) -> tuple[Artifact, Result, bool]:
        """Make the artifact, or return the one that is there.

        Returns:
            The artifact, the stage's result, and whether it was there already.
        """
        workspace = workspace.resolve()
        external = self.external(config, inputs)
        final = self.place(config, inputs, workspace, external)
        final.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(final.with_suffix(".lock"), self.name):
            cached = final.is_dir()
            if not cached:
                self._make(final, config, inputs, external, workspace, invocation or Invocation())
        saved = json.loads((final / RESULT).read_text())
        return Artifact.load(final), Result(**saved), cached

    def _run(self, config: C, inputs: In, work: Work) -> Result:
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
        partial = final.with_suffix(PARTIAL)
        partial.mkdir(exist_ok=True)
        result = self._run(config, inputs, Work(partial, workspace, Progress()))
        if result.html is not None:
            write_atomic(partial / SUMMARY, result.html)
        saved = {"metrics": result.metrics, "parameters": result.parameters, "metadata": result.metadata}
        write_atomic(partial / RESULT, json.dumps(saved, indent=2, sort_keys=True) + "\n")
        (partial / LINEAGE).unlink(missing_ok=True)
        sums = hash_files(partial)
        used = [
            Dependency.of(name if len(group) == 1 else f"{name}[{i}]", artifact)
            for name, group in _named_artifacts(inputs)
            for i, artifact in enumerate(group)
        ]
        statement = lineage.statement(
            subject=final.relative_to(workspace).as_posix(),
            digest=tree_digest(sums),
            stage=self.name,
            fingerprint=final.name,
            parameters=dataclasses.asdict(config),  # type: ignore[call-overload]
            dependencies=[*used, *external, *result.dependencies, *software(self.code)],
            version=version("b1k"),
            invocation=f"{invocation.run_id}/{invocation.task_id}".rstrip("/"),
            started=started,
            finished=_now(),
        )
        write_atomic(partial / LINEAGE, json.dumps(statement, indent=2) + "\n")
        sums[LINEAGE] = sha256_file(partial / LINEAGE)
        write_atomic(partial / SUMS, format_sums(sums))
        os.sync()
        partial.rename(final)


@dataclass(frozen=True)
class Call(Generic[C, In]):
    """A parsed command line."""

    config: C
    inputs: In
    workspace: Path
    output: Path | None
    invocation: Invocation


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


def _named_artifacts(inputs: object) -> Iterator[tuple[str, tuple[Artifact, ...]]]:
    for item in dataclasses.fields(inputs):  # type: ignore[arg-type]
        value = getattr(inputs, item.name)
        yield item.name, () if value is None else value if isinstance(value, tuple) else (value,)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def _exclusive(path: Path, name: str) -> Iterator[None]:
    """Hold a file lock, so that a retried stage never works beside its first attempt."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name}: another process makes the same artifact; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
