"""Tasks in their images, as on a cluster: `b1k run --containers`, through the socket of Docker or Podman.

Every task is a container of the image that the compiled pipeline names, run as the calling user without
capabilities, with a read-only root file system and without network. It sees the workspace under its own path,
so that the paths in artifacts and lineage mean the same inside and outside.

`python -m pipelines.local.containers URL LABEL` waits until its standard input is closed, then removes the
containers of a run. The kernel closes it when `b1k run` ends, even by kill -9, so no container outlives us.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import LogConfig, Mount
from requests.exceptions import RequestException

from components.errors import UserError
from components.runtime.values import flat
from components.settings.checks import Arguments
from pipelines.definitions.profiles.cluster import S3, S3_SETTINGS, WANDB, WANDB_SETTINGS
from pipelines.local.records import Containers

ENGINE_FAILED = 125
"""Exit code of a task whose container could not be started or was lost, as `docker run` has it."""
PASSED_ON = (*S3.keys, *S3_SETTINGS.keys, *WANDB.keys, *WANDB_SETTINGS.keys)
"""Variables of ours that are passed on to tasks, as on a cluster. They are never written to a file."""
FOLDERS = ("repository", "initial_checkpoint", "policy", "wrapper", "robot_config")
"""Values of the pipelines that may name a folder or file of this machine, by the last part of their names."""
WRITABLE = "champion"
"""Those that name a folder in which a stage writes."""
_WORKSPACE = "b1k.workspace"
_RUN = "b1k.run"
_SHARED_MEMORY = "2g"
_PATIENCE = 600
"""Seconds that the engine may take for a request: a build, for example, may lock its storage."""
_FAILURES = (DockerException, RequestException)


@dataclass(frozen=True)
class Setup:
    """What it takes to start the containers of one attempt of a run."""

    url: str
    """Where the container engine listens."""
    images: dict[str, str]
    """Image ids by the references in the compiled pipeline."""
    user: str
    """User and group ids that become the caller's on files of the workspace."""
    network: str
    workspace: str
    folders: dict[str, bool]
    """Folders of this machine, each mounted under its own path, and whether tasks can only read it."""
    run: str
    """Names the attempt; a label of its containers."""


def set_up(
    chosen: Containers, spec: Mapping[str, Any], arguments: Mapping[str, Any], workspace: Path, run: str
) -> Setup:
    """Check that everything is there before the first task starts; the caller holds the workspace's lock.

    Removes containers of the workspace that an earlier run could not, and pulls images that are missing.

    Raises:
        UserError: no container engine answers, or an image or folder is missing.
    """
    readable, writable = host_folders(arguments, workspace, chosen.mounts)
    folders = {**dict.fromkeys((str(workspace), *writable), False), **dict.fromkeys(readable, True)}
    executors = spec["deploymentSpec"]["executors"].values()
    names = sorted({one["container"]["image"] for one in executors if "container" in one})
    url, connected = connect()
    with closing(connected) as client:
        try:
            _remove(client, f"{_WORKSPACE}={workspace}")
            images = {name: find_image(client, name) for name in names}
            rootless = "name=rootless" in (client.info().get("SecurityOptions") or [])
        except _FAILURES as error:
            raise UserError(f"the container engine at {url} failed: {error}") from error
    # a rootless engine maps its root to the user who runs it, and its other users to unknown ones
    user = "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"
    return Setup(url, images, user, chosen.network, str(workspace), folders, run)


