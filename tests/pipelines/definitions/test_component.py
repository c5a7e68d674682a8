"""The generated Kubeflow components take what their stages take: names, types, defaults, artifacts."""

import importlib
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from google.protobuf import json_format

from components.runtime.declaration import LOOP
from components.runtime.values import fields
from components.settings.sections import DECLARATIONS, INPUTS, PIPELINES, inputs
from pipelines.definitions.component import component, pipeline_documentation

KFP_TYPES = {int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", bool: "BOOLEAN"}
OF_A_TASK = {"sections", "run_id", "task_id", "profile", "settings"}


def _spec(stage: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The component's and its container's IR."""
    ir = json_format.MessageToDict(component(DECLARATIONS[stage], "/workspace").pipeline_spec)
    (inner,) = ir["components"].values()
    (executor,) = ir["deploymentSpec"]["executors"].values()
    return inner, executor["container"]


@pytest.mark.parametrize("stage", DECLARATIONS)
def test_parameters_are_the_stages_inputs_and_what_a_task_is_given(stage: str) -> None:
    parameters = _spec(stage)[0]["inputDefinitions"]["parameters"]
    known = {one.name: one for one in fields(DECLARATIONS[stage].config)}
    wanted = {name for name, one in known.items() if name in INPUTS or one.per_task}
    assert parameters.keys() - OF_A_TASK == wanted
    for name in wanted:
        assert parameters[name]["parameterType"] == KFP_TYPES.get(known[name].kind, "STRING"), name
    has_others = bool(known.keys() - wanted)
    assert ({"profile", "settings"} <= parameters.keys()) == has_others


@pytest.mark.parametrize("stage", DECLARATIONS)
def test_artifacts_are_the_stages(stage: str) -> None:
    given = _spec(stage)[0]["inputDefinitions"].get("artifacts", {})
    hints = get_type_hints(DECLARATIONS[stage].inputs)
    assert given.keys() == hints.keys()
    for name, artifact in given.items():
        assert artifact.get("isArtifactList", False) == (get_origin(hints[name]) is tuple)
        if NoneType in get_args(hints[name]):
            assert artifact.get("isOptional")


@pytest.mark.parametrize("stage", DECLARATIONS)
def test_the_command_is_the_stages_own_and_has_no_placeholder_but_the_executor_input(stage: str) -> None:
    inner, container = _spec(stage)
    assert container["command"] == ["python3", "-m", f"components.{stage}"]
    assert container["args"] == ["--executor-input", "{{$}}", "--workspace", "/workspace"]
    outputs = inner["outputDefinitions"]
    declared = DECLARATIONS[stage]
    names = {declared.output, declared.metrics, *filter(None, [declared.page])}
    assert outputs["artifacts"].keys() == names
    assert not names & {"artifact", "metrics", "html"}, "named for what they are"
    types = {str: "STRING", list: "LIST"}
    wanted = {name: {"parameterType": types[kind]} for name, kind in DECLARATIONS[stage].outputs.items()}
    assert outputs.get("parameters", {}) == wanted


def test_what_is_looped_over_or_branched_on_has_the_name_that_the_local_runner_knows() -> None:
    for stage, kind in (("plan", list), ("group", list), ("news", str)):
        assert DECLARATIONS[stage].outputs[LOOP] is kind


@pytest.mark.parametrize("stage", [*DECLARATIONS, "settings"])
def test_every_stage_is_a_command_with_its_declaration(stage: str) -> None:
    module = importlib.import_module(f"components.{stage}.stage")
    declaration = importlib.import_module(f"components.{stage}.config").DECLARATION
    assert module.STAGE.declaration is declaration
    assert declaration.program == f"components.{stage}"
    assert importlib.import_module(f"components.{stage}.__main__").STAGE is module.STAGE


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_documentation_names_every_input_and_every_setting(pipeline: str) -> None:
    text = pipeline_documentation(pipeline, "Summary.")
    for name in inputs(pipeline):
        assert f"\n    {name}: " in text
    assert "leaderboard.team = team: Name of the team" in text
    assert "train.steps" not in text
