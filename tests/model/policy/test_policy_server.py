"""The service over a real socket, with a predictor that is a formula."""

import json
import subprocess
import sys
import threading
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from pi_behavior.layout import CAMERA_OBSERVATION_KEYS, PROPRIOCEPTION_KEY
from pi_behavior.policy import server
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.interface import NoiseId, Request
from pi_behavior.policy.mapping import CheckpointEntry
from pi_behavior.policy.protocol import pack, unpack
from pi_behavior.policy.service import PolicyService
from pi_behavior.policy.switching import CheckpointPool

SHORT = PolicyConfig(execute=5, compress_from=5)


@contextmanager
def client(port, **options):
    with connect(f"ws://127.0.0.1:{port}", max_size=None, compression=None, **options) as socket:
        assert unpack(socket.recv())["policy"] == "pi-behavior"
        yield socket


def ask(socket, message):
    socket.send(pack(message))
    frame = socket.recv(timeout=20)
    assert isinstance(frame, bytes), frame
    return unpack(frame)


def reset(socket):
    socket.send(pack({"reset": True}))


def expect_refusal(socket, message, text):
    """Send a message (bytes, a map or a string); the error comes as text, then the close with 1011."""
    socket.send(pack(message) if isinstance(message, dict) else message)
    frame = socket.recv(timeout=20)
    assert isinstance(frame, str)
    assert text in frame
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=20)
    assert closed.value.rcvd.code == 1011


def play(port, observations):
    with client(port) as socket:
        return np.array([ask(socket, message)["action"] for message in observations])


def test_health_metadata_and_actions(serve, formula, observation):
    with serve(formula(), SHORT) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            assert answer.status == 200
            assert answer.read().strip() == b"OK"
        with client(port) as socket:
            answer = ask(socket, observation(0))
            assert answer["action"].shape == (23,)
            assert answer["action"].dtype == np.float32
            assert answer["server_timing"]["infer_ms"] > 0
            assert "action_chunk" not in answer
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert b"policy_requests_total 1.0" in answer.read()


def test_reset_has_no_answer_and_starts_again(serve, formula, observation):
    predictor = formula()
    with serve(predictor, SHORT) as port, client(port) as socket:
        reset(socket)
        first = ask(socket, observation(0))["action"]
        ask(socket, observation(1))
        reset(socket)
        second = ask(socket, observation(0))["action"]
        assert len(predictor.batches) == 2, "the reset threw the queue away"
        assert not np.array_equal(first, second), "another episode has other noise"


def test_same_episodes_same_answers(serve, formula, observation):
    def session(port, extra_resets):
        actions = []
        with client(port) as socket:
            for _ in range(2):
                for _ in range(extra_resets):
                    reset(socket)
                actions += [ask(socket, observation(step))["action"] for step in range(7)]
        return np.array(actions)

    with serve(formula(), SHORT) as port:
        expected = session(port, 1)
        np.testing.assert_array_equal(session(port, 3), expected)


def test_chunk_replay_from_the_queue_equals_asking_every_step(serve, formula, observation):
    six = PolicyConfig(execute=6, compress_from=6)
    with serve(formula(), six) as port:
        with client(port) as socket:
            single = [ask(socket, observation(step - step % 6))["action"] for step in range(12)]
        for size in (1, 2, 3, 6):
            with client(port) as replaying:
                actions = []
                for at in range(0, 12, size):
                    answer = ask(replaying, observation(at - at % 6) | {"__action_chunk_size__": size})
                    np.testing.assert_array_equal(answer["action_chunk"][0], answer["action"])
                    assert answer["action_chunk"].shape == (size, 23)
                    actions += list(answer["action_chunk"])
                np.testing.assert_array_equal(actions, single)


def test_images_are_needed_only_for_a_new_chunk(serve, formula, observation):
    with serve(formula(), SHORT) as port, client(port) as socket:
        blind = {
            key: value for key, value in observation(0).items() if key not in CAMERA_OBSERVATION_KEYS.values()
        }
        ask(socket, observation(0))
        for _ in range(4):
            ask(socket, blind)
        expect_refusal(socket, blind, "rgb")


