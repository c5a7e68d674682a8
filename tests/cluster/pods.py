"""Pods for the tasks of a compiled pipeline, made from its IR as Kubeflow's driver makes them."""

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config, stream

ROOT = Path(__file__).parents[2]
HELM = Path(sys.executable).with_name("helm")
REGISTRY = os.environ.get("B1K_TEST_REGISTRY", "localhost/b1k")
_MARK = "\n== outputs of the task ==\n"
PROGRESS = "progress"
# As Argo and the launcher do: no umask, folders for the outputs, and what the task wrote is handed on.
_LAUNCHER = f"""umask 0; mkdir -p "$0"; export ARGO_PROGRESS_FILE="$0/{PROGRESS}"; "$@"; code=$?
printf '%s' '{_MARK}'; tar -C "$0" -cz . | base64 -w0; exit $code"""
_POLL = 1.0
_PENDING = 300.0


class Package:
    """A compiled pipeline."""

    def __init__(self, path: Path) -> None:
        documents = list(yaml.safe_load_all(path.read_text()))
        self.spec: dict[str, Any] = documents[0]
        self.settings: dict[str, Any] = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self._executors: dict[str, Any] = self.spec["deploymentSpec"]["executors"]

    def executor(self, command: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Container and Kubernetes settings of the tasks that a command starts."""
        for name, executor in self._executors.items():
            if executor["container"]["command"] == list(command):
                return executor["container"], self.settings[name]
        raise AssertionError(f"no executor for {command}")

    def parameters(self, task: str) -> dict[str, Any]:
        """The parameters of a task, from constants and the defaults of the pipeline's inputs."""
        defaults = self.spec["root"]["inputDefinitions"]["parameters"]
        dags = [one["dag"]["tasks"] for one in self.spec["components"].values() if "dag" in one]
        (given,) = [tasks[task]["inputs"]["parameters"] for tasks in dags if task in tasks]
        return {
            name: one["runtimeValue"]["constant"]
            if "runtimeValue" in one
            else defaults[one["componentInputParameter"].removeprefix("pipelinechannel--")]["defaultValue"]
            for name, one in given.items()
        }


def manifest(
    name: str, container: Mapping[str, Any], settings: Mapping[str, Any], command: Sequence[str], account: str
) -> dict[str, Any]:
    """A pod with all that the compiled pipeline says of a task; `command` has its placeholders resolved."""
    resources = container.get("resources", {})
    assert "accelerator" not in resources, "a pod of a CPU stage"
    requests = {
        kind: resources[key]
        for kind, key in (("cpu", "resourceCpuRequest"), ("memory", "resourceMemoryRequest"))
        if key in resources
    }
    limits = {"memory": resources["resourceMemoryLimit"]} if "resourceMemoryLimit" in resources else {}
    user = settings["securityContext"]
    volumes, mounts = [], []
    for number, mount in enumerate(settings.get("pvcMount", [])):
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": mount["constant"]}})
        mounts.append({"name": f"claim-{number}", "mountPath": mount["mountPath"]})
    for mount in settings.get("emptyDirMounts", []):
        medium = {"medium": mount["medium"], "sizeLimit": mount["sizeLimit"]}
        volumes.append({"name": mount["volumeName"], "emptyDir": medium})
        mounts.append({"name": mount["volumeName"], "mountPath": mount["mountPath"]})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": settings.get("podMetadata", {}).get("labels", {})},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": account,
            "activeDeadlineSeconds": int(settings["activeDeadlineSeconds"]),
            "imagePullSecrets": [{"name": one["secretName"]} for one in settings.get("imagePullSecret", [])],
            "volumes": volumes,
            "containers": [
                {
                    "name": "main",
                    "image": container["image"],
                    "command": list(command),
                    "env": [*container.get("env", []), *_variables(settings)],
                    "resources": {"requests": requests, "limits": limits},
                    "volumeMounts": mounts,
                    "securityContext": {
                        "runAsUser": int(user["runAsUser"]),
                        "runAsGroup": int(user["runAsGroup"]),
                        "runAsNonRoot": user["runAsNonRoot"],
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }
            ],
        },
    }


