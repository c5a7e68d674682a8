"""An Argo Workflow as steps: what Kubeflow Pipelines makes of a pipeline, and what became of it.

The names of a workflow's nodes tell where they belong. `(1)` is the second attempt, `(1:1)` the second item::

    retrain-2pwqx(0).root(0).for-loop-1(0).iteration-iterations(1:1)(0).iteration-item(0).train(1).executor(0)

A server without Argo's default of retries has the same names without most of the attempts. What has not begun
has no node: it is known from the templates.
"""

import base64
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any

from components.errors import UserError

_PART = re.compile(r"\((\d+)\)|\.([^.()]+(?:\(\d+:[^()]*\))?)")
"""An attempt, or a step with the number of its item."""
_LABEL = re.compile(r'"taskInfo":\s*{\s*"name":\s*("(?:[^"\\]|\\.)*")')
_DEPENDENCY = re.compile(r"([\w-]+)\.\w+")
SKIPPED = ("Skipped", "Omitted")
FAILED = ("Failed", "Error")
ENDED = ("Succeeded", *FAILED)
DRIVER = "-driver"


@dataclass(frozen=True)
class Pod:
    """One attempt at running a step."""

    node: Mapping[str, Any]
    attempts: Sequence["Pod"] = field(default=(), repr=False, compare=False)
    """All attempts, with this one."""

    @property
    def id(self) -> str:
        """ID of its node."""
        return str(self.node.get("id"))

    @property
    def name(self) -> str:
        """Its name in Kubernetes."""
        workflow, _, number = self.id.rpartition("-")
        return f"{workflow}-{self.node.get('templateName')}-{number}"

    @property
    def names(self) -> list[str]:
        """What a server may know its log by: the pod, its node, the node of the task's attempt around it."""
        around = self.node.get("boundaryID")
        alone = sum(one.node.get("boundaryID") == around for one in self.attempts) == 1
        is_executor = ".executor(" in str(self.node.get("name"))
        return [self.name, self.id, *([str(around)] if around and alone and is_executor else [])]

    @property
    def phase(self) -> str:
        """Argo's word for its state."""
        return str(self.node.get("phase"))

    @property
    def message(self) -> str:
        """Why it waits or has failed."""
        return " ".join(str(self.node.get("message") or "").split())

    @property
    def progress(self) -> tuple[int, int] | None:
        """How much of how much its program says is done; None if it says nothing, which Argo calls 0/1."""
        found = re.fullmatch(r"(\d+)/(\d+)", str(self.node.get("progress") or ""))
        return (int(found[1]), int(found[2])) if found and int(found[2]) > 1 else None

    @property
    def log_uri(self) -> str:
        """Where the launcher keeps the log, without the number of the attempt; empty if it is not said."""
        found = re.search(r'[a-z0-9]+://[^"\\\s]+/executor-logs', json.dumps(self.node.get("inputs") or {}))
        return found[0] if found else ""

    @property
    def log_key(self) -> str:
        """Key of the object in which Argo keeps the log; empty if it keeps none."""
        artifacts = (self.node.get("outputs") or {}).get("artifacts") or []
        keys = [(one.get("s3") or {}).get("key") for one in artifacts if one.get("name") == "main-logs"]
        return str(keys[0]) if keys and keys[0] else ""


@dataclass
class Step:
    """A step of the workflow, its attempts, and the steps inside it."""

    node: Mapping[str, Any] = field(default_factory=dict)
    """Argo's node; of a step that has not begun, its arguments in the template as `inputs`."""
    attempts: dict[int, "Step"] = field(default_factory=dict)
    children: dict[str, "Step"] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    """Its pods, and those of the `executor` inside, in all attempts at it and at the steps around it."""

    @property
    def last(self) -> "Step":
        """The last attempt; the step itself where attempts are not counted."""
        return self.attempts[max(self.attempts)] if self.attempts else self

    @property
    def phase(self) -> str:
        """Argo's word for its state; empty before it has begun."""
        return str(self.node.get("phase") or self.last.node.get("phase") or "")

    @property
    def message(self) -> str:
        """What Argo says of it."""
        return Pod(self.node).message or Pod(self.last.node).message

    @property
    def template(self) -> str:
        """Name of its template."""
        return str(self.node.get("templateName") or self.last.node.get("templateName") or "")

    @property
    def started(self) -> float | None:
        """When it began."""
        return seconds(self.node.get("startedAt") or self.last.node.get("startedAt"))

    @property
    def ended(self) -> float | None:
        """When it ended."""
        return seconds(self.node.get("finishedAt") or self.last.node.get("finishedAt"))

    def inside(self) -> dict[str, "Step"]:
        """The steps inside the last attempt."""
        return {**self.last.children, **self.children}

    def parameter(self, kind: str, name: str) -> str:
        """The value of an input or output parameter (kind `inputs` or `outputs`); empty if there is none."""
        for step in (self, self.last):
            for one in (step.node.get(kind) or {}).get("parameters") or []:
                if one.get("name") == name:
                    return str(one.get("value") or "")
        return ""

    def label(self) -> str:
        """The task's name for people, from a step that is given the task: driver or importer."""
        found = _LABEL.findall(self.parameter("inputs", "task"))
        return str(json.loads(found[-1])) if found else ""


