"""The compiled pipelines in a short form; run as a program it writes the files of them.

All of the IR and its Kubernetes document is there; what repeats itself is written shorter: parameters that
are handed on under their own name are a list, and the parameters of components are one text each.
"""

import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from pipelines.definitions.compiling import BUILDERS, compile_pipeline
from pipelines.definitions.profiles import PROFILES

FOLDER = Path(__file__).parents[2] / "golden" / "ir"
COMMAND = "python tests/pipelines/definitions/golden_ir.py"
CASES = [(pipeline, "cluster_small" if pipeline == "demo" else "h200x8") for pipeline in BUILDERS]
_CHANNEL = "pipelinechannel--"


def render(pipeline: str, profile: str) -> str:
    """A compiled pipeline in the short form, as YAML."""
    assert profile in PROFILES
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_pipeline(pipeline, profile, path, registry="registry.example.org/robots")
        text = path.read_text().replace(f":{version('b1k')}", ":VERSION")
    spec, *platform = yaml.safe_load_all(text)
    del spec["sdkVersion"], spec["schemaVersion"]
    spec["components"] = {name: _component(one) for name, one in spec["components"].items()}
    spec["root"] = {**_component(spec["root"]), "inputDefinitions": spec["root"]["inputDefinitions"]}
    return yaml.safe_dump_all([spec, *platform], width=110, default_flow_style=None)


def place(pipeline: str, profile: str) -> Path:
    """The file of a pipeline."""
    return FOLDER / f"{pipeline}-{profile}.yaml"


def _component(component: Mapping[str, Any]) -> dict[str, Any]:
    short = dict(component)
    for kind in ("inputDefinitions", "outputDefinitions"):
        if kind in short:
            short[kind] = _definitions(short[kind])
    if "dag" in short:
        tasks = {name: _task(one) for name, one in short["dag"]["tasks"].items()}
        short["dag"] = {**short["dag"], "tasks": tasks}
        short.pop("inputDefinitions", None)  # what its tasks take
    return short


def _definitions(definitions: Mapping[str, Any]) -> dict[str, Any]:
    short = dict(definitions)
    if "parameters" in short:
        short["parameters"] = [
            f"{name}: {one['parameterType']}"
            + (f" = {one['defaultValue']!r}" if "defaultValue" in one else "")
            for name, one in short["parameters"].items()
        ]
    return short


def _task(task: Mapping[str, Any]) -> dict[str, Any]:
    inputs = dict(task.get("inputs", {}))
    given = inputs.pop("parameters", {})
    same = [name for name, value in given.items() if _handed_on(name, value)]
    if same:
        inputs["handed_on"] = [name.removeprefix(_CHANNEL) for name in same]
    others = {name: value for name, value in given.items() if name not in same}
    return {**task, "inputs": {**inputs, **({"parameters": others} if others else {})}}


def _handed_on(name: str, value: Mapping[str, Any]) -> bool:
    source = str(value.get("componentInputParameter", ""))
    return len(value) == 1 and source.removeprefix(_CHANNEL) == name.removeprefix(_CHANNEL)


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(exist_ok=True)
    for case in CASES:
        place(*case).write_text(render(*case))
        print(place(*case), file=sys.stderr)


if __name__ == "__main__":
    main()
