"""The command line of a stage, for people, DVC and Kubeflow Pipelines."""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Generic, get_args, get_type_hints

import tyro

from components.errors import UserError
from components.runtime.declaration import C, Declaration, In
from components.runtime.executor import RUN_ID, TASK_ID, KfpTask
from components.store.artifact import Artifact

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner


@dataclass(frozen=True)
class Invocation:
    """Who started the stage: ids of the pipeline engine; and what signs the lineage, if anything."""

    run_id: str = "shell"
    task_id: str = ""
    signer: "CryptoSigner | None" = None


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


def read_call(declaration: Declaration[C, In], description: str, arguments: list[str]) -> Call[C, In]:
    """Read the words that follow a stage's command: KFP's, or those of a person.

    Args:
        declaration: what the stage takes.
        description: what it does, for the help.
        arguments: the words.

    Raises:
        UserError: bad input.
    """
    task = KfpTask.from_arguments(arguments)
    if task is None:
        return _parse(declaration, description, arguments)
    workspace = Path(arguments[arguments.index("--workspace") + 1])
    run_id, task_id = (str(task.parameters.get(name, "")) for name in (RUN_ID, TASK_ID))
    config, inputs = task.config(declaration), task.inputs(declaration)
    return Call(config, inputs, workspace, None, Invocation(run_id, task_id), task)


def _parse(declaration: Declaration[C, In], description: str, arguments: list[str]) -> Call[C, In]:
    name, has_inputs = declaration.name, bool(declaration.artifacts())
    config, arguments = _with_presets(declaration.config(), arguments)
    parser: Any = dataclasses.make_dataclass(
        "Call",
        [
            ("workspace", Annotated[Path, tyro.conf.arg(help="folder shared by all stages")]),
            ("config", declaration.config, field(default=config)),
            *([("inputs", declaration.inputs)] if has_inputs else []),
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
            prog=f"b1k {name}" if by_name else f"python -m components.{name}",
            description=description,
            registry=_registry(),
        )
    except ValueError as error:  # a configuration's own check of its fields
        raise UserError(str(error)) from error
    inputs = parsed.inputs if has_inputs else declaration.inputs()
    invocation = Invocation(parsed.run_id, parsed.task_id)
    return Call(parsed.config, inputs, parsed.workspace, parsed.output, invocation)


def _with_presets(config: C, arguments: list[str]) -> tuple[C, list[str]]:
    """Take words such as `--config.model full` out: they name where the options `--config.model.*` begin."""
    rest, kinds = list(arguments), get_type_hints(type(config))
    for one in dataclasses.fields(config):  # type: ignore[arg-type]
        presets = getattr(kinds[one.name], "presets", None)
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
