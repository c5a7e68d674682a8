"""`b1k rehearse`: play the official evaluators' clients against a policy server, before the organisers do."""

import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import tyro

from components.errors import UserError
from pi_behavior.challenge import DEFAULT_EDITION, edition, task
from pi_behavior.policy.rehearsal import Finding, Rehearsal, rehearse

_FPS = 30
_SIDES = {"default": (224, 224), "full": (720, 480)}
_LAST_PORT = 65535
_POLL = 1.0
_NVIDIA = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class Options:
    """Play the official evaluators' clients against a policy server, and say what would fail there.

    Health checks, connections, batches, replayed chunks, a lost connection, an environment at each port,
    whether answers come within a rollout's budget, and whether the networks fit into the memory of the
    challenge's GPU. Exit code 1 where something would fail.
    """

    server: tyro.conf.Positional[str]
    """Address of a server's first port, such as ws://127.0.0.1:8000; or a container image, which is started
    with its own command, and removed afterwards."""
    image_port: int = 8000
    """First port at which the image serves."""
    network: Literal["bridge", "host"] = "bridge"
    """Network of the image's container: one of its own, whose ports are mapped to free ones of this machine,
    or this machine's."""
    start_seconds: float = 1800.0
    """How long the image may take until it serves."""
    ports: int = 64
    """Ports to try, one after the other from that one on; 1 for a server with a single one."""
    environments: int = 10
    """Environments of the largest batch."""
    task_name: str = "turning_on_radio"
    """Task of the observations: one that the policy serves."""
    edition: str = DEFAULT_EDITION
    """Edition of the challenge: layout of the proprioception, and the time limit."""
    pictures: Literal["default", "full"] = "default"
    """default: 224 x 224; full: 720 x 720 of the head, 480 x 480 of the wrists."""
    depth: bool = False
    """Send depth pictures too."""
    gpu_gib: float = 24.0
    """Memory of the GPU that the policy is to run on."""
    queries: int = 4
    """Observations of every episode."""
    query_seconds: float = 600.0
    """The client's patience for an answer."""


def run(options: Options) -> int:
    """Print every check and its outcome; returns 1 if one failed."""
    plan = _plan(options)
    if _address(options.server):
        return _rehearse(plan)
    with _container(options) as port:
        return 1 if port is None else _rehearse(replace(plan, port=port))


def _rehearse(plan: Rehearsal) -> int:
    failed: list[Finding] = []
    for finding in rehearse(plan, on_check=lambda name: print(f"{name} ... ", end="", flush=True)):
        print(f"{finding.problem or 'good'} ({finding.seconds:.1f} s)", flush=True)
        failed += [finding] if finding.problem else []
    if failed:
        print(f"{len(failed)} checks failed: an evaluation would lose rollouts", file=sys.stderr)
    return 1 if failed else 0


@contextmanager
def _container(options: Options) -> Iterator[int | None]:
    """Run the image: the first of its ports on this machine, None if it does not come to serve."""
    from docker.errors import DockerException
    from docker.types import DeviceRequest

    from pipelines.local.containers import connect, find_image

    url, connected = connect()
    settings: dict[str, Any] = {"network_mode": options.network}
    first = options.image_port
    if options.network == "bridge":
        first = _free_ports(options.ports)
        settings["ports"] = {
            f"{options.image_port + n}/tcp": ("127.0.0.1", first + n) for n in range(options.ports)
        }
    if _NVIDIA.exists():
        settings["device_requests"] = [DeviceRequest(count=1, capabilities=[["gpu"]])]
    else:
        print("this machine has no GPU: the image computes on the CPU", flush=True)
        settings["environment"] = {"JAX_PLATFORMS": "cpu"}
    with closing(connected) as client, ExitStack() as stack:
        try:
            image = find_image(client, options.server)
            container = client.containers.create(image, **settings)
            stack.callback(_remove, container)
            container.start()
        except DockerException as error:
            raise UserError(f"{url} cannot start the image {options.server}: {error}") from error
        print(f"the image {options.server} starts ... ", end="", flush=True)
        began = time.monotonic()
        problem = _wait(container, first, options.start_seconds)
        print(f"{problem or 'good'} ({time.monotonic() - began:.1f} s)", flush=True)
        yield None if problem else first


def _remove(container: Any) -> None:
    from docker.errors import NotFound

    with suppress(NotFound):
        container.remove(force=True)


def _wait(container: Any, port: int, seconds: float) -> str:
    """Wait until the container serves; what is wrong, empty if it does."""
    opener = build_opener(ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError), opener.open(f"http://127.0.0.1:{port}/healthz", timeout=2.0):
            return ""
        container.reload()
        if container.status not in ("created", "running"):
            said = container.logs(tail=5).decode(errors="replace").strip()
            return f"it ended with exit code {container.wait()['StatusCode']}: {said}"
        time.sleep(_POLL)
    return f"GET /healthz is not answered with 200 within {seconds:g} s"


def _free_ports(count: int) -> int:
    """The first of so many free ports of this machine, one after the other."""
    for first in range(20_000, _LAST_PORT - count, count):
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(closing(socket.socket())).bind(("127.0.0.1", port))
            return first
    raise UserError(f"{count} free ports one after the other are not to be found on this machine")


def _address(server: str) -> tuple[str, int] | None:
    """Host and port of a server's address; None for the name of an image."""
    if "://" not in server and not re.fullmatch(r"[\w.-]+:\d+", server):
        return None
    try:
        parts = urlsplit(server if "://" in server else f"ws://{server}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(str(error)) from error
    if not host or not port or parts.scheme not in ("ws", "http"):
        raise UserError(f"the address is {server!r}; expected ws://HOST:PORT, or the name of an image")
    return host, port


def _plan(options: Options) -> Rehearsal:
    host, port = _address(options.server) or ("127.0.0.1", options.image_port)
    try:
        chosen, played = edition(options.edition), task(options.task_name)
    except ValueError as error:
        raise UserError(str(error)) from error
    for name in ("ports", "environments", "queries"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}; expected at least 1")
    if port + options.ports - 1 > _LAST_PORT:
        raise UserError(f"--ports {options.ports} from {port} on end above {_LAST_PORT}")
    return Rehearsal(
        host=host,
        port=port,
        ports=options.ports,
        environments=options.environments,
        edition=chosen,
        task=played.index,
        max_steps=int(chosen.time_limit * played.duration * _FPS),
        sides=_SIDES[options.pictures],
        depth=options.depth,
        gpu_gib=options.gpu_gib,
        queries=options.queries,
        query_seconds=options.query_seconds,
    )
