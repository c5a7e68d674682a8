"""Kubeflow components and pipeline inputs, generated from what stages declare."""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from kfp import dsl

from components.notify.config import DECLARATION as NOTIFY
from components.runtime.declaration import LOOP, Declaration
from components.runtime.executor import FLAG, PROFILE, RUN_ID, SECTIONS, SETTINGS, STATUS, TASK_ID
from components.runtime.values import Field, fields
from components.settings.config import DECLARATION as SETTINGS_STAGE
from components.settings.sections import INPUTS, PIPELINES, inputs, is_free
from pipelines.definitions.images import image

_OUTPUT = "output_"
"""Stands for `LOOP` in a signature, where the SDK refuses that name."""
_SETTINGS = (
    'Any other field of any stage, as JSON, such as {"train": {"learning_rate": {"peak": 3e-5}}}. `finetune` '
    "holds the values in which the groups' trainings differ from `train`. Fields, with their defaults:"
)


def parameter(one: Field, default: object = inspect.Parameter.empty) -> inspect.Parameter:
    """A field as a parameter of a component or an input of a pipeline.

    Choices, lists (names with spaces between) and presets are text.
    """
    kind = one.kind if one.kind in (int, float, bool) else str
    if default is inspect.Parameter.empty:
        default = one.default if kind is not str or isinstance(one.default, str) else ""
        if dataclasses.is_dataclass(one.default):
            default = next(name for name, value in one.kind.presets.items() if value == one.default)
    return inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=kind(default), annotation=kind)


def pipeline_inputs(pipeline: str, defaults: Mapping[str, Any]) -> list[inspect.Parameter]:
    """The inputs of a pipeline, with a profile's defaults."""
    found = [
        parameter(one, defaults.get(name, inspect.Parameter.empty)).replace(name=name)
        for name, one in inputs(pipeline).items()
    ]
    return [*found, inspect.Parameter(SETTINGS, inspect.Parameter.KEYWORD_ONLY, default={}, annotation=dict)]


def pipeline_documentation(pipeline: str, summary: str) -> str:
    """A docstring from which the SDK takes the documentation of a pipeline's inputs."""
    lines = [f"    {name}: {_text(one)}" for name, one in inputs(pipeline).items()]
    others = [
        f"        {section.name}.{one.path} = {one.default}: {_text(one)}"
        for section in PIPELINES[pipeline]
        for one in section.fields
        if not section.over and not dataclasses.is_dataclass(one.default) and is_free(pipeline, section, one)
    ]
    return "\n".join([summary, "", "Args:", *lines, f"    {SETTINGS}: {_SETTINGS}", *others])


def _text(one: Field) -> str:
    choices = f" One of: {', '.join(one.choices)}." if one.choices else ""
    names = " Separated by spaces." if isinstance(one.default, tuple) else ""
    return one.documentation + names + choices


def settings_component(pipeline: str, workspace: str) -> Any:
    """The component of the settings stage, which takes all inputs of a pipeline."""
    extra = [_constant("pipeline", str), _constant("train_gpus", int), _constant(PROFILE, dict)]
    return _component(SETTINGS_STAGE, workspace, [*pipeline_inputs(pipeline, {}), *extra])


def notify_component(workspace: str) -> Any:
    """The component of the stage that runs when all others have ended, however they did."""
    return _component(NOTIFY, workspace, [_constant(STATUS, dsl.PipelineTaskFinalStatus)])


def component(declaration: Declaration[Any, Any], workspace: str) -> Any:
    """The container component of a stage.

    Its parameters are the typed inputs that a stage has a field for, the fields that a pipeline sets for each
    task, and, where a stage has other fields, the profile's and the run's settings.
    """
    known = {one.name: one for one in fields(declaration.config) if one.name in INPUTS or one.per_task}
    others = [one for one in fields(declaration.config) if one.name not in known]
    extra = [_constant(PROFILE, dict), _constant(SETTINGS, dict)] if others else []
    return _component(declaration, workspace, [*map(parameter, known.values()), *extra])


def _constant(name: str, kind: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)


def _component(
    declaration: Declaration[Any, Any], workspace: str, parameters: Iterable[inspect.Parameter]
) -> Any:
    def build(*_: Any) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(
            image=image(declaration.image),
            command=["python3", "-m", declaration.program],
            args=[FLAG, dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER, "--workspace", workspace],
        )

    signature = [
        *parameters,
        *(_constant(name, str) for name in (SECTIONS, RUN_ID, TASK_ID)),
        *_artifacts(declaration),
    ]
    build.__name__ = declaration.name
    build.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    made: Any = dsl.container_component(build)
    outputs: dict[str, Any] = made.component_spec.outputs
    if _OUTPUT in outputs:
        outputs[LOOP] = outputs.pop(_OUTPUT)
    return made


def _artifacts(declaration: Declaration[Any, Any]) -> Iterable[inspect.Parameter]:
    """The artifacts that a stage reads, and all its outputs."""
    types = {"dataset": dsl.Dataset, "initial": dsl.Model, "common": dsl.Model, "groups": dsl.Model}
    for name, (many, optional) in declaration.artifacts().items():
        one: Any = types.get(name, dsl.Artifact)
        read = _constant(name, dsl.Input[list[one]] if many else dsl.Input[one])
        yield read.replace(default=None) if optional else read
    made: Any = getattr(dsl, declaration.makes)
    yield _constant(declaration.output, dsl.Output[made])
    yield _constant(declaration.metrics, dsl.Output[dsl.Metrics])
    if declaration.page:
        yield _constant(declaration.page, dsl.Output[dsl.HTML])
    for name, output in declaration.outputs.items():
        yield _constant(_OUTPUT if name == LOOP else name, dsl.OutputPath(output))
