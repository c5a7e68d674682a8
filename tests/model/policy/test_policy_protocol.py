import contextlib

import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pi_behavior.policy.protocol import ProtocolError, pack, unpack

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
)


@given(hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
def test_arrays_round_trip(array):
    result = unpack(pack({"x": array}))["x"]
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    np.testing.assert_array_equal(result, array)


@given(hnp.arrays(DTYPES, (1,)))
def test_scalars_round_trip(array):
    result = unpack(pack([array[0]]))[0]
    # a NumPy float64 is a Python float, which msgpack carries as it is
    assert type(result) is (float if isinstance(array[0], float) else type(array[0]))
    np.testing.assert_array_equal(result, array[0])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=20,
    )
)
def test_plain_messages_round_trip(message):
    assert unpack(pack(message)) == message


def test_non_contiguous_arrays_keep_their_values():
    array = np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    np.testing.assert_array_equal(unpack(pack(array)), array)


def test_wire_format_is_the_published_one():
    raw = msgpack.unpackb(pack({"a": np.arange(3, dtype=np.float32), "b": np.int64(7)}))
    assert raw["a"] == {
        b"__ndarray__": True,
        b"data": np.arange(3, dtype=np.float32).tobytes(),
        b"dtype": "<f4",
        b"shape": [3],
    }
    assert raw["b"] == {b"__npgeneric__": True, b"data": 7, b"dtype": "<i8"}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("torch.float32", np.float32),
        ("float16", np.float16),
        (b"int64", np.int64),
        ("torch.bfloat16", ml_dtypes.bfloat16),
    ],
)
def test_torch_tensors_arrive_as_arrays(name, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    tagged = {b"__torch__": True, b"data": array.tobytes(), b"dtype": name, b"shape": [2, 3]}
    result = unpack(msgpack.packb({"x": tagged}))["x"]
    assert result.dtype == (np.float32 if dtype is ml_dtypes.bfloat16 else dtype)
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize(
    "array", [np.array([object()]), np.zeros(2, "V4"), np.zeros(2, complex), np.complex64(1)]
)
def test_refused_types_are_not_sent(array):
    with pytest.raises(ProtocolError, match="refused"):
        pack(array)


@pytest.mark.parametrize(
    "change",
    [
        {b"dtype": "O"},
        {b"dtype": "V8"},
        {b"dtype": "<c8"},
        {b"dtype": "i4,f4"},
        {b"dtype": "no type"},
        {b"dtype": None},
        {b"dtype": 3},
        {b"shape": [3]},
        {b"shape": [-1, -2]},
        {b"shape": 2},
        {b"shape": [2.0]},
        {b"shape": [2**40, 2**40]},
        {b"data": "text"},
        {b"data": b"123"},
    ],
)
def test_malformed_arrays_are_refused(change):
    good = {b"__ndarray__": True, b"data": b"12345678", b"dtype": "<f4", b"shape": [2]}
    assert unpack(msgpack.packb(good)).shape == (2,)
    with pytest.raises(ProtocolError):
        unpack(msgpack.packb(good | change))


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(frame):
    with contextlib.suppress(ProtocolError):
        unpack(frame)


def test_other_objects_are_not_sent():
    with pytest.raises(ProtocolError, match="cannot encode"):
        pack({"x": object()})