def test_batched_environments_are_independent_control_loops(serve, formula, observation):
    predictor = formula()
    with serve(predictor, SHORT) as port, client(port) as socket:
        both = [
            ask(socket, observation(step, environments=2) | {"__action_chunk_size__": 1})
            for step in range(10)
        ]
        assert both[0]["action"].shape == (2, 23)
        assert both[0]["action_chunk"].shape == (2, 1, 23)
        assert predictor.batches == [2, 2]
        reset(socket)
        assert ask(socket, observation(0, environments=3))["action"].shape == (3, 23)
        expect_refusal(socket, observation(1, environments=2), "reset")
    # each environment of the batch gets what a session of its own gets
    batches = [observation(step, environments=2) for step in range(10)]
    with serve(formula(), SHORT) as port:
        for index in range(2):
            alone = [
                {key: value[index] if np.ndim(value) > 1 else value for key, value in batch.items()}
                for batch in batches
            ]
            np.testing.assert_array_equal(play(port, alone), [answer["action"][index] for answer in both])


def test_an_episode_gets_the_same_answers_in_any_order_and_others_when_repeated(serve, formula, observation):
    def play_in(port, order):
        answers = []
        with client(port) as socket:
            for episode in order:
                reset(socket)
                actions = [ask(socket, observation(10 * episode + step))["action"] for step in range(7)]
                answers.append(np.array(actions))
        return answers

    with serve(formula(), SHORT) as port:
        first, second = play_in(port, [1, 2])
        two, one, again = play_in(port, [2, 1, 2])
    np.testing.assert_array_equal(first, one)
    np.testing.assert_array_equal(second, two)
    assert not np.array_equal(again, two)


def test_sessions_do_not_mix(serve, formula, observation):
    scripts = [[observation(100 * n + step, task=n + 1) for step in range(20)] for n in range(4)]
    predictor = formula()
    with serve(predictor, SHORT, window=0.05) as port:
        alone = [play(port, script) for script in scripts]
        together: list[np.ndarray | None] = [None] * 4

        def run(index):
            together[index] = play(port, scripts[index])

        predictor.batches.clear()
        threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert max(predictor.batches) > 1, "requests ran in batches"
    for expected, got in zip(alone, together, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_changed_task_restarts_the_episode(serve, formula, observation):
    predictor = formula()
    with serve(predictor, SHORT) as port, client(port) as socket:
        ask(socket, observation(0, task=1))
        ask(socket, observation(1, task=2))
        assert predictor.batches == [1, 1]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"\xc1", "msgpack"),
        (b"", "msgpack"),
        ("text", "text frame"),
        (msgpack.packb([1, 2]), "expected a map"),
        (msgpack.packb({"x": {b"__ndarray__": True, b"data": b"", b"dtype": "O", b"shape": [0]}}), "refused"),
        ({}, "proprio"),
        ({PROPRIOCEPTION_KEY: np.zeros(255, np.float32)}, "256"),
        ({PROPRIOCEPTION_KEY: np.full(256, np.nan)}, "finite"),
        ({PROPRIOCEPTION_KEY: np.full(256, 3e38), "task_id": np.array([1])}, "finite"),
        ({PROPRIOCEPTION_KEY: np.full(256, 1e300), "task_id": np.array([1])}, "finite"),
        ({PROPRIOCEPTION_KEY: np.zeros((0, 256)), "task_id": np.array([1])}, "0 environments"),
        ({PROPRIOCEPTION_KEY: np.zeros((300, 256)), "task_id": np.array([1])}, "300 environments"),
        ({"reset": np.ones(3)}, "reset"),
        ({PROPRIOCEPTION_KEY: np.zeros(256)}, "task_id"),
        ({PROPRIOCEPTION_KEY: np.array(["a"] * 256)}, "numbers"),
    ],
)
def test_malformed_messages_close_only_their_session(serve, formula, observation, message, text):
    with serve(formula(), SHORT) as port, client(port) as good:
        first = ask(good, observation(0))
        with client(port) as bad:
            expect_refusal(bad, message, text)
        assert ask(good, observation(1))["action"].shape == first["action"].shape


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"__action_chunk_size__": -1}, "__action_chunk_size__"),
        ({"__action_chunk_size__": 2.5}, "__action_chunk_size__"),
        ({"task_id": np.array([1, 2, 3])}, "task_id"),
        ({"task_id": np.array([0.5])}, "task_id"),
        ({next(iter(CAMERA_OBSERVATION_KEYS.values())): np.zeros((8, 8, 4), np.float32)}, "uint8"),
        ({next(iter(CAMERA_OBSERVATION_KEYS.values())): np.zeros((8, 8), np.uint8)}, "uint8"),
        ({next(iter(CAMERA_OBSERVATION_KEYS.values())): np.zeros((0, 8, 3), np.uint8)}, "uint8"),
        ({next(iter(CAMERA_OBSERVATION_KEYS.values())): np.zeros((1, 9999, 3), np.uint8)}, "sides up to"),
        ({"task_id": np.array([2**50])}, "is unknown"),
        ({"task_id": np.array([48])}, "task 48 breaks this network"),
    ],
)
def test_bad_observations_are_named(serve, formula, observation, change, text):
    with serve(formula(), SHORT) as port, client(port) as socket:
        expect_refusal(socket, observation(0) | change, text)


