"""The chart: lints, renders objects that Kubernetes accepts, and refuses values that could not work."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipelines.definitions.profiles.h200x8 import PROFILE as H200X8

CHART = Path(__file__).parents[2] / "charts" / "b1k"
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
VALUES = Path(__file__).parent / "values"
CASES = {"defaults": {}} | {
    one.stem: yaml.safe_load(one.read_text()) for one in sorted(VALUES.glob("*.yaml"))
}
EVERYTHING, BROUGHT, SERVICES = CASES["everything"], CASES["brought"], CASES["services"]
KUEUE, OPEN, CUSTOM_METRIC = CASES["kueue"], CASES["open"], CASES["custom-metric"]
MULTI_NODE, MULTI_NODE_PLAIN = CASES["multi-node"], CASES["multi-node-plain"]
CLUSTER_WIDE = {"PriorityClass", "ResourceFlavor", "ClusterQueue"}
KUBERNETES = ("1.28", "1.31", "1.34", "1.36", "1.37")


NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
STRINGS = {"type": "object", "maxProperties": 8, "additionalProperties": {"type": "string"}}


def closed(required: list[str], **properties: dict) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def kueue(kind: str, spec: dict) -> dict:
    """Schema of a kind, of what we use of it; field names and limits as in Kueue's CRDs."""
    versions = {"enum": ["kueue.x-k8s.io/v1beta1", "kueue.x-k8s.io/v1beta2"]}
    return closed(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion=versions,
        kind={"const": kind},
        metadata={"type": "object"},
        spec=spec,
    )


TOLERATION = closed(
    [], key={"type": "string"}, operator={"enum": ["Exists", "Equal"]}, effect={"type": "string"}
)
QUOTA = closed(["name", "nominalQuota"], name={"type": "string"}, nominalQuota={"type": "string"})
RESOURCES = {"type": "array", "minItems": 1, "maxItems": 64, "items": QUOTA}
FLAVOR_QUOTA = closed(["name", "resources"], name=NAME, resources=RESOURCES)
GROUP = closed(
    ["coveredResources", "flavors"],
    coveredResources={"type": "array", "minItems": 1, "items": {"type": "string"}},
    flavors={"type": "array", "minItems": 1, "maxItems": 64, "items": FLAVOR_QUOTA},
)
KUEUE_SCHEMAS = {
    "ResourceFlavor": kueue(
        "ResourceFlavor",
        closed([], nodeLabels=STRINGS, tolerations={"type": "array", "maxItems": 8, "items": TOLERATION}),
    ),
    "ClusterQueue": kueue(
        "ClusterQueue",
        closed(
            ["namespaceSelector", "resourceGroups"],
            namespaceSelector=closed(["matchLabels"], matchLabels=STRINGS),
            resourceGroups={"type": "array", "minItems": 1, "maxItems": 16, "items": GROUP},
        ),
    ),
    "LocalQueue": kueue("LocalQueue", closed(["clusterQueue"], clusterQueue=NAME)),
}


