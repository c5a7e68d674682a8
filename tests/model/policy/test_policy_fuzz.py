"""Whatever clients send: their sessions end with an error, and nobody else notices."""

import contextlib
import dataclasses
import threading
import time
import urllib.request
from collections import Counter
from itertools import pairwise

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from benchmarks.serving import make_observation, serving, write_random_checkpoint
from pi_behavior.config import ModelConfig, VisionConfig
from pi_behavior.layout import CAMERA_OBSERVATION_KEYS, PROPRIOCEPTION_KEY, TASK_ID_KEY
from pi_behavior.policy.protocol import pack, unpack

CONFIG = dataclasses.replace(
    ModelConfig.presets["tiny"],
    vision=VisionConfig(image_size=28, patch=14, width=32, depth=1, heads=2, mlp=64),
    width=64,
    mlp=64,
    depth=1,
    heads=2,
    expert_width=64,
    expert_mlp=64,
)
KEYS = (PROPRIOCEPTION_KEY, TASK_ID_KEY, *CAMERA_OBSERVATION_KEYS.values(), "__action_chunk_size__", "reset")
GROWTH = 100e6
"""Bytes by which the server may grow in the second half: buffers, not what was sent."""

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=10,
)
sizes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 23, 28, 31, 255, 256]), max_size=4)


