"""The JAX predictor with a real, untrained checkpoint, and the server command as a process."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from benchmarks.serving import serving, write_random_checkpoint
from components.store.sums import hash_files, tree_digest
from pi_behavior import checkpoint
from pi_behavior.config import ModelConfig, VisionConfig
from pi_behavior.flow import Inpainting, sample
from pi_behavior.observation import Observation
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.interface import NoiseId, Request
from pi_behavior.policy.predictor import JaxPredictor
from pi_behavior.policy.protocol import ProtocolError, pack, unpack

POLICY = PolicyConfig(num_steps=4)
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


def make_request(seed: int, *, saved: bool = False, call: int = 0, size: int = 28) -> Request:
    rng = np.random.default_rng(seed)
    return Request(
        images={
            camera: rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
            for camera in ("head", "left_wrist", "right_wrist")
        },
        state=rng.normal(size=23).astype(np.float32),
        task=seed % 50,
        stage=seed % 5,
        saved=rng.normal(size=(4, 23)).astype(np.float32) if saved else None,
        noise=NoiseId(0, 0, call),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp("policy") / "checkpoint", CONFIG)


@pytest.fixture(scope="module")
def predictor(folder) -> JaxPredictor:
    return JaxPredictor.load(folder, POLICY, [2, 1])


def test_answers_do_not_depend_on_the_batch(predictor):
    assert predictor.batch_sizes == (1, 2)
    first, second = make_request(1, saved=True), make_request(2)
    (alone,) = predictor.predict([first])
    for batch, index in (([first, second], 0), ([second, first], 1)):
        answer = predictor.predict(batch)[index]
        np.testing.assert_allclose(answer.chunk, alone.chunk, atol=1e-5)
        np.testing.assert_allclose(answer.stage_logits, alone.stage_logits, atol=1e-5)
    np.testing.assert_array_equal(predictor.predict([first])[0].chunk, alone.chunk)


@pytest.mark.parametrize(
    ("recorded", "std", "sent", "masked"),
    [
        (256, 1.0, "robot", True),
        (256, 1.0, "world", False),
        (61, 0.01, "robot", False),
        (61, 0.01, "world", True),
        (0, 0.02, "robot", True),  # nobody recorded it: the size tells
        (0, 0.02, "world", False),
        (0, 0.1, "robot", False),
        (0, 0.1, "world", True),
        (0, 0.035, "robot", False),
        (256, 1.0, None, False),
    ],
)
def test_base_velocities_of_another_edition_are_masked(folder, caplog, recorded, std, sent, masked):
    loaded = checkpoint.load(folder)
    states = loaded.statistics.state_std.copy()
    states[:3] = std
    statistics = dataclasses.replace(loaded.statistics, proprioception=recorded, state_std=states)
    predictor = JaxPredictor(dataclasses.replace(loaded, statistics=statistics), POLICY, [2])
    asked = dataclasses.replace(make_request(1), base_velocity=sent)
    mean = asked.state.copy()
    mean[:3] = statistics.state_mean[:3]
    plain = dataclasses.replace(asked, base_velocity=None)
    chunk, given, at_mean = (
        predictor.predict([request, plain])[0].chunk
        for request in (asked, plain, dataclasses.replace(plain, state=mean))
    )
    assert not np.array_equal(given, at_mean)
    np.testing.assert_array_equal(chunk, at_mean if masked else given)
    said = [record.message for record in caplog.records if "base part" in record.message]
    assert ["replaced by the training mean" in text for text in said] == [True] * masked + [False] * (
        predictor._statistics.base_velocity is None
    )


@pytest.mark.parametrize("inpainting", ["soft", "hard"])
def test_answer_is_the_network_in_absolute_units(folder, inpainting):
    """Against the same computation written out, without the predictor's helpers."""
    predictor = JaxPredictor.load(folder, dataclasses.replace(POLICY, inpainting=inpainting), [1])
    loaded = checkpoint.load(folder)
    statistics = loaded.statistics
    request = make_request(4, saved=True, call=2)
    key = jax.random.key(np.uint32(POLICY.seed))
    for part in request.noise:
        key = jax.random.fold_in(key, part)
    factor = statistics.regularised_cholesky(CONFIG.noise_beta)
    noise = np.asarray(jax.random.normal(key, (960,))) @ factor.T
    state = np.zeros((1, 32), np.float32)
    state[0, :23] = (request.state - statistics.state_mean) / (statistics.state_std + 1e-6)
    observation = Observation(
        {camera: jnp.asarray(image)[None] for camera, image in request.images.items()},
        jnp.asarray(state),
        jnp.array([request.task]),
        jnp.array([request.stage]),
    )
    given = statistics.normalise_initial(request.saved, request.state)
    correction = jnp.asarray(statistics.correction_matrix(CONFIG.noise_beta, POLICY.kept))
    if inpainting == "hard":  # free steps stay where the flow has them
        correction = jnp.zeros_like(correction)

    @jax.jit
    def run():
        prefix = loaded.model.encode(observation)
        start = jnp.asarray(noise.reshape(1, 30, 32), jnp.float32)
        inpainting = Inpainting(jnp.asarray(given)[None], jnp.array([True]))
        options = {"steps": POLICY.num_steps, "inpainting": inpainting, "correction": correction}
        return sample(loaded.model, prefix, start, **options), prefix.stage_logits

    chunk, logits = run()
    delta = statistics.unnormalise_actions(np.asarray(chunk)[:, :, :23])
    expected = statistics.undelta(delta, request.state[None])[0]
    (answer,) = predictor.predict([request])
    np.testing.assert_allclose(answer.chunk, expected, atol=2e-4)
    np.testing.assert_allclose(answer.stage_logits, np.asarray(logits)[0], atol=1e-4)
    (without,) = predictor.predict([dataclasses.replace(request, saved=None)])
    assert np.abs(without.chunk - expected).max() > 0.01