TEXT = {"type": "string"}
RULE = closed(
    ["action", "name"],
    action={"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]},
    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    onJobFailureReasons={
        "type": "array",
        "items": {"enum": ["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "PodFailurePolicy"]},
    },
    targetReplicatedJobs={"type": "array", "items": TEXT},
)
REPLICATED_JOB = closed(
    ["name", "template"],
    name=TEXT,
    groupName=TEXT,
    replicas={"type": "integer", "minimum": 0},
    # a Kubernetes object of its own, which is checked as one
    template=closed(["spec"], metadata={"type": "object"}, spec={"type": "object"}),
)
JOBSET_SCHEMA = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata={"type": "object"},
    spec=closed(
        [],
        failurePolicy=closed(
            [],
            maxRestarts={"type": "integer", "minimum": 0},
            restartStrategy={"enum": ["Recreate", "BlockingRecreate"]},
            rules={"type": "array", "items": RULE},
        ),
        network=closed(
            [],
            enableDNSHostnames={"type": "boolean"},
            publishNotReadyAddresses={"type": "boolean"},
            subdomain=TEXT,
        ),
        replicatedJobs={"type": "array", "items": REPLICATED_JOB},
        suspend={"type": "boolean"},
        ttlSecondsAfterFinished={"type": "integer", "minimum": 0},
    ),
)
"""Of what we use of JobSet's CRD, field names and values as there."""


def jobs_of(jobset: dict) -> list[dict]:
    """The Jobs that JobSet makes of a JobSet."""
    return [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": f"{jobset['metadata']['name']}-{one['name']}-0",
                **one["template"]["metadata"],
            },
            "spec": one["template"]["spec"],
        }
        for one in jobset["spec"]["replicatedJobs"]
    ]


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_lints(helm, values):
    done = helm("lint", "--strict", CHART, values=values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_kubernetes_accepts_every_object(render, values, version):
    objects = render(values)
    assert objects
    for one in objects.values():
        if one["apiVersion"].startswith("kueue.x-k8s.io/"):
            jsonschema.validate(one, KUEUE_SCHEMAS[one["kind"]])
        elif one["kind"] == "JobSet":
            jsonschema.validate(one, JOBSET_SCHEMA)
            for job in jobs_of(one):
                kubernetes_validate.validate(job, version, strict=True)
        else:
            kubernetes_validate.validate(one, version, strict=True)
        assert one["metadata"].get("namespace") == (None if one["kind"] in CLUSTER_WIDE else "robots")
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "b1k"
        assert labels["app.kubernetes.io/component"]
        assert labels.get("team") == values.get("commonLabels", {}).get("team")


def test_defaults_have_the_names_that_profiles_expect(render):
    assert set(render()) == {
        ("ServiceAccount", "b1k-runner"),
        ("Role", "b1k-runner"),
        ("RoleBinding", "b1k-runner"),
        ("PersistentVolumeClaim", "b1k-dataset"),
        ("PersistentVolumeClaim", "b1k-workspace"),
        ("ConfigMap", "b1k-settings"),
        ("Pod", "b1k-test-volumes"),
    }


def test_two_releases_do_not_collide(render):
    assert not set(render(release="one")) & set(render(release="two"))


def test_nothing_is_made_that_the_user_brings(render):
    assert set(render(BROUGHT)) == {("ConfigMap", "b1k-settings"), ("Pod", "b1k-test-volumes")}


def test_role_is_least_privilege(render):
    rules = render()["Role", "b1k-runner"]["rules"]
    for rule in rules:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        if set(rule["resources"]) & {"secrets", "configmaps"}:
            assert rule["verbs"] == ["get"]
            assert rule["resourceNames"], "without names the role could read every secret of the namespace"
    assert [rule["verbs"] for rule in rules if "pods" in rule["resources"]] == [["get"]]
    binding = render()["RoleBinding", "b1k-runner"]
    assert binding["roleRef"]["name"] == "b1k-runner"
    assert [(one["name"], one["namespace"]) for one in binding["subjects"]] == [("b1k-runner", "robots")]


def test_role_binds_an_account_that_exists(render):
    values = {"serviceAccount": {"create": False, "name": "default-editor"}}
    objects = render(values)
    assert ("ServiceAccount", "default-editor") not in objects
    assert objects["RoleBinding", "b1k-runner"]["subjects"][0]["name"] == "default-editor"


def test_secrets_are_only_referred_to(render):
    for values in CASES.values():
        assert not [key for key in render(values) if key[0] == "Secret"]
    account = render(EVERYTHING)["ServiceAccount", "b1k-runner"]
    assert account["imagePullSecrets"] == [{"name": "pull"}]


def test_settings_hold_no_empty_and_no_secret_value(render):
    assert render()["ConfigMap", "b1k-settings"]["data"] == {"WANDB_MODE": "offline"}
    assert render(EVERYTHING)["ConfigMap", "b1k-settings"]["data"] == {
        "WANDB_MODE": "online",
        "WANDB_ENTITY": "robots",
        "WANDB_BASE_URL": "https://wb.example.org",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": "https://s3.example.org",
    }


def test_volumes(render):
    objects = render(EVERYTHING)
    dataset = objects["PersistentVolumeClaim", "b1k-dataset"]
    assert dataset["spec"]["storageClassName"] == "fast"
    assert dataset["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert "annotations" not in dataset["metadata"]
    workspace = objects["PersistentVolumeClaim", "b1k-workspace"]
    assert workspace["spec"]["resources"]["requests"]["storage"] == "10Ti"
    assert "storageClassName" not in workspace["spec"], "an empty class would mean no dynamic volume"
    assert workspace["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def multi_node(**settings: object) -> dict:
    """Values of a training over several nodes."""
    return {"training": {"multiNode": {**MULTI_NODE_PLAIN["training"]["multiNode"], **settings}}}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"serviceAccount": {"create": False}}, ["serviceAccount.create", "serviceAccount.name"]),
        (
            {"serviceAccount": {"create": False, "name": "x", "annotations": {"a": "b"}}},
            ["serviceAccount.create", "serviceAccount.annotations"],
        ),
        (
            {"serviceAccount": {"create": False, "name": "x"}, "registry": {"secret": "pull"}},
            ["serviceAccount.create", "registry.secret"],
        ),
        (
            {"storage": {"dataset": {"accessMode": "ReadWriteOnce"}}},
            ["storage.dataset.accessMode", "storage.singleNode"],
        ),
        (
            {"storage": {"workspace": {"existingClaim": "scratch", "storageClass": "fast"}}},
            ["storage.workspace.storageClass", "storage.workspace.existingClaim"],
        ),
        ({"s3": {"endpoint": "https://s3.example.org"}}, ["s3.endpoint", "s3.secret"]),
        ({"wandb": {"mode": "online"}}, ["wandb.mode", "wandb.secret"]),
        ({"quota": {"create": True}}, ["quota.create", "quota.hard"]),
        ({"reports": {"ingress": {"enabled": True}}}, ["reports.ingress.enabled", "reports.enabled"]),
        (
            {"reports": {"enabled": True, "ingress": {"enabled": True}}},
            ["reports.ingress.enabled", "reports.ingress.host"],
        ),
        ({"policyServer": {"enabled": True}}, ["policyServer.enabled", "policyServer.checkpoint"]),
        (
            {"policyServer": {"autoscaling": {"enabled": True}}},
            ["policyServer.autoscaling.enabled", "policyServer.enabled"],
        ),
        (
            {
                "policyServer": {
                    "enabled": True,
                    "checkpoint": "/workspace/x",
                    "autoscaling": {"enabled": True, "minReplicas": 5},
                }
            },
            ["policyServer.autoscaling.minReplicas", "policyServer.autoscaling.maxReplicas"],
        ),
        (
            {
                "policyServer": {
                    "enabled": True,
                    "checkpoint": "/workspace/x",
                    "clientLabels": {"b1k/role": None},
                }
            },
            ["networkPolicies.create", "policyServer.clientLabels"],
        ),
        ({"kueue": {"enabled": True}}, ["kueue.enabled", "kueue.queues"]),
        (
            {"training": {"multiNode": {"enabled": True}}},
            ["training.multiNode.enabled", "training.multiNode.arguments"],
        ),
        (multi_node(arguments=["--workspace=/tmp"]), ["training.multiNode.arguments", "storage.workspace"]),
        (
            {**multi_node(), "storage": {"singleNode": True}},
            ["training.multiNode.enabled", "storage.singleNode"],
        ),
        (
            multi_node(environment={"JAX_NUM_PROCESSES": "2"}),
            ["training.multiNode.environment", "training.multiNode.nodes"],
        ),
        (multi_node(queue="training"), ["training.multiNode.queue", "kueue.enabled"]),
        ({**KUEUE, **multi_node(queue="night")}, ["training.multiNode.queue", "kueue.queues"]),
    ],
)
def test_bad_combinations_name_both_values(helm, values, named):
    done = helm("template", "b1k", CHART, values=values)
    assert done.returncode != 0
    for name in named:
        assert name in done.stderr