@st.composite
def arrays(draw):
    """Arrays of any type and shape, some with values that are not finite."""
    shape = draw(sizes.filter(lambda shape: np.prod(shape, dtype=float) < 2**18))
    dtype = draw(st.sampled_from(["u1", "i8", "f2", "f4", "f8", ">f4", "?", "U3", "M8[s]", "u8"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    array = (rng.normal(size=shape) * draw(st.sampled_from([0.1, 1e3, 1e30]))).clip(-3e4, 3e38)
    if draw(st.booleans()) and array.size:
        array.flat[rng.integers(array.size)] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    with np.errstate(all="ignore"):
        return array.astype("i8").astype(dtype) if dtype[0] in "M" else array.astype(dtype)


@st.composite
def lying_headers(draw):
    """Tagged arrays whose type, shape and data have nothing to do with each other."""
    tag = draw(st.sampled_from([b"__ndarray__", b"__torch__", b"__npgeneric__"]))
    shape = st.lists(st.integers(-(2**40), 2**62) | st.sampled_from([0, 1, 256]), max_size=70)
    names = st.sampled_from(["<f4", "|O", "V8", "<c8", "f4,i4", "torch.bfloat16", "U0", "S0", "M8", "x"])
    return {
        tag: True,
        b"data": draw(st.binary(max_size=64) | values),
        b"dtype": draw(names | st.text(max_size=6) | values),
        b"shape": draw(shape | values),
    }


@st.composite
def broken_observations(draw):
    """An observation with one or two values missing or replaced."""
    message = make_observation(draw(st.integers(0, 3)), 28)
    for key in draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2)):
        message.pop(key, None)
        if draw(st.booleans()):
            message[key] = draw(values | arrays() | lying_headers())
    return message


@st.composite
def huge_observations(draw):
    """Whole arrays, but of sizes that no evaluator has."""
    message = make_observation(0, 28)
    key, shape, dtype = draw(
        st.sampled_from(
            [
                (PROPRIOCEPTION_KEY, (20_000, 256), "f4"),
                (PROPRIOCEPTION_KEY, (256, 20_000), "f8"),
                (next(iter(CAMERA_OBSERVATION_KEYS.values())), (2500, 2500, 4), "u1"),
                (next(iter(CAMERA_OBSERVATION_KEYS.values())), (1, 5_000_000, 3), "u1"),
                (TASK_ID_KEY, (2_000_000,), "i8"),
            ]
        )
    )
    message[key] = np.zeros(shape, dtype)
    return message


def packed(message):
    """Also what our own encoder refuses, as far as msgpack itself can say it."""
    try:
        return pack(message)
    except (ValueError, RecursionError):
        return msgpack.packb({str(key): str(value) for key, value in message.items()})


nesting = st.tuples(st.sampled_from([b"\x91", b"\x81\xa1a", b"\x81\xc0"]), st.integers(1, 30_000))
claims = st.sampled_from([b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"])
observations = broken_observations().map(packed)
FRAMES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100),
    values.map(lambda value: msgpack.packb(value, default=str)),
    observations,
    observations,
    st.tuples(observations, st.integers(0, 9000)).map(lambda both: both[0][: both[1]]),
    nesting.map(lambda both: both[0] * both[1] + b"\xc0"),
    st.tuples(claims, st.binary(max_size=20)).map(lambda both: both[0] + b"\xff\xff\xff\x7f" + both[1]),
    st.integers().map(lambda task: packed(make_observation(0, 28) | {TASK_ID_KEY: [task % 2**63]})),
)
# websocket frames that are not whole, or claim to be long: (opcode and length, what follows of it)
TORN = st.tuples(
    st.sampled_from([b"\x82\xff" + b"\x00" * 3 + b"\xff" * 5, b"\x82\xfe\xff\xff", b"\x02\x85", b"\xf7\xff"]),
    st.binary(max_size=100),
).map(b"".join)


def session(port):
    return connect(f"ws://127.0.0.1:{port}", max_size=None, compression=None, close_timeout=5)


def play(port, seed):
    """Twelve steps of an undisturbed client: their actions."""
    actions = []
    with session(port) as socket:
        socket.recv(timeout=60)
        for step in range(12):
            socket.send(pack(make_observation(100 * seed + step, 28)))
            actions.append(unpack(socket.recv(timeout=60))["action"])
    return np.array(actions)


def attack(port, frame, torn):
    """Send one frame; how the server took it."""
    with session(port) as socket:
        socket.recv(timeout=60)
        if torn:
            socket.socket.sendall(frame)
            socket.socket.close()
            return "disconnected"
        socket.send(frame)
        with contextlib.suppress(ValueError):
            message = unpack(frame) if isinstance(frame, bytes) else None
            reset = message.get("reset") if isinstance(message, dict) else None
            if isinstance(reset, bool | np.bool_) and reset:
                return "reset"
        answer = socket.recv(timeout=60)
        if isinstance(answer, bytes):
            assert unpack(answer)["action"].shape[-1] == 23
            return "answered"
        assert answer
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
        assert closed.value.rcvd.code == 1011
        return "refused"


@pytest.mark.parametrize("frames", [500, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_other_sessions_do_not_notice(tmp_path, frames):
    checkpoint = write_random_checkpoint(tmp_path / "checkpoint", CONFIG)
    words = ["--checkpoint", str(checkpoint), "--batch-sizes", "4", "--policy.num-steps", "2"]
    words += ["--policy.execute", "3", "--policy.compress-from", "3"]
    outcomes: Counter[str] = Counter()
    memory: list[int] = []
    with serving(tmp_path, *words) as server:
        port = server.wait()
        expected = [play(port, seed) for seed in range(2)]
        done = threading.Event()
        episodes, wrong = [0, 0], []

        def watch(seed):
            try:
                while not done.is_set():
                    np.testing.assert_array_equal(play(port, seed), expected[seed])
                    episodes[seed] += 1
                    time.sleep(0.05)
            except Exception as error:
                wrong.append(error)

        @settings(
            max_examples=frames // 10,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(FRAMES, min_size=9, max_size=9), TORN, st.integers(0, 29), st.data())
        def fuzz(batch, torn, rare, data):
            if rare == 0:
                batch = [packed(data.draw(huge_observations())), *batch[1:]]
            for frame in batch:
                outcomes[attack(port, frame, torn=False)] += 1
            outcomes[attack(port, torn, torn=True)] += 1
            memory.append(int(server.memory() * 1e9))

        watchers = [threading.Thread(target=watch, args=(seed,)) for seed in range(2)]
        for watcher in watchers:
            watcher.start()
        try:
            fuzz()
        finally:
            done.set()
            for watcher in watchers:
                watcher.join(120)
        assert server.process.poll() is None, server.log.read_text()[-3000:]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines())
    assert not wrong, wrong
    assert min(episodes) >= 2
    assert sum(outcomes.values()) >= frames
    assert outcomes["refused"] > frames / 2
    assert outcomes["disconnected"] >= frames / 10
    assert float(metrics["policy_errors_total"]) >= outcomes["refused"]
    assert "the policy server failed" not in server.log.read_text()
    half = len(memory) // 2
    assert max(memory[half:]) - memory[half] < GROWTH, [b - a for a, b in pairwise(memory[half:])]
    size = [f"{memory[at] / 1e6:.0f}" for at in (0, half, -1)]
    print(f"{dict(outcomes)}; {episodes} episodes; RSS {' '.join(size)} MB")
