"""Plays the official evaluators' clients against a policy server, with their patience: what would fail?

Observations are random, so the actions mean nothing; what counts is that they arrive in time and in the right
form. Source: the challenge's description of its evaluators' clients.
"""

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from pi_behavior.challenge import STATE_PARTS, Edition
from pi_behavior.config import from_document
from pi_behavior.layout import ACTION_DIM, PROPRIOCEPTION_SUFFIX, ROBOT, TASK_ID_KEY, camera_observation_keys
from pi_behavior.policy import protocol
from pi_behavior.policy.config import PolicyConfig, Serving

CHUNK_SIZES = (7, 10, 16, 20, 30)
_DEPTH = "depth_linear"
_PATIENCE = 10.0
"""Seconds for a connection, and for its first frame."""


class ClientError(Exception):
    """What the client would not have put up with."""


@dataclass(frozen=True)
class Rehearsal:
    """What is played, and the client's patience."""

    host: str
    port: int
    ports: int
    """Endpoints of one environment each, one port after the other."""
    environments: int
    """Environments of the batch that the first port is asked with."""
    edition: Edition
    task: int
    """Task index."""
    max_steps: int
    """Steps of a rollout; its budget is one second for each."""
    sides: tuple[int, int]
    """Sides of the head's and the wrists' pictures, in pixels."""
    depth: bool
    gpu_gib: float
    """Memory of the GPU that the policy gets; it must suffice for what the server says of itself."""
    queries: int
    """Observations of every episode that is played."""
    paced: int = 40
    """Observations that the speed is measured with: more than the steps between two calls of the network."""
    health_seconds: float = 2.0
    query_seconds: float = 600.0


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    problem: str
    """Empty where nothing is wrong."""
    seconds: float


@dataclass
class _Client:
    """A connection, as the evaluator holds it."""

    plan: Rehearsal
    port: int
    socket: ClientConnection
    metadata: dict[str, Any]
    times: list[float] = field(default_factory=list)
    """Seconds of every answer."""

    def reset(self) -> None:
        self.socket.send(protocol.pack({protocol.RESET: True}))

    def ask(self, message: dict[str, Any], environments: int | None, chunk: int = 0) -> None:
        """Send an observation and check the answer."""
        if chunk:
            message = message | {protocol.ACTION_CHUNK_SIZE: chunk}
        began = time.monotonic()
        self.socket.send(protocol.pack(message))
        answer = _receive(self.socket, self.plan.query_seconds, "an action")
        self.times.append(time.monotonic() - began)
        lead = () if environments is None else (environments,)
        action = answer.get(protocol.ACTION)
        if not isinstance(action, np.ndarray) or action.shape != (*lead, ACTION_DIM):
            raise ClientError(f"action is {_shown(action)}; expected an array {(*lead, ACTION_DIM)}")
        if action.dtype.kind != "f" or not np.isfinite(action).all():
            raise ClientError(f"action is {_shown(action)} with values that are not finite numbers")
        if not chunk or protocol.ACTION_CHUNK not in answer:
            return
        given = answer[protocol.ACTION_CHUNK]
        if not isinstance(given, np.ndarray) or given.shape != (*lead, chunk, ACTION_DIM):
            raise ClientError(
                f"action_chunk is {_shown(given)}; expected {(*lead, chunk, ACTION_DIM)} or none"
            )
        if not np.array_equal(given[..., 0, :], action):
            raise ClientError("the first step of action_chunk is not action")