@pytest.mark.parametrize(
    "values",
    [
        {"wandb": {"mode": "on"}},
        {"storage": {"dataset": {"size": "a lot"}}},
        {"storage": {"dataset": {"accessMode": "ReadOnlyMany"}}},
        {"storage": {"datasets": {}}},
        {"s3": {"accessKey": "not here"}},
        {"rbac": {"launcherConfigMap": ""}},
        {"registry": {"secret": "Not A Name"}},
        {"policyServer": {"checkpoint": "/etc"}},
        {"images": {"digests": {"toolbox": "latest"}}},
        {"kueue": {"queues": {"training": {}}}},
        {"reports": {"replicas": 0}},
        {"training": {"multiNode": {"nodes": 1}}},
        {"training": {"multiNode": {"gpusPerNode": 0}}},
        {"training": {"multiNode": {"arguments": "--config.steps=5"}}},
        {"training": {"multiNode": {"environment": {"NCCL-DEBUG": "INFO"}}}},
        {"training": {"multiNode": {"image": "trainer"}}},
    ],
)
def test_schema_refuses(helm, values):
    done = helm("template", "b1k", CHART, values=values)
    assert done.returncode != 0
    assert "schema" in done.stderr


def test_notes_name_what_was_installed(helm):
    done = helm("install", "b1k", CHART, "--namespace", "robots", "--dry-run=client", values=EVERYTHING)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    for name in ("b1k-runner", "b1k-dataset", "b1k-workspace", "bucket-keys", "wandb-key", "pull"):
        assert name in notes


