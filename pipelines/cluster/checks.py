"""Checks of a cluster before a run: whether it has what the steps of a profile need."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config

from pipelines.cluster.argo_checks import CONFIG_MAP, check_argo
from pipelines.cluster.node_checks import Finding, Status, check_nodes
from pipelines.definitions.profiles.profile import Profile

T = TypeVar("T")
OLDEST = (1, 28)
"""Oldest Kubernetes that the chart is checked against."""
_GROUP = "pipelines.kubeflow.org"
USER_RIGHTS = {
    "experiments": ("create", "get", "list"),
    "runs": ("create", "get", "list", "terminate"),
    "jobs": ("create", "get", "list", "disable", "delete"),
    "pipelines": ("create", "get", "list"),
}
"""What multi-user Kubeflow asks Kubernetes before it answers upload, submit, schedule, status and cancel."""
POD_RIGHTS = (
    ("create", {"group": "argoproj.io", "resource": "workflowtaskresults"}),
    ("patch", {"group": "argoproj.io", "resource": "workflowtaskresults"}),
    ("get", {"resource": "pods"}),
    ("get", {"resource": "configmaps", "name": "kfp-launcher"}),
)
"""What the pods of a run ask Kubernetes, as the chart's role allows it."""


@dataclass(frozen=True)
class Place:
    """Where in a cluster the pods of a run and Kubeflow Pipelines are."""

    namespace: str
    service_account: str
    kfp_namespace: str
    autoscaled: bool
    """Nodes that are missing may be added."""
    kubeflow: bool = True
    """Whether Kubeflow Pipelines and Argo are checked."""


