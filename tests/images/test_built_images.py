"""Images that are really built, with buildah from a debootstrap base, and every stage run in one of them.

The images stay in Podman's storage under the names that `b1k run --containers` looks for: the tests of it
in tests/pipelines come after these and use them.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.serving import write_random_checkpoint
from pi_behavior.checkpoint import digest
from pi_behavior.config import ModelConfig
from pipelines.definitions.profiles import load_profile
from pipelines.definitions.profiles.profile import USER

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DEBIAN, PYTHON = "bookworm", "3.11"
BASE = f"localhost/b1k/python:{PYTHON}-{DEBIAN}"
IMAGES = {stage: step.image for stage, step in load_profile("laptop").steps.items()}
# whose artifacts do not depend on the machine, nor on what is in the workspace
SAME = {"settings", "dataset", "prepare", "statistics", "group", "leaderboard"}
# what a stage writes that tells when and where it ran
DATED = {"lineage.json", "summary.html", "report/index.html", "submission"}
NETWORK = {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout"}

pytestmark = [pytest.mark.images, pytest.mark.timeout(3000)]


def call(*words: str | Path, **options) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, (
        f"{shlex.join(map(str, words))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout


@dataclass(frozen=True)
class Registries:
    """How this machine reaches its package registries: a folder that builds see and images must not keep."""

    folder: Path
    hosts: set[str]
    planted: list[str]
    """Values that look secret, put where secrets are: the settings, the environment, the build context."""

    def mounts(self) -> list[str]:
        places = {"": "/mnt", "pip.conf": "/etc/pip.conf", "apt": "/etc/apt"}
        return [f"--volume={self.folder / name}:{place}:ro" for name, place in places.items()]


def pip_settings(folder: Path) -> dict[str, str]:
    """What pip on this machine is told about the network, by files and by the environment."""
    found: dict[str, str] = {}
    lines = call(sys.executable, "-m", "pip", "config", "list").splitlines()
    for line in sorted(lines, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        found[name.split(".", 1)[1]] = shlex.split(value)[0] if value else ""
    settings = {name: value for name, value in found.items() if name in NETWORK}
    for name in ("index-url", "extra-index-url"):
        remote = [url for url in settings.pop(name, "").split() if not url.startswith("file:")]
        if remote:
            settings[name] = " ".join(remote)
    if "cert" in found:
        shutil.copyfile(found["cert"], folder / "ca.crt")
        settings["cert"] = "/mnt/ca.crt"
    return settings


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Registries:
    folder = tmp_path_factory.mktemp("registries")
    planted = [secrets.token_hex(16) for _ in range(4)]
    hosts = {f"{secrets.token_hex(8)}.invalid"}
    (host,) = hosts
    pip = pip_settings(folder)
    text = "".join(f"{name} = {value}\n" for name, value in pip.items())
    (folder / "pip.conf").write_text(f"[global]\n# https://user:{planted[0]}@{host}/simple\n{text}")
    shutil.copytree("/etc/apt", folder / "apt")
    # as in the official Python images: packages and the lists' cache are not kept
    (folder / "apt" / "apt.conf.d" / "zz-b1k").write_text(
        'APT::Keep-Downloaded-Packages "false";\nDir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
    )
    logins = folder / "apt" / "auth.conf.d"
    logins.mkdir(exist_ok=True)
    (logins / "b1k.conf").write_text(f"machine {host} login user password {planted[1]}\n")
    urls = [word for value in pip.values() for word in value.split()]
    urls += call("apt-get", "indextargets", "--format", "$(REPO_URI)").split()
    hosts |= {urlsplit(url).hostname or "" for url in urls if "://" in url}
    return Registries(folder, hosts, planted)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian with its Python, in place of the official Python image, which CI cannot pull."""
    folder = tmp_path_factory.mktemp("base")
    root = folder / "root"
    kind = ("Created-By: Packages", f"Codename: {DEBIAN}", "Component: main")
    mirrors = call("apt-get", "indextargets", "--format", "$(REPO_URI)", *kind).split()
    packages = "ca-certificates,python3,python3-venv,python3-pip"
    call("debootstrap", "--variant=minbase", f"--include={packages}", DEBIAN, root, *mirrors[:1])
    (root / f"usr/lib/python{PYTHON}/EXTERNALLY-MANAGED").unlink()
    for kept in ("dev", "var/lib/apt/lists", "var/cache/apt", "var/log"):
        shutil.rmtree(root / kept)
        (root / kept).mkdir()
    (root / "etc" / "apt" / "sources.list").write_text("")
    (root / "etc" / "pip.conf").write_text("")  # where the settings are mounted
    call("tar", "--numeric-owner", "-C", root, "-cf", folder / "root.tar", ".")
    call("podman", "import", "--quiet", folder / "root.tar", BASE)
    shutil.rmtree(folder)
    return BASE


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, registries: Registries) -> Path:
    """The working tree, with a secret in it."""
    folder = tmp_path_factory.mktemp("context")
    names = call("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for place in (".env", "model/.env", "components/runtime/.env"):
        (folder / place).write_text(f"WANDB_API_KEY={registries.planted[2]}\n")
    return folder


@dataclass(frozen=True)
class Image:
    name: str
    commit: str
    facts: dict
    own_bytes: int


@pytest.fixture(scope="module")
def build(base: str, context: Path, registries: Registries) -> Callable[..., Image]:
    """Builds the image of a role, once: by the command of its Dockerfile but from our base."""

    @cache
    def image_of(role: str, *more: str) -> Image:
        name = f"localhost/b1k/{role}:{VERSION}"
        commit = call("git", "-C", ROOT, "rev-parse", "HEAD").strip()
        arguments = {"PYTHON_IMAGE": base, "B1K_VERSION": VERSION, "B1K_GIT_COMMIT": commit}
        call(
            *("buildah", "bud", "--isolation=chroot", "--pull-never", "--tag", name, "--target", role),
            *("--file", context / "images" / f"{role}.Dockerfile", *registries.mounts()),
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            *more,
            context,
            env=os.environ | {"AWS_SECRET_ACCESS_KEY": registries.planted[3]},
        )
        (facts,) = json.loads(call("podman", "image", "inspect", name))
        (below,) = json.loads(call("podman", "image", "inspect", base))
        return Image(name, commit, facts, facts["Size"] - below["Size"])

    return image_of


@pytest.fixture(params=["toolbox", "household"])
def image(request: pytest.FixtureRequest, build: Callable[..., Image]) -> Image:
    """An image by its role."""
    return build(request.param)


@contextmanager
def files_of(name: str) -> Iterator[Path]:
    try:
        yield Path(call("podman", "image", "mount", name).strip())
    finally:
        call("podman", "image", "unmount", name)


def run(image: Image, *command: str, user: str = f"{USER}", volumes: tuple[str, ...] = ()) -> str:
    """Run a command as a cluster does: nothing added to passwd, umask 0, a read-only root, no network.

    NumPy computes as on another processor than the host's.
    """
    options = (
        *("--rm", "--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp", "--network=none"),
        *("--cap-drop=all", "--passwd=false", "--umask=0000", f"--user={user}"),
        *("--env=B1K_ATTEMPTS=2", "--env=OPENBLAS_CORETYPE=Nehalem"),
        *(f"--volume={one}" for one in volumes),
    )
    return call("podman", "run", *options, image.name, *command)


def test_labels_user_and_size(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(
            f"\n{image.name}: {image.facts['Size'] / 1e6:.0f} MB, own layers {image.own_bytes / 1e6:.0f} MB"
        )
    assert image.own_bytes > 0
    assert image.facts["Config"]["User"] == f"{USER}:{USER}"
    labels = image.facts["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.revision"] == image.commit
    code = "import getpass, os, sys, components; print(getpass.getuser(), os.getgid(), sys.prefix)"
    assert run(image, "python3", "-c", code).split() == ["b1k", f"{USER}", "/opt/b1k"]


def test_the_bill_of_materials_names_every_python_package(image: Image) -> None:
    code = (
        "import json, os; from importlib.metadata import distributions; print(json.dumps(["
        "json.load(open(os.environ['B1K_SBOM'])), {d.name: d.version for d in distributions()}]))"
    )
    bill, installed = json.loads(run(image, "python3", "-c", code))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    ours = {"b1k", "pi-behavior", "household"}
    listed = {one["name"]: one["version"] for one in bill["components"]}
    assert listed == {name: version for name, version in installed.items() if name not in ours}


def test_no_build_tools_and_no_caches(image: Image) -> None:
    with files_of(image.name) as root:
        folders = ("usr/bin", "usr/sbin", "usr/local/bin", "opt/b1k/bin")
        programs = {path.name for folder in folders for path in (root / folder).iterdir()}
        assert {"python3", "dpkg"} <= programs
        tools = r"(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|ld|as|clang|rustc|cargo|go|make|cmake|ninja)(-\d+)?"
        assert not [name for name in programs if re.fullmatch(tools, name)]
        assert not [*root.glob("usr/include/**/Python.h")]
        for cache in ("root/.cache", "tmp", "wheels", "build", "var/lib/apt/lists", "var/cache/apt", "mnt"):
            folder = root / cache
            assert not folder.exists() or not [
                p for p in folder.rglob("*") if p.is_file() and p.stat().st_size
            ], cache


def test_no_secret_and_no_registry_in_the_image(
    image: Image, base: str, registries: Registries, tmp_path: Path
) -> None:
    def found(root: Path, words: list[str]) -> list[str]:
        (tmp_path / "words").write_text("\n".join(words))
        options = ("--recursive", "--files-with-matches", "--fixed-strings", "--devices=skip")
        done = subprocess.run(
            ["grep", *options, "--file", tmp_path / "words", root],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        return done.stdout.splitlines()

    # a machine that uses the public registries: Debian and pip name those themselves
    with files_of(base) as root:
        hosts = [host for host in registries.hosts if not found(root, [host])]
    unwanted = [*registries.planted, *hosts]
    about = json.dumps(image.facts) + call("podman", "history", "--no-trunc", "--format=json", image.name)
    assert not [word for word in unwanted if word in about]
    with files_of(image.name) as root:
        assert found(root / "usr" / "share" / "licenses", ["Apache License"])
        assert found(root, unwanted) == []


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest run of the whole pipeline, on this machine.

    The demonstrations belong to the user of the images, as on a cluster's volume: others may not read them.
    """
    folder = tmp_path_factory.mktemp("demo") / "workspace"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    words = ["demo", "--profile", "smoke", "--episodes", "4", "--workspace", str(folder)]
    call(sys.executable, "-m", "pipelines.cli", *words, env=environment)
    for top in (folder / "demonstrations", folder / "remote"):
        for path in (top, *top.rglob("*")):
            os.lchown(path, USER, USER)
    return folder


def executor_input(stage: str, statement: Path) -> str:
    """The request by which Kubeflow would have a stage make an artifact, in /workspace."""
    definition = json.loads(statement.read_text())["predicate"]["buildDefinition"]
    inputs: dict[str, dict] = {}
    for dependency in definition["resolvedDependencies"]:
        if dependency.get("uri", "").startswith("artifacts/"):
            name = re.sub(r"\[\d+\]$", "", dependency["name"])
            group = inputs.setdefault(name, {"artifacts": []})["artifacts"]
            group.append({"uri": f"/workspace/{dependency['uri']}"})
    config = definition["externalParameters"]
    if stage == "settings":
        parsed = {name: json.loads(config.pop(name)) for name in ("profile", "settings")}
        parameters = {**json.loads(config.pop("inputs")), **config, **parsed}
    elif stage == "news":
        source = {name: config[name] for name in ("repository", "revision", "path", "remote")}
        parameters = {"sections": stage, "profile": {stage: source}}
    elif stage == "collect":
        parameters = {"sections": stage, "profile": {stage: {**config, "repository": "/workspace/new"}}}
    else:
        config.pop("champion", None)  # the folder on the host
        parameters = {"sections": stage, "profile": {stage: config}}
    return json.dumps(
        {
            "inputs": {"parameterValues": parameters, "artifacts": inputs},
            "outputs": {"outputFile": "/tmp/output.json"},
        }
    )


def sums(artifact: Path) -> dict[str, str]:
    """Digests of an artifact's files by name, without those that tell when and where it was made."""
    lines = [line.split(maxsplit=1) for line in (artifact / "SHA256SUMS").read_text().splitlines()]
    return {name: digest for digest, name in lines if not {name, name.split("/")[0]} & DATED}


@pytest.fixture
def volume(request: pytest.FixtureRequest, workspace: Path, tmp_path: Path) -> Path:
    """A copy of the workspace's artifacts that belongs to the user of the images and a group."""
    shutil.copytree(workspace / "artifacts", tmp_path / "volume" / "artifacts", symlinks=True)
    for path in (tmp_path / "volume", *(tmp_path / "volume").rglob("*")):
        os.lchown(path, USER, request.param)
    return tmp_path / "volume"


@pytest.mark.parametrize("volume", [0, USER], ids=["group-0", f"group-{USER}"], indirect=True)
@pytest.mark.parametrize(("stage", "image"), IMAGES.items(), ids=IMAGES, indirect=["image"])
def test_every_stage_runs_in_its_image(stage: str, image: Image, workspace: Path, volume: Path) -> None:
    owner = (USER, volume.stat().st_gid)
    source = "dataset" if stage == "news" else stage  # the run that is made again did not ask for news
    statements = sorted(workspace.glob(f"artifacts/{source}/*/lineage.json"))
    assert statements
    for statement in statements if stage in SAME else statements[:1]:
        before = statement.parent
        shutil.rmtree(volume / "artifacts" / source / before.name)
        words = ("--workspace", "/workspace", "--executor-input", executor_input(stage, statement))
        mounts = (f"{workspace}:{workspace}:ro", f"{volume}:/workspace")
        user = "{}:{}".format(*owner)
        told = run(image, "python3", "-m", f"components.{stage}", *words, user=user, volumes=mounts)
        (place,) = re.findall(rf"{stage}: done: /workspace/(artifacts/{stage}/\w+)\n", told)
        made = volume / place
        lineage = json.loads((made / "lineage.json").read_text())
        used = {one["name"]: one for one in lineage["predicate"]["buildDefinition"]["resolvedDependencies"]}
        assert used["commit"]["digest"]["gitCommit"] == image.commit
        if stage in SAME:
            assert made.name == before.name
            assert sums(made) == sums(before)
            assert sums(made)
        for path in (made, *made.rglob("*")):
            facts = path.lstat()
            assert (facts.st_uid, facts.st_gid) == owner, path
            assert path.is_symlink() or not facts.st_mode & 0o027, path


def test_a_policy_is_delivered_by_digest_and_rehearsed(
    build: Callable[..., Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image for a CPU; that for CUDA differs in the wheels of JAX."""
    folder = write_random_checkpoint(tmp_path / "checkpoint", ModelConfig.presets["tiny"])
    options = ("--build-arg=JAX=jax", f"--build-context=checkpoint={folder}")
    with pytest.raises(AssertionError, match=f"its digest is {digest(folder)}"):
        build("policy", *options, f"--build-arg=CHECKPOINT_SHA256={'0' * 64}")
    image = build("policy", *options, f"--build-arg=CHECKPOINT_SHA256={digest(folder)}")
    assert image.facts["Labels"]["b1k.checkpoint.sha256"] == digest(folder)
    url = f"unix://{tmp_path}/podman.sock"
    monkeypatch.setenv("DOCKER_HOST", url)
    # the machine's network: Podman's settings for these tests have no other
    words = ("--environments", "3", "--network", "host")
    service = subprocess.Popen(["podman", "system", "service", "--time=0", url])
    try:
        while not (tmp_path / "podman.sock").exists():
            time.sleep(0.1)
        said = call(sys.executable, "-m", "pipelines.cli", "rehearse", image.name, *words)
    finally:
        service.terminate()
        service.wait()
    assert "an environment at each of 64 ports ... good" in said
    assert "memory of a GPU with 24 GiB ... good" in said
    assert image.name not in call("podman", "ps", "--all", "--format", "{{.Image}}")
