"""The challenge's wire protocol: msgpack maps with numpy arrays, over a websocket.

The evaluator is the client. Source: the challenge's evaluator and the published client of the policy server.
"""

import time
import urllib.error
import urllib.request
from typing import Any, Self

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect


class PolicyError(ConnectionError):
    """The policy server answered with an error, with a malformed message, or not at all."""


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in ("V", "O", "c"):
        raise ValueError(f"dtype {value.dtype} cannot be sent; expected numbers, booleans or text")
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return value


def _decode(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        dtype = np.dtype(value[b"dtype"])
        if dtype.kind in ("V", "O", "c"):
            raise ValueError(f"dtype {dtype} is refused; expected numbers, booleans or text")
        return np.frombuffer(value[b"data"], dtype).reshape(value[b"shape"])
    if b"__npgeneric__" in value:
        return np.dtype(value[b"dtype"]).type(value[b"data"])
    return value


def pack(message: dict[str, Any]) -> bytes:
    """Encode a message.

    Args:
        message: text keys; values that msgpack knows, numpy arrays and scalars.

    Returns:
        One binary frame.
    """
    return bytes(msgpack.packb(message, default=_encode))


def unpack(frame: bytes) -> dict[str, Any]:
    """Decode a message.

    Args:
        frame: one binary frame.

    Returns:
        The message with numpy arrays and scalars restored (arrays are read-only).

    Raises:
        ValueError: not such a message.
    """
    try:
        message = msgpack.unpackb(frame, object_hook=_decode, strict_map_key=False)
    except (msgpack.exceptions.UnpackException, msgpack.exceptions.ExtraData, TypeError) as error:
        raise ValueError(f"not a msgpack message: {error}") from error
    if not isinstance(message, dict):
        raise ValueError(f"message is {type(message).__name__}; expected a map")
    return message


def wait_until_healthy(host: str, port: int, timeout: float) -> None:
    """Wait until the policy server answers `GET /healthz` with 200.

    Args:
        host: server's name or address.
        port: server's port.
        timeout: seconds to wait.

    Raises:
        PolicyError: it did not in time.
    """
    url = f"http://{host}:{port}/healthz"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout
    reason = "no answer"
    while True:
        try:
            with opener.open(url, timeout=min(5.0, max(timeout, 0.1))) as answer:
                if answer.status == 200:
                    return
                reason = f"status {answer.status}"
        except (urllib.error.URLError, OSError) as error:
            reason = str(error)
        if time.monotonic() >= deadline:
            raise PolicyError(
                f"no policy server at {url} in {timeout:g} s ({reason}); start it or raise --connect-timeout"
            )
        time.sleep(0.2)


class PolicyClient:
    """One connection to a policy server; a context manager that closes it.

    Args:
        host: server's name or address.
        port: server's port.
        connect_timeout: seconds to wait for the server to become healthy.
        response_timeout: seconds to wait for one answer.
    """

    def __init__(self, host: str, port: int, connect_timeout: float, response_timeout: float) -> None:
        wait_until_healthy(host, port, connect_timeout)
        self._timeout = response_timeout
        # No pings: a server that compiles its model for minutes may not answer them.
        self._opening = connect(
            f"ws://{host}:{port}", compression=None, max_size=None, proxy=None, ping_interval=None
        )
        self.metadata: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._socket: ClientConnection = self._opening.__enter__()
        self.metadata = self._receive()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Tell the server that a new rollout begins; it does not answer."""
        self._send({"reset": True})

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Ask for an action.

        Args:
            observation: the observation message.

        Returns:
            The server's map, with `action` and perhaps `action_chunk`.

        Raises:
            PolicyError: see the class.
        """
        self._send(observation)
        return self._receive()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._socket.send(pack(message))
        except ConnectionClosed as error:
            raise PolicyError(f"the policy server closed the connection: {error}") from error

    def _receive(self) -> dict[str, Any]:
        try:
            frame = self._socket.recv(timeout=self._timeout)
        except ConnectionClosed as error:
            raise PolicyError(f"the policy server closed the connection: {error}") from error
        except TimeoutError as error:
            raise PolicyError(f"the policy server gave no answer within {self._timeout:g} s") from error
        if isinstance(frame, str):
            raise PolicyError(f"the policy server reports an error:\n{frame}")
        try:
            return unpack(frame)
        except ValueError as error:
            raise PolicyError(f"the policy server's answer cannot be read: {error}") from error