def keys(node: dict, prefix: str = "") -> set[str]:
    found = set()
    for key, value in node.items():
        name = f"{prefix}{key}"
        found |= keys(value, f"{name}.") if isinstance(value, dict) and value else {name}
    return found


def test_every_value_is_documented_and_in_the_schema():
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    for name in keys(yaml.safe_load(text)):
        node = schema
        for part in name.split("."):
            if "additionalProperties" in node and "properties" not in node:
                break  # the names are the user's
            node = node["properties"][part]
            if "$ref" in node:
                node = {**schema["definitions"][node["$ref"].rsplit("/", 1)[1]], **node}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not re.match(r" *\w+:", line):
            continue
        is_list = line.endswith(":") and lines[number + 1].strip().startswith("- ")
        if line.endswith(":") and not is_list:
            continue  # a section
        comments = itertools.takewhile(lambda one: one.strip().startswith("#"), reversed(lines[:number]))
        assert any("# --" in one for one in comments), f"values.yaml: {line.strip()} has no `# --` comment"


def test_chart_version_is_the_version_of_the_project():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project


def pods(objects: dict) -> dict[str, dict]:
    """The pod specifications of the chart by the name of their object."""
    return {
        name: one["spec"] if kind == "Pod" else one["spec"]["template"]["spec"]
        for (kind, name), one in [
            (("Job", job["metadata"]["name"]), job)
            for (kind, _), one in objects.items()
            if kind == "JobSet"
            for job in jobs_of(one)
        ]
        + list(objects.items())
        if kind in ("Pod", "Deployment", "Job")
    }


def help_of(command: list[str]) -> str:
    """What the program of a container's command says to --help."""
    assert command[:2] == ["python3", "-m"]
    words = [sys.executable, "-m", command[2], "--help"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_pods_have_no_rights(render, values):
    for spec in pods(render(values)).values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]) == {"requests", "limits"}
            values = [one["name"] for one in container.get("env", []) if "value" in one]
            assert not [name for name in values if re.search("KEY|SECRET|TOKEN|PASSWORD", name)]