class Cluster:
    """A cluster as Kubernetes' API shows it.

    Args:
        kubeconfig: file; empty for KUBECONFIG, ~/.kube/config or the pod's own account.
        context: context of the file; empty for its current one.
        timeout: seconds to wait for an answer.

    Raises:
        config.ConfigException: there is no usable configuration.
    """

    def __init__(self, kubeconfig: str, context: str, timeout: int) -> None:
        settings = client.Configuration()
        try:
            config.load_kube_config(kubeconfig or None, context or None, settings)
        except config.ConfigException:
            if kubeconfig or context:
                raise
            config.load_incluster_config(settings)
        # the path behind a proxy must keep its slashes
        settings.safe_chars_for_path_param = "/:"
        settings.retries = urllib3.Retry(1, read=0)
        self.api = client.ApiClient(settings)
        self.host = settings.host
        self.core = client.CoreV1Api(self.api)
        self.timeout = timeout

    def ask(self, method: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call the API with a time limit."""
        return method(*arguments, _request_timeout=self.timeout, **options)

    def find(self, method: Callable[..., T], *arguments: str) -> T | None:
        """An object, or None where there is none."""
        try:
            return self.ask(method, *arguments)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise

    def allowed(self, verb: str, namespace: str, account: str = "", **resource: str) -> bool:
        """Whether the user, or a service account, may do something to what V1ResourceAttributes describe."""
        attributes = client.V1ResourceAttributes(verb=verb, namespace=namespace, **resource)
        reviews = client.AuthorizationV1Api(self.api)
        if not account:
            spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
            review = client.V1SelfSubjectAccessReview(spec=spec)
            return bool(self.ask(reviews.create_self_subject_access_review, review).status.allowed)
        user = f"system:serviceaccount:{namespace}:{account}"
        spec = client.V1SubjectAccessReviewSpec(user=user, resource_attributes=attributes)
        metadata = client.V1ObjectMeta(namespace=namespace)
        review = client.V1LocalSubjectAccessReview(metadata=metadata, spec=spec)
        method = reviews.create_namespaced_local_subject_access_review
        return bool(self.ask(method, namespace, review).status.allowed)


def check_cluster(cluster: Cluster, profile: Profile, place: Place) -> Iterator[Finding]:
    """All checks of a cluster; ends after the first where nothing answers."""
    try:
        yield _version(cluster)
    except urllib3.exceptions.HTTPError as error:
        found = f"{cluster.host} does not answer: {getattr(error, 'reason', None) or error}"
        yield Finding("Kubernetes API", "fail", found, "check KUBECONFIG, VPN, --context")
        return
    except client.ApiException as error:
        found = f"{cluster.host}: {error.reason}"
        yield Finding("Kubernetes API", "fail", found, "log in again; see kubectl version")
        return
    parts: Sequence[tuple[str, Callable[[], Iterator[Finding]]]] = (
        *((("Kubeflow Pipelines", lambda: _kubeflow(cluster, profile, place)),) if place.kubeflow else ()),
        ("service account", lambda: _account(cluster, place)),
        ("nodes", lambda: check_nodes(cluster.ask(cluster.core.list_node).items, profile, place.autoscaled)),
        ("volumes", lambda: _claims(cluster, profile, place)),
        ("secrets", lambda: _secrets(cluster, profile, place)),
        ("pull secret", lambda: _pull_secret(cluster, profile, place)),
    )
    for name, part in parts:
        try:
            yield from part()
        except client.ApiException as error:
            remedy = f"ask for the right to read it in {place.namespace}, or check by hand"
            yield Finding(name, "warning", f"cannot be checked: {error.status} {error.reason}", remedy)
        except urllib3.exceptions.HTTPError as error:
            yield Finding(name, "fail", f"no answer: {error}", "try again")


def _version(cluster: Cluster) -> Finding:
    said = cluster.ask(client.VersionApi(cluster.api).get_code)
    version = tuple(int(re.sub(r"\D.*", "", part) or 0) for part in (said.major, said.minor))
    found = f"{said.git_version} at {cluster.host}"
    if version < OLDEST:
        return Finding("Kubernetes API", "fail", found, "the chart needs Kubernetes 1.28 or later")
    return Finding("Kubernetes API", "ok", found)


def _kubeflow(cluster: Cluster, profile: Profile, place: Place) -> Iterator[Finding]:
    check, where = "Kubeflow Pipelines", place.kfp_namespace
    try:
        answer = cluster.ask(
            cluster.core.connect_get_namespaced_service_proxy_with_path,
            "http:ml-pipeline:8888", where, "apis/v2beta1/healthz", _preload_content=False,
        )  # fmt: skip
        multi_user = bool(json.loads(answer.data).get("multi_user"))
    except client.ApiException as error:
        status: Status = "fail" if error.status in (404, 503) else "warning"
        remedy = "install version 2, or give --kfp-namespace; check --host with b1k pipeline status"
        yield Finding(check, status, f"service ml-pipeline in {where}: {error.reason}", remedy)
        return
    except (ValueError, AttributeError):
        found = f"ml-pipeline in {where} has no health of API v2beta1"
        yield Finding(check, "fail", found, "install version 2")
        return
    method = client.AppsV1Api(cluster.api).read_namespaced_deployment
    try:
        deployment = cluster.find(method, "ml-pipeline", where)
        image = deployment.spec.template.spec.containers[0].image if deployment else ""
    except client.ApiException:
        image = ""
    tag = image.partition("@")[0].rpartition(":")[2]
    many = "many users" if multi_user else "one user"
    major = re.match(r"v?(\d+)\.", tag)
    if major and int(major[1]) < 2:
        yield Finding(check, "fail", f"version {tag}", "the pipelines need version 2")
    else:
        yield Finding(check, "ok", f"healthy, version {tag or 'not known'}, for {many}")
    yield from _argo(cluster, profile, place)
    if multi_user:
        denied = [
            f"{verb} {kind}"
            for kind, verbs in USER_RIGHTS.items()
            for verb in verbs
            if not cluster.allowed(verb, place.namespace, group=_GROUP, resource=kind)
        ]
        found = f"you may not: {', '.join(denied)}" if denied else "submit, schedule, status, cancel"
        remedy = f"ask for the role kubeflow-edit in {place.namespace}" if denied else ""
        yield Finding("your permissions", "fail" if denied else "ok", found, remedy)


def _argo(cluster: Cluster, profile: Profile, place: Place) -> Iterator[Finding]:
    try:
        found = cluster.find(cluster.core.read_namespaced_config_map, CONFIG_MAP, place.kfp_namespace)
    except client.ApiException as error:
        remedy = f"ask for the right to read {CONFIG_MAP} in {place.kfp_namespace}"
        yield Finding("Argo Workflows", "warning", f"cannot be checked: {error.reason}", remedy)
        return
    longest = max(step.hours for step in profile.steps.values())
    yield from check_argo((found.data or {}) if found else None, longest)


def _account(cluster: Cluster, place: Place) -> Iterator[Finding]:
    name = place.service_account
    if cluster.find(cluster.core.read_namespaced_service_account, name, place.namespace) is None:
        remedy = "helm install b1k charts/b1k, or give --service-account"
        yield Finding("service account", "fail", f"no {name} in {place.namespace}", remedy)
        return
    denied = [
        f"{verb} {resource['resource']}"
        for verb, resource in POD_RIGHTS
        if not cluster.allowed(verb, place.namespace, name, **resource)
    ]
    if denied:
        remedy = "rbac.create=true in the chart, or rbac.extraRules"
        yield Finding("service account", "fail", f"{name} may not: {', '.join(denied)}", remedy)
    else:
        yield Finding("service account", "ok", f"{name} may do what the pods of a run need")


def _claims(cluster: Cluster, profile: Profile, place: Place) -> Iterator[Finding]:
    single = not place.autoscaled and _nodes(cluster) == 1
    for name in sorted({volume.claim for step in profile.steps.values() for volume in step.volumes}):
        claim = cluster.find(cluster.core.read_namespaced_persistent_volume_claim, name, place.namespace)
        check = f"volume {name}"
        if claim is None:
            yield Finding(check, "fail", f"no such claim in {place.namespace}", "helm install b1k charts/b1k")
            continue
        modes = claim.status.access_modes or claim.spec.access_modes or []
        size = (claim.status.capacity or {}).get("storage", "?")
        if claim.status.phase != "Bound":
            remedy = f"kubectl describe pvc {name}; set storage.*.storageClass"
            yield Finding(check, "fail", f"is {claim.status.phase}", remedy)
        elif "ReadWriteMany" not in modes and single:
            yield Finding(check, "ok", f"bound, {size}, {', '.join(modes)} on the only node")
        elif "ReadWriteMany" not in modes:
            remedy = "pods of several nodes cannot share it: use ReadWriteMany"
            yield Finding(check, "warning", f"{size}, only {', '.join(modes)}", remedy)
        else:
            yield Finding(check, "ok", f"bound, {size}, {', '.join(modes)}")


def _nodes(cluster: Cluster) -> int:
    """Number of nodes; 0 where they may not be listed."""
    try:
        return len(cluster.ask(cluster.core.list_node).items)
    except client.ApiException:
        return 0


def _secrets(cluster: Cluster, profile: Profile, place: Place) -> Iterator[Finding]:
    online = _is_online(cluster, profile, place)
    secrets = {*profile.secrets, *(secret for step in profile.steps.values() for secret in step.secrets)}
    for wanted in sorted(secrets, key=lambda one: one.name):
        secret = cluster.find(cluster.core.read_namespaced_secret, wanted.name, place.namespace)
        filled = {key for key, value in ((secret.data if secret else None) or {}).items() if value}
        missing = [key for key in wanted.keys if key not in filled]
        if wanted.without and not secret:
            found = f"is not in {place.namespace}: {wanted.without}"
            yield Finding(f"secret {wanted.name}", "ok", found)
            continue
        needed = not wanted.optional or (online and "WANDB_API_KEY" in missing)
        if not missing:
            yield Finding(f"secret {wanted.name}", "ok", f"has {', '.join(wanted.keys)}")
            continue
        found = f"has no {', '.join(missing)}" if secret else f"is not in {place.namespace}"
        why = "; needed, as WANDB_MODE is online" if online and "WANDB_API_KEY" in missing else ""
        remedy = f"kubectl create secret generic {wanted.name} -n {place.namespace} --from-env-file=FILE"
        yield Finding(f"secret {wanted.name}", "fail" if needed else "warning", found + why, remedy)


def _is_online(cluster: Cluster, profile: Profile, place: Place) -> bool:
    names = {one.name for step in profile.steps.values() for one in step.settings if "WANDB_MODE" in one.keys}
    found = [cluster.find(cluster.core.read_namespaced_config_map, name, place.namespace) for name in names]
    return any((one.data or {}).get("WANDB_MODE") == "online" for one in found if one)


def _pull_secret(cluster: Cluster, profile: Profile, place: Place) -> Iterator[Finding]:
    name, check = profile.pull_secret, "pull secret"
    if not name:
        return
    secret = cluster.find(cluster.core.read_namespaced_secret, name, place.namespace)
    make = f"kubectl create secret docker-registry {name} -n {place.namespace}"
    remedy = f"{make} --from-file=.dockerconfigjson=FILE"
    if secret is None:
        yield Finding(check, "warning", f"no {name} in {place.namespace}; public images need none", remedy)
        return
    try:
        hosts = sorted(json.loads(base64.b64decode(secret.data[".dockerconfigjson"]))["auths"])
    except (KeyError, TypeError, ValueError):
        yield Finding(check, "fail", f"{name} ({secret.type}) is no pull secret", remedy)
        return
    yield Finding(check, "ok", f"{name} for {', '.join(hosts)}")
