"""The chart: lints, renders objects that Kubernetes accepts, and refuses values that could not work."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "b1k"
EVERYTHING = {
    "commonLabels": {"team": "robots"},
    "serviceAccount": {"annotations": {"example.org/role": "reader"}},
    "rbac": {"extraRules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    "storage": {
        "singleNode": True,
        "dataset": {"storageClass": "fast", "accessMode": "ReadWriteOnce", "keep": False},
        "workspace": {"size": "10Ti"},
    },
    "s3": {"secret": "bucket-keys", "region": "eu-central-1", "endpoint": "https://s3.example.org"},
    "wandb": {
        "mode": "online",
        "secret": "wandb-key",
        "entity": "robots",
        "baseUrl": "https://wb.example.org",
    },
    "registry": {"secret": "pull"},
}
BROUGHT = {
    "serviceAccount": {"create": False, "name": "default-editor"},
    "rbac": {"create": False},
    "storage": {"dataset": {"existingClaim": "demos"}, "workspace": {"existingClaim": "scratch"}},
}
CASES = {"defaults": {}, "everything": EVERYTHING, "brought": BROUGHT}
KUBERNETES = ("1.28", "1.31", "1.37")


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
        kubernetes_validate.validate(one, version, strict=True)
        assert one["metadata"]["namespace"] == "robots"
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
    }


def test_two_releases_do_not_collide(render):
    assert not set(render(release="one")) & set(render(release="two"))


def test_nothing_is_made_that_the_user_brings(render):
    assert set(render(BROUGHT)) == {("ConfigMap", "b1k-settings")}


def test_role_is_least_privilege(render):
    rules = render()["Role", "b1k-runner"]["rules"]
    for rule in rules:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        if set(rule["resources"]) & {"secrets", "configmaps"}:
            assert rule["verbs"] == ["get"]
            assert rule["resourceNames"], "without names the role could read every secret of the namespace"
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
