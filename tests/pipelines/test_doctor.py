"""`b1k doctor` against servers of the Kubernetes API and of S3, over HTTP; and on this machine."""

import base64
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from kubernetes.config import ConfigException

from components.errors import UserError
from pipelines.cluster.checks import Cluster
from pipelines.tools import doctor
from pipelines.tools.doctor import Options, check_s3


def _load_stub() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "kubernetes_stub", Path(__file__).parent / "kubernetes_stub.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kubernetes_stub = _load_stub()
SECRET_VALUE = "do-not-print-this-value"
NAMESPACE = "robots"


def _node(name: str, product: str, gpus: int, cpu: str, memory: str, tainted: bool = True) -> dict[str, Any]:
    resources = {
        "cpu": cpu,
        "memory": memory,
        "pods": "110",
        **({"nvidia.com/gpu": str(gpus)} if gpus else {}),
    }
    taints = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}] if gpus and tainted else []
    labels = {"kubernetes.io/hostname": name, **({"nvidia.com/gpu.product": product} if gpus else {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints},
        "status": {
            "allocatable": resources,
            "capacity": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def _secret(name: str, kind: str = "Opaque", **data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": encoded}


def _claim(name: str, phase: str = "Bound", mode: str = "ReadWriteMany") -> dict[str, Any]:
    status = {"phase": phase}
    if phase == "Bound":
        status |= {"accessModes": [mode], "capacity": {"storage": "2Ti"}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"accessModes": [mode], "resources": {"requests": {"storage": "2Ti"}}},
        "status": status,
    }


def _settings(mode: str) -> dict[str, Any]:
    metadata = {"name": "b1k-settings", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"WANDB_MODE": mode}}


def _argo(**data: str) -> dict[str, Any]:
    """Argo's settings, by default as Kubeflow Pipelines installs them."""
    metadata = {"name": "workflow-controller-configmap", "namespace": "kubeflow"}
    given = data or {"artifactRepository": "archiveLogs: true\ns3: {bucket: mlpipeline}\n"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": given}


def _deployment(tag: str) -> dict[str, Any]:
    labels = {"app": "ml-pipeline"}
    container = {"name": "ml-pipeline-api-server", "image": f"registry.example.org/kfp-api-server:{tag}"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "ml-pipeline", "namespace": "kubeflow"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@pytest.fixture
def stub() -> Iterator[Any]:
    """A cluster where nothing is missing for h200x8."""
    server = kubernetes_stub.Stub()
    server.put(_node("big", "NVIDIA-H200", 8, "192", "2000Gi"))
    for number in range(4):
        server.put(_node(f"rtx-{number}", "NVIDIA-L40S", 4, "64", "500Gi"))
    server.put(_node("cpu", "", 0, "64", "256Gi"))
    server.put(_claim("b1k-dataset"))
    server.put(_claim("b1k-workspace"))
    server.put(_secret("b1k-s3", AWS_ACCESS_KEY_ID=SECRET_VALUE, AWS_SECRET_ACCESS_KEY=SECRET_VALUE))
    server.put(_secret("b1k-wandb", WANDB_API_KEY=SECRET_VALUE))
    logins = json.dumps({"auths": {"registry.example.org": {"auth": SECRET_VALUE}}})
    pull = _secret("b1k-registry", "kubernetes.io/dockerconfigjson", **{".dockerconfigjson": logins})
    server.put(pull)
    server.put(_settings("online"))
    account = {"name": "b1k-runner", "namespace": NAMESPACE}
    server.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    server.put(_deployment("2.17.0"))
    server.put(_argo())
    yield server
    server.close()


class Doctor:
    """Runs the command against the stub."""

    def __init__(self, stub: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = folder / "kubeconfig"
        self.path.write_text(yaml.safe_dump(stub.kubeconfig()))
        self.capsys = capsys
        self.text = ""

    def __call__(self, **options: Any) -> int:
        code = doctor.run(Options(namespace=NAMESPACE, kubeconfig=str(self.path), timeout=5, **options))
        self.text = " ".join(self.capsys.readouterr().out.replace("│", " ").split())
        assert SECRET_VALUE not in self.text
        assert base64.b64encode(SECRET_VALUE.encode()).decode() not in self.text
        return code


@pytest.fixture
def run(
    stub: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Doctor:
    monkeypatch.setenv("COLUMNS", "250")
    return Doctor(stub, tmp_path, capsys)


def test_a_complete_cluster_passes(run: Doctor) -> None:
    assert run() == 0
    assert "0 failed, 1 warnings" in run.text, "only S3 was not asked for"
    for found in (
        "v1.36.0 at http://127.0.0.1",
        "healthy, version 2.17.0, for one user",
        "Argo Workflows ok lost pods are replaced, programs that fail are not",
        "b1k-runner may do what the pods of a run need",
        "nodes for train ok 1 of 6 nodes take 8 x NVIDIA-H200, 96 CPUs, 1200Gi",
        "nodes for evaluate ok 4 of 6 nodes take 1 x NVIDIA-L40S or like",
        "volume b1k-workspace ok bound, 2Ti, ReadWriteMany",
        "secret b1k-s3 ok has AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
        "secret b1k-wandb ok has WANDB_API_KEY",
        "b1k-registry for registry.example.org",
    ):
        assert found in run.text


def _drop(stub: Any, plural: str, name: str) -> None:
    del stub.objects[plural, "" if plural == "nodes" else NAMESPACE, name]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: setattr(s, "version", "1.27"), "Kubernetes API fail v1.27.0"),
        (lambda s: setattr(s, "health", None), "Kubeflow Pipelines fail service ml-pipeline in kubeflow"),
        (lambda s: setattr(s, "health", b"<html>login</html>"), "has no health of API v2beta1"),
        (lambda s: s.put(_deployment("1.8.5")), "fail version 1.8.5 the pipelines need version 2"),
        (lambda s: s.denied.add(("b1k-runner", "create", "workflowtaskresults")), "may not: create"),
        (lambda s: s.denied.add(("b1k-runner", "get", "pods")), "b1k-runner may not: get pods"),
        (lambda s: _drop(s, "serviceaccounts", "b1k-runner"), "no b1k-runner in robots helm install"),
        (lambda s: _drop(s, "nodes", "big"), "cpu: nvidia.com/gpu.product is not set"),
        (lambda s: s.put(_node("big", "NVIDIA-H200", 4, "192", "2000Gi")), "big: has 4 of nvidia.com/gpu"),
        (lambda s: s.put(_node("big", "NVIDIA-H200", 8, "192", "800Gi")), "big: has 800Gi of memory"),
        (lambda s: _drop(s, "persistentvolumeclaims", "b1k-dataset"), "b1k-dataset fail no such claim"),
        (lambda s: s.put(_claim("b1k-dataset", "Pending")), "volume b1k-dataset fail is Pending"),
        (lambda s: _drop(s, "secrets", "b1k-wandb"), "needed, as WANDB_MODE is online"),
        (lambda s: s.put(_secret("b1k-wandb", WANDB_API_KEY="")), "fail has no WANDB_API_KEY"),
        (lambda s: s.put(_secret("b1k-registry", key="x")), "b1k-registry (Opaque) is no pull secret"),
    ],
)  # fmt: skip
def test_what_is_missing_fails_and_is_named(stub: Any, run: Doctor, change: Any, said: str) -> None:
    change(stub)
    assert run() == 1
    assert "1 failed" in run.text
    assert said in run.text


_ALWAYS = "spec: {templateDefaults: {retryStrategy: {limit: 2, retryPolicy: Always}}}"
_DAY = "spec: {activeDeadlineSeconds: 86400}"
_NO_LOGS = "spec: {podGC: {strategy: OnPodCompletion}}"


def _drop_argo(stub: Any) -> None:
    del stub.objects["configmaps", "kubeflow", "workflow-controller-configmap"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: _drop(s, "nodes", "rtx-0"), "12 GPUs on 3 nodes for 16 pods of 1"),
        (lambda s: s.put(_claim("b1k-dataset", mode="ReadWriteOnce")), "only ReadWriteOnce"),
        (lambda s: _drop(s, "secrets", "b1k-s3"), "secret b1k-s3 warning is not in robots"),
        (lambda s: _drop(s, "secrets", "b1k-registry"), "no b1k-registry in robots; public images need none"),
        (lambda s: _drop_argo(s), "Argo Workflows warning there is no config map workflow-controller"),
        (
            lambda s: s.put(_argo(workflowDefaults=_ALWAYS)),
            "retryPolicy Always: programs that fail",
        ),
        (lambda s: s.put(_argo(config=f"workflowDefaults: {{{_DAY}}}")), "ends every run after 24 hours"),
        (
            lambda s: s.put(_argo(workflowDefaults=_NO_LOGS)),
            "pods are removed (OnPodCompletion) and",
        ),
        (lambda s: s.forbidden.add("nodes"), "nodes warning cannot be checked: 403 Forbidden"),
        (lambda s: s.forbidden.add("localsubjectaccessreviews"), "service account warning cannot be checked"),
    ],
)
def test_what_a_run_can_do_without_is_a_warning(stub: Any, run: Doctor, change: Any, said: str) -> None:
    change(stub)
    assert run() == 0
    assert "0 failed, 2 warnings" in run.text
    assert said in run.text


def test_a_small_cluster_needs_neither_keys_nor_shared_volumes_nor_kubeflow_yet(
    stub: Any, run: Doctor
) -> None:
    for name in [name for kind, _, name in stub.objects if kind == "nodes"]:
        _drop(stub, "nodes", name)
    stub.put(_node("one", "", 0, "2", "16Gi"))
    for name in ("b1k-dataset", "b1k-workspace"):
        stub.put(_claim(name, mode="ReadWriteOnce"))
    for name in ("b1k-s3", "b1k-wandb"):
        _drop(stub, "secrets", name)
    assert run(profile="cluster_small") == 0
    assert "0 failed, 0 warnings" in run.text
    assert "ReadWriteOnce on the only node" in run.text
    stub.health = None
    assert run(profile="cluster_small") == 1
    assert "1 failed, 0 warnings" in run.text
    assert run(profile="cluster_small", kubeflow=False) == 0
    assert "Kubeflow" not in run.text


def test_offline_tracking_needs_no_key(stub: Any, run: Doctor) -> None:
    stub.put(_settings("offline"))
    _drop(stub, "secrets", "b1k-wandb")
    assert run() == 0
    assert "secret b1k-wandb warning is not in robots" in run.text


def test_a_foreign_taint_and_a_node_that_is_not_ready_are_no_nodes(stub: Any, run: Doctor) -> None:
    node = _node("big", "NVIDIA-H200", 8, "192", "2000Gi")
    node["spec"]["taints"].append({"key": "team", "value": "vision", "effect": "NoSchedule"})
    stub.put(node)
    assert run() == 1
    assert "big: taint team is not tolerated" in run.text
    node["spec"] = {}
    node["status"]["conditions"][0]["status"] = "False"
    stub.put(node)
    assert run() == 1
    assert "none of 5 ready nodes takes 8 x NVIDIA-H200" in run.text
    assert run(autoscaled=True) == 0


def test_permissions_are_asked_where_kubeflow_has_many_users(stub: Any, run: Doctor) -> None:
    stub.health = b'{"multi_user":true}'
    assert run() == 0
    assert "your permissions ok" in run.text
    stub.denied.add(("me", "create", "runs"))
    assert run() == 1
    assert "you may not: create runs" in run.text


def test_nobody_there_and_wrong_tokens_end_at_once(stub: Any, run: Doctor) -> None:
    stub.token = "another"
    assert run() == 1
    assert "Unauthorized" in run.text
    assert "service account" not in run.text, "nothing more is asked"
    stub.close()
    assert run() == 1
    assert "does not answer" in run.text


def test_no_kubeconfig_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no usable kubeconfig"):
        doctor.run(Options(kubeconfig=str(tmp_path / "nothing")))


def test_a_pod_asks_with_its_own_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_TOKEN_FILENAME", "SERVICE_CERT_FILENAME"):
        (tmp_path / name).write_text("content")
        monkeypatch.setattr(f"kubernetes.config.incluster_config.{name}", str(tmp_path / name))
    missing = str(tmp_path / "none")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", missing)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert Cluster("", "", 1).host == "https://10.0.0.1:443"
    with pytest.raises(ConfigException):
        Cluster(missing, "", 1)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server of S3 with a bucket, and credentials in the environment."""
    import botocore.session
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET_VALUE,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3 = botocore.session.get_session().create_client("s3")
    s3.create_bucket(Bucket="demos")
    yield s3
    s3.close()
    server.stop()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_s3_is_written_read_and_left_as_it_was(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_s3("s3://demos/dvc").status == "ok"
    assert bucket.list_objects_v2(Bucket="demos")["KeyCount"] == 0
    missing = check_s3("s3://nowhere/dvc")
    assert missing.status == "fail"
    assert "cannot write" in missing.found
    assert "NoSuchBucket" in missing.found
    assert check_s3("").status == "warning"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials" in check_s3("s3://demos").found
    with pytest.raises(UserError, match="expected s3://BUCKET/PREFIX"):
        check_s3("demos")


def test_this_machine_runs_the_demo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert doctor.run(Options(profile="laptop", workspace=tmp_path / "not" / "made")) == 0
    text = capsys.readouterr().out
    for check in ("Python", "packages", "EGL", "file locks", "disk", "memory", "git"):
        assert check in text
    assert f"the file system of {tmp_path} has flock" in text
    assert not list(tmp_path.iterdir())


def test_a_machine_without_a_package_is_told() -> None:
    program = (
        "import sys\nsys.modules['kfp'] = None\nsys.argv = ['b1k', 'doctor', '--local']\n"
        "from pipelines import cli\ncli.main()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert answer.returncode == 1, answer.stderr
    assert "not installed: kfp" in answer.stdout


@pytest.mark.parametrize(
    ("locks", "said"),
    [
        (lambda _: False, "has no flock"),
        (lambda folder: (folder / "missing" / "file").touch(), "No such file or directory"),
    ],
)
def test_a_workspace_without_locks_fails(
    locks: Any, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(doctor, "supports_locks", locks)
    assert doctor.run(Options(local=True, workspace=tmp_path)) == 1
    text = capsys.readouterr().out
    assert said in text
    assert "1 failed" in text


def test_a_machine_without_rendering_or_git_is_told_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.run(Options(local=True)) == 1
    text = capsys.readouterr().out
    assert "apt-get install libegl1 libgl1-mesa-dri" in text
    assert "apt-get install git" in text
