"""On a real Kubernetes: chart, doctor, and every stage without a GPU as a restricted pod.

Kubeflow Pipelines need not be there: kfp.local walks through the compiled pipeline, and each task becomes the
pod that Kubeflow's driver would make of it (`pods.py`). The tests build on each other.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from pipelines.definitions.choosing import choose
from pipelines.definitions.compiling import compile_pipeline
from pipelines.definitions.profiles import load_profile
from pipelines.local.engine import Request

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

_spec = importlib.util.spec_from_file_location("pods", Path(__file__).with_name("pods.py"))
pods = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pods)
helm = pods.helm
CHART = str(pods.ROOT / "charts" / "b1k")
SMALL = """
    tasks=turning_on_radio episodes=2 steps=4 group_steps=2 batch_size=4 validation_instances=1
    reported_instances=1 workers=1 train.flow_samples=2 train.warmup_steps=1 finetune.warmup_steps=1
    train.save_every=2 train.log_every=1 plan.policy.num_steps=2 plan.videos=1 group.minimum=1
"""
_PAST = """
import os, sys
wrong = []
for top in ("/dataset", "/workspace"):
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            # DVC makes its objects read-only for all; the launcher has no umask
            free = os.path.islink(path) or "/files/md5/" in path or path.startswith("/workspace/kfp")
            if (facts.st_uid, facts.st_gid) != (10001, 10001) or (facts.st_mode & 0o007 and not free):
                wrong.append(f"{path} {facts.st_uid}:{facts.st_gid} {facts.st_mode:o}")
