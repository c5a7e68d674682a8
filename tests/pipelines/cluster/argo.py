"""Workflows as Argo writes them for Kubeflow Pipelines, where every step may be retried."""

import base64
import gzip
import json
import re
from typing import Any

TIME = "2026-01-02T03:04:{:02d}Z"
NEVER = "0001-01-01T00:00:00Z"
ROOT = "(0).root(0)"


class Workflow:
    """A workflow under construction."""

    def __init__(self, phase: str = "Running", message: str = "", templates: list[Any] | None = None) -> None:
        self.name = "small-x7k2p"
        self.nodes: dict[str, dict[str, Any]] = {}
        self.status = {"phase": phase, "message": message}
        self.spec = {"entrypoint": "entrypoint", "templates": templates or []}
        self._second = 0
        for path in ("", "(0)", "(0).root", ROOT):
            self.step(path, "DAG", phase)

    def step(self, path: str, kind: str, phase: str, message: str = "", **fields: Any) -> None:
        """Add a node; its ID is made of its path."""
        has_begun = phase not in ("Pending", "Error") or kind != "Pod"
        ended = phase in ("Succeeded", "Failed", "Error", "Omitted", "Skipped")
        identity = re.sub(r"\W+", "-", path).strip("-") or "top"
        self.nodes[identity] = {
            "id": identity,
            "name": self.name + path,
            "type": kind,
            "phase": phase,
            "message": message,
            "startedAt": TIME.format(self._second) if has_begun else NEVER,
            "finishedAt": TIME.format(self._second + 1) if ended else None,
            **fields,
        }

    def task(
        self,
        name: str,
        phase: str = "Succeeded",
        *pods: tuple[str, str],
        place: str = ROOT,
        label: str = "",
        driver: str = "Succeeded",
        cached: bool = False,
        why: str = "",
    ) -> "Workflow":
        """Add a task: its driver, and if it has begun its executor.

        Args:
            name: such as `train`.
            phase: of the task; empty if it has not begun.
            *pods: phase and message of each attempt at its pod; one of the task's phase if not given.
            place: the step around it.
            label: its name for people.
            driver: phase of its driver.
            cached: whether the driver found its outputs in the cache.
            why: message of the pods' step.
        """
        self._second += 1
        path, given = f"{place}.{name}", json.dumps({"taskInfo": {"name": label or name.capitalize()}})
        inputs = {"parameters": [{"name": "task", "value": given}]}
        outputs = {"parameters": [{"name": "cached-decision", "value": str(cached).lower()}]}
        self.step(f"{path}-driver", "Retry", driver, inputs=inputs, outputs=outputs)
        template = "system-container-driver"
        self.step(f"{path}-driver(0)", "Pod", driver, templateName=template, inputs=inputs)
        if not phase:
            return self
        kind = "Skipped" if phase in ("Omitted", "Skipped") else "Retry"
        self.step(path, kind, phase, templateName="retry-system-container-executor")
        if kind == "Skipped":
            return self
        self.step(f"{path}(0)", "DAG", phase)
        self.step(f"{path}(0).executor", "Skipped" if cached else "Retry", phase, why)
        for attempt, (state, message) in enumerate(() if cached else pods or [(phase, "")]):
            template = "retry-system-container-impl"
            self.step(f"{path}(0).executor({attempt})", "Pod", state, message, templateName=template)
        return self

    def loop(self, name: str, task: str, phases: list[str], *, total: int = 0, label: str = "") -> "Workflow":
        """Add a loop with a task for each item."""
        path = f"{ROOT}.{name}"
        done = all(phase == "Succeeded" for phase in phases) and len(phases) >= total
        phase = "Failed" if "Failed" in phases else "Succeeded" if done else "Running"
        count = {"parameters": [{"name": "iteration-count", "value": str(total or len(phases))}]}
        given = {"parameters": [{"name": "task", "value": json.dumps({"taskInfo": {"name": label}})}]}
        self.step(path, "Retry", phase, templateName=f"comp-{name}-{name}-iterator")
        self.step(f"{path}(0)", "DAG", phase)
        self.step(f"{path}(0).iteration-driver", "Retry", "Succeeded", outputs=count, inputs=given)
        for item, state in enumerate(phases):
            place = f"{path}(0).iteration-iterations({item}:{item})"
            for around in ("", "(0)", "(0).iteration-item", "(0).iteration-item(0)"):
                self.step(f"{place}{around}", "DAG", state)
            self.task(task, state, place=f"{place}(0).iteration-item(0)", label=label)
        return self

    def manifest(self, *, compressed: bool = False) -> str:
        """The JSON text."""
        status: dict[str, Any] = {**self.status, "nodes": self.nodes}
        if compressed:
            del status["nodes"]
            packed = gzip.compress(json.dumps(self.nodes).encode())
            status["compressedNodes"] = base64.b64encode(packed).decode()
        metadata = {"name": self.name, "namespace": "robots"}
        return json.dumps({"metadata": metadata, "spec": self.spec, "status": status})


def dag(name: str, *tasks: dict[str, Any]) -> dict[str, Any]:
    """A template of a workflow."""
    return {"name": name, "dag": {"tasks": list(tasks)}}


def pair(name: str, label: str, template: str, after: str = "", **more: Any) -> list[dict[str, Any]]:
    """A task and its driver in a template."""
    task = json.dumps({"componentRef": {"name": template}, "taskInfo": {"name": label}})
    given = {"parameters": [{"name": "task", "value": task}]}
    driver = {"name": f"{name}-driver", "template": "system-container-driver", "arguments": given}
    if after:
        driver["depends"] = " && ".join(f"{one}.Succeeded" for one in after.split())
    return [{"name": name, "template": template, "depends": f"{name}-driver.Succeeded", **more}, driver]


def executor_templates() -> list[dict[str, Any]]:
    """The templates of every pipeline."""
    run = {"name": "executor", "template": "retry-system-container-impl"}
    return [dag("retry-system-container-executor", run), {"name": "retry-system-container-impl"}]
