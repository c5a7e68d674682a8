"""A namespace with the restricted pod security standard on the cluster of the kubeconfig, with the chart.

The nodes have, or can pull, REGISTRY/toolbox and REGISTRY/household of this version, where REGISTRY is
B1K_TEST_REGISTRY or localhost/b1k. Volumes are of the default storage class, else folders of a node.
"""

import importlib.util
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client, config

from pipelines.definitions.images import image
from pipelines.definitions.profiles.profile import USER

CLAIMS = ("dataset", "workspace")

_spec = importlib.util.spec_from_file_location("pods", Path(__file__).with_name("pods.py"))
pods = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pods)


@pytest.fixture(scope="session")
def core() -> client.CoreV1Api:
    """The API of the cluster."""
    try:
        config.load_kube_config()
        client.VersionApi().get_code(_request_timeout=10)
    except config.ConfigException as error:
        pytest.skip(f"no kubeconfig: {error}")
    except (urllib3.exceptions.HTTPError, client.ApiException) as error:
        pytest.skip(f"the cluster of the kubeconfig does not answer: {error}")
    return client.CoreV1Api()


@pytest.fixture(scope="session")
def namespace(core: client.CoreV1Api) -> Iterator[str]:
    """A namespace that takes only pods of the restricted standard, with a pull secret."""
    name = f"b1k-test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": name, "labels": labels}})
    secret = {
        "metadata": {"name": "b1k-registry"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": '{"auths": {"registry.example.org": {"auth": "dTpw"}}}'},
    }
    core.create_namespaced_secret(name, secret)
    yield name
    core.delete_namespace(name)


@pytest.fixture(scope="session")
def storage(core: client.CoreV1Api, namespace: str) -> Iterator[dict[str, Any]]:
    """Values of the chart for two volumes that belong to the user of the stages."""
    classes = client.StorageV1Api().list_storage_class().items
    default = "storageclass.kubernetes.io/is-default-class"
    if any((one.metadata.annotations or {}).get(default) == "true" for one in classes):
        values = {name: {"size": "5Gi", "accessMode": "ReadWriteOnce"} for name in CLAIMS}
        yield {"singleNode": True, **values}
        return
    node = core.list_node().items[0].metadata.labels["kubernetes.io/hostname"]
    folders = [f"/node/{namespace}/{name}" for name in CLAIMS]
    owner = f"chown {USER}:{USER} {' '.join(folders)}"
    _on_node(core, f"{namespace}-before", node, f"mkdir -p {' '.join(folders)} && {owner}")
    for name in CLAIMS:
        core.create_persistent_volume(
            {
                "metadata": {"name": f"{namespace}-{name}"},
                "spec": {
                    "capacity": {"storage": "5Gi"},
                    "accessModes": ["ReadWriteMany"],
                    "hostPath": {"path": f"/var/tmp/{namespace}/{name}"},
                    "claimRef": {"namespace": namespace, "name": f"b1k-{name}"},
                },
            }
        )
    yield {name: {"size": "5Gi"} for name in CLAIMS}
    for name in CLAIMS:
        core.delete_persistent_volume(f"{namespace}-{name}")
    _on_node(core, f"{namespace}-after", node, f"rm -r /node/{namespace}")


def _on_node(core: client.CoreV1Api, namespace: str, node: str, script: str) -> None:
    """Run a script as root with /var/tmp of the node as /node, in a namespace of its own."""
    core.create_namespace({"metadata": {"name": namespace}})
    pod = {
        "metadata": {"name": "folders"},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {"kubernetes.io/hostname": node},
            "volumes": [{"name": "node", "hostPath": {"path": "/var/tmp"}}],
            "containers": [
                {
                    "name": "main",
                    "image": image("household", pods.REGISTRY),
                    "command": ["sh", "-c", script],
                    "securityContext": {"runAsUser": 0},
                    "volumeMounts": [{"name": "node", "mountPath": "/node"}],
                }
            ],
        },
    }
    cluster = pods.Cluster(namespace)
    _when_there_is_an_account(core, namespace)
    cluster.create(pod)
    assert cluster.wait("folders") == 0, cluster.log("folders")
    core.delete_namespace(namespace)


def _when_there_is_an_account(core: client.CoreV1Api, namespace: str) -> None:
    for _ in range(60):
        if core.list_namespaced_service_account(namespace).items:
            return
        time.sleep(1)