def test_noise_has_an_identity(predictor):
    request = make_request(5)
    chunk = predictor.predict([request])[0].chunk
    for other in (NoiseId(2**32 - 1, 0, 0), NoiseId(0, 1, 0), NoiseId(0, 0, 1)):
        changed = predictor.predict([dataclasses.replace(request, noise=other)])[0].chunk
        assert np.abs(changed - chunk).max() > 0.01


def test_images_of_any_size_and_unknown_tasks(predictor):
    chunk = predictor.predict([make_request(7, size=40)])[0].chunk
    assert chunk.shape == (30, 23)
    assert chunk.dtype == np.float32
    assert np.isfinite(chunk).all()
    with pytest.raises(ProtocolError, match="task 100"):
        predictor.check(dataclasses.replace(make_request(7), task=100))
    with pytest.raises(ValueError, match="3 requests"):
        predictor.predict([make_request(7)] * 3)


def test_closure_table_comes_from_the_checkpoint(predictor):
    np.testing.assert_array_equal(predictor.closure(0), [[False, True]] * 5)
    assert predictor.closure(1) is None


def test_one_batch_size_gives_the_same_bits_in_any_company(folder):
    policy = PolicyConfig(num_steps=2, inpainting="off")
    predictor = JaxPredictor.load(folder, policy, [3])
    first, second, third = (make_request(seed) for seed in (1, 2, 3))
    (alone,) = predictor.predict([first])
    assert alone.chunk.shape == (30, 23)
    for batch, index in (([first, second], 0), ([second, first, third], 1), ([third, second, first], 2)):
        answer = predictor.predict(batch)[index]
        np.testing.assert_array_equal(answer.chunk, alone.chunk)
        np.testing.assert_array_equal(answer.stage_logits, alone.stage_logits)


SHORT = ("--policy.execute", "3", "--policy.compress-from", "3", "--policy.num-steps", "2")


def session(url, **options):
    return connect(url, max_size=None, compression=None, **options)


def write_mapping(tmp_path, **checkpoints):
    rows = {name: {"path": str(path), "tasks": tasks} for name, (path, tasks) in checkpoints.items()}
    file = tmp_path / "mapping.json"
    file.write_text(json.dumps({"checkpoints": rows}))
    return ["--mapping", str(file), "--batch-sizes", "1"]


def test_command_serves_a_mapping_and_stops_on_sigterm(folder, tmp_path, observation):
    words = write_mapping(tmp_path, only=(folder, [0, 1]))
    with serving(tmp_path, *words, *SHORT, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cache")) as server:
        url = f"ws://127.0.0.1:{server.wait()}"
        with session(url) as socket:
            metadata = unpack(socket.recv())
            digest = tree_digest(hash_files(folder))
            assert metadata["checkpoints"] == {"only": {"tasks": [0, 1], "digest": digest}}
            for step in range(2):
                socket.send(pack(observation(step, task=1) | {"__action_chunk_size__": 3}))
                answer = unpack(socket.recv(timeout=60))
                assert answer["action_chunk"].shape == (3, 23)
            with session(url) as other:
                other.recv()
                other.send(pack(observation(0, task=7)))
                assert "no checkpoint serves task 7" in other.recv(timeout=60)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=30)
            assert closed.value.rcvd.code == 1001
        assert server.process.wait(30) == 0, server.log.read_text()
        assert any((tmp_path / "cache").iterdir()), "programs were kept for the next start"


