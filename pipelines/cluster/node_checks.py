"""Whether the nodes of a cluster can take the steps of a profile."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kubernetes.utils import parse_quantity

from pipelines.definitions.profiles.profile import Profile, Step, Toleration

Status = Literal["ok", "warning", "fail"]
_NAMED = 3
"""Nodes that are named when none fits."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    status: Status
    found: str
    remedy: str = ""


def check_nodes(nodes: Sequence[Any], profile: Profile, autoscaled: bool) -> Iterator[Finding]:
    """Find the nodes that take each step when they are empty: labels, taints, allocatable resources.

    Args:
        nodes: V1Node objects.
        profile: the steps.
        autoscaled: the cluster may add nodes, so none is a warning.
    """
    ready = [node for node in nodes if _is_ready(node)]
    alike: dict[tuple[Any, ...], list[str]] = {}
    for stage, step in profile.steps.items():
        at_once = {"evaluate": profile.evaluations, "train": profile.trainings}.get(stage, 1)
        labels = tuple(step.node_labels.items())
        need = (at_once, step.gpus, step.cpu, step.memory, labels, step.gpu_products, step.tolerations)
        alike.setdefault(need, []).append(stage)
    for need, stages in alike.items():
        check = f"nodes for {', '.join(stages)}"
        yield _check(check, ready, profile.steps[stages[0]], need[0], autoscaled)


def _check(check: str, ready: Sequence[Any], step: Step, at_once: int, autoscaled: bool) -> Finding:
    refusals = {node.metadata.name: _refusal(node, step) for node in ready}
    fitting = [node for node in ready if not refusals[node.metadata.name]]
    if not fitting:
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(refusals.items())[:_NAMED])
        found = f"none of {len(ready)} ready nodes takes {_wanted(step)}. {reasons}"
        remedy = "add or label a node, or change the step in the profile"
        return Finding(check, "warning" if autoscaled else "fail", found, remedy)
    gpus = sum(_allocatable(node, "nvidia.com/gpu") for node in fitting)
    if step.gpus * at_once > gpus:
        found = f"{gpus:g} GPUs on {len(fitting)} nodes for {at_once} pods of {step.gpus}"
        return Finding(check, "warning", found, "pods will wait for each other, or add nodes")
    return Finding(check, "ok", f"{len(fitting)} of {len(ready)} nodes take {_wanted(step)}")


def _is_ready(node: Any) -> bool:
    conditions = node.status.conditions or []
    ready = any(one.type == "Ready" and one.status == "True" for one in conditions)
    return ready and not node.spec.unschedulable


def _allocatable(node: Any, resource: str) -> float:
    return float(parse_quantity((node.status.allocatable or {}).get(resource, "0")))


def _wanted(step: Step) -> str:
    products = [*step.node_labels.values(), *step.gpu_products]
    words = [f"{step.cpu} CPUs"] if step.cpu else []
    words += [step.memory] if step.memory else []
    if step.gpus:
        others = " or like" if len(products) > 1 else ""
        words.insert(0, f"{step.gpus} x {products[0] if products else 'any GPU'}{others}")
    return ", ".join(words)


def _refusal(node: Any, step: Step) -> str:
    """Why a node cannot take a step when it is empty; nothing where it can."""
    labels = node.metadata.labels or {}
    for key, value in step.node_labels.items():
        if labels.get(key) != value:
            return f"{key} is {labels.get(key, 'not set')}"
    product = labels.get("nvidia.com/gpu.product", "not set")
    if step.gpu_products and product not in step.gpu_products:
        return f"nvidia.com/gpu.product is {product}"
    for taint in node.spec.taints or []:
        hard = taint.effect in ("NoSchedule", "NoExecute")
        if hard and not any(_tolerates(one, taint) for one in step.tolerations):
            return f"taint {taint.key} is not tolerated"
    for resource, wanted in (("nvidia.com/gpu", step.gpus), ("cpu", step.cpu), ("memory", step.memory)):
        have = _allocatable(node, resource)
        if wanted and have < float(parse_quantity(str(wanted))):
            return f"has {(node.status.allocatable or {}).get(resource, 0)} of {resource}"
    return ""


def _tolerates(toleration: Toleration, taint: Any) -> bool:
    same_value = toleration.operator == "Exists" or (toleration.value or "") == (taint.value or "")
    return toleration.key == taint.key and same_value and toleration.effect in ("", taint.effect)