print(*wrong[:20], sep="\\n")
sys.exit(bool(wrong))
"""
"""Finds what belongs to another user, or is open to all."""


def _doctor(namespace: str, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pipelines.cli", "doctor", "--profile", "cluster_small"]
    command += ["--namespace", namespace, *words]
    environment = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def values(storage: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """File with the values of the chart."""
    path = tmp_path_factory.mktemp("values") / "values.yaml"
    given = {
        "storage": storage,
        "images": {"registry": pods.REGISTRY},
        "registry": {"secret": "b1k-registry"},
    }
    path.write_text(yaml.safe_dump(given))
    return str(path)


def test_the_chart_is_installed_upgraded_and_tested(namespace: str, values: str) -> None:
    helm("install", "b1k", CHART, "--namespace", namespace, "--values", values, "--wait")
    print(helm("test", "b1k", "--namespace", namespace, "--logs"))
    upgrade = ("--set", "reports.enabled=true", "--wait", "--timeout", "5m")
    helm("upgrade", "b1k", CHART, "--namespace", namespace, "--values", values, *upgrade)
    printed = helm("test", "b1k", "--namespace", namespace, "--logs")
    print(printed)
    assert "http://b1k-reports/healthz 200" in printed


def test_the_doctor_finds_all_well_but_for_kubeflow_where_it_is_missing(
    core: client.CoreV1Api, namespace: str
) -> None:
    code, printed = _doctor(namespace, "--no-kubeflow")
    assert code == 0
    assert "0 failed, 0 warnings" in printed
    services = core.list_service_for_all_namespaces(field_selector="metadata.name=ml-pipeline").items
    code, printed = _doctor(namespace)
    assert code == (0 if services else 1)
    assert ("0 failed" if services else "1 failed, 0 warnings") in printed


def test_pods_of_another_user_are_refused(namespace: str, tmp_path: Path) -> None:
    pod = _pod_of("settings", pods.Package(_compiled(tmp_path)), "other", {})
    pod["spec"]["containers"][0]["securityContext"] = {}
    with pytest.raises(client.ApiException, match="violates PodSecurity"):
        pods.Cluster(namespace).create(pod)


def _compiled(folder: Path, pipeline: str = "demo") -> Path:
    path = folder / f"{pipeline}.yaml"
    compile_pipeline(pipeline, "cluster_small", path, registry=pods.REGISTRY)
    return path


def _pod_of(stage: str, package: Any, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    container, settings = package.executor(["python3", "-m", f"components.{stage}"])
    given = {**package.parameters(stage), **parameters}
    task = {
        "inputs": {"parameterValues": given},
        "outputs": {"outputFile": "/tmp/out/executor_output.json"},
    }
    command = pods.command_of(container, task, "/tmp/out")
    return pods.manifest(name, container, settings, command, "b1k-runner")


def test_wrong_values_are_refused_once(namespace: str, tmp_path: Path) -> None:
    package, cluster = pods.Package(_compiled(tmp_path)), pods.Cluster(namespace)
    cluster.create(_pod_of("settings", package, "refused", {"batch_size": -1, "steps": 0}))
    assert cluster.wait("refused") == 2
    log = pods.unpack(cluster.log("refused"), tmp_path)
    print(log)
    assert "batch_size is -1" in log
    assert "attempt" not in log, "a mistake is not tried again"


def test_every_stage_runs_as_a_restricted_pod_through_a_crash_and_a_lost_pod(
    namespace: str, tmp_path: Path
) -> None:
    given = choose("demo", "cluster_small", [SMALL.split()])
    package = _compiled(tmp_path)
    request = Request(str(package), given.as_dict(), str(tmp_path), str(tmp_path / "events.jsonl"), {})
    request.save(tmp_path / "request.json")
    plan = {"namespace": namespace, "account": "b1k-runner", "crash": "train", "lose": "evaluate"}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    engine = Path(__file__).with_name("engine.py")
    began = time.monotonic()
    command = [sys.executable, str(engine), str(tmp_path / "request.json"), str(tmp_path / "plan.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=pods.ROOT)
    events = [json.loads(line)["said"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    print(*events, f"{time.monotonic() - began:.0f} s", sep="\n")
    logs = {path.stem: path.read_text() for path in (tmp_path / "logs").glob("*.log")}
    assert done.returncode == 0, done.stdout + done.stderr + "\n".join(logs.values())

    steps = load_profile("cluster_small").steps.keys() - {"news"}
    assert {name for name in steps for log in logs if name in log} == steps
    (told,) = [log for name, log in logs.items() if name.startswith("notify")]
    assert "nobody is told" in told
    (crashed,) = [log for log in logs.values() if "attempt 1 of 3 ended with signal SIGKILL" in log]
    assert "train: done" in crashed or "policy common" in crashed
    assert sum(one.endswith(": lost") for one in events) == 1
    assert sum("its pod is deleted" in one for one in events) == 1
    told_argo = {path.parent.name: path.read_text().strip() for path in tmp_path.rglob(pods.PROGRESS)}
    print(told_argo)
    assert {told_argo[name] for name in ("collect", "train")} == {"2/2", "4/4"}


def test_the_stage_that_looks_for_news_runs_as_a_restricted_pod(namespace: str, tmp_path: Path) -> None:
    cluster = pods.Cluster(namespace)
    cluster.create(_pod_of("news", pods.Package(_compiled(tmp_path, "retrain")), "news", {}))
    assert cluster.wait("news") == 0, cluster.log("news")
    log = pods.unpack(cluster.log("news"), tmp_path)
    print(log)
    assert "news: done" in log


def test_what_stages_wrote_is_theirs_and_closed_to_others(namespace: str, tmp_path: Path) -> None:
    package, cluster = pods.Package(_compiled(tmp_path)), pods.Cluster(namespace)
    container, settings = package.executor(["python3", "-m", "components.collect"])
    look = pods.manifest("look", container, settings, ["python3", "-c", _PAST], "b1k-runner")
    cluster.create(look)
    assert cluster.wait("look") == 0, cluster.log("look")


def test_uninstalling_leaves_the_volumes(core: client.CoreV1Api, namespace: str) -> None:
    helm("uninstall", "b1k", "--namespace", namespace, "--wait")
    claims = core.list_namespaced_persistent_volume_claim(namespace).items
    assert {claim.metadata.name for claim in claims} == {"b1k-dataset", "b1k-workspace"}
    assert not client.AppsV1Api().list_namespaced_deployment(namespace).items
