"""Outputs that a pipeline loops over."""

from typing import Any, TypeVar

T = TypeVar("T")
ITEMS = "items"
OUTPUT = "Output"


def loops_over_items(component: T) -> T:
    """Rename a container component's list output `items` to `Output`.

    kfp.local 2.17 loops over an upstream output only if it has the name that the SDK gives to return values,
    `Output`, and the SDK refuses that name in the signature of a container component.

    Args:
        component: what `dsl.container_component` made; its command must not use the output's placeholder.
    """
    outputs: dict[str, Any] = component.component_spec.outputs  # type: ignore[attr-defined]
    outputs[OUTPUT] = outputs.pop(ITEMS)
    return component
