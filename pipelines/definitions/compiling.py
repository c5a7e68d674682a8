"""Compile a pipeline for a profile to the IR that the cluster and kfp.local run."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tyro
import yaml
from kfp import dsl
from kfp.compiler import Compiler

from components.errors import UserError
from components.settings.checks import Arguments, parse, resolve
from components.settings.sections import PIPELINES, inputs
from pipelines.definitions import evaluate, retrain, train_and_evaluate
from pipelines.definitions.dag_rules import violations
from pipelines.definitions.images import image
from pipelines.definitions.profiles import load_profile
from pipelines.definitions.profiles.profile import Profile

Set = tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]
"""Words of `--set`, which may be given several times, with several words each."""
BUILDERS: Mapping[str, Callable[[Profile], dsl.graph_component.GraphComponent]] = {
    "train_and_evaluate": train_and_evaluate.train_and_evaluate_pipeline,
    "evaluate": evaluate.evaluate_pipeline,
    "retrain": retrain.retrain_pipeline,
}
"""The pipelines by the name that `b1k` gives them."""


def find_pipeline(name: str) -> str:
    """The name, if there is such a pipeline; else UserError."""
    if name not in PIPELINES:
        raise UserError(f"there is no pipeline {name!r}; expected one of {', '.join(PIPELINES)}")
    return name


def choose(
    pipeline: str,
    profile_name: str,
    words: Iterable[Iterable[str]],
    *,
    workspace: Path | None = None,
    complete: bool = True,
) -> Arguments:
    """Read the words of `--set`, and check all values of a run together with its profile's.

    `workspace` is given where this machine sees the folders that values name; `complete` says whether all
    values of a run are given.

    Returns:
        What differs from the profile.

    Raises:
        UserError: no such pipeline or profile, or everything that a stage would refuse.
    """
    profile = load_profile(profile_name)
    given, mistakes = parse(find_pipeline(pipeline), (word for group in words for word in group))
    place = profile.place(workspace, complete=complete)
    resolve(pipeline, profile.of(pipeline), given, place, mistakes)
    return given


def compile_pipeline(
    name: str,
    profile_name: str,
    output: Path,
    *,
    registry: str = "",
    workspace: Path | None = None,
    given: Arguments | None = None,
) -> dict[str, Any]:
    """Compile a pipeline, check it against the DAG rules, write it to a YAML file and return the IR.

    The file's second document, if any, holds the Kubernetes settings. `registry` is what comes before the
    names of our images, `workspace` the folder that all stages share (the profile's when None), and `given`
    the values that become the defaults of the pipeline's inputs.
    """
    profile = load_profile(profile_name)
    # steps name the roles of images
    steps = {
        stage: dataclasses.replace(step, image=image(step.image, registry)) if step.image else step
        for stage, step in profile.steps.items()
    }
    profile = dataclasses.replace(profile, steps=steps, workspace=str(workspace or profile.workspace))
    output.parent.mkdir(parents=True, exist_ok=True)
    pipeline = BUILDERS[find_pipeline(name)](profile)
    Compiler().compile(pipeline, str(output), pipeline_parameters=given.as_dict() if given else {})
    spec = _add_choices(output, name)
    found = violations(spec)
    if found:
        raise RuntimeError("the pipeline breaks the DAG rules:\n  " + "\n  ".join(found))
    return spec


def _add_choices(package: Path, name: str) -> dict[str, Any]:
    """Write the choices of inputs into the IR, which the SDK cannot: the Kubeflow UI shows a drop-down."""
    text = package.read_text()
    documents = list(yaml.safe_load_all(text))
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    for key, one in inputs(name).items():
        if one.choices:
            parameters[key]["literals"] = list(one.choices)
    comment = "".join(f"{line}\n" for line in text.splitlines() if line.startswith("#"))
    package.write_text(comment + yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True))
    spec: dict[str, Any] = documents[0]
    return spec
