"""Clients that behave as the official evaluators of every release, written from their description alone."""

import http.client
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from pi_behavior.layout import ACTION_HORIZON
from pi_behavior.policy import reconnection
from pi_behavior.policy.config import PolicyConfig

LINKS = ("zed_link", "left_realsense_link", "right_realsense_link")
PUBLISHED = PolicyConfig()


def pack(message: dict[str, Any]) -> bytes:
    def encode(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            data = {b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": list(value.shape)}
            return {b"__ndarray__": True, **data}
        return value

    return bytes(msgpack.packb({key: encode(value) for key, value in message.items()}))


def unpack(frame: Any) -> dict[str, Any]:
    """As the client reads: only str and bin as map keys, no torch tensors."""
    if isinstance(frame, str):
        raise RuntimeError(frame)

    def decode(value: dict[Any, Any]) -> Any:
        assert b"__torch__" not in value
        if b"__ndarray__" in value:
            return np.frombuffer(value[b"data"], np.dtype(value[b"dtype"])).reshape(value[b"shape"])
        return value

    message = msgpack.unpackb(frame, object_hook=decode)
    assert isinstance(message, dict)
    return message


def make(
    seed: int,
    environments: int | None,
    *,
    values: int = 61,
    robot: str = "robot_r1",
    full: bool = False,
    depth: bool = False,
    channels: int = 4,
    dtype: str = "float32",
    task: int = 73,
) -> dict[str, Any]:
    """An observation; None environments has no leading axis, as in v3.9.2 and before."""
    rng = np.random.default_rng(seed)
    lead = () if environments is None else (environments,)
    proprio = rng.uniform(-0.3, 0.3, (*lead, values)).astype(dtype)
    fingers = (slice(24, 26), slice(49, 51)) if values == 61 else (slice(193, 195), slice(232, 234))
    for part in fingers:
        proprio[..., part] = 0.05
    message: dict[str, Any] = {
        f"{robot}::proprio": proprio,
        f"{robot}::cam_rel_poses": np.zeros((*lead, 21), np.float32),
        "task_id": np.full((*lead, 1), task, np.int64),
    }
    for link, side in zip(LINKS, (720, 480, 480) if full else (224,) * 3, strict=True):
        key = f"{robot}::{robot}:{link}:Camera:0::"
        noise = rng.integers(0, 256, 4099, dtype=np.uint8)
        message[key + "rgb"] = np.resize(noise, (*lead, side, side, channels))
        if depth:
            message[key + "depth_linear"] = np.full((*lead, side, side), np.inf, np.float32)
    return message


class Client:
    """One connection of the evaluator, with its cache of a replayed chunk."""

    def __init__(self, port: int, chunk: int = 0) -> None:
        self.port, self.chunk, self.queries = port, chunk, 0
        self.cache: list[np.ndarray] = []
        self.stack = ExitStack()
        self.open()

    def open(self) -> None:
        health = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        health.request("GET", "/healthz")
        assert health.getresponse().status == 200
        health.close()
        self.socket: ClientConnection = self.stack.enter_context(
            connect(f"ws://127.0.0.1:{self.port}", compression=None, max_size=None, proxy=None)
        )
        assert isinstance(unpack(self.socket.recv(timeout=10)), dict)

    def drop(self) -> None:
        """Lose the connection, without a closing handshake."""
        self.socket.socket.close()

    def reset(self) -> None:
        self.cache = []
        self.socket.send(pack({"reset": True}))

    def send(self, message: dict[str, Any]) -> None:
        if self.chunk > 1:
            message = message | {"__action_chunk_size__": self.chunk}
        self.socket.send(pack(message))

    def receive(self, environments: int | None) -> np.ndarray:
        """Check the answer as the client does; returns the action."""
        answer = unpack(self.socket.recv(timeout=60))
        self.queries += 1
        lead = () if environments is None else (environments,)
        action = answer["action"]
        assert (action.dtype, action.shape) == (np.float32, (*lead, 23))
        if self.chunk > 1 and "action_chunk" in answer:
            chunk = answer["action_chunk"]
            assert chunk.shape == (*lead, self.chunk, 23)
            assert np.array_equal(chunk[..., 0, :], action)
            self.cache = [chunk[..., step, :] for step in range(1, self.chunk)]
        elif self.chunk > 1:
            self.chunk = 0  # never asked for again
        return np.asarray(action)

    def act(self, message: dict[str, Any], environments: int | None) -> np.ndarray:
        if self.cache:
            return self.cache.pop(0)
        self.send(message)
        return self.receive(environments)


@contextmanager
def client(port: int, chunk: int = 0) -> Iterator[Client]:
    made = Client(port, chunk)
    try:
        yield made
    finally:
        made.stack.close()


RGB, RGBD, FULL, FULL_RGBD = {}, {"depth": True}, {"full": True}, {"full": True, "depth": True}


@pytest.mark.parametrize(
    ("environments", "pictures", "habits"),
    [
        *((n, pictures, {}) for n in (None, 1, 2, 10) for pictures in (RGB, RGBD, FULL, FULL_RGBD)),
        *((n, pictures, {"values": 256, "task": 3}) for n in (None, 2) for pictures in (RGB, FULL_RGBD)),
        *((n, RGB, {"robot": "robot", "dtype": "float64", "channels": 3}) for n in (None, 1, 2, 10)),
    ],
)
def test_observations_of_every_release(serve, formula, environments, pictures, habits) -> None:
    predictor = formula()
    with serve(predictor, PolicyConfig(execute=2, compress_from=2)) as port, client(port) as one:
        one.reset()
        one.reset()
        actions = [one.act(make(step, environments, **pictures, **habits), environments) for step in range(3)]
    kind = "world" if habits.get("values") == 256 else "robot"
    assert predictor.base_velocities == [kind] * 2 * (environments or 1)
    assert not np.array_equal(actions[0], actions[2])


def test_the_same_observation_in_every_form_gets_the_same_action(serve, formula) -> None:
    def answer(change: Callable[[dict[str, Any]], dict[str, Any]], environments: int | None) -> np.ndarray:
        with serve(formula()) as port, client(port) as one:
            return one.act(change(make(0, None)), environments).reshape(23)

    expected = answer(lambda m: m, None)
    batch = answer(lambda m: {k: v[None] for k, v in m.items()}, 1)
    renamed = answer(lambda m: {k.replace("robot_r1", "R1_Pro-x"): v for k, v in m.items()}, None)
    wider = answer(lambda m: {k: v.astype(float) if "proprio" in k else v for k, v in m.items()}, None)
    no_alpha = answer(lambda m: {k: v[..., :3] if "rgb" in k else v for k, v in m.items()}, None)
    for other in (batch, renamed, wider, no_alpha):
        np.testing.assert_array_equal(other, expected)


def test_other_forms_of_the_same_observation_are_understood(serve, formula) -> None:
    """What no release is known to send, and what has one meaning alone."""

    def answers(message: dict[Any, Any], name: Any = lambda key: key) -> np.ndarray:
        def encode(value: np.ndarray) -> dict[Any, Any]:
            parts = {b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
            return {name(key): part for key, part in ({b"__ndarray__": True} | parts).items()}

        with serve(formula()) as port, client(port) as one:
            one.socket.send(msgpack.packb(message, default=encode))
            return np.asarray(unpack(one.socket.recv(timeout=20))["action"])

    single, batch = make(0, None, values=256, task=3), make(0, 1, values=256, task=3)
    privileged = single["robot_r1::proprio"].copy()
    privileged[140:143] = np.nan  # nothing that the policy reads
    rgb = {key: value[None] for key, value in single.items() if key.endswith("rgb")}
    forms: dict[str, dict[Any, Any]] = {
        "task as a number": single | {"task_id": 3},
        "task as 0-d": single | {"task_id": np.array(3)},
        "task as int32 column": single | {"task_id": np.array([[3]], np.int32)},
        "task as a float": single | {"task_id": np.array([3.0])},
        "no reset": single | {"reset": False},
        "chunk of none": single | {"__action_chunk_size__": 0},
        "no chunk": single | {"__action_chunk_size__": None},
        "chunk of one": single | {"__action_chunk_size__": 1},
        "chunk as an array": single | {"__action_chunk_size__": np.array([5])},
        "needs an action": single | {"need_new_action": np.array([True])},
        "big-endian": single | {"robot_r1::proprio": single["robot_r1::proprio"].astype(">f8")},
        "unread values": single | {"robot_r1::proprio": privileged},
        "another inner name": {
            key.replace("robot_r1::", "robot::", 1): value for key, value in single.items()
        },
        "no poses": {key: value for key, value in single.items() if "poses" not in key},
        "batched pictures": single | rgb,
    }
    expected = answers(single)
    for name, form in forms.items():
        np.testing.assert_array_equal(answers(form), expected, err_msg=name)
    np.testing.assert_array_equal(answers(single, name=bytes.decode), expected)
    flat = batch | {key: value[0] for key, value in batch.items() if key.endswith("rgb")}
    np.testing.assert_array_equal(answers(flat), answers(batch))
    for missing in single:
        if "poses" not in missing:
            with pytest.raises(RuntimeError, match=missing.split(":")[-1]):
                answers({key: value for key, value in single.items() if key != missing})


def calls(size: int, config: PolicyConfig) -> int | None:
    """Steps between two calls of the network; None without chunks. Written from the rule, not the code."""
    if config.execute % size == 0:
        return config.execute
    return size if size + config.kept <= ACTION_HORIZON else None


@pytest.mark.parametrize("environments", [None, 2])
@pytest.mark.parametrize(
    ("size", "config"),
    [
        *((size, PUBLISHED) for size in (2, 7, 10, 16, 20, 26, 27, 30, 50)),
        *((size, PolicyConfig(inpainting="off")) for size in (27, 30, 31)),
        *((size, PolicyConfig(15, 15)) for size in (5, 7)),
    ],
)
def test_chunks_have_exactly_the_steps_asked_for(serve, formula, caplog, environments, size, config) -> None:
    predictor, period, steps = formula(), calls(size, config), 64
    with (
        caplog.at_level(logging.WARNING, "pi_behavior"),
        serve(predictor, config) as port,
        client(port, size) as one,
    ):
        for _ in range(2):
            one.reset()
            one.chunk = size if period else one.chunk
            for step in range(steps):
                one.act(make(step, environments), environments)
    said = [record for record in caplog.records if "are not given" in record.message]
    assert len(said) == (0 if period else 1)
    rows = environments or 1
    asked = one.queries
    assert asked == (2 * -(-steps // size) if period else 2 * steps)
    assert len(predictor.base_velocities) == 2 * rows * -(-steps // (period or config.execute))


def test_a_chunk_that_is_planned_for_it_is_compressed_as_usual() -> None:
    replaying = PUBLISHED.replaying(16)
    assert replaying is not None
    assert (replaying.execute, replaying.compress_from, replaying.kept) == (16, 21, 4)
    assert PUBLISHED.replaying(10) is PUBLISHED
    assert PUBLISHED.replaying(27) is None
    assert PUBLISHED.replaying(26) == PolicyConfig(execute=26, compress_from=26)
    assert PUBLISHED.replaying(3) == PolicyConfig(execute=3, compress_from=4)
    assert PolicyConfig(21, 26).replaying(2) == PolicyConfig(2, 2)


def test_chunks_after_single_actions_start_where_those_ended(serve, formula) -> None:
    with serve(formula(), PolicyConfig(execute=10, compress_from=10)) as port, client(port) as one:
        for step in range(8):
            one.act(make(step, None), None)
        one.chunk = 5
        assert len([one.act(make(8, None), None) for _ in range(5)]) == 5


def test_the_number_of_environments_changes_after_a_reset(serve, formula) -> None:
    with serve(formula()) as port, client(port) as one:
        for environments in (4, 1, 10, None, 2):
            one.reset()
            one.act(make(0, environments), environments)
        with pytest.raises(RuntimeError, match="send a reset"):
            one.act(make(0, 3), 3)


@pytest.mark.parametrize("length", [0, 1, 60, 62, 255])
def test_unknown_lengths_are_errors_in_words(serve, formula, length) -> None:
    bad = make(0, 1) | {"robot_r1::proprio": np.zeros((1, length), np.float32)}
    with serve(formula()) as port, client(port) as one, pytest.raises(RuntimeError) as error:
        one.act(bad, 1)
    assert f"{length} values in its last axis; expected 256 (2025) or 61 (2026)" in str(error.value)


@pytest.mark.parametrize("chunk", [0, 7, 16])
@pytest.mark.parametrize("lost", ["drop", "close"])
def test_a_client_that_comes_back_in_mid_episode_goes_on(serve, formula, chunk, lost) -> None:
    def episode(break_at: set[int]) -> list[np.ndarray]:
        with serve(formula(), PUBLISHED) as port, client(port, chunk) as one:
            one.reset()
            actions = []
            for step in range(60):
                message = make(step, 2)
                if step in break_at and not one.cache:
                    one.send(message)
                    if step % 2:  # the answer is lost, or the server is still computing it
                        one.socket.recv(timeout=20)
                    one.drop() if lost == "drop" else one.socket.close()
                    one.open()
                actions.append(one.act(message, 2))
            return actions

    np.testing.assert_array_equal(episode({0, 7, 16, 21, 48, 49}), episode(set()))


def test_a_client_that_lost_its_connection_while_the_server_computes_goes_on(serve, formula) -> None:
    class Slow(formula):
        def predict(self, requests):
            if self.batches:
                time.sleep(1.0)
            return super().predict(requests)

    predictor, short = Slow(), PolicyConfig(execute=1, compress_from=1)
    with serve(predictor, short) as port, client(port) as one:
        one.act(make(0, 1), 1)
        one.send(make(1, 1))
        time.sleep(0.2)
        one.drop()
        one.open()
        one.act(make(1, 1), 1)
        assert predictor.batches == [1, 1], "the broken connection's plan is the new one's"
        assert predictor.stages == [0, 0]


def test_a_client_whose_loss_the_server_does_not_notice_goes_on(serve, formula, monkeypatch) -> None:
    monkeypatch.setattr(reconnection, "_PING_SECONDS", 0.3)
    predictor = formula()
    with serve(predictor) as port, client(port) as one, client(port) as other:
        one.act(make(0, 1), 1)
        other.act(make(5, 1), 1)
        lost = one.socket
        lost.protocol.receive_data = lambda data: None  # it answers no ping any more
        one.open()
        one.act(make(0, 1), 1)
        one.act(make(1, 1), 1)
        assert predictor.batches == [1, 1]
        # a client that is there keeps its session, whatever others send
        with client(port) as twin:
            twin.act(make(5, 1), 1)
        assert predictor.batches == [1, 1, 1]
        lost.socket.close()


def test_another_observation_or_a_reset_starts_clean_and_says_so(serve, formula, caplog) -> None:
    predictor = formula()
    with caplog.at_level(logging.INFO, "pi_behavior"), serve(predictor, PUBLISHED) as port:
        with client(port) as one:
            one.act(make(0, 1), 1)
        with client(port) as two:
            two.act(make(1, 1), 1)
        with client(port) as three:
            three.reset()
            three.act(make(1, 1), 1)
        with client(port) as four:
            four.act(make(1, 1), 1)
    assert predictor.batches == [1, 1, 1]
    said = [record.message for record in caplog.records]
    assert sum("starts clean" in message for message in said) == 1
    assert sum("goes on where" in message for message in said) == 1


def test_sessions_are_kept_for_a_minute(serve, formula, monkeypatch) -> None:
    monkeypatch.setattr(reconnection, "REMEMBER_SECONDS", 0.2)
    predictor = formula()
    with serve(predictor) as port:
        for _ in range(2):
            with client(port) as one:
                one.act(make(0, 1), 1)
            time.sleep(0.4)
    assert predictor.batches == [1, 1]


def test_64_ports_serve_one_network(serve, formula) -> None:
    predictor = formula()
    with serve(predictor, PUBLISHED, ports=64) as port:
        clients = [Client(port + number, 10) for number in range(64)]
        for step in range(11):
            asked = [one for one in clients if not one.cache]
            for one in asked:
                one.send(make(one.port * 100 + step, 1))
            for one in clients:
                one.receive(1) if one in asked else one.cache.pop(0)
        # the same observation at another port is another environment
        clients[0].send(make(7, 1))
        clients[0].receive(1)
        clients[0].drop()
        before = len(predictor.base_velocities)
        clients[1].reset()
        clients[1].drop()
        clients[1].open()
        clients[1].act(make(7, 1), 1)
        assert len(predictor.base_velocities) == before + 1
        for one in clients:
            one.stack.close()


def test_many_connections_share_a_port(serve, formula) -> None:
    def play(seed: int, port: int, actions: dict[int, list[np.ndarray]]) -> None:
        with client(port) as one:
            actions[seed] = [one.act(make(100 * seed + step, 1), 1) for step in range(25)]

    alone: dict[int, list[np.ndarray]] = {}
    together: dict[int, list[np.ndarray]] = {}
    with serve(formula(), PUBLISHED) as port:
        for seed in range(10):
            play(seed, port, alone)
        threads = [threading.Thread(target=play, args=(seed, port, together)) for seed in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    for seed in range(10):
        np.testing.assert_array_equal(together[seed], alone[seed])


def test_pings_are_answered_while_the_network_computes(serve, formula) -> None:
    started, go = threading.Event(), threading.Event()

    class Slow(formula):
        def predict(self, requests):
            started.set()
            assert go.wait(60)
            return super().predict(requests)

    with serve(Slow()) as port, client(port) as one:
        try:
            one.send(make(0, 10, full=True, depth=True))
            assert started.wait(60)
            assert one.socket.ping().wait(60)
        finally:
            go.set()
        one.receive(10)


def test_full_speed_passes_the_clip(serve, formula) -> None:
    class Fast(formula):
        def _predict(self, request):
            prediction = super()._predict(request)
            prediction.chunk[:, :3] = (0.9, -1.0, 5.0)
            return prediction

    with serve(Fast(), PolicyConfig(execute=5, compress_from=5, clip=True)) as port, client(port) as one:
        action = one.act(make(0, None), None)
    np.testing.assert_allclose(action[:3], [0.9, -1.0, 1.0], rtol=1e-6)


def test_a_taken_port_is_named(tmp_path) -> None:
    (tmp_path / "c").mkdir()
    bad = ["--checkpoint", "c", "--port", "65535", "--ports", "2"]
    result = subprocess.run(
        [sys.executable, "-m", "pi_behavior.policy.server", *bad],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, "ends at 65536" in result.stderr) == (2, True)