def training(objects: dict) -> tuple[dict, dict, dict]:
    """The JobSet, its Job and the container of the Job's pods."""
    (jobset,) = [one for (kind, _), one in objects.items() if kind == "JobSet"]
    (job,) = jobs_of(jobset)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return jobset, job, container


def test_training_has_a_process_on_every_node_that_finds_the_first(render):
    jobset, job, container = training(render(MULTI_NODE))
    name = jobset["metadata"]["name"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 4
    variables = {one["name"]: one for one in container["env"]}
    assert variables["JAX_NUM_PROCESSES"]["value"] == "4"
    own = {
        one: variables[one]["valueFrom"]["fieldRef"]["fieldPath"] for one in ("JOBSET_NAME", "JAX_PROCESS_ID")
    }
    assert own["JAX_PROCESS_ID"] == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert own["JOBSET_NAME"] == "metadata.labels['jobset.sigs.k8s.io/jobset-name']"
    address = variables["JAX_COORDINATOR_ADDRESS"]["value"].replace("$(JOBSET_NAME)", name)
    # pods are reached at JOBSET-REPLICATEDJOB-JOB-POD.JOBSET
    assert address == f"{name}-{jobset['spec']['replicatedJobs'][0]['name']}-0-0.{name}:8476"
    long = training(render({**MULTI_NODE, "fullnameOverride": "b" * 63}))[0]["metadata"]["name"]
    assert len(f"{long}-nodes-0-127") <= 63


def test_training_is_another_jobset_when_a_value_changes(render):
    name = training(render(MULTI_NODE))[0]["metadata"]["name"]
    assert training(render(MULTI_NODE))[0]["metadata"]["name"] == name
    changed = {**MULTI_NODE, **multi_node(**{**MULTI_NODE["training"]["multiNode"], "nodes": 3})}
    assert training(render(changed))[0]["metadata"]["name"] != name


def test_training_has_what_its_values_ask_for(render):
    objects = render(MULTI_NODE)
    jobset, job, container = training(objects)
    spec = job["spec"]["template"]["spec"]
    assert jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "b1k-training"
    assert ("LocalQueue", "b1k-training") in objects
    assert spec["priorityClassName"] == "b1k-runs"
    assert ("PriorityClass", "b1k-runs") in objects
    assert spec["serviceAccountName"] == "b1k-runner"
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
    assert container["resources"]["limits"] == {"memory": "1200Gi", "nvidia.com/gpu": 8, "rdma/shared": 1}
    volumes = {one["name"]: one for one in spec["volumes"]}
    mounts = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
    assert mounts["/workspace"]["persistentVolumeClaim"] == {"claimName": "b1k-workspace"}
    assert mounts["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "256Gi"}
    keys = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if one["name"] == "WANDB_API_KEY"]
    assert keys == [{"name": "wandb-key", "key": "WANDB_API_KEY"}]
    plain = training(render(MULTI_NODE_PLAIN))
    assert "kueue.x-k8s.io/queue-name" not in plain[0]["metadata"]["labels"]
    assert "priorityClassName" not in plain[1]["spec"]["template"]["spec"]
    assert plain[1]["spec"]["template"]["spec"]["serviceAccountName"] == "default-editor"


def test_training_starts_again_as_a_whole_and_not_after_a_mistake(render):
    jobset, job, container = training(render(MULTI_NODE))
    # one pod that fails makes its Job fail, and with it the set, which starts again when all pods are gone
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    policy = jobset["spec"]["failurePolicy"]
    assert policy["restartStrategy"] == "BlockingRecreate"
    assert policy["maxRestarts"] == 20
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    codes = {"containerName": container["name"], "operator": "In", "values": [2]}
    assert rule == {"action": "FailJob", "onExitCodes": codes, "onPodConditions": []}
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_training_processes_are_reached_by_each_other_only(render):
    objects = render(MULTI_NODE)
    policy = objects["NetworkPolicy", "b1k-training"]["spec"]
    _, job, _ = training(objects)
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    (rule,) = policy["ingress"]
    assert rule == {"from": [{"podSelector": policy["podSelector"]}]}
    assert ("NetworkPolicy", "b1k-training") not in render(MULTI_NODE_PLAIN)


def test_the_policy_server_reads_the_workspace_and_cannot_write_it(render):
    spec = pods(render(SERVICES))["b1k-policy"]
    (volume,) = [one for one in spec["volumes"] if "persistentVolumeClaim" in one]
    assert volume["persistentVolumeClaim"] == {"claimName": "b1k-workspace", "readOnly": True}
    (mount,) = [one for one in spec["containers"][0]["volumeMounts"] if one["name"] == volume["name"]]
    assert mount["readOnly"] is True


def test_of_the_workspace_the_results_browser_can_write_labels_alone(render):
    spec = pods(render(SERVICES))["b1k-reports"]
    (container,), (before,) = spec["containers"], spec["initContainers"]
    whole, labels = container["volumeMounts"]
    assert (whole["mountPath"], whole["readOnly"]) == ("/workspace", True)
    assert (labels["mountPath"], labels["subPath"]) == ("/workspace/labels", "labels")
    assert before["command"][0] == "mkdir"
    assert before["command"][-1] == labels["mountPath"], "the kubelet's would be root's"
    assert "--user-header=X-Forwarded-User" in container["args"]


def test_the_services_are_tested_where_nobody_has_to_log_in(render):
    probed = {
        container["readinessProbe"]["httpGet"]["path"]
        for name in ("b1k-reports", "b1k-policy")
        for container in pods(render(SERVICES))[name]["containers"]
    }
    (tester,) = pods(render(SERVICES))["b1k-test-services"]["containers"]
    assert {urlsplit(address).path for address in tester["args"][1:]} == probed == {"/healthz"}


def test_services_select_their_pods_and_ports(render):
    objects = render(SERVICES)
    for name in ("b1k-reports", "b1k-policy"):
        template = objects["Deployment", name]["spec"]["template"]
        labels = template["metadata"]["labels"]
        service = objects["Service", name]["spec"]
        ports = {one["name"] for one in template["spec"]["containers"][0]["ports"]}
        assert service["selector"].items() <= labels.items()
        assert (
            not service["selector"].items()
            <= objects["Pod", "b1k-test-services"]["metadata"]["labels"].items()
        )
        assert {one["targetPort"] for one in service["ports"]} <= ports
        policy = objects["NetworkPolicy", name]["spec"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
        assert {one["port"] for rule in policy["ingress"] for one in rule["ports"]} <= ports


@pytest.mark.parametrize("version", ["v1beta2", "v1beta1"])
def test_queues_have_the_version_of_kueue(render, version):
    values = KUEUE if version == "v1beta2" else {"kueue": {**KUEUE["kueue"], "version": version}}
    found = {one["apiVersion"] for one in render(values).values() if "kueue" in one["apiVersion"]}
    assert found == {f"kueue.x-k8s.io/{version}"}


def test_policy_server_is_reached_by_evaluators_only_and_reaches_nobody(render):
    objects = render(SERVICES)
    spec = objects["NetworkPolicy", "b1k-policy"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in spec
    ((peer,),) = [rule["from"] for rule in spec["ingress"]]
    assert peer == {"podSelector": {"matchLabels": {"b1k/role": "evaluator"}}}, "of this namespace"
    assert peer["podSelector"]["matchLabels"] == H200X8.steps["evaluate"].pod_labels
    tester = objects["Pod", "b1k-test-services"]["metadata"]["labels"]
    assert tester["b1k/role"] == "evaluator"
    assert tester["app.kubernetes.io/component"] == "test"
    reports = objects["Deployment", "b1k-reports"]["spec"]["template"]["metadata"]["labels"]
    assert "b1k/role" not in reports
    assert not [key for key in render(OPEN) if key[0] == "NetworkPolicy"]


def test_policy_server_has_its_gpus_and_its_scaler(render):
    objects = render(SERVICES)
    deployment = objects["Deployment", "b1k-policy"]["spec"]
    assert "replicas" not in deployment, "an upgrade would undo what the autoscaler did"
    spec = deployment["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["containers"][0]["image"] == f"registry.example.org/robots/trainer:{VERSION}"
    assert spec["priorityClassName"] == "b1k-serving"
    assert ("PriorityClass", "b1k-serving") in objects
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    scaler = objects["HorizontalPodAutoscaler", "b1k-policy"]["spec"]
    assert scaler["metrics"][0]["resource"]["target"]["averageUtilization"] == 70
    custom = render(CUSTOM_METRIC)["HorizontalPodAutoscaler", "b1k-policy"]["spec"]
    assert [one["type"] for one in custom["metrics"]] == ["Pods"]
    without = render(OPEN)["Deployment", "b1k-policy"]["spec"]
    assert without["replicas"] == 1
    assert "nvidia.com/gpu" not in without["template"]["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize(
    ("values", "name"), [(SERVICES, "b1k-policy"), (SERVICES, "b1k-reports"), (MULTI_NODE, "b1k-train-")]
)
def test_commands_of_the_pods_have_options_that_exist(render, values, name):
    (container,) = [
        container
        for pod, spec in pods(render(values)).items()
        if pod.startswith(name)
        for container in spec["containers"]
    ]
    command = container["command"] + [one.partition("=")[0] for one in container.get("args", [])]
    said = help_of(command)
    assert [word for word in command[3:] if word.startswith("--") and word not in said] == []


def test_key_of_the_policy_server_is_a_file_of_the_secret(render):
    spec = pods(render(SERVICES))["b1k-policy"]
    command = spec["containers"][0]["command"]
    (volume,) = [one for one in spec["volumes"] if "secret" in one]
    (mount,) = [one for one in spec["containers"][0]["volumeMounts"] if one["name"] == volume["name"]]
    assert volume["secret"]["secretName"] == "policy-key"
    assert Path(command[command.index("--api-key-file") + 1]).parent == Path(mount["mountPath"])
    assert "--api-key-file" not in pods(render(OPEN))["b1k-policy"]["containers"][0]["command"]


def test_digest_counts_instead_of_the_tag(render):
    image = pods(render(SERVICES))["b1k-reports"]["containers"][0]["image"]
    assert image == f"registry.example.org/robots/toolbox@sha256:{'0' * 64}"


def test_queues_cover_what_they_give(render):
    objects = render(KUEUE)
    for name in ("b1k-training", "b1k-evaluation"):
        assert objects["LocalQueue", name]["spec"]["clusterQueue"] == name
        (group,) = objects["ClusterQueue", name]["spec"]["resourceGroups"]
        (flavor,) = group["flavors"]
        assert flavor["name"] == name
        assert [one["name"] for one in flavor["resources"]] == group["coveredResources"]
        assert ("ResourceFlavor", name) in objects


def test_volume_test_runs_as_it_stands(render, tmp_path):
    """The test pod's program, on folders of this machine."""
    (program,) = pods(render())["b1k-test-volumes"]["containers"][0]["args"]
    for folder in ("dataset", "workspace"):
        (tmp_path / folder).mkdir()
        program = program.replace(f'"/{folder}"', f'"{tmp_path}/{folder}"')
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "workspace").rmdir()
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0


def test_readme_is_that_of_the_values():
    script = CHART.parent / "readme.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
