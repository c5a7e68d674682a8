"""What the pods of a run wrote: from the pods themselves, else from the server; else where it may be kept."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import urllib3
from kubernetes import client, config

from components.errors import UserError
from pipelines.cluster.checks import Cluster
from pipelines.cluster.connection import UnavailableError
from pipelines.cluster.log_lines import progress, reason
from pipelines.cluster.server import Server
from pipelines.cluster.workflow import ENDED, Pod, Workflow
from pipelines.tree import STARTED, Node

_TAIL = 200
"""Lines that are read of a log for progress and reasons."""
_LONGEST = 5
"""Seconds that the Kubernetes API may take: it is not needed, and often out of reach."""
_NODE_ID = "workflows.argoproj.io/node-id"


@dataclass(frozen=True)
class Kubeconfig:
    """How the pods of a run are reached, for their logs."""

    kubeconfig: str = ""
    """Kubeconfig file, for logs straight from the pods; empty for KUBECONFIG, ~/.kube/config, or the account
    of the pod."""
    context: str = ""
    """Context of the kubeconfig; empty for its current one."""


class Logs:
    """The logs of a run.

    Args:
        server: where it runs.
        run: its ID.
        workflow: its workflow.
        place: how its pods are reached.
    """

    def __init__(self, server: Server, run: str, workflow: Workflow, place: Kubeconfig) -> None:
        self._server, self._run, self._workflow = server, run, workflow
        self._cluster: Cluster | None = None
        with suppress(config.ConfigException):
            self._cluster = Cluster(place.kubeconfig, place.context, _LONGEST)
        self._names: dict[str, str] = {}
        """Names of pods, by themselves and by the IDs of their nodes."""
        self._gone: set[str] = set()
        """IDs of ended pods that are not in the cluster."""

    def pieces(self, pod: Pod, *, follow: bool = False) -> Iterator[bytes]:
        """The log of a pod, piece by piece.

        Args:
            pod: which.
            follow: until it ends, where the pod itself is reached.

        Raises:
            UnavailableError: the pod or the server answers no more; another try may succeed.
            UserError: nobody has it; the message says where it may be.
        """
        stream = self._open(pod, follow=follow)
        if stream is not None:
            try:
                yield from stream.stream()
            except urllib3.exceptions.HTTPError as error:
                if not follow or pod.phase in ENDED:  # else the next look goes on
                    raise UnavailableError(
                        f"the connection to the pod {pod.name} was lost ({error}); its log goes on after "
                        "what was read. Try again"
                    ) from error
            return
        try:
            yield self._server.log(self._run, pod.names)
        except UnavailableError:
            raise
        except UserError as error:
            raise UserError(f"{error}. {self._elsewhere(pod)}") from error

    def explain(self, node: Node) -> None:
        """Add to a task what the log of its last attempt says: its progress, or why it failed.

        Raises:
            UnavailableError: the server gives no answer.
        """
        if not node.pods:
            return
        pod = node.pods[-1]
        try:
            stream = self._open(pod, tail_lines=_TAIL)
            data = stream.data if stream is not None else self._server.log(self._run, pod.names)
        except UnavailableError:
            raise
        except (UserError, urllib3.exceptions.HTTPError):
            return
        lines = [line for line in data.decode("utf-8", "replace").splitlines()[-_TAIL:] if line.strip()]
        if node.state == STARTED:
            node.progress = progress(lines) or node.progress
        elif said := reason(lines):
            node.message = f"{node.message}: {said}" if node.message else said

    def _open(self, pod: Pod, **options: Any) -> Any:
        """Kubernetes' answer with the log of a pod; None where there is none."""
        if self._cluster is None or pod.id in self._gone:
            return None
        core, place = self._cluster.core, self._workflow.namespace
        try:
            name = self._names.get(pod.id) or self._names.get(pod.name)
            if name is None:
                selector = f"pipeline/runid={self._run}"
                for one in self._cluster.ask(core.list_namespaced_pod, place, label_selector=selector).items:
                    self._names[one.metadata.name] = one.metadata.name
                    self._names[(one.metadata.annotations or {}).get(_NODE_ID, "")] = one.metadata.name
                name = self._names.get(pod.id) or self._names.get(pod.name)
            if name is None:
                if pod.phase in ENDED:
                    self._gone.add(pod.id)
                return None
            # between two lines of a log may lie hours
            options["_request_timeout"] = (_LONGEST, None if options.get("follow") else _LONGEST)
            options |= {"container": "main", "_preload_content": False}
            return core.read_namespaced_pod_log(name, place, **options)
        except client.ApiException as error:
            if error.status in (401, 403):  # no pod is ours to see
                self._cluster = None
            return None  # else it is gone, or its container has not started
        except urllib3.exceptions.HTTPError:
            self._cluster = None
            return None

    def _elsewhere(self, pod: Pod) -> str:
        if pod.log_uri:
            return f"The task's artifact executor-logs is at {pod.log_uri}, with -0, -1 ... for its attempts"
        if pod.log_key and self._workflow.bucket:
            return f"Argo keeps it at s3://{self._workflow.bucket}/{pod.log_key}"
        return f"While its pod is there: kubectl logs --selector pipeline/runid={self._run} --container main"
