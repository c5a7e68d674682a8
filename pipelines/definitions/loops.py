"""Outputs that a pipeline loops over or branches on.

kfp.local 2.17 finds an upstream output in a loop's items or in a condition only if it has the name that the
SDK gives to return values, `Output`, and the SDK refuses that name in the signature of a container component.
"""

from typing import Any, TypeVar

T = TypeVar("T")
ITEMS = "items"
ANSWER = "answer"
OUTPUT = "Output"


def loops_over_items(component: T) -> T:
    """Rename a container component's list output `items` to `Output`.

    Args:
        component: what `dsl.container_component` made; its command must not use the output's placeholder.
    """
    return _renamed(component, ITEMS)


def branches_on_answer(component: T) -> T:
    """Rename a container component's text output `answer` to `Output`.

    Args:
        component: what `dsl.container_component` made; its command must not use the output's placeholder.
    """
    return _renamed(component, ANSWER)


def _renamed(component: T, name: str) -> T:
    outputs: dict[str, Any] = component.component_spec.outputs  # type: ignore[attr-defined]
    outputs[OUTPUT] = outputs.pop(name)
    return component
