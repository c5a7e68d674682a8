"""The websocket service: one session per connection, one batcher for all, health and metrics over HTTP."""

import asyncio
import contextlib
import dataclasses
import hmac
import http
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from pi_behavior.policy import protocol
from pi_behavior.policy.batching import Batcher
from pi_behavior.policy.checkpoints import CheckpointPool, UnknownTaskError
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.control_loop import Event
from pi_behavior.policy.metrics import ServerMetrics
from pi_behavior.policy.session import Session

logger = logging.getLogger(__name__)
SHUTDOWN_SECONDS = 20.0
"""How long a stop waits for sessions whose request is being computed."""


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
    ) -> None:
        """Make a service; `run` serves.

        Args:
            config: how chunks are executed.
            pool: the checkpoints.
            max_batch: requests per run of the network, at most.
            window: seconds to wait for requests of other sessions.
            api_key: what clients must send as `Authorization: Api-Key KEY`; None lets everyone in.
        """
        self._config = config
        self._pool = pool
        self._max_batch = max_batch
        self._window = window
        self._api_key = api_key
        self.metrics = ServerMetrics()
        self._connections = 0

    async def run(self, host: str, port: int, *, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Serve until told to stop.

        Args:
            host: address to listen at.
            port: port; 0 takes a free one.
            ready: called with the bound port when connections are accepted.
            stop: ends the service; connections get a close frame (1001).

        Raises:
            OSError: the address cannot be bound.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="network") as executor:
            self._batcher = Batcher(
                self._pool.predict,
                executor,
                limit=self._max_batch,
                window=self._window,
                clients=lambda: self._connections,
                on_batch=self.metrics.batch.observe,
            )
            batches = asyncio.create_task(self._batcher.serve())
            # No ping timeout: a simulator that loads a scene for minutes answers no ping.
            server = await serve(
                self._handle,
                host,
                port,
                compression=None,
                max_size=None,
                ping_timeout=None,
                process_request=self._http,
            )
            try:
                ready(server.sockets[0].getsockname()[1])
                stopping = asyncio.create_task(stop.wait())
                await asyncio.wait({stopping, batches}, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                if batches.done():
                    batches.result()
            finally:
                server.close()
                # while batches still run, so that sessions that wait for the network can end
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(server.wait_closed(), SHUTDOWN_SECONDS)
                batches.cancel()

    def _http(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if request.path == "/metrics":
            return connection.respond(http.HTTPStatus.OK, self.metrics.text().decode())
        if self._api_key is None:
            return None
        given = request.headers.get("Authorization", "")
        if hmac.compare_digest(given.encode(), f"Api-Key {self._api_key}".encode()):
            return None
        return connection.respond(
            http.HTTPStatus.UNAUTHORIZED, "expected the header: Authorization: Api-Key KEY\n"
        )

    async def _handle(self, connection: ServerConnection) -> None:
        """One connection from metadata to its end; its errors end nothing but itself."""
        peer = str(connection.remote_address)
        session = Session(self._config, self._batcher.submit, self._pool.closure, self._on_event)
        self._connections += 1
        self.metrics.sessions.inc()
        logger.info("session of %s opened", peer)
        try:
            await connection.send(protocol.pack(self._metadata()))
            async for frame in connection:
                answer = await self._answer(session, frame)
                if answer is not None:
                    await connection.send(protocol.pack(answer))
        except ConnectionClosed:
            pass
        except Exception as error:
            self.metrics.errors.inc()
            if isinstance(error, protocol.ProtocolError | UnknownTaskError):
                text = str(error)
                logger.warning("session of %s: refused a message: %s", peer, text)
            else:
                text = f"the policy server failed: {type(error).__name__}: {error}"
                logger.exception("session of %s failed", peer)
            with contextlib.suppress(ConnectionClosed):
                await connection.send(text)
                await connection.close(CloseCode.INTERNAL_ERROR, "see the last text frame")
        finally:
            self._connections -= 1
            self.metrics.sessions.dec()
            session.reset()
            logger.info(
                "session of %s closed after %d episodes; rules: %s",
                peer,
                session.episode,
                dict(session.counts),
            )

    async def _answer(self, session: Session, frame: str | bytes) -> dict[str, Any] | None:
        start = time.monotonic()
        if isinstance(frame, str):
            raise protocol.ProtocolError("got a text frame; expected a binary msgpack frame")
        message = protocol.unpack(frame)
        if not isinstance(message, dict):
            raise protocol.ProtocolError(f"the message is {type(message).__name__}; expected a map")
        if message.get(protocol.RESET):
            session.reset()
            return None
        answer = await session.act(message)
        seconds = time.monotonic() - start
        self.metrics.steps.inc()
        self.metrics.seconds.observe(seconds)
        answer[protocol.SERVER_TIMING] = {"infer_ms": seconds * 1000.0}
        return answer

    def _metadata(self) -> dict[str, Any]:
        """The first frame of a connection: what serves, and how."""
        return {
            "policy": "pi-behavior",
            "settings": dataclasses.asdict(self._config),
            "checkpoints": {name: {"tasks": tasks} for name, tasks in self._pool.tasks.items()},
        }

    def _on_event(self, event: Event) -> None:
        self.metrics.rule(event)
        logger.info("task %d stage %d step %d: %s", event.task, event.stage, event.step, event.rule)
