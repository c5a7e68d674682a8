"""Every DAG rule refuses the pipeline that breaks it. The bad pipelines compile: kfp does not object."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest
import yaml
from kfp import dsl
from kfp.compiler import Compiler

from pipelines.definitions.dag_rules import violations


def with_output(name: str) -> Callable[[Any], Any]:
    """Give an output the name that the SDK refuses in a signature."""

    def rename(component: Any) -> Any:
        outputs = component.component_spec.outputs
        outputs["Output"] = outputs.pop(name)
        return component

    return rename


@with_output("items")
@dsl.container_component
def produce(
    items: dsl.OutputPath(list),
    values: dsl.OutputPath(list),
    number: dsl.OutputPath(int),
    artifact: dsl.Output[dsl.Dataset],
):
    return dsl.ContainerSpec(image="python", command=["true"])


@dsl.container_component
def consume(
    artifact: dsl.Output[dsl.Dataset],
    result: dsl.OutputPath(str),
    number: int = 0,
    text: str = "",
):
    return dsl.ContainerSpec(image="python", command=["true"], args=[text, number])


@dsl.container_component
def optional_number(number: Optional[int] = None):  # noqa: UP045 - kfp knows no other spelling
    return dsl.ContainerSpec(image="python", command=["true"])


@dsl.container_component
def read(artifact: dsl.Input[dsl.Dataset]):
    return dsl.ContainerSpec(image="python", command=["true"])


@dsl.container_component
def read_all(artifacts: dsl.Input[list[dsl.Dataset]]):
    return dsl.ContainerSpec(image="python", command=["true"])


@dsl.container_component
def take(values: list):
    return dsl.ContainerSpec(image="python", command=["true"], args=[values])


@dsl.pipeline
def good(number: int = 1):
    source = produce()
    with dsl.ParallelFor(source.outputs["Output"]) as item:
        made = consume(text=item.text, number=number)
    read_all(artifacts=dsl.Collected(made.outputs["artifact"]))


@dsl.pipeline
def upstream_parameter_in_body():
    source = produce()
    with dsl.ParallelFor([{"text": "a"}, {"text": "b"}]) as item:
        consume(text=item.text, number=source.outputs["number"])


@dsl.pipeline
def nested_loops(outer: list = [], inner: list = []):  # noqa: B006 - the default goes into the IR
    with dsl.ParallelFor(outer) as left, dsl.ParallelFor(inner) as right:
        consume(text=left.text, number=right.number)


@dsl.pipeline
def other_output_name():
    source = produce()
    with dsl.ParallelFor(source.outputs["values"]) as item:
        consume(text=item.text)


@dsl.pipeline
def plain_items():
    with dsl.ParallelFor(["a", "b"]) as item:
        consume(text=item)


@dsl.pipeline
def whole_items():
    source = produce()
    with dsl.ParallelFor(source.outputs["Output"]) as item:
        consume(text=item)


@dsl.pipeline
def number_without_default():
    optional_number()


@dsl.pipeline
def collected_parameters():
    with dsl.ParallelFor([{"text": "a"}]) as item:
        made = consume(text=item.text)
    take(values=dsl.Collected(made.outputs["result"]))


@dsl.pipeline
def one_of_artifacts():
    source = produce()
    with dsl.If(source.outputs["number"] == 1):
        one = consume(number=1)
    with dsl.Else():
        other = consume(number=2)
    read(artifact=dsl.OneOf(one.outputs["artifact"], other.outputs["artifact"]))


@dsl.pipeline
def quote_in_condition():
    made = consume()
    with dsl.If(made.outputs["result"] == "it's"):
        consume()


@dsl.pipeline
def condition_on_another_name():
    source = produce()
    with dsl.If(source.outputs["number"] == 1):
        consume()


@with_output("answer")
@dsl.container_component
def ask(answer: dsl.OutputPath(str)):
    return dsl.ContainerSpec(image="python", command=["true"])


@dsl.pipeline
def branch():
    with dsl.If(ask().outputs["Output"] == "yes"):
        good()


@dsl.pipeline(name="consume")
def name_of_a_component():
    consume()


def _compile(pipeline: Callable[..., Any], folder: Path) -> dict[str, Any]:
    path = folder / "pipeline.yaml"
    Compiler().compile(pipeline, str(path))
    spec: dict[str, Any] = next(yaml.safe_load_all(path.read_text()))
    return spec


def test_a_good_pipeline_breaks_no_rule(tmp_path: Path) -> None:
    assert violations(_compile(good, tmp_path)) == []


def test_a_condition_on_an_answer_breaks_no_rule(tmp_path: Path) -> None:
    assert violations(_compile(branch, tmp_path)) == []


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (condition_on_another_name, "the condition reads the output number of produce"),
        (upstream_parameter_in_body, "uses the parameter number of the task produce"),
        (nested_loops, "a loop inside a loop"),
        (other_output_name, "loops over the output values of produce"),
        (plain_items, "items are not dicts"),
        (whole_items, "uses the whole item"),
        (number_without_default, "the optional number number has no default"),
        (collected_parameters, "collects parameters of a loop"),
        (one_of_artifacts, "one of several artifacts"),
        (quote_in_condition, "a quote inside a condition"),
        (name_of_a_component, "has the name of its component consume"),
    ],
    ids=lambda value: value.name if hasattr(value, "pipeline_spec") else "",
)
def test_a_bad_pipeline_is_named(pipeline: Callable[..., Any], message: str, tmp_path: Path) -> None:
    found = violations(_compile(pipeline, tmp_path))
    assert any(message in line for line in found), found
    assert all(line.startswith("root") for line in found)
