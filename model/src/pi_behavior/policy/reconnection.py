"""Clients that come back: the evaluator of 2026 connects again in mid-episode, without a reset or a name.

It then sends its last observation once more. So a connection whose first message is byte for byte the last
observation of another connection to the same port, which has ended or answers no ping, takes that one's
session over; every other connection starts with a clean session.
"""

import asyncio
import hashlib
import logging
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from pi_behavior.policy.session import Session

logger = logging.getLogger(__name__)
REMEMBER_SECONDS = 60.0
"""How long the session of an ended connection is kept."""
MOST_REMEMBERED = 64
"""Ended connections of a port that are kept."""
_PING_SECONDS = 3.0


@dataclass(eq=False)
class Seat:
    """A session, and the connection that it belongs to."""

    session: Session
    connection: ServerConnection
    frame: bytes | None = None
    """The last observation since the last reset, as it arrived."""
    answer: dict[str, Any] | None = None
    """The answer to it; None until it is computed."""
    digest: bytes = b""
    """Of the last observation, in its place once the connection has ended: messages may be large."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while an observation is answered, also if its client has gone."""

    @property
    def in_episode(self) -> bool:
        """Whether there was an observation since the last reset."""
        return self.frame is not None or bool(self.digest)

    @property
    def peer(self) -> str:
        """Address of the client."""
        return str(self.connection.remote_address)


class Seats:
    """The sessions of a server's ports, with those that ended lately."""

    def __init__(self) -> None:
        """Start empty."""
        self._seats: defaultdict[int, list[Seat]] = defaultdict(list)

    def open(self, port: int, session: Session, connection: ServerConnection) -> Seat:
        """A seat for a new session."""
        seat = Seat(session, connection)
        self._seats[port].append(seat)
        return seat

    def leave(self, port: int, seat: Seat, connection: ServerConnection) -> None:
        """A connection has ended; its session is kept for a while if it is in an episode."""
        if seat.connection is not connection:
            return  # taken over
        if seat.frame is None:
            self._seats[port].remove(seat)
            return
        seat.digest, seat.frame = _digest(seat.frame), None
        ended = [other for other in self._seats[port] if other.digest]
        for other in ended[:-MOST_REMEMBERED]:
            self._seats[port].remove(other)
        asyncio.get_running_loop().call_later(REMEMBER_SECONDS, self._forget, port, seat)

    async def take_over(self, port: int, seat: Seat, frame: bytes) -> bool:
        """Give a new connection's seat the session that its first message, an observation, goes on with.

        Returns:
            Whether there is one.
        """
        others = [other for other in self._seats[port] if other is not seat and other.in_episode]
        digest = _digest(frame) if any(other.digest for other in others) else b""

        def same(other: Seat) -> bool:
            return other.digest == digest if other.digest else other.frame == frame

        # those that have ended first: of them it is known without asking
        for other in sorted(others, key=lambda other: not other.digest):
            if not same(other) or await _answers(other):
                continue
            if other.connection is seat.connection or other not in self._seats[port]:
                continue  # somebody else was faster
            logger.info("session of %s goes on where that of %s broke off", seat.peer, other.peer)
            self._seats[port].remove(other)
            # the connection that broke off may still be computing: it holds the lock, and then the answer
            async with other.lock:
                seat.session, seat.answer = other.session, other.answer
            seat.frame = frame
            other.connection = seat.connection
            return True
        if any(other.digest for other in others):
            logger.info(
                "session of %s starts clean: its first observation is not the last one of a connection to "
                "port %d that ended in the last %.0f s",
                seat.peer,
                port,
                REMEMBER_SECONDS,
            )
        return False

    def _forget(self, port: int, seat: Seat) -> None:
        with suppress(ValueError):
            self._seats[port].remove(seat)


def _digest(frame: bytes) -> bytes:
    return hashlib.blake2b(frame).digest()


async def _answers(seat: Seat) -> bool:
    """Whether a seat's client is still there."""
    if seat.digest or seat.connection.state is not State.OPEN:
        return False
    try:
        async with asyncio.timeout(_PING_SECONDS):
            await (await seat.connection.ping())
    except (TimeoutError, ConnectionClosed):
        return False
    return True
