"""Checks a cluster, or this machine, before a run: what works, what does not, and what to do about it."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.runtime.errors import UserError
from pipelines.cluster.checks import Cluster, Place, check_cluster
from pipelines.cluster.node_checks import Finding, Status
from pipelines.definitions.profiles import load_profile

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "fail": "[bold red]fail[/]"}
_GIGABYTE = 1e9
_DISK = 10.0
_MEMORY = 6.0
_RENDER = (
    "import os; os.environ.setdefault('MUJOCO_GL', 'egl'); import mujoco; "
    "context = mujoco.GLContext(16, 16); context.make_current(); context.free()"
)


@dataclass(frozen=True)
class Options:
    """Check what a run of a profile needs; exit code 1 if something that it cannot do without is missing."""

    profile: str = "h200x8"
    """laptop and smoke check this machine, h200x8 and one_gpu a cluster."""
    local: bool = False
    """Check this machine, whatever the profile."""
    namespace: str = "kubeflow"
    """Namespace of the pods of a run."""
    service_account: str = "b1k-runner"
    """Service account of the pods of a run."""
    kfp_namespace: str = "kubeflow"
    """Namespace of Kubeflow Pipelines itself."""
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
    """Check, and print a table.

    Returns:
        Exit code: 0 no failure, 1 at least one.

    Raises:
        UserError: there is no such profile, or no kubeconfig.
    """
    profile = load_profile(options.profile)
    table = Table(show_lines=False)
    for name in ("check", "result", "found", "what to do"):
        table.add_column(name, overflow="fold")
    findings = list(_local() if options.local or profile.is_local else _cluster(options))
    for one in findings:
        table.add_row(escape(one.check), _MARKS[one.status], escape(one.found), escape(one.remedy))
    console = Console(highlight=False)
    console.print(table)
    failed = [one for one in findings if one.status == "fail"]
    warned = [one for one in findings if one.status == "warning"]
    console.print(f"{len(findings)} checks: {len(failed)} failed, {len(warned)} warnings")
    return 1 if failed else 0


def _cluster(options: Options) -> Iterator[Finding]:
    from kubernetes import config

    try:
        cluster = Cluster(options.kubeconfig, options.context, options.timeout)
    except config.ConfigException as error:
        raise UserError(
            f"no usable kubeconfig ({error}); give --kubeconfig and --context, or set KUBECONFIG"
        ) from error
    place = Place(options.namespace, options.service_account, options.kfp_namespace, options.autoscaled)
    yield from check_cluster(cluster, load_profile(options.profile), place)
    yield check_s3(options.s3, options.timeout)


def check_s3(address: str, timeout: int = 15) -> Finding:
    """Write an object, read it, delete it.

    Args:
        address: s3://BUCKET/PREFIX; empty skips the check with a warning.
        timeout: seconds to wait for an answer.
    """
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
        return Finding(
            "S3", "fail", f"{address}: what was read is not what was written", "check the endpoint"
        )
    return Finding("S3", "ok", f"{address}: written, read, deleted")


def _local() -> Iterator[Finding]:
    """Checks of this machine, for the profiles without a cluster."""
    version = ".".join(map(str, sys.version_info[:3]))
    status: Status = "ok" if sys.version_info >= (3, 11) else "fail"
    yield Finding("Python", status, version, "" if status == "ok" else "install Python 3.11")
    yield _distributions()
    yield _egl()
    disk = shutil.disk_usage(Path.cwd()).free / _GIGABYTE
    yield _enough("disk", disk, _DISK, f"free in {Path.cwd()}")
    yield _enough("memory", psutil.virtual_memory().available / _GIGABYTE, _MEMORY, "available")
    if shutil.which("git"):
        said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False).stdout
        yield Finding("git", "ok", said.strip())
    else:
        yield Finding("git", "fail", "is not on PATH", "apt-get install git")


def _distributions() -> Finding:
    missing = []
    for name in ("kfp", "dvc", "household", "mujoco"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("packages", "fail", f"not installed: {', '.join(missing)}", "make install")
    return Finding("packages", "ok", "kfp, dvc, household, mujoco")


def _egl() -> Finding:
    """Make a rendering context, in a process of its own, as broken drivers end theirs."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RENDER], capture_output=True, text=True, check=False, timeout=120
        )
    except subprocess.TimeoutExpired:
        return Finding("EGL", "fail", "no rendering context after 120 s", "reinstall the graphics driver")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding("EGL", "fail", said, "apt-get install libegl1 libgl1-mesa-dri")
    return Finding("EGL", "ok", f"a context by MUJOCO_GL={os.environ.get('MUJOCO_GL', 'egl')}")


def _enough(check: str, have: float, need: float, what: str) -> Finding:
    if have < need:
        return Finding(check, "warning", f"{have:.1f} GB {what}", f"the demo wants {need:g} GB")
    return Finding(check, "ok", f"{have:.1f} GB {what}")