def test_command_serves_a_champion_with_its_settings(folder, tmp_path, observation):
    place = tmp_path / "champion"
    place.mkdir()
    policy = {"execute": 4, "compress_from": 4, "num_steps": 2}
    row = {"path": os.path.relpath(folder, place), "tasks": ["picking_up_trash"], "uri": "artifacts/train/a"}
    document = {"checkpoints": {"common": row}, "policy": policy, "promoted": "2025-11-30T00:00:00Z"}
    (place / "champion.json").write_text(json.dumps(document))
    words = ("--champion", str(place), "--batch-sizes", "1", "--policy.num-steps", "1")
    with serving(tmp_path, *words) as server, session(f"ws://127.0.0.1:{server.wait()}") as socket:
        metadata = unpack(socket.recv())
        assert metadata["checkpoints"]["common"]["tasks"] == [1]
        assert metadata["settings"] == dataclasses.asdict(PolicyConfig(**{**policy, "num_steps": 1}))
        socket.send(pack(observation(0, task=1) | {"__action_chunk_size__": 4}))
        assert unpack(socket.recv(timeout=60))["action_chunk"].shape == (4, 23)
    assert '"execute": 4' in server.log.read_text()


def test_switching_broken_checkpoints_keys_and_json_logs(folder, tmp_path, observation):
    """One server in memory at a time; one of its checkpoints is missing, one has lost half of a file."""
    copy, torn = tmp_path / "copy", tmp_path / "torn"
    shutil.copytree(folder, copy)
    shutil.copytree(folder, torn)
    for file in (torn / "params").rglob("*"):
        if file.is_file() and file.stat().st_size > 10_000:
            file.write_bytes(file.read_bytes()[:5000])
    words = write_mapping(
        tmp_path, torn=(torn, [4]), one=(folder, [0, 1]), two=(copy, [2]), missing=(tmp_path / "no", [3])
    )
    words += ["--json-logs", "--policy.voting", "off"]
    key = {"additional_headers": {"Authorization": "Api-Key sesame"}}
    with serving(tmp_path, *words, *SHORT, B1K_API_KEY="sesame") as server:
        url = f"ws://127.0.0.1:{server.wait()}"
        with pytest.raises(InvalidStatus, match="401"), session(url):
            pass
        answers = {}
        with session(url, **key) as lasting:
            assert unpack(lasting.recv())["checkpoints"]["missing"] == {"tasks": [3], "digest": None}
            for task in (1, 4, 2, 3, 1):
                with session(url, **key) as socket:
                    socket.recv()
                    socket.send(pack(observation(0, task=task)))
                    answer = socket.recv(timeout=60)
                if task in (3, 4):
                    assert "cannot be loaded" in answer
                    assert ("'missing'" if task == 3 else "'torn'") in answer
                else:
                    action = unpack(answer)["action"]
                    np.testing.assert_array_equal(answers.setdefault(task, action), action)
            for task in (2, 1):  # a changed task is another episode
                lasting.send(pack(observation(task, task=task)))
                assert unpack(lasting.recv(timeout=60))["action"].shape == (23,)
            server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0, server.log.read_text()
    text = server.log.read_text()
    assert "sesame" not in text
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    events = [row for row in rows if "rule" in row]
    assert {"task", "stage", "step", "rule", "session", "time"} <= set(events[0])
    assert sum(sum(row["rules"].values()) for row in rows if "rules" in row) == len(events)


def test_weights_in_bfloat16_take_half_and_change_little(tmp_path):
    """A network that computes in bfloat16: its matrices are rounded at their use, or once and for all."""
    config = dataclasses.replace(ModelConfig.presets["tiny"], dtype="bfloat16", depth=1)
    write_random_checkpoint(tmp_path / "c", config)
    chunks, sizes = {}, {}
    for kind in ("float32", "bfloat16"):
        predictor = JaxPredictor.load(tmp_path / "c", POLICY, [1], kind)
        sizes[kind] = sum(leaf.nbytes for leaf in predictor._weights if leaf.size >= 2**16)
        chunks[kind] = predictor.predict([make_request(1, saved=True, size=56)])[0].chunk
    assert sizes["bfloat16"] * 2 == sizes["float32"] > 0
    np.testing.assert_allclose(chunks["bfloat16"], chunks["float32"], atol=1e-5)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_named_in_a_few_lines(tmp_path, damage):
    write_random_checkpoint(tmp_path / "c", dataclasses.replace(ModelConfig.presets["tiny"], depth=1))
    victim = max(
        (f for f in (tmp_path / "c/params").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
    )
    data = victim.read_bytes()
    half = len(data) // 2
    rest = b"" if damage == "truncated" else bytes([data[half] ^ 1]) + data[half + 1 :]
    victim.write_bytes(data[:half] + rest)
    serve = ["-m", "pi_behavior.policy.server", "--checkpoint", str(tmp_path / "c")]
    inspect = ["-m", "pipelines.cli", "checkpoint", "inspect", str(tmp_path / "c")]
    for words in (serve, inspect):
        answer = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        assert answer.returncode == 2, answer.stderr
        assert f"{victim.name} is not what was saved" in answer.stderr
        assert len(answer.stderr.splitlines()) <= 5


def test_a_folder_that_is_no_checkpoint_is_the_users_mistake(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "pi_behavior.policy.server", "--checkpoint", str(tmp_path)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "not a policy checkpoint" in result.stderr
    assert "Traceback" not in result.stderr