def test_a_failing_request_does_not_fail_the_others_of_its_batch(serve, formula, observation):
    with serve(formula(), SHORT, window=0.5) as port, client(port) as good, client(port) as bad:
        good.send(pack(observation(0)))
        bad.send(pack(observation(0, task=48)))
        assert isinstance(bad.recv(timeout=20), str)
        assert unpack(good.recv(timeout=20))["action"].shape == (23,)


def test_a_client_that_leaves_in_the_middle_disturbs_nobody(serve, formula, observation):
    with serve(formula(), SHORT, window=0.2) as port, client(port) as good:
        for _ in range(3):
            with client(port) as leaving:
                leaving.send(pack(observation(5)))
                leaving.socket.close()
        with client(port) as leaving:
            leaving.send(pack(observation(5)))
        assert ask(good, observation(0))["action"].shape == (23,)


def test_stop_closes_open_sessions(serve, formula, observation):
    with ExitStack() as stack:
        with serve(formula(), SHORT) as port:
            socket = stack.enter_context(client(port))
            ask(socket, observation(0))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
    assert closed.value.rcvd.code == 1001


def test_stop_answers_what_is_being_computed_first(serve, formula, observation):
    class Slow(formula):
        def predict(self, requests):
            started.set()
            assert go.wait(20)
            return super().predict(requests)

    started, go = threading.Event(), threading.Event()
    answers = []

    def ask_slowly(socket):
        answers.append(ask(socket, observation(0))["action"])
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
        answers.append(closed.value.rcvd.code)

    with ExitStack() as stack:
        with serve(Slow(), SHORT) as port:
            busy, idle = (stack.enter_context(client(port)) for _ in range(2))
            asking = threading.Thread(target=ask_slowly, args=(busy,))
            asking.start()
            assert started.wait(20)
            threading.Timer(0.5, go.set).start()
        # the server has ended
        asking.join(20)
        with pytest.raises(ConnectionClosed):
            idle.recv(timeout=20)
    assert answers[0].shape == (23,)
    assert answers[1] == 1001


def test_a_batch_of_two_networks_and_of_more_than_the_largest_size(formula):
    entries = [CheckpointEntry("a", Path(), None)]
    service = PolicyService(SHORT, CheckpointPool(entries, lambda _: formula(), capacity=1), max_batch=16)
    one, two = formula(0.0), formula(100.0)
    images = {"head": np.zeros((2, 2, 3), np.uint8)}
    asked = [
        (two if call % 3 else one, Request(images, np.zeros(23), 1, 0, None, NoiseId(0, 0, call)))
        for call in range(14)
    ]
    answers = service._run_batch(asked)
    for (predictor, request), answer in zip(asked, answers, strict=True):
        np.testing.assert_array_equal(answer.chunk, predictor.predict([request])[0].chunk)
    assert (one.batches[:2], two.batches[:3]) == ([4, 1], [4, 4, 1])