@dataclass(frozen=True)
class Workflow:
    """A workflow as the server knows it."""

    name: str
    namespace: str
    phase: str
    message: str
    bucket: str
    """Bucket of the logs that Argo keeps."""
    root: Step
    """The whole; inside are `root-driver` and `root`."""


def read(manifest: str) -> Workflow | None:
    """Read a workflow.

    Args:
        manifest: the Workflow as JSON text; empty before there is one.

    Raises:
        UserError: it is no workflow.
    """
    if not manifest:
        return None
    try:
        document = json.loads(manifest)
        metadata, status = document["metadata"], document.get("status") or {}
        nodes = status.get("nodes") or {}
        if status.get("compressedNodes"):
            nodes = json.loads(gzip.decompress(base64.b64decode(status["compressedNodes"])))
        name = str(metadata.get("name") or "")
        builder = _Builder((document.get("spec") or {}).get("templates") or [])
        for node in sorted(nodes.values(), key=_attempts):
            builder.place(name, node)
        builder.expand(builder.root, (), "entrypoint")
        repository = (status.get("artifactRepositoryRef") or {}).get("artifactRepository") or {}
        bucket = str((repository.get("s3") or {}).get("bucket") or "")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"the server's workflow cannot be read ({error!r}); see the run in the UI") from error
    phase, message = str(status.get("phase") or ""), " ".join(str(status.get("message") or "").split())
    return Workflow(name, str(metadata.get("namespace") or ""), phase, message, bucket, builder.root)


def _attempts(node: Mapping[str, Any]) -> tuple[list[int], str]:
    """What to sort nodes by, so that attempts follow each other."""
    name = str(node["name"])
    return [int(attempt) for attempt, _ in _PART.findall(name) if attempt], name


class _Builder:
    def __init__(self, templates: Iterable[Mapping[str, Any]]) -> None:
        self.root = Step()
        self._templates = {one["name"]: one for one in templates}
        self._pods = defaultdict[tuple[str, ...], list[Pod]](list)
        """Pods by the names of the steps that lead to them."""

    def place(self, workflow: str, node: Mapping[str, Any]) -> None:
        """Add a node where its name says."""
        step, path = self.root, tuple[str, ...]()
        for attempt, name in _PART.findall(str(node["name"]).removeprefix(workflow)):
            if name:
                path = (*path, name)
                step = step.children.setdefault(name, Step(pods=self._pods[path]))
            else:
                step = step.attempts.setdefault(int(attempt), Step())
        step.node = node
        if node.get("type") == "Pod" and node.get("phase") not in SKIPPED:
            pods = self._pods[path]
            pods.append(Pod(node, pods))
            if path[-1:] == ("executor",):
                self._pods[path[:-1]].append(pods[-1])

    def expand(self, step: Step, path: tuple[str, ...], template: str) -> None:
        """Add the steps of a template that have not begun, in its order."""
        found = (self._templates.get(template, {}).get("dag") or {}).get("tasks") or []
        tasks = {one["name"]: one for one in found}
        known, step.last.children = step.last.children, {}
        for name in _ordered(tasks):
            task, inner = tasks[name], (*path, name)
            if task.get("withSequence"):
                for item in (one for one in known if one.startswith(f"{name}(")):
                    self.expand(known[item], (*path, item), str(task.get("template")))
                continue
            child = step.last.children[name] = known.pop(name, Step(pods=self._pods[inner]))
            child.node = {"inputs": task.get("arguments") or {}, **child.node}
            self.expand(child, inner, str(task.get("template")))
            hook = ((task.get("hooks") or {}).get("exit") or {}).get("template")
            if hook:
                end = child.children.setdefault("onExit", Step())
                self.expand(end, (*inner, "onExit"), str(hook))
        step.last.children |= known


def _ordered(tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    graph: dict[str, Sequence[str]] = {
        name: [one for one in _DEPENDENCY.findall(str(task.get("depends") or "")) if one in tasks]
        for name, task in tasks.items()
    }
    return iter(TopologicalSorter(graph).static_order())


def seconds(time: object) -> float | None:
    """A time in seconds since the epoch; None for one that has not come, which Go writes as year 1."""
    try:
        found = datetime.fromisoformat(str(time or "").replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
    return found if found > 0 else None
