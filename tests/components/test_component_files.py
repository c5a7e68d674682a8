"""The Kubeflow components say what the stages take: names, types and defaults."""

import dataclasses
import importlib
from types import NoneType
from typing import Any, get_args, get_origin

import pytest

from components.store.artifact import Artifact

COMPONENTS = {
    "news": ["news"],
    "dataset": ["dataset"],
    "statistics": ["statistics"],
    "train": ["train"],
    "plan": ["plan", "plan_groups"],
    "evaluate": ["evaluate"],
    "group": ["group"],
    "leaderboard": ["leaderboard", "leaderboard_groups"],
    "promote": ["promote", "promote_groups"],
}
CASES = [(stage, name) for stage, names in COMPONENTS.items() for name in names]
KFP_TYPES = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", bool: "BOOLEAN"}


def _spec(stage: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The component's and its container's IR."""
    from google.protobuf import json_format

    component = getattr(importlib.import_module(f"components.{stage}.component"), name)
    ir = json_format.MessageToDict(component.pipeline_spec)
    (inner,) = ir["components"].values()
    (executor,) = ir["deploymentSpec"]["executors"].values()
    return inner, executor["container"]


def _stage(stage: str) -> Any:
    return importlib.import_module(f"components.{stage}.stage").STAGE


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_parameters_are_the_stages(stage: str, name: str) -> None:
    parameters = dict(_spec(stage, name)[0]["inputDefinitions"]["parameters"])
    assert "defaultValue" not in parameters.pop("workspace")
    fields = {field.name: field for field in dataclasses.fields(_stage(stage).config)}
    assert parameters.keys() == fields.keys()
    for key, given in parameters.items():
        default = fields[key].default
        # a component takes names as one text, with spaces between: items of loops are text
        wanted = " ".join(default) if isinstance(default, tuple) else default
        kind = str if get_origin(fields[key].type) is tuple else fields[key].type
        assert given["parameterType"] == KFP_TYPES[kind], key
        assert given["defaultValue"] == wanted, key


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_artifacts_are_the_stages(stage: str, name: str) -> None:
    given = _spec(stage, name)[0]["inputDefinitions"].get("artifacts", {})
    fields = {field.name: field.type for field in dataclasses.fields(_stage(stage).inputs)}
    for key, artifact in given.items():
        kind = fields[key.removeprefix("first_")]
        many = get_origin(kind) is tuple
        if artifact.get("isArtifactList") or key.startswith("first_"):
            assert many, key
    required = {
        key for key, kind in fields.items() if kind is Artifact or _must(_stage(stage).inputs, key, kind)
    }
    assert required <= {key.removeprefix("first_") for key in given}
    for key, artifact in given.items():
        if artifact.get("isOptional"):
            assert NoneType in get_args(fields[key]), key


def _must(inputs: type, key: str, kind: object) -> bool:
    field = next(field for field in dataclasses.fields(inputs) if field.name == key)
    return get_origin(kind) is tuple and field.default is dataclasses.MISSING


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_the_command_is_the_stages_own(stage: str, name: str) -> None:
    inner, container = _spec(stage, name)
    assert container["command"] == ["python3", "-m", f"components.{stage}"]
    words = container["args"]
    assert words[words.index("--executor-input") + 1] == "{{$}}"
    assert words[words.index("--workspace") + 1] == "{{$.inputs.parameters['workspace']}}"
    assert {"artifact", "metrics"} <= inner["outputDefinitions"]["artifacts"].keys()


@pytest.mark.parametrize(("stage", "name"), [("plan", "plan"), ("plan", "plan_groups"), ("group", "group")])
def test_lists_to_loop_over_have_the_name_that_the_local_runner_knows(stage: str, name: str) -> None:
    outputs = _spec(stage, name)[0]["outputDefinitions"]["parameters"]
    assert outputs == {"Output": {"parameterType": "LIST"}}


def test_the_answer_to_branch_on_has_the_name_that_the_local_runner_knows() -> None:
    outputs = _spec("news", "news")[0]["outputDefinitions"]["parameters"]
    assert outputs == {name: {"parameterType": "STRING"} for name in ("Output", "commit", "checkpoint")}