def _variables(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    kinds = (
        ("secretAsEnv", "secretName", "secretKey", "secretKeyRef"),
        ("configMapAsEnv", "configMapName", "configMapKey", "configMapKeyRef"),
    )
    for kind, name, key, reference in kinds:
        for one in settings.get(kind, []):
            for each in one["keyToEnv"]:
                source = {"name": one[name], "key": each[key], "optional": one.get("optional", False)}
                yield {"name": each["envVar"], "valueFrom": {reference: source}}


class Cluster:
    """A namespace of the cluster of the kubeconfig."""

    def __init__(self, namespace: str) -> None:
        config.load_kube_config()
        self.core = client.CoreV1Api()
        self.namespace = namespace

    def create(self, pod: Mapping[str, Any]) -> str:
        """Create a pod; returns its name."""
        return str(self.core.create_namespaced_pod(self.namespace, pod).metadata.name)

    def read(self, name: str) -> Any | None:
        """The pod, or None once it is gone."""
        try:
            return self.core.read_namespaced_pod(name, self.namespace)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise

    def log(self, name: str) -> str:
        """What the pod has written so far."""
        try:
            answer = self.core.read_namespaced_pod_log(name, self.namespace, _preload_content=False)
        except client.ApiException:  # it does not run yet, or is gone
            return ""
        return str(answer.data.decode(errors="replace"))

    def execute(self, name: str, *command: str) -> str:
        """What a command in the pod prints."""
        method = self.core.connect_get_namespaced_pod_exec
        return str(
            stream.stream(
                method, name, self.namespace, command=list(command), stdout=True, stderr=True, stdin=False
            )
        )

    def delete(self, name: str) -> None:
        """Delete a pod as the loss of its node does: at once."""
        with suppress(client.ApiException):
            self.core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=0)

    def wait(self, name: str) -> int | None:
        """The exit code of a pod's program; None if the pod was lost."""
        began = time.monotonic()
        while (pod := self.read(name)) is not None and pod.metadata.deletion_timestamp is None:
            phase = pod.status.phase
            if phase in ("Succeeded", "Failed"):
                states = pod.status.container_statuses or []
                ended = states[0].state.terminated if states else None
                assert ended is not None, f"{name}: {pod.status.reason}: {pod.status.message}"
                return int(ended.exit_code)
            if phase == "Pending" and time.monotonic() - began > _PENDING:
                said = [one.message for one in pod.status.conditions or [] if one.message]
                said += [
                    one.state.waiting.message or one.state.waiting.reason
                    for one in pod.status.container_statuses or []
                    if one.state.waiting
                ]
                raise AssertionError(f"{name} does not start: {'; '.join(said)}")
            time.sleep(_POLL)
        return None


def command_of(container: Mapping[str, Any], task: Mapping[str, Any], outputs: str) -> list[str]:
    """The command of a task's container in the launcher; `outputs` is the folder of what it writes."""
    words = [json.dumps(task) if word == "{{$}}" else word for word in container["args"]]
    return launched([*container["command"], *words], outputs)


def launched(command: Sequence[str], outputs: str) -> list[str]:
    """A command with all placeholders resolved, in the launcher."""
    return ["sh", "-c", _LAUNCHER, outputs, *command]


def unpack(log: str, folder: Path) -> str:
    """Write what a task handed on into a folder; returns what it printed."""
    printed, _, packed = log.partition(_MARK)
    if packed:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed))) as archive:
            archive.extractall(folder, filter="data")
    return printed


def helm(*words: str) -> str:
    """What helm prints; fails the test with its errors."""
    done = subprocess.run([HELM, *words], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
