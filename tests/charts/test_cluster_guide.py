"""The commands and objects in docs/cluster.md are ones that Helm and Kubernetes accept."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import kubernetes_validate
import tyro
import yaml

from components.runtime.command_line import _with_presets
from components.runtime.executor import KfpTask
from components.train.config import DECLARATION, Config
from pipelines.definitions.compiling import compile_pipeline

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "cluster.md").read_text()


def test_install_command_renders_and_names_the_objects_of_the_table(helm):
    (command,) = re.findall(r"^helm install (b1k .*?[^\\])\n", GUIDE, re.MULTILINE | re.DOTALL)
    release, chart, *options = shlex.split(command.replace("\\\n", " "))
    done = helm("template", release, ROOT / chart, *options)
    assert done.returncode == 0, done.stderr
    names = {one["metadata"]["name"] for one in yaml.safe_load_all(done.stdout) if one}
    table = set(re.findall(r"^\| (?:service account|claim|config map|pod) `([^`]+)`", GUIDE, re.MULTILINE))
    assert table == names


def test_advice_for_other_accounts_renders(helm):
    (settings,) = re.findall(r"\(`(serviceAccount\.create=false[^`]*)`\)", GUIDE)
    done = helm("template", "b1k", ROOT / "charts" / "b1k", "--set", settings)
    assert done.returncode == 0, done.stderr


def test_pod_that_hands_over_the_volumes_is_valid(render):
    (text,) = re.findall(r"<<'YAML'\n(.*?)^YAML", GUIDE, re.MULTILINE | re.DOTALL)
    pod = yaml.safe_load(text)
    kubernetes_validate.validate(pod, "1.28", strict=True)
    claims = {one["persistentVolumeClaim"]["claimName"] for one in pod["spec"]["volumes"]}
    assert claims == {name for kind, name in render() if kind == "PersistentVolumeClaim"}
    command = pod["spec"]["containers"][0]["command"]
    user = re.findall(r"^USER (\S+)$", (ROOT / "images" / "toolbox.Dockerfile").read_text(), re.MULTILINE)
    assert command[1:2] == user


def test_build_variables_exist():
    bake = (ROOT / "images" / "docker-bake.hcl").read_text()
    variables = set(re.findall(r'^variable "(\w+)"', bake, re.MULTILINE))
    exported = {
        name
        for line in re.findall(r"^export (.*)$", GUIDE, re.MULTILINE)
        for name in re.findall(r"(\w+)=", line)
    }
    assert exported <= variables


def test_values_that_the_guide_names_exist():
    values = yaml.safe_load((ROOT / "charts" / "b1k" / "values.yaml").read_text())
    sections = "|".join(values)
    named = set(re.findall(rf"`((?:{sections})(?:\.\w+)+)`", GUIDE))
    assert len(named) > 10
    for name in named:
        node = values
        for part in name.split("."):
            node = node[part]


def configuration(words: list[str]) -> Config:
    """The configuration that words of the train stage's command line give."""
    config, rest = _with_presets(Config(), [word for word in words if word.startswith("--config.")])
    return tyro.cli(Config, args=[word.replace("--config.", "--") for word in rest], default=config)


def task_of(spec: dict[str, Any], name: str) -> KfpTask:
    """A task of a compiled pipeline as KFP would start it, with the pipeline's defaults."""
    defaults = spec["root"]["inputDefinitions"]["parameters"]
    given = {}
    tasks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    for key, source in tasks[name]["inputs"]["parameters"].items():
        constant = source.get("runtimeValue", {}).get("constant")
        if constant is None:
            constant = defaults[source["componentInputParameter"].removeprefix("pipelinechannel--")][
                "defaultValue"
            ]
        given[key] = constant
    return KfpTask(given, {}, {})


def test_training_over_nodes_makes_what_the_pipelines_task_asks_for(helm, tmp_path):
    (text,) = re.findall(r"^   ```yaml\n(.*?)^   ```", GUIDE, re.MULTILINE | re.DOTALL)
    values = yaml.safe_load(textwrap.dedent(text))
    arguments = values["training"]["multiNode"]["arguments"]
    assert {word.partition("=")[0] for word in arguments if "--inputs" in word} == {
        "--inputs.dataset",
        "--inputs.prepared",
        "--inputs.statistics",
    }
    spec = compile_pipeline("train_and_evaluate", "h200x8", tmp_path / "pipeline.yaml")
    asked = task_of(spec, "train").config(DECLARATION)
    assert configuration(arguments) == asked
    assert asked.batch_size % (values["training"]["multiNode"]["nodes"] * 8) == 0
    done = helm("template", "b1k", ROOT / "charts" / "b1k", values=values)
    assert done.returncode == 0, done.stderr
    for word in arguments:
        assert word in done.stdout
