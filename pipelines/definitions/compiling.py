"""Compile a pipeline for a profile to the IR that the cluster and kfp.local run."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl
from kfp.compiler import Compiler

from components.runtime.errors import UserError
from pipelines.definitions import evaluate, retrain, train_and_evaluate
from pipelines.definitions.dag_rules import violations
from pipelines.definitions.images import image
from pipelines.definitions.profiles import load_profile
from pipelines.definitions.profiles.profile import Profile

BUILDERS: Mapping[str, Callable[[Profile], dsl.graph_component.GraphComponent]] = {
    "train_and_evaluate": train_and_evaluate.train_and_evaluate_pipeline,
    "evaluate": evaluate.evaluate_pipeline,
    "retrain": retrain.retrain_pipeline,
}
"""The pipelines by the name that `b1k` gives them."""
_TYPES: Mapping[str, Callable[[str], Any]] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
}
_TYPE_NAMES = {"NUMBER_INTEGER": "an integer", "NUMBER_DOUBLE": "a number"}
_POSITIVE = {"steps", "group_steps", "batch_size", "flow_samples", "save_every", "log_every"}


def compile_pipeline(name: str, profile_name: str, output: Path, registry: str = "") -> dict[str, Any]:
    """Compile a pipeline, check it against the DAG rules, and write the IR.

    Args:
        name: name of the pipeline, a key of `BUILDERS`.
        profile_name: name of the profile.
        output: YAML file to write; its second document, if any, holds the Kubernetes settings.
        registry: registry and path before the names of our images; empty keeps `localhost/b1k`.

    Returns:
        The IR as a dictionary.

    Raises:
        UserError: there is no such pipeline or profile.
    """
    if name not in BUILDERS:
        raise UserError(f"there is no pipeline {name!r}; expected one of {', '.join(BUILDERS)}")
    profile = _with_images(load_profile(profile_name), registry)
    pipeline = BUILDERS[name](profile)
    inputs = pipeline.component_spec.inputs or {}
    chosen = {**profile.arguments, **(profile.retraining if name == "retrain" else {})}
    defaults = {key: value for key, value in chosen.items() if key in inputs}
    output.parent.mkdir(parents=True, exist_ok=True)
    Compiler().compile(pipeline, str(output), pipeline_parameters=defaults)
    spec: dict[str, Any] = next(yaml.safe_load_all(output.read_text()))
    found = violations(spec)
    if found:
        raise RuntimeError("the pipeline breaks the DAG rules:\n  " + "\n  ".join(found))
    return spec


def _with_images(profile: Profile, registry: str) -> Profile:
    """Turn the roles that steps name (toolbox, trainer, evaluator) into image references."""

    def reference(role: str) -> str:
        return f"{registry.rstrip('/')}/{image(role).rpartition('/')[2]}" if registry else image(role)

    steps = {
        stage: dataclasses.replace(step, image=reference(step.image) if step.image else "")
        for stage, step in profile.steps.items()
    }
    return dataclasses.replace(profile, steps=steps)


def parse_settings(spec: Mapping[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """Read `name=value` words as arguments of a pipeline, by the types of its inputs.

    Raises:
        UserError: a word has another form, the pipeline has no such input, or the value is of another type
            or none that its stage would take.
    """
    inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    arguments: dict[str, Any] = {}
    for word in settings:
        name, sign, text = word.partition("=")
        if not sign:
            raise UserError(f"--set got {word!r}; expected name=value")
        if name not in inputs:
            near = difflib.get_close_matches(name, inputs, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(inputs)}"
            raise UserError(f"--set {name}: no input of the pipeline; {hint}")
        arguments[name] = _parse(name, text, inputs[name]["parameterType"])
    # the IR holds all numbers as floating point
    defaults = {
        name: int(one["defaultValue"]) if one["parameterType"] == "NUMBER_INTEGER" else one["defaultValue"]
        for name, one in inputs.items()
        if "defaultValue" in one
    }
    _check_values({**defaults, **arguments})
    return arguments


def _check_values(values: Mapping[str, Any]) -> None:
    """Refuse now what a stage would refuse after hours of training."""
    for name in _POSITIVE & values.keys():
        if values[name] < 1:
            raise UserError(f"{name} is {values[name]}; expected at least 1")
    if "evaluator" not in values:
        return
    # half a second of imports that other users of this module should not wait for
    from components.plan.stage import Config

    chosen: dict[str, Any] = {}
    for field in dataclasses.fields(Config):
        if field.name in values:
            value = values[field.name]
            # lists are text in pipelines
            chosen[field.name] = tuple(value.split()) if isinstance(field.default, tuple) else value
    try:
        Config(**chosen)
    except ValueError as error:
        raise UserError(str(error)) from error


def _parse(name: str, text: str, kind: str) -> Any:
    if kind == "BOOLEAN":
        if text.lower() not in ("true", "false"):
            raise UserError(f"--set {name}={text}: expected true or false")
        return text.lower() == "true"
    try:
        return _TYPES[kind](text)
    except ValueError as error:
        raise UserError(f"--set {name}={text}: expected {_TYPE_NAMES[kind]}") from error


def check_required(spec: Mapping[str, Any], pipeline: str, arguments: Mapping[str, Any]) -> None:
    """Check that a pipeline gets every argument that it cannot do without.

    Raises:
        UserError: one is missing.
    """
    inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    missing = [n for n, i in inputs.items() if not i.get("isOptional") and n not in arguments]
    repository = inputs.get("repository", {}).get("defaultValue", "")
    if "repository" in inputs and not arguments.get("repository", repository):
        missing.append("repository")
    if missing:
        raise UserError(f"the pipeline {pipeline} needs {', '.join(missing)}; give --set {missing[0]}=...")