def test_api_key(serve, formula, observation):
    with serve(formula(), SHORT, api_key="sesame") as port:
        for headers in ({}, {"Authorization": "Api-Key wrong"}):
            with pytest.raises(InvalidStatus, match="401"), client(port, additional_headers=headers):
                pass
        for headers in ({"Authorization": "Api-Key s\u00e9same"}, [("Authorization", "Api-Key sesame")] * 2):
            with pytest.raises((InvalidStatus, UnicodeEncodeError)), client(port, additional_headers=headers):
                pass
        with client(port, additional_headers={"Authorization": "Api-Key sesame"}) as socket:
            ask(socket, observation(0))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "exactly one"),
        (["--checkpoint", "missing"], "not a folder"),
        (["--mapping", "missing.json"], "cannot read"),
        (["--mapping", "missing.json", "--champion", "."], "exactly one"),
        (["--champion", "."], "cannot read the mapping champion.json"),
        (["--checkpoint", ".", "--policy.execute", "0"], "execute"),
        (["--checkpoint", ".", "--batch-sizes", "0"], "batch-sizes"),
        (["--checkpoint", ".", "--api-key-file", "missing"], "api-key-file"),
        (["--checkpoint", ".", "--no-such-flag"], "no-such-flag"),
    ],
)
def test_mistakes_on_the_command_line_exit_2(tmp_path, arguments, text):
    result = subprocess.run(
        [sys.executable, "-m", "pi_behavior.policy.server", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2, result.stderr
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_a_champion_brings_its_settings_and_flags_change_single_ones(tmp_path):
    rows = {"common": {"path": ".", "tasks": ["picking_up_trash"]}}
    settings = {"execute": 28, "compress_from": 28, "keep": 2, "seed": 3}
    file = tmp_path / "champion.json"
    file.write_text(json.dumps({"checkpoints": rows, "policy": settings}))
    for place in (["--champion", str(tmp_path)], ["--mapping", str(file)]):
        # with the defaults, execute 27 would be more than compress_from
        config, entries = server._configure([*place, "--policy.execute", "27", "--port", "0"])
        assert config.policy == PolicyConfig(execute=27, compress_from=28, keep=2, seed=3)
        assert config.port == 0
        assert entries == [CheckpointEntry("common", tmp_path, frozenset({1}))]
    file.write_text(json.dumps({"checkpoints": rows}))
    assert server._configure(["--mapping", str(file)])[0].policy == PolicyConfig()
    with pytest.raises(ValueError, match=r"does not say.*promoted again, by a run of the pipeline evaluate"):
        server._configure(["--champion", str(tmp_path)])


def test_help_needs_nothing_to_serve(capsys):
    with pytest.raises(SystemExit) as end:
        server.main(["--help"])
    assert end.value.code == 0
    assert "--policy.execute" in capsys.readouterr().out


def test_the_settings_are_in_the_metadata(serve, formula):
    with serve(formula(), SHORT) as port, connect(f"ws://127.0.0.1:{port}") as socket:
        metadata = unpack(socket.recv())
    assert metadata["settings"]["execute"] == 5
    assert metadata["checkpoints"] == {"formula": {"tasks": None, "digest": "d" * 64}}
    assert metadata["edition"] == ["2025", "2026"]
    assert metadata["action"]["dim"] == 23
    assert metadata["action"]["groups"]["grippers"] == [14, 22]
    assert len(metadata["action"]["low"]) == len(metadata["action"]["high"]) == 23
    json.dumps(metadata)


def test_an_oracle_stage_reaches_the_network(serve, formula, observation):
    predictor = formula()
    policy = PolicyConfig(execute=5, compress_from=5, voting="oracle")
    with serve(predictor, policy) as port:
        with client(port) as socket:
            ask(socket, {**observation(0), "oracle_stage": np.array([3])})
            assert predictor.stages == [3]
        with client(port) as socket:
            expect_refusal(socket, observation(0), "oracle_stage")
