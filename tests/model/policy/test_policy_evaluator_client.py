"""The official evaluator's client and household.eval's are one to the policy server.

The client here is written from the published description of the 2026 evaluator, with websockets and msgpack
alone; it shares nothing with the household's.
"""

import http.client
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from household.eval import EvalConfig, evaluate
from household.instances import make_instance
from household.simulation import Simulation
from household.tasks import TASKS
from household.video import through_camera
from pi_behavior.policy import protocol
from pi_behavior.policy.config import PolicyConfig

TASK = TASKS["picking_up_trash"]
INSTANCES = (301, 302)
STEPS, SIZE = 12, 32
CAMERAS = {"head": "zed", "left_wrist": "left_realsense", "right_wrist": "right_realsense"}


def encode(value: Any, tag: str) -> Any:
    """An array as the evaluator tags it: its own with NumPy's types, torch's tensors with torch's."""
    if not isinstance(value, np.ndarray):
        return value
    dtype = f"torch.{value.dtype.name}" if tag == "torch" else value.dtype.str
    names = {"torch": b"__torch__", "numpy": b"__ndarray__"}
    return {names[tag]: True, b"data": value.tobytes(), b"dtype": dtype, b"shape": list(value.shape)}


def decode(frame: bytes) -> dict[str, Any]:
    def restore(value: dict[Any, Any]) -> Any:
        if b"__ndarray__" in value or b"__torch__" in value:
            dtype = np.dtype(value[b"dtype"].removeprefix("torch."))
            return np.frombuffer(value[b"data"], dtype).reshape(value[b"shape"])
        return value

    message = msgpack.unpackb(frame, object_hook=restore, strict_map_key=False)
    assert isinstance(message, dict)
    return message


def observation(simulation: Simulation) -> dict[str, np.ndarray]:
    pictures = {
        f"robot_r1::robot_r1:{link}_link:Camera:0::rgb": np.dstack(
            [through_camera(simulation.render(camera, SIZE)), np.full((SIZE, SIZE), 255, np.uint8)]
        )
        for camera, link in CAMERAS.items()
    }
    return {
        **pictures,
        "robot_r1::proprio": simulation.proprioception().astype(np.float32),
        "robot_r1::cam_rel_poses": simulation.camera_poses().astype(np.float32),
        "task_id": np.array([TASK.index], np.int64),
    }


def ask(
    socket: ClientConnection, simulations: Sequence[Simulation], chunk_size: int | None, tag: str, batch: bool
) -> np.ndarray:
    """The actions until the client asks again, [steps, environments, 23]."""
    single = [observation(simulation) for simulation in simulations]
    message: dict[str, Any] = single[0]
    if batch:
        message = {key: np.stack([one[key] for one in single]) for key in message}
    if chunk_size is not None:
        message["__action_chunk_size__"] = chunk_size
    socket.send(msgpack.packb({key: encode(value, tag) for key, value in message.items()}))
    frame = socket.recv(timeout=60)
    assert isinstance(frame, bytes), frame
    answer = decode(frame)
    shape = (len(simulations), 23) if batch else (23,)
    assert (answer["action"].dtype, answer["action"].shape) == (np.float32, shape)
    if chunk_size is None:
        assert "action_chunk" not in answer
        return answer["action"].reshape(1, -1, 23)
    chunk = answer["action_chunk"].reshape(len(simulations), -1, 23).swapaxes(0, 1)
    np.testing.assert_array_equal(chunk[0], answer["action"].reshape(-1, 23))
    return chunk


