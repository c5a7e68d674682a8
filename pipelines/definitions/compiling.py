"""Compile a pipeline for a profile to the IR that the cluster and kfp.local run."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl
from kfp.compiler import Compiler

from components.errors import UserError
from components.settings.checks import Arguments
from components.settings.sections import inputs
from pipelines.definitions import demo, evaluate, retrain, train_and_evaluate
from pipelines.definitions.choosing import find_pipeline
from pipelines.definitions.dag_rules import violations
from pipelines.definitions.images import image
from pipelines.definitions.profiles import PROFILES, load_profile
from pipelines.definitions.profiles.profile import Profile

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
BUILDERS: Mapping[str, Callable[[Profile], dsl.graph_component.GraphComponent]] = {
    "train_and_evaluate": train_and_evaluate.train_and_evaluate_pipeline,
    "evaluate": evaluate.evaluate_pipeline,
    "retrain": retrain.retrain_pipeline,
    "demo": demo.demo_pipeline,
}
"""The pipelines by the name that `b1k` gives them."""


def compile_pipeline(
    name: str,
    profile_name: str,
    output: Path,
    *,
    registry: str = "",
    queue: str = "",
    workspace: Path | None = None,
    given: Arguments | None = None,
) -> dict[str, Any]:
    """Compile a pipeline, check it against the DAG rules, write it to a YAML file and return the IR.

    The file's second document, if any, holds the Kubernetes settings. `registry` is what comes before the
    names of our images, `queue` the queue of Kueue that admits pods with GPUs (the profile's when empty),
    `workspace` the folder that all stages share (the profile's when None), and `given` the values that become
    the defaults of the pipeline's inputs.

    Raises:
        UserError: there is no such pipeline or profile, or the profile is not for the pipeline.
    """
    profile = load_profile(profile_name)
    find_pipeline(name)
    able = [one for one in PROFILES if load_profile(one).runs(name)]
    if able and profile_name not in able:
        expected = ", ".join(able)
        raise UserError(
            f"the profile {profile_name} lacks stages of the pipeline {name}; expected {expected}"
        )
    # steps name the roles of images
    steps = {
        stage: dataclasses.replace(step, image=image(step.image, registry)) if step.image else step
        for stage, step in profile.steps.items()
    }
    if queue := queue or profile.queue:
        for stage, step in steps.items():
            if step.gpus:
                labels = {**step.pod_labels, QUEUE_LABEL: queue}
                steps[stage] = dataclasses.replace(step, pod_labels=labels)
    profile = dataclasses.replace(profile, steps=steps, workspace=str(workspace or profile.workspace))
    output.parent.mkdir(parents=True, exist_ok=True)
    pipeline = BUILDERS[name](profile)
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