def host_folders(
    arguments: Mapping[str, Any], workspace: Path, mounts: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The folders outside the workspace that tasks read, and those that they write.

    An argument of the pipeline that is an existing absolute path names one; `mounts` are more to read.
    """
    for folder in mounts:
        if not Path(folder).exists():
            raise UserError(f"--mount {folder}: there is no such file or folder")
    named = [(name.rpartition(".")[2], str(value)) for name, value in flat(arguments)]
    champions = [value for name, value in named if name == WRITABLE and value]
    for champion in champions:
        Path(champion).mkdir(parents=True, exist_ok=True)
    folders = [*mounts, *(value for _, value in named if os.path.isabs(value))]
    outside = [
        place
        for place in dict.fromkeys(map(os.path.abspath, folders))
        if os.path.exists(place) and not Path(place).is_relative_to(workspace)
    ]
    writable = tuple(place for place in outside if place in champions)
    return tuple(place for place in outside if place not in champions), writable


def absolute_folders(given: Arguments) -> Arguments:
    """The values with folders under their absolute paths: a container has another working directory."""

    def absolute(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: absolute(key, inner) for key, inner in value.items()}
        is_folder = name == WRITABLE or (name in FOLDERS and Path(str(value)).exists())
        return os.path.abspath(value) if value and is_folder else value

    return Arguments(absolute("", given.inputs), absolute("", given.settings))


def sockets() -> tuple[str, ...]:
    """URLs where a container engine may listen: DOCKER_HOST alone if set, else the usual sockets."""
    given = os.environ.get("DOCKER_HOST")
    if given:
        return (given,)
    own = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    places = ("/var/run/docker.sock", f"{own}/docker.sock", f"{own}/podman/podman.sock")
    return tuple(f"unix://{place}" for place in (*places, "/run/podman/podman.sock"))


def connect() -> tuple[str, docker.DockerClient]:
    """URL and client of a container engine that answers; UserError if there is none."""
    tried = []
    for url in sockets():
        try:
            _knock(url)
            return url, docker.DockerClient(base_url=url)
        except (OSError, *_FAILURES) as error:
            tried.append(f"{url} ({getattr(error, 'strerror', None) or error})")
    raise UserError(
        f"no container engine answers; tried {', '.join(tried)}. Start Docker, or Podman with `podman system "
        "service --time=0 unix:///tmp/podman.sock &` and `export DOCKER_HOST=unix:///tmp/podman.sock`"
    )


def _knock(url: str) -> None:
    """Raise OSError where nobody listens at a Unix socket, with a shorter message than the library's."""
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(url.removeprefix("unix://"))


def find_image(client: docker.DockerClient, name: str) -> str:
    """The id of an image, pulled first where it is missing and its name says where from.

    Raises:
        UserError: it is not there, and cannot be pulled.
    """
    with suppress(ImageNotFound):
        return str(client.images.get(name).id)
    registry, slash, _ = name.partition("/")
    if not slash or registry == "localhost" or not set(".:") & set(registry):
        raise UserError(f"the image {name} is not here; build it with: {_build_command(client, name)}")
    print(f"pulling {name}", flush=True)
    try:
        return str(client.images.pull(name).id)
    except APIError as error:
        raise UserError(f"the image {name} is not here and cannot be pulled: {error.explanation}") from error


def _build_command(client: docker.DockerClient, name: str) -> str:
    role, _, tag = name.rpartition("/")[2].partition(":")
    engines = [one.get("Name", "") for one in client.version().get("Components") or []]
    commit = "B1K_GIT_COMMIT=$(git rev-parse HEAD)"
    if "Podman Engine" in engines:
        arguments = f"--build-arg B1K_VERSION={tag} --build-arg {commit}"
        return f"podman build --file images/{role}.Dockerfile {arguments} --tag {name} ."
    return f"B1K_VERSION={tag} {commit} docker buildx bake -f images/docker-bake.hcl {role}"


class Container:
    """A task in a container."""

    def __init__(
        self, setup: Setup, image: str, command: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        """Prepare; `wait` starts it. The image's own entry point is not used, as on a cluster."""
        self._setup = setup
        self._image = setup.images[image]
        self._command = list(command)
        self._log = log
        self._environment = {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            "B1K_IMAGE": image,
            "B1K_IMAGE_DIGEST": self._image.removeprefix("sha256:"),
            **environment,
        }
        self._id = ""

    def wait(self) -> int:
        """Run it to its end: the exit code of its command, or `ENGINE_FAILED`, with the error in its log."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab", buffering=0) as log:
            try:
                with closing(docker.DockerClient(base_url=self._setup.url, timeout=_PATIENCE)) as client:
                    container = client.containers.create(self._image, **self._options())
                    self._id = container.id
                    # not `logs`, of which Podman drops the end where the task ends at once
                    output = container.attach(stream=True)
                    container.start()
                    for chunk in output:
                        log.write(chunk)
                    return int(container.wait()["StatusCode"])
            except _FAILURES as error:
                log.write(f"the container engine failed: {error}\n".encode())
                return ENGINE_FAILED

    def _options(self) -> dict[str, Any]:
        return {
            "entrypoint": self._command[:1],
            "command": self._command[1:],
            "environment": self._environment,
            "user": self._setup.user,
            "mounts": [
                Mount(one, one, type="bind", read_only=read_only)
                for one, read_only in self._setup.folders.items()
            ],
            "network_mode": self._setup.network,
            "labels": {_WORKSPACE: self._setup.workspace, _RUN: self._setup.run},
            "read_only": True,
            "tmpfs": {"/tmp": ""},  # noqa: S108
            "shm_size": _SHARED_MEMORY,
            "cap_drop": ["ALL"],
            # the second: SELinux labels of a user's folders keep containers out
            "security_opt": ["no-new-privileges", "label=disable"],
            # Python as process 1 ignores SIGTERM; a stage can be killed at any moment
            "stop_signal": "SIGKILL",
            # we write the log
            "log_config": LogConfig(type="none"),
        }

    def stop(self, grace: float = 0.0) -> None:
        """Kill it if it runs, and remove it; it gets no `grace`."""
        if not self._id:
            return
        with closing(docker.DockerClient(base_url=self._setup.url)) as client, suppress(NotFound):
            client.containers.get(self._id).remove(force=True)


@contextmanager
def cleaning(setup: Setup, log: Path) -> Iterator[None]:
    """Remove the run's containers when the block is left or this process ends, kill -9 included."""
    command = [sys.executable, "-m", "pipelines.local.containers", setup.url, f"{_RUN}={setup.run}"]
    with log.open("ab") as file:
        # in a session of its own, which Ctrl-C at the terminal does not reach
        reaper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield
    finally:
        reaper.communicate()


def _remove(client: docker.DockerClient, label: str) -> None:
    """Remove all containers with a label, those that run included."""
    for container in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
        with suppress(NotFound):
            container.remove(force=True)


if __name__ == "__main__":
    sys.stdin.read()
    with closing(docker.DockerClient(base_url=sys.argv[1])) as the_client:
        _remove(the_client, sys.argv[2])