def play(
    port: int, instances: Sequence[int], chunk_size: int | None, tag: str = "numpy", batch: bool = False
) -> np.ndarray:
    """A short episode of each instance, all at once; the actions that were done, [steps, instances, 23]."""
    health = http.client.HTTPConnection("127.0.0.1", port)
    health.request("GET", "/healthz")
    response = health.getresponse()
    assert (response.status, response.read().strip()) == (200, b"OK")
    health.close()
    simulations = [Simulation(TASK) for _ in instances]
    for simulation, instance in zip(simulations, instances, strict=True):
        simulation.reset(make_instance(TASK, instance))
    done: list[np.ndarray] = []
    with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, proxy=None) as socket:
        metadata = socket.recv(timeout=60)
        assert isinstance(metadata, bytes)
        decode(metadata)
        socket.send(msgpack.packb({"reset": True}))  # gets no answer: the next frame is the first action
        while len(done) < STEPS:
            for actions in ask(socket, simulations, chunk_size, tag, batch)[: STEPS - len(done)]:
                for simulation, action in zip(simulations, actions, strict=True):
                    simulation.step(action)
                done.append(actions)
    for simulation in simulations:
        simulation.close()
    return np.stack(done)


class Tap:
    """What the server gets and sends, frame by frame."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.received: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        unpack, pack = protocol.unpack, protocol.pack

        def unpack_and_keep(frame: bytes) -> Any:
            self.received.append(decode(frame))
            return unpack(frame)

        def pack_and_keep(message: Any) -> bytes:
            frame = pack(message)
            self.sent.append(decode(frame))
            return frame

        monkeypatch.setattr(protocol, "unpack", unpack_and_keep)
        monkeypatch.setattr(protocol, "pack", pack_and_keep)

    def take(self) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
        """Observations by episode, and answers, since the last call."""
        episodes: list[list[dict[str, Any]]] = []
        for message in self.received:
            if "reset" in message:
                assert message == {"reset": True}
                episodes.append([])
            else:
                episodes[-1].append(message)
        answers = self.sent[1:]  # after the metadata
        self.received.clear()
        self.sent.clear()
        return episodes, answers


def described(message: dict[str, Any]) -> dict[str, Any]:
    """Keys, types, shapes and every bit."""
    return {
        key: (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
        for key, value in message.items()
    }


def actions_of(answers: Sequence[dict[str, Any]]) -> np.ndarray:
    """What a client that replays chunks does, [steps, 23]."""
    return np.concatenate([np.atleast_2d(answer.get("action_chunk", answer["action"])) for answer in answers])


@pytest.mark.parametrize("chunk_size", [None, 8])
def test_the_server_cannot_tell_the_official_client_from_the_households(
    serve, formula, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chunk_size: int | None
) -> None:
    # 8 does not divide the 5 actions after which the policy else wants to see an observation
    with serve(formula(), PolicyConfig(execute=5, compress_from=7)) as port:
        tap = Tap(monkeypatch)
        config = EvalConfig(
            TASK.name,
            tmp_path,
            port=port,
            instance_indices=(0, 1),
            max_steps=STEPS,
            image_size=SIZE,
            replay_action_chunk_size=chunk_size or 0,
        )
        evaluate(config)
        episodes, answers = tap.take()
        asked = [len(episode) for episode in episodes]
        assert asked == ([2, 2] if chunk_size else [STEPS, STEPS])
        expected = [actions_of(answers[: asked[0]])[:STEPS], actions_of(answers[asked[0] :])[:STEPS]]
        assert not np.array_equal(*expected)
        for tag in ("numpy", "torch"):
            actions = play(port, INSTANCES[:1], chunk_size, tag)
            np.testing.assert_array_equal(actions[:, 0], expected[0])
            (observed,), _ = tap.take()
            assert [described(message) for message in observed] == list(map(described, episodes[0]))
        # both instances side by side, as the evaluator's vectorised environments send them
        actions = play(port, INSTANCES, chunk_size, batch=True)
        np.testing.assert_array_equal(actions, np.stack(expected, axis=1))
        (observed,), _ = tap.take()
        for index, episode in enumerate(episodes):
            parts = [
                {key: v[index] if isinstance(v, np.ndarray) else v for key, v in message.items()}
                for message in observed
            ]
            assert list(map(described, parts)) == list(map(described, episode))
