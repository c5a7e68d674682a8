"""Rules of our DAGs, checked on the compiled IR, so that kfp.local and the cluster run them alike.

With kfp 2.17 a pipeline that breaks one of them runs, without an error, with other values on a laptop than on
a cluster, or fails on one of the two.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Spec = Mapping[str, Any]
_PARAMETER = re.compile(r"inputs\.parameter_values\['[^']*'\]")
_TEXT = re.compile(r"(?<=[=!]= )'[^'\\]*'(?=$|[ )])")


def violations(spec: Spec) -> list[str]:
    """Walk a compiled pipeline's IR and list what breaks a rule, one line each."""
    found = list(_walk(spec, spec["root"], "root", inside_loop=False))
    name = spec["pipelineInfo"]["name"]
    if f"comp-{name}" in spec["components"]:
        found.append(
            f"root: the pipeline has the name of its component {name}; kfp.local would run that one alone"
        )
    return found


def _walk(spec: Spec, component: Spec, place: str, *, inside_loop: bool) -> Iterator[str]:
    """Check one DAG and those inside it."""
    tasks: Mapping[str, Any] = component["dag"]["tasks"]
    loops = {
        name for name, task in tasks.items() if "parameterIterator" in task or "artifactIterator" in task
    }
    conditional = {name for name, task in tasks.items() if _condition(task)}
    for name, task in tasks.items():
        where = f"{place}/{name}"
        child = spec["components"].get(task["componentRef"]["name"], {})
        if name in loops:
            yield from _check_loop(task, where, inside_loop=inside_loop)
            yield from _check_items(child, where)
        yield from _check_condition(task, where)
        yield from _check_defaults(child, where)
        yield from _check_collected(task, where, loops, conditional)
        if "dag" in child:
            yield from _walk(spec, child, where, inside_loop=inside_loop or name in loops)
            for output, value in child["dag"].get("outputs", {}).get("artifacts", {}).items():
                if len(value.get("artifactSelectors", [])) > 1:
                    yield f"{where}: the output {output} is one of several artifacts; kfp.local cannot choose"


def _condition(task: Spec) -> str:
    return str(task.get("triggerPolicy", {}).get("condition", ""))


def _outputs_read(task: Spec) -> Iterator[tuple[str, str, str]]:
    """The parameters that a task reads of others: its own name for each, the other's name, and the other."""
    for name, value in task.get("inputs", {}).get("parameters", {}).items():
        if source := value.get("taskOutputParameter"):
            yield name, source["outputParameterKey"], source["producerTask"]


def _check_condition(task: Spec, where: str) -> Iterator[str]:
    condition = _condition(task)
    if "'" in _TEXT.sub("", _PARAMETER.sub("", condition)):
        yield f"{where}: a quote inside a condition's text is not escaped by kfp.local"
    for name, key, producer in _outputs_read(task):
        if f"'{name}'" in condition and key != "Output":
            yield (
                f"{where}: the condition reads the output {key} of {producer}; kfp.local finds only the name "
                "Output, and takes others for false"
            )


def _check_loop(task: Spec, where: str, *, inside_loop: bool) -> Iterator[str]:
    if inside_loop:
        yield f"{where}: a loop inside a loop; kfp.local mixes up the items. Loop once over a list of dicts"
    if "artifactIterator" in task:
        yield f"{where}: a loop over artifacts; loop over a list of dicts that a task returns"
        return
    items = task["parameterIterator"]["items"]
    for name, key, producer in _outputs_read(task):
        if name != items.get("inputParameter"):
            yield (
                f"{where}: the loop's body uses the parameter {key} of the task {producer}; kfp.local puts "
                "the loop's item in its place. Carry it in the items"
            )
        elif key != "Output":
            yield f"{where}: loops over the output {key} of {producer}; kfp.local finds only the name Output"
    if "raw" in items and not items["raw"].startswith("[{"):
        yield f"{where}: the items are not dicts; use dicts that carry every parameter of an iteration"


def _check_items(child: Spec, where: str) -> Iterator[str]:
    for name, task in child.get("dag", {}).get("tasks", {}).items():
        for value in task.get("inputs", {}).get("parameters", {}).values():
            source = value.get("componentInputParameter", "")
            if "-loop-item" in source and "parameterExpressionSelector" not in value:
                yield f"{where}/{name}: uses the whole item; items are dicts, use their fields"


def _check_defaults(child: Spec, where: str) -> Iterator[str]:
    for name, value in child.get("inputDefinitions", {}).get("parameters", {}).items():
        number = value.get("parameterType") in ("NUMBER_INTEGER", "NUMBER_DOUBLE")
        if number and value.get("isOptional") and "defaultValue" not in value:
            yield f"{where}: the optional number {name} has no default; kfp.local fails on it. Give a default"


def _check_collected(task: Spec, where: str, loops: set[str], conditional: set[str]) -> Iterator[str]:
    parameters = [(name, producer) for name, _, producer in _outputs_read(task)]
    artifacts = [
        (name, value.get("taskOutputArtifact", {}).get("producerTask", ""))
        for name, value in task.get("inputs", {}).get("artifacts", {}).items()
    ]
    for name, producer in (*parameters, *artifacts):
        if producer in conditional:
            yield f"{where}: the input {name} comes from the condition {producer}, which may not run"
    for name, producer in parameters:
        if producer in loops:
            yield f"{where}: the input {name} collects parameters of a loop; collect artifacts"
