"""The Large Behavior Model through the interface of families: training, checkpoints, serving, language."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from benchmarks.serving import random_statistics
from pi_behavior import checkpoint
from pi_behavior.challenge import TASKS, TASKS_BY_INDEX
from pi_behavior.checkpoint_description import CheckpointError, read_config
from pi_behavior.data.pipeline import Batch, EarlierRows
from pi_behavior.families import FAMILIES, SIZES, family_of, name_of
from pi_behavior.layout import CAMERAS, camera_observation_keys
from pi_behavior.lbm.config import ClipTextConfig, ClipVisionConfig, FlowConfig, LbmConfig
from pi_behavior.lbm.language import task_tokens, tokenizer_of, wordings
from pi_behavior.lbm.statistics import action_range
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.interface import Moments, NoiseId, Prediction, Request
from pi_behavior.policy.protocol import ACTION_CHUNK_SIZE, ProtocolError
from pi_behavior.policy.session import Session
from pi_behavior.tensors import flat_parameters
from pi_behavior.training.config import LearningRate, TrainConfig
from pi_behavior.training.loop import train

MICRO = replace(
    LbmConfig.presets["lbm-tiny"],
    vision=ClipVisionConfig(image_size=8, patch=4, width=8, depth=1, heads=2, mlp=8),
    text=ClipTextConfig(vocabulary=600, length=12, width=8, depth=1, heads=2, mlp=8),
    width=16,
    depth=1,
    heads=2,
    time_width=8,
)
TRAIN = TrainConfig(
    steps=4,
    batch_size=4,
    flow_samples=2,
    learning_rate=LearningRate(peak=1e-2),
    warmup_steps=1,
    save_every=2,
    log_every=1,
)
RADIO = TASKS["turning_on_radio"].index


def batches(start: int) -> Iterator[Batch]:
    step = start
    while True:
        rng = np.random.default_rng(step)
        yield Batch(
            images={c: rng.integers(0, 256, (4, 8, 8, 3), np.uint8) for c in CAMERAS},
            state=rng.normal(size=(4, 32)).astype(np.float32),
            task=np.array([0, 1, 0, 1], np.int32),
            stage=np.zeros(4, np.int32),
            actions=rng.normal(size=(4, 30, 32)).astype(np.float32),
        )
        step += 1


class CrashError(Exception):
    """A crash in the middle."""


def crash_at_three(step: int, _: object) -> None:
    if step == 3:
        raise CrashError


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(MICRO, TRAIN, random_statistics(), batches, folder, keep_initial=True)
    return folder


def parameters(path: Path) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in flat_parameters(nnx.state(checkpoint.load(path).model)).items()}


def test_every_size_is_of_one_family_and_has_a_name() -> None:
    assert {"tiny", "small", "full", "lbm", "lbm-tiny", "lbm-base"} <= SIZES.keys()
    assert sum(len(config.presets) for config, _ in FAMILIES.values()) == len(SIZES)
    assert name_of(SIZES["lbm-tiny"]) == "lbm"
    assert name_of(SIZES["tiny"]) == "pi-behavior"


def test_a_killed_training_ends_as_one_that_was_not(trained, tmp_path) -> None:
    with pytest.raises(CrashError):
        train(MICRO, TRAIN, random_statistics(), batches, tmp_path, hooks=[crash_at_three])
    train(MICRO, TRAIN, random_statistics(), batches, tmp_path)
    whole, resumed = parameters(trained / "checkpoint"), parameters(tmp_path / "checkpoint")
    for name, array in whole.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)
    assert read_config(tmp_path / "checkpoint") == (MICRO, 4)


def test_a_frozen_text_transformer_stays_and_all_else_moves(trained, tmp_path) -> None:
    frozen = replace(MICRO, freeze_text=True, objective="flow", flow=FlowConfig(steps=2))
    train(frozen, replace(TRAIN, ema_decay=0.0), random_statistics(), batches, tmp_path, keep_initial=True)
    before, after = parameters(tmp_path / "initial"), parameters(tmp_path / "checkpoint")
    still = {name for name, array in before.items() if np.array_equal(array, after[name])}
    assert {name for name in still if not name.startswith("vision.post_norm")} == {
        name for name in before if name.startswith("text.") and not name.startswith("text.projection.")
    }
    moved = parameters(trained / "initial"), parameters(trained / "checkpoint")
    assert not np.array_equal(moved[0]["text.token"], moved[1]["text.token"])


def test_a_training_keeps_the_tokenizer_that_it_starts_from(trained) -> None:
    start = trained / "checkpoint"
    kept = tokenizer_of(MICRO, start)
    other = replace(MICRO, text=replace(MICRO.text, vocabulary=700))
    assert tokenizer_of(other, start) == kept
    assert tokenizer_of(other, None) != kept


def test_every_task_has_several_wordings_that_differ_in_tokens() -> None:
    found = task_tokens(tokenizer_of(SIZES["lbm-tiny"], None))
    assert found.tokens.shape[:2] == (len(TASKS_BY_INDEX), len(wordings(TASKS["turning_on_radio"])))
    assert len({row.tobytes() for row in found.tokens.reshape(-1, found.tokens.shape[-1])}) == (
        found.tokens.shape[0] * found.tokens.shape[1]
    )
    assert wordings(TASKS["turning_on_radio"])[0] == TASKS["turning_on_radio"].instruction


def request(task: int = RADIO, prompt: str = "", call: int = 0) -> Request:
    rng = np.random.default_rng(5)
    return Request(
        images={c: rng.integers(0, 256, (8, 8, 3), np.uint8) for c in CAMERAS},
        state=rng.normal(size=23).astype(np.float32),
        task=task,
        stage=0,
        saved=None,
        noise=NoiseId(1, 0, call),
        prompt=prompt,
    )


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_chunks_follow_request_noise_and_instruction(sampler, trained, tmp_path) -> None:
    config = replace(MICRO, diffusion=replace(MICRO.diffusion, sampler=sampler, steps=3))
    rng = np.random.default_rng(0)
    random = {
        name: rng.normal(size=array.shape).astype(np.float32) * 0.3
        for name, array in parameters(trained / "checkpoint").items()
    }
    files = family_of(config).prepare(config, random_statistics(), None)[1]
    checkpoint.save(tmp_path / "random", random, config=config, statistics=files, step=1)
    predictor = family_of(config).load_predictor(tmp_path / "random", PolicyConfig(), (1, 2), "auto")
    first = predictor.predict([request()])[0]
    assert first.chunk.shape == (30, 23)
    assert np.isfinite(first.chunk).all()
    assert np.argmax(first.stage_logits) == 0
    both = predictor.predict([request(), request(call=1)])
    np.testing.assert_allclose(both[0].chunk, first.chunk, atol=1e-4)
    others = [both[1], *predictor.predict([request(task=1), request(prompt="Open the box.")])]
    for other in others:
        assert np.abs(other.chunk - first.chunk).max() > 1e-3
    same = predictor.predict([request(task=1, prompt=TASKS["turning_on_radio"].instruction)])[0]
    np.testing.assert_allclose(same.chunk, first.chunk, atol=1e-4)
    table = predictor.closure(0)
    assert table is not None
    assert table.tolist() == [[False, True]] * 5


def test_samples_lie_within_the_range_of_the_actions(trained) -> None:
    predictor = family_of(MICRO).load_predictor(trained / "checkpoint", PolicyConfig(), (1,), "auto")
    chunk, state = predictor.predict([request()])[0].chunk, request().state
    statistics = random_statistics()
    normalised = statistics.normalise_actions(statistics.delta(chunk[None], state[None]))[0]
    scale = action_range(MICRO, statistics)
    middle, half = (scale.high + scale.low) / 2, (scale.high - scale.low) / 2
    assert (np.abs(normalised - middle) <= 1.5 * half + 1e-3).all()


def test_networks_that_read_something_else_are_refused_by_name(trained, tmp_path) -> None:
    assert list(SIZES["lbm-tiny"].training_problems()) == []
    assert list(SIZES["lbm-base"].training_problems()) == []
    other = replace(MICRO, observation_steps=2, separate_vision=True)
    assert list(other.training_problems()) == [
        "horizon is 30, 29 actions from now on; training here needs 30 of them",
        "separate_vision is True; training here reads False",
    ]
    shapes = parameters(trained / "checkpoint")
    files = family_of(MICRO).prepare(MICRO, random_statistics(), None)[1]
    narrow = replace(MICRO, normalisation="min_max")
    checkpoint.save(tmp_path / "ranges", shapes, config=narrow, statistics=files, step=1)
    with pytest.raises(CheckpointError, match="normalisation is min_max; training here reads percentile"):
        family_of(narrow).load_predictor(tmp_path / "ranges", PolicyConfig(), (1,), "auto")


TWO = replace(MICRO, observation_steps=2, horizon=32, dropout=0.1, resize=(10, 10), crop=(8, 8))


def test_a_network_of_two_observations_reads_the_one_before(tmp_path) -> None:
    def pairs(start: int) -> Iterator[Batch]:
        for batch in batches(start):
            rng = np.random.default_rng(start)
            images = {c: rng.integers(0, 256, (4, 1, 8, 8, 3), np.uint8) for c in CAMERAS}
            state, actions = rng.normal(size=(4, 1, 32)), rng.normal(size=(4, 32, 32))
            past = EarlierRows(images, state.astype(np.float32))
            yield batch._replace(actions=actions.astype(np.float32), earlier=past)

    statistics = random_statistics()
    train(TWO, replace(TRAIN, steps=2, ema_decay=0.0), statistics, pairs, tmp_path, keep_initial=True)
    before, after = parameters(tmp_path / "initial"), parameters(tmp_path / "checkpoint")
    kernel = "dit.blocks.adaln.kernel"
    # rows of the conditioning: time, then state, images and text of the older step, then of the newer one
    moved = np.abs(after[kernel] - before[kernel]).max(axis=(0, 2))[TWO.time_width :]
    assert (moved.reshape(2, -1)[:, :23] > 0).all()

    rng = np.random.default_rng(0)
    random = {name: rng.normal(size=a.shape).astype(np.float32) * 0.3 for name, a in after.items()}
    files = family_of(TWO).prepare(TWO, statistics, None)[1]
    checkpoint.save(tmp_path / "random", random, config=TWO, statistics=files, step=1)
    predictor = family_of(TWO).load_predictor(tmp_path / "random", PolicyConfig(), (1, 2), "auto")
    assert predictor.observation_steps == 2
    asked, other = request(), request(call=1)
    still = Moments({c: image[None] for c, image in asked.images.items()}, asked.state[None])
    moving = Moments({c: image[None] for c, image in asked.images.items()}, asked.state[None] + 1)
    chunks = [
        predictor.predict([replace(asked, earlier=one), other])[0].chunk for one in (None, still, moving)
    ]
    np.testing.assert_array_equal(chunks[0], chunks[1])
    assert np.abs(chunks[2] - chunks[0]).max() > 1e-3


def message(environments: int) -> dict[str, object]:
    found: dict[str, object] = {
        "robot_r1::proprio": np.zeros((environments, 256), np.float32),
        "task_id": np.array([0]),
    }
    for key in camera_observation_keys("robot_r1").values():
        found[key] = np.zeros((environments, 8, 8, 3), np.uint8)
    return found


def test_a_session_sees_every_step_for_a_network_of_several_observations() -> None:
    asked: list[Request] = []

    async def submit(request: Request) -> Prediction:
        asked.append(request)
        return Prediction(np.zeros((30, 23), np.float32), np.zeros(15, np.float32))

    async def three(task: int) -> int:
        return 3

    settings = PolicyConfig(gripper="off", execute=5, compress_from=5)
    session = Session(settings, submit, lambda _: None, observation_steps=three)
    for step in [*range(12), *range(7)]:
        if step == 0:
            session.reset()
        seen = message(1)
        for key in camera_observation_keys("robot_r1").values():
            seen[key] = np.full((1, 8, 8, 3), step, np.uint8)
        answer = asyncio.run(session.act({**seen, ACTION_CHUNK_SIZE: 5}))
        assert "action_chunk" not in answer
    earlier = [one.earlier and one.earlier.images["head"][:, 0, 0, 0].tolist() for one in asked]
    assert earlier == [[0, 0], [3, 4], [8, 9], [0, 0], [3, 4]]


def test_the_loss_falls_on_one_batch(tmp_path) -> None:
    losses: list[float] = []
    config = replace(TRAIN, steps=240, log_every=60, save_every=1000, augment=False, ema_decay=0.0)
    same = next(batches(0))

    def repeat(_: int) -> Iterator[Batch]:
        while True:
            yield same

    train(
        MICRO,
        config,
        random_statistics(),
        repeat,
        tmp_path,
        hooks=[lambda _, metrics: losses.append(metrics["loss"])],
    )
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("prompt", "seen"), [(None, ["", ""]), ("Go.", ["Go.", "Go."]), (["One.", "Two."], ["One.", "Two."])]
)
def test_an_observations_prompt_reaches_the_network(prompt, seen) -> None:
    asked: list[str] = []

    async def submit(request: Request) -> Prediction:
        asked.append(request.prompt)
        return Prediction(np.zeros((30, 23), np.float32), np.zeros(15, np.float32))

    given = message(2) if prompt is None else {**message(2), "prompt": prompt}
    session = Session(PolicyConfig(gripper="off"), submit, lambda _: None)
    asyncio.run(session.act(given))
    assert asked == seen
    for wrong in (["One."], 3, "x" * 1001):
        other = Session(PolicyConfig(gripper="off"), submit, lambda _: None)
        with pytest.raises(ProtocolError, match="prompt"):
            asyncio.run(other.act({**message(2), "prompt": wrong}))
