"""The websocket service: one session per connection, one batcher for all, health and metrics over HTTP."""

import asyncio
import contextlib
import dataclasses
import hmac
import http
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from pi_behavior.challenge import EDITIONS
from pi_behavior.layout import (
    ACTION_DIM,
    ACTION_GROUPS,
    ACTION_HIGH,
    ACTION_HORIZON,
    ACTION_LOW,
    CONTROL_HZ,
    PROPRIOCEPTION_BY_LENGTH,
)
from pi_behavior.policy import protocol
from pi_behavior.policy.batching import Batcher
from pi_behavior.policy.config import PolicyConfig, Serving
from pi_behavior.policy.control_loop import Event
from pi_behavior.policy.interface import Prediction, Predictor, Request
from pi_behavior.policy.metrics import ServerMetrics
from pi_behavior.policy.ports import listen
from pi_behavior.policy.reconnection import Seat, Seats
from pi_behavior.policy.session import Session, log_trace
from pi_behavior.policy.switching import CheckpointPool, CheckpointUnavailableError, UnknownTaskError

logger = logging.getLogger(__name__)
SHUTDOWN_SECONDS = 20.0
"""How long a stop waits for sessions whose request is being computed."""
MAX_MESSAGE = 2**30
"""Bytes of a message: over 100 environments with pictures and depth at the evaluator's full sizes. The
protocol has no limit, and a frame may claim any length."""


