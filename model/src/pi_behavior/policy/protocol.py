"""Messages of the challenge's websocket protocol: msgpack with arrays as tagged maps.

An array is `{b"__ndarray__": true, b"data", b"dtype", b"shape"}`, a NumPy scalar `{b"__npgeneric__": true,
b"data", b"dtype"}`. The evaluator also sends torch tensors, `{b"__torch__": true, ...}`; they arrive as NumPy
arrays. Object, void and complex types are refused.
"""

import math
from typing import Any

import ml_dtypes
import msgpack
import numpy as np

RESET = "reset"
ACTION = "action"
ACTION_CHUNK = "action_chunk"
ACTION_CHUNK_SIZE = "__action_chunk_size__"
SERVER_TIMING = "server_timing"

_ARRAY, _SCALAR, _TORCH = b"__ndarray__", b"__npgeneric__", b"__torch__"
_DATA, _DTYPE, _SHAPE = b"data", b"dtype", b"shape"
_REFUSED_KINDS = "OVc"


class ProtocolError(ValueError):
    """A message that is not what the protocol says; the text is for the other side."""


def pack(message: Any) -> bytes:
    """Encode a message.

    Args:
        message: maps, lists, strings, numbers, None, and NumPy arrays and scalars.

    Raises:
        ProtocolError: a type that the protocol does not carry.
    """
    try:
        return bytes(msgpack.packb(message, default=_encode))
    except (TypeError, OverflowError) as error:
        raise ProtocolError(f"cannot encode the message: {error}") from error


def unpack(frame: bytes) -> Any:
    """Decode a message. Arrays share the frame's memory and are read-only; bfloat16 becomes float32.

    Raises:
        ProtocolError: not one whole msgpack object, or a malformed array.
    """
    try:
        return msgpack.unpackb(frame, object_hook=_decode, strict_map_key=False)
    except ProtocolError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError(f"expected one msgpack object; {type(error).__name__}: {error}") from error


def _encode(value: Any) -> dict[bytes, Any]:
    if isinstance(value, np.ndarray):
        _check(value.dtype)
        return {_ARRAY: True, _DATA: value.tobytes(), _DTYPE: value.dtype.str, _SHAPE: value.shape}
    if isinstance(value, np.generic):
        _check(value.dtype)
        return {_SCALAR: True, _DATA: value.item(), _DTYPE: value.dtype.str}
    raise TypeError(f"{type(value).__name__} is none of: map, list, string, number, NumPy array or scalar")


def _decode(value: dict[Any, Any]) -> Any:
    if any(tag.decode() in value for tag in (_ARRAY, _SCALAR, _TORCH)):  # text keys, not the published bin
        value = {key.encode() if isinstance(key, str) else key: one for key, one in value.items()}
    if _ARRAY in value:
        return _array(value, _numpy_dtype(value))
    if _TORCH in value:
        return _tensor(value)
    if _SCALAR in value:
        return _scalar(value)
    return value


def _array(value: dict[Any, Any], dtype: np.dtype[Any]) -> np.ndarray:
    data, shape = value.get(_DATA), value.get(_SHAPE)
    if not isinstance(data, bytes):
        raise ProtocolError(f"an array's data is {type(data).__name__}; expected bytes")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ProtocolError(f"an array's shape is {shape!r}; expected a list of sizes")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ProtocolError(f"an array of shape {shape} and type {dtype} does not have {len(data)} bytes")
    return np.ndarray(tuple(shape), dtype, buffer=data)


def _scalar(value: dict[Any, Any]) -> np.generic:
    dtype = _numpy_dtype(value)
    try:
        scalar: np.generic = dtype.type(value[_DATA])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"a scalar of type {dtype} is malformed: {error}") from error
    return scalar


def _numpy_dtype(value: dict[Any, Any]) -> np.dtype[Any]:
    name = value.get(_DTYPE)
    if not isinstance(name, str):
        raise ProtocolError(f"a dtype is {name!r}; expected a NumPy type string")
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ProtocolError(f"{name!r} is not a NumPy type string") from error
    _check(dtype)
    return dtype


def _tensor(value: dict[Any, Any]) -> np.ndarray:
    """A torch tensor; its type may be torch's own name or NumPy's, as text or as bytes."""
    name = value.get(_DTYPE)
    if isinstance(name, bytes):
        name = name.decode(errors="replace")
    if isinstance(name, str):
        name = name.removeprefix("torch.")
        if name == "bfloat16":  # for NumPy a void type
            return _array(value, np.dtype(ml_dtypes.bfloat16)).astype(np.float32)
    return _array(value, _numpy_dtype({_DTYPE: name}))


def _check(dtype: np.dtype[Any]) -> None:
    if dtype.kind in _REFUSED_KINDS:
        raise ProtocolError(f"arrays of type {dtype} are refused; send numbers, booleans or strings")
