"""Checks a cluster, or this machine, before a run: what works, what does not, and what to do about it."""

import importlib.util
import os
import shutil
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from kubernetes import config
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from components.errors import UserError
from components.store.making import supports_locks
from pipelines.cluster.checks import Cluster, Place, check_cluster
from pipelines.cluster.node_checks import Finding
from pipelines.definitions.profiles import load_profile
from pipelines.definitions.profiles.cluster import S3
from pipelines.definitions.profiles.profile import Profile
from pipelines.tools.rendering import rendering_problem

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "fail": "[bold red]fail[/]"}
_GIGABYTE = 1e9
_DISK = 10.0
_MEMORY = 6.0


@dataclass(frozen=True)
class Options:
    """Check what a run of a profile needs; exit code 1 if something that it needs is missing."""

    profile: str = "h200x8"
    """laptop and smoke check this machine, the others a cluster."""
    local: bool = False
    """Check this machine, whatever the profile."""
    workspace: Path = Path("workspace")
    """Folder for the runs on this machine."""
    namespace: str = "kubeflow"
    """Namespace of the pods of a run."""
    service_account: str = "b1k-runner"
    """Service account of the pods of a run."""
    kfp_namespace: str = "kubeflow"
    """Namespace of Kubeflow Pipelines itself."""
    kubeflow: bool = True
    """Check Kubeflow Pipelines and Argo; --no-kubeflow leaves them out, as before their installation."""
    autoscaled: bool = False
    """Nodes that are missing may be added by the cluster: a warning instead of a failure."""
    s3: str = ""
    """Bucket and prefix of the DVC remote, s3://BUCKET/PREFIX: written to and read, with the credentials of
    the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on)."""
    kubeconfig: str = ""
    """Kubeconfig file; empty for KUBECONFIG, ~/.kube/config, or the account of the pod."""
    context: str = ""
    """Context of the kubeconfig; empty for its current one."""
    timeout: int = 15
    """Seconds to wait for an answer."""


def run(options: Options) -> int:
    """Check, and print a table; exit code 1 after a failure."""
    profile = load_profile(options.profile)
    local = options.local or profile.is_local
    findings = list(_local(options.workspace) if local else _cluster(options, profile))
    table = Table(*(Column(name, overflow="fold") for name in ("check", "result", "found", "what to do")))
    for one in findings:
        table.add_row(escape(one.check), _MARKS[one.status], escape(one.found), escape(one.remedy))
    console = Console(highlight=False)
    console.print(table)
    count = Counter(one.status for one in findings)
    console.print(f"{len(findings)} checks: {count['fail']} failed, {count['warning']} warnings")
    return 1 if count["fail"] else 0


def _cluster(options: Options, profile: Profile) -> Iterator[Finding]:
    try:
        cluster = Cluster(options.kubeconfig, options.context, options.timeout)
    except config.ConfigException as error:
        raise UserError(
            f"no usable kubeconfig ({error}); give --kubeconfig and --context, or set KUBECONFIG"
        ) from error
    place = Place(
        options.namespace,
        options.service_account,
        options.kfp_namespace,
        options.autoscaled,
        options.kubeflow,
    )
    yield from check_cluster(cluster, profile, place)
    secrets = {secret.name for step in profile.steps.values() for secret in step.secrets}
    if options.s3 or S3.name in secrets:
        yield check_s3(options.s3, options.timeout)


def check_s3(address: str, timeout: int = 15) -> Finding:
    """Write an object to s3://BUCKET/PREFIX, read it, delete it; an empty address gives a warning."""
    if not address:
        return Finding("S3", "warning", "not checked", "give --s3 s3://BUCKET/PREFIX of the DVC remote")
    place = urlsplit(address)
    if place.scheme != "s3" or not place.netloc:
        raise UserError(f"--s3 {address!r}; expected s3://BUCKET/PREFIX")
    # seconds of imports that the other checks do not need
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    session = botocore.session.get_session()
    if session.get_credentials() is None:
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY as in the cluster's secret"
        return Finding("S3", "warning", "not checked: no credentials in the environment", remedy)
    settings = Config(connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 2})
    region = session.get_config_variable("region") or "us-east-1"
    s3 = session.create_client("s3", config=settings, region_name=region)
    key = f"{place.path.strip('/')}/.b1k-doctor-{uuid.uuid4().hex}".lstrip("/")
    content = uuid.uuid4().bytes
    step = "write"
    try:
        s3.put_object(Bucket=place.netloc, Key=key, Body=content)
        step = "read"
        whole = s3.get_object(Bucket=place.netloc, Key=key)["Body"].read() == content
        step = "delete"
        s3.delete_object(Bucket=place.netloc, Key=key)
    except (BotoCoreError, ClientError) as error:
        remedy = f"check bucket, keys, AWS_ENDPOINT_URL and the policy for {step}"
        return Finding("S3", "fail", f"{address}: cannot {step}: {error}", remedy)
    if not whole:
        found = f"{address}: what was read is not what was written"
        return Finding("S3", "fail", found, "check the endpoint")
    return Finding("S3", "ok", f"{address}: written, read, deleted")


def _local(workspace: Path) -> Iterator[Finding]:
    """Checks of this machine, for the profiles without a cluster."""
    yield Finding("Python", "ok", ".".join(map(str, sys.version_info[:3])))
    wanted = ("kfp", "dvc", "household", "mujoco")
    missing = ", ".join(name for name in wanted if importlib.util.find_spec(name) is None)
    yield _judge(
        "packages", f"not installed: {missing}" if missing else "", ", ".join(wanted), "make install"
    )
    problem = rendering_problem()
    context = f"a context by MUJOCO_GL={os.environ['MUJOCO_GL']}"
    yield _judge("EGL", problem, context, "apt-get install libegl1 libgl1-mesa-dri")
    workspace = workspace.absolute()
    folder = next(one for one in (workspace, *workspace.parents) if one.is_dir())
    yield _locks(folder)
    yield _enough("disk", shutil.disk_usage(folder).free / _GIGABYTE, _DISK, f"free in {folder}")
    yield _enough("memory", psutil.virtual_memory().available / _GIGABYTE, _MEMORY, "available")
    git = shutil.which("git") or ""
    yield _judge("git", "" if git else "is not on PATH", git, "apt-get install git")


def _judge(check: str, problem: str, found: str, remedy: str) -> Finding:
    return Finding(check, "fail", problem, remedy) if problem else Finding(check, "ok", found)


def _locks(folder: Path) -> Finding:
    try:
        problem = "" if supports_locks(folder) else f"the file system of {folder} has no flock"
    except OSError as error:
        return Finding("file locks", "fail", str(error), "give a --workspace that can be written to")
    remedy = "put the --workspace on a file system with locks, such as a local disk or NFS 4"
    return _judge("file locks", problem, f"the file system of {folder} has flock", remedy)


def _enough(check: str, have: float, need: float, what: str) -> Finding:
    if have < need:
        return Finding(check, "warning", f"{have:.1f} GB {what}", f"the demo wants {need:g} GB")
    return Finding(check, "ok", f"{have:.1f} GB {what}")