def rehearse(plan: Rehearsal, on_check: Callable[[str], None] = lambda name: None) -> Iterator[Finding]:
    """Play the clients; a check that fails does not keep the next ones from being made.

    Args:
        plan: what to play.
        on_check: called with the name of every check before it is made.
    """
    batches: tuple[int | None, ...] = tuple(dict.fromkeys((None, 1, 2, plan.environments)))
    checks: list[tuple[str, Callable[[], None]]] = [
        (f"health of {plan.ports} ports", lambda: _all_ports(plan, _health)),
        (f"connection to {plan.ports} ports", lambda: _all_ports(plan, _connection)),
        ("first answer and budget of a rollout", lambda: _budget(plan)),
    ]
    for size in batches:
        name = "one environment, no batch" if size is None else f"a batch of {size}"
        checks.append((name, lambda size=size: _episode(plan, size, 0)))  # type: ignore[misc]
    checks += [
        (f"replayed chunks of {chunk}", lambda chunk=chunk: _episode(plan, 2, chunk))  # type: ignore[misc]
        for chunk in CHUNK_SIZES
    ]
    checks += [
        ("reconnection in mid-episode", lambda: _reconnection(plan)),
        ("another batch after a reset", lambda: _other_batch(plan)),
        (f"an environment at each of {plan.ports} ports", lambda: _all_ports(plan, _one_environment)),
        (f"memory of a GPU with {plan.gpu_gib:g} GiB", lambda: _memory(plan)),
    ]
    for name, check in checks:
        on_check(name)
        began, problem = time.monotonic(), ""
        try:
            check()
        except ClientError as error:
            problem = str(error)
        except (OSError, InvalidHandshake, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
        except ConnectionClosed as error:
            problem = f"the server closed the connection: {error}"
        yield Finding(name, problem, time.monotonic() - began)


def _all_ports(plan: Rehearsal, check: Callable[[Rehearsal, int], None]) -> None:
    bad: dict[int, str] = {}
    for port in range(plan.port, plan.port + plan.ports):
        try:
            check(plan, port)
        except (OSError, InvalidHandshake, http.client.HTTPException, ConnectionClosed, ClientError) as error:
            bad[port] = str(error) or type(error).__name__
    if bad:
        port, reason = next(iter(bad.items()))
        raise ClientError(f"{len(bad)} of {plan.ports} ports, from {port} on: {reason}")


def _health(plan: Rehearsal, port: int) -> None:
    connection = http.client.HTTPConnection(plan.host, port, timeout=plan.health_seconds)
    try:
        connection.request("GET", "/healthz")
        if (status := connection.getresponse().status) != http.HTTPStatus.OK:
            raise ClientError(f"GET /healthz answers {status}; expected 200, or no evaluator connects")
    finally:
        connection.close()


def _connection(plan: Rehearsal, port: int) -> None:
    with _connected(plan, port):
        pass


def _one_environment(plan: Rehearsal, port: int) -> None:
    with _connected(plan, port) as client:
        client.reset()
        client.ask(_observation(plan, 1, port), 1)


def _episode(plan: Rehearsal, environments: int | None, chunk: int) -> None:
    with _connected(plan, plan.port) as client:
        client.reset()
        client.reset()
        for step in range(plan.queries):
            client.ask(_observation(plan, environments, step), environments, chunk)


def _budget(plan: Rehearsal) -> None:
    """What a whole rollout of the batch would take, one observation per step being the worst case."""
    with _connected(plan, plan.port) as client:
        client.reset()
        for step in range(plan.paced):
            client.ask(_observation(plan, plan.environments, step), plan.environments)
    first, *others = client.times
    mean = sum(others) / len(others)
    expected = first + plan.max_steps * mean
    if expected > plan.max_steps:
        raise ClientError(
            f"{plan.max_steps} answers would take {expected:.0f} s: the first took {first:.1f} s, the others "
            f"{mean:.2f} s. The budget of a rollout is {plan.max_steps} s, with the simulation"
        )


def _reconnection(plan: Rehearsal) -> None:
    message = _observation(plan, 1, 1)
    with _connected(plan, plan.port) as client:
        client.reset()
        client.ask(_observation(plan, 1, 0), 1)
        client.socket.send(protocol.pack(message))
        client.socket.socket.close()  # as when the network fails: no farewell
    _health(plan, plan.port)
    with _connected(plan, plan.port) as client:
        client.ask(message, 1)
        client.ask(_observation(plan, 1, 2), 1)


def _other_batch(plan: Rehearsal) -> None:
    with _connected(plan, plan.port) as client:
        for environments in (2, 1, plan.environments):
            client.reset()
            client.ask(_observation(plan, environments, environments), environments)


def _memory(plan: Rehearsal) -> None:
    """What `b1k serve --plan` says of the networks that the server says it has."""
    with _connected(plan, plan.port) as client:
        told = client.metadata
    if not told.get("serving"):
        return  # not a server of ours
    from pi_behavior.policy.plan import needs, usable  # seconds of imports

    serving, policy = from_document(Serving, told["serving"]), from_document(PolicyConfig, told["settings"])
    limit = usable(plan.gpu_gib)
    for need in needs(serving, policy):
        if need.memory > limit:
            raise ClientError(
                f"computing in {need.computes}, batches of {need.batch} need {need.memory / 2**30:.2f} GiB; "
                f"{limit / 2**30:.2f} GiB are usable"
            )


@contextmanager
def _connected(plan: Rehearsal, port: int) -> Iterator[_Client]:
    address = f"ws://{plan.host}:{port}"
    with connect(
        address, compression=None, max_size=None, open_timeout=_PATIENCE, close_timeout=1, proxy=None
    ) as socket:
        yield _Client(plan, port, socket, _receive(socket, _PATIENCE, "metadata"))


def _receive(socket: ClientConnection, seconds: float, what: str) -> dict[str, Any]:
    try:
        frame = socket.recv(timeout=seconds)
    except TimeoutError as error:
        raise ClientError(f"no {what.removeprefix('an ')} within {seconds:g} s") from error
    if isinstance(frame, str):
        raise ClientError(
            f"an error instead of {what}: {frame.strip().splitlines()[-1] if frame else 'empty'}"
        )
    try:
        answer = protocol.unpack(frame)
    except protocol.ProtocolError as error:
        raise ClientError(f"{what} cannot be read: {error}") from error
    if not isinstance(answer, dict):
        raise ClientError(f"{what} is {type(answer).__name__}; expected a map")
    return answer


def _observation(plan: Rehearsal, environments: int | None, seed: int) -> dict[str, Any]:
    """Random pictures, and a robot near its middle; the same for the same seed."""
    rng = np.random.default_rng(seed)
    lead = () if environments is None else (environments,)
    layout = plan.edition.proprioception
    proprioception = np.zeros((*lead, layout.length), np.float32)
    for name in STATE_PARTS:
        part = layout.values[name]
        fingers = name.startswith("gripper")
        proprioception[..., part] = rng.uniform(0.0, 0.05 if fingers else 0.1, part.stop - part.start)
    message: dict[str, Any] = {
        ROBOT + PROPRIOCEPTION_SUFFIX: proprioception,
        f"{ROBOT}::cam_rel_poses": np.zeros((*lead, 21), np.float32),
        TASK_ID_KEY: np.full((*lead, 1), plan.task, np.int64),
    }
    noise = rng.integers(0, 256, 4099, dtype=np.uint8)
    for camera, key in camera_observation_keys(ROBOT).items():
        side = plan.sides[0] if camera == "head" else plan.sides[1]
        message[key] = np.resize(noise, (*lead, side, side, 4))
        if plan.depth:
            message[key.removesuffix("rgb") + _DEPTH] = np.full((*lead, side, side), np.inf, np.float32)
    return message


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {value.dtype}"
    return "missing" if value is None else f"of type {type(value).__name__}"