class PolicyService:
    """Serves a pool of checkpoints."""

    def __init__(
        self,
        config: PolicyConfig,
        pool: CheckpointPool,
        *,
        max_batch: int,
        window: float = 0.005,
        api_key: str | None = None,
        serving: Serving | None = None,
    ) -> None:
        """Make a service; `run` serves.

        Args:
            config: how chunks are executed.
            pool: the checkpoints.
            max_batch: requests per run of the network, at most.
            window: seconds to wait for requests of other sessions.
            api_key: what clients must send as `Authorization: Api-Key KEY`; with None, no key is needed.
            serving: is told to clients.
        """
        self._config = config
        self._pool = pool
        self._max_batch = max_batch
        self._window = window
        self._api_key = api_key
        self._serving = serving
        self.metrics = ServerMetrics()
        self._connections = 0
        self._busy: set[ServerConnection] = set()
        """Connections whose message is being answered."""
        self._seats = Seats()
        self._stopping = False

    async def run(
        self, host: str, port: int, *, ports: int = 1, ready: Callable[[int], None], stop: asyncio.Event
    ) -> None:
        """Serve until told to stop.

        Args:
            host: address to listen at.
            port: first port; 0 takes free ones.
            ports: how many ports, one after the other, the same network is served on.
            ready: called with the first port when connections are accepted at all of them.
            stop: ends the service: requests that are being computed are answered, then connections are closed
                (code 1001).

        Raises:
            OSError: an address cannot be bound.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="network") as executor:
            self._batcher = Batcher(
                self._run_batch,
                executor,
                limit=self._max_batch,
                window=self._window,
                clients=lambda: self._connections,
            )
            batches = asyncio.create_task(self._batcher.serve())
            servers = await listen(partial(self._serve, host), port, ports)
            try:
                ready(servers[0].sockets[0].getsockname()[1])
                stopping = asyncio.create_task(stop.wait())
                await asyncio.wait({stopping, batches}, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                if batches.done():
                    batches.result()
            finally:
                await self._stop(servers)
                batches.cancel()

    async def _serve(self, host: str, port: int) -> Server:
        # No ping timeout: a simulator that loads a scene for minutes answers no ping.
        return await serve(
            self._handle,
            host,
            port,
            compression=None,
            max_size=MAX_MESSAGE,
            max_queue=1,  # a client that does not wait for its answers must not fill the memory
            ping_timeout=None,
            process_request=self._http,
        )

    async def _stop(self, servers: Sequence[Server]) -> None:
        """Accept nothing more, close idle connections at once, and the others after their answer."""
        self._stopping = True
        for server in servers:
            server.close(close_connections=False)
        idle = {connection for server in servers for connection in server.connections} - self._busy
        closing = asyncio.gather(*(connection.close(CloseCode.GOING_AWAY) for connection in idle))
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await closing
                await asyncio.gather(*(server.wait_closed() for server in servers))
        except TimeoutError:
            logger.warning("stopping with %d requests unanswered", len(self._busy))

    async def _submit(self, request: Request) -> Prediction:
        """Ask the network of the request's task, together with other sessions."""
        async with self._pool.use(request.task) as predictor:
            predictor.check(request)
            return await self._batcher.submit((predictor, request))

    async def _observation_steps(self, task: int) -> int:
        """How many observations the network of a task reads."""
        async with self._pool.use(task) as predictor:
            return predictor.observation_steps

    def _run_batch(self, asked: Sequence[tuple[Predictor, Request]]) -> list[Prediction]:
        """Answer requests to any networks, in order; in the network's thread."""
        groups: dict[int, list[int]] = {}
        for index, (predictor, _) in enumerate(asked):
            groups.setdefault(id(predictor), []).append(index)
        answers: dict[int, Prediction] = {}
        for indices in groups.values():
            predictor = asked[indices[0]][0]
            largest = predictor.batch_sizes[-1]
            for start in range(0, len(indices), largest):
                part = indices[start : start + largest]
                self.metrics.batch.observe(len(part))
                with self.metrics.network_seconds.time():
                    answers.update(zip(part, predictor.predict([asked[i][1] for i in part]), strict=True))
        return [answers[index] for index in range(len(asked))]

    def _http(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if request.path == "/metrics":
            return connection.respond(http.HTTPStatus.OK, self.metrics.text().decode())
        if self._api_key is None:
            return None
        expected = f"Api-Key {self._api_key}".encode()
        given = [text.encode(errors="replace") for text in request.headers.get_all("Authorization")]
        if len(given) == 1 and hmac.compare_digest(given[0], expected):
            return None
        return connection.respond(
            http.HTTPStatus.UNAUTHORIZED, "expected the header: Authorization: Api-Key KEY\n"
        )

    async def _handle(self, connection: ServerConnection) -> None:
        """Serve one connection to its end; its errors end no other."""
        peer, port = str(connection.remote_address), connection.local_address[1]
        seat = self._seats.open(port, self._session(peer), connection)
        self._connections += 1
        self.metrics.sessions.inc()
        logger.info("session of %s opened", peer)
        first = True
        try:
            await connection.send(protocol.pack(self._metadata()))
            async for frame in connection:
                self._busy.add(connection)
                if seat.connection is not connection:  # another one has taken this one's session over
                    seat = self._seats.open(port, self._session(peer), connection)
                answer = await self._answer(seat, frame, port, first)
                first = False
                if answer is not None:
                    await connection.send(protocol.pack(answer))
                self._busy.discard(connection)
                if self._stopping:
                    break
            await connection.close(CloseCode.GOING_AWAY if self._stopping else CloseCode.NORMAL_CLOSURE)
        except ConnectionClosed:
            pass
        except Exception as error:
            seat.frame = None  # what comes after an error starts clean
            await self._refuse(connection, peer, error)
        finally:
            self._busy.discard(connection)
            self._connections -= 1
            self.metrics.sessions.dec()
            self._seats.leave(port, seat, connection)
            episodes, rules = seat.session.summary()
            logger.info(
                "session of %s closed after %d episodes; rules: %s",
                peer,
                episodes,
                rules,
                extra={"event": {"session": peer, "episodes": episodes, "rules": rules}},
            )

    def _session(self, peer: str) -> Session:
        tell = partial(self._on_event, peer), partial(log_trace, peer)
        return Session(
            self._config, self._submit, self._pool.closure, *tell, observation_steps=self._observation_steps
        )

    async def _refuse(self, connection: ServerConnection, peer: str, error: Exception) -> None:
        """Tell a client why its session ends."""
        self.metrics.errors.inc()
        if isinstance(error, protocol.ProtocolError | UnknownTaskError | CheckpointUnavailableError):
            text = str(error)
            # what a client sends may be long
            logger.warning("session of %s: refused a message: %.1000s", peer, text)
        else:
            text = f"the policy server failed: {type(error).__name__}: {error}"
            logger.error("session of %s failed", peer, exc_info=error)
        with contextlib.suppress(ConnectionClosed):
            await connection.send(text)
            await connection.close(CloseCode.INTERNAL_ERROR, "see the last text frame")

    async def _answer(self, seat: Seat, frame: str | bytes, port: int, first: bool) -> dict[str, Any] | None:
        """Answer a message; `first` says whether it is the connection's first one."""
        start = time.monotonic()
        if isinstance(frame, str):
            raise protocol.ProtocolError("got a text frame; expected a binary msgpack frame")
        message = protocol.unpack(frame)
        if not isinstance(message, dict):
            raise protocol.ProtocolError(f"the message is {type(message).__name__}; expected a map")
        reset = message.get(protocol.RESET, False)
        if not isinstance(reset, bool | np.bool_ | int | np.integer):
            raise protocol.ProtocolError(f"{protocol.RESET} is {type(reset).__name__}; expected true")
        if reset:
            seat.session.reset()
            seat.frame = seat.answer = None
            return None
        back = first and await self._seats.take_over(port, seat, frame)
        async with seat.lock:
            if not back or seat.answer is None:
                seat.frame, seat.answer = frame, None
                seat.answer = await seat.session.act(message)
            answer = dict(seat.answer)
        seconds = time.monotonic() - start
        self.metrics.steps.inc()
        self.metrics.seconds.observe(seconds)
        answer[protocol.SERVER_TIMING] = {"infer_ms": seconds * 1000.0}
        return answer

    def _metadata(self) -> dict[str, Any]:
        """The first frame of a connection: what serves, and how."""
        return {
            "policy": "pi-behavior",
            "edition": list(EDITIONS),
            "proprioception": list(PROPRIOCEPTION_BY_LENGTH),
            "action": {
                "dim": ACTION_DIM,
                "groups": {name: list(indices) for name, indices in ACTION_GROUPS.items()},
                "low": ACTION_LOW.tolist(),
                "high": ACTION_HIGH.tolist(),
                "horizon": ACTION_HORIZON,
                "hz": CONTROL_HZ,
            },
            "settings": dataclasses.asdict(self._config),
            "serving": self._serving and dataclasses.asdict(self._serving),
            "checkpoints": self._pool.description,
        }

    def _on_event(self, peer: str, event: Event) -> None:
        self.metrics.rule(event)
        logger.info(
            "session of %s: task %d stage %d step %d: %s",
            peer,
            event.task,
            event.stage,
            event.step,
            event.rule,
            extra={"event": {"session": peer, **dataclasses.asdict(event)}},
        )
