"""Training with the FAST loss, on tokens from the loader."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pi_behavior import checkpoint
from pi_behavior.accumulators import DatasetAccumulator, delta_chunks
from pi_behavior.challenge import TASKS_BY_INDEX
from pi_behavior.config import ModelConfig, VisionConfig
from pi_behavior.data.lerobot import LeRobotDataset
from pi_behavior.data.pipeline import Batch, make_loader, open_samples
from pi_behavior.data.training_copy import CopyOptions, TrainingCopy
from pi_behavior.fast import FastTokenizer
from pi_behavior.losses import total_loss
from pi_behavior.network import PiBehavior
from pi_behavior.observation import FastTokens, Observation
from pi_behavior.statistics import Statistics
from pi_behavior.training.config import LearningRate, TrainConfig
from pi_behavior.training.loop import train

MODEL = ModelConfig(
    vision=VisionConfig(image_size=28, patch=14, width=16, depth=1, heads=2, mlp=16),
    width=32,
    mlp=32,
    depth=2,
    heads=2,
    head_dim=16,
    expert_width=32,
    expert_mlp=32,
    vocabulary=256,
    dtype="float32",
    freeze_vision=False,
    steps_per_token=5,
)
TRAIN = TrainConfig(
    steps=8,
    batch_size=4,
    flow_samples=2,
    learning_rate=LearningRate(peak=1e-2),
    warmup_steps=1,
    log_every=1,
    augment=False,
)


@pytest.fixture(scope="module")
def statistics(demos: Path) -> Statistics:
    dataset, accumulator, chunks = LeRobotDataset(demos), DatasetAccumulator(), []
    for e in dataset.episodes:
        state, actions = dataset.state_and_actions(e)
        accumulator.update(e.task, e.task_name, TASKS_BY_INDEX[e.task].stages, state, actions, e.human)
        chunks.append(delta_chunks(state, actions).reshape(-1, 30, 23))
    found = accumulator.finish()
    tokenizer = FastTokenizer.train(found.normalise_quantiles(np.concatenate(chunks)))
    return dataclasses.replace(found, fast=tokenizer)


@pytest.fixture(scope="module")
def copy(copy_of, demos: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingCopy:
    return copy_of(demos, tmp_path_factory.mktemp("copy"), CopyOptions(28, compress=False))


def open_loader(copy: TrainingCopy, statistics: Statistics, start: int = 0) -> Iterator[Batch]:
    samples = open_samples(copy, statistics, image_size=28, fast=statistics.fast)
    return make_loader(samples, batch_size=4, seed=0, start_batch=start)


def test_the_fast_loss_is_trained_and_the_checkpoint_keeps_the_tokenizer(
    copy: TrainingCopy, statistics: Statistics, tmp_path: Path
) -> None:
    seen: list[dict[str, float]] = []
    path = train(
        MODEL,
        TRAIN,
        statistics,
        lambda start: open_loader(copy, statistics, start),
        tmp_path,
        keep_initial=True,
        hooks=[lambda _, metrics: seen.append(dict(metrics))],
    )
    assert len(seen) == TRAIN.steps
    assert all(0.0 <= metrics["fast_accuracy"] <= 1.0 for metrics in seen)
    # from about ln 1024, as of tokens drawn blindly
    assert seen[0]["fast_loss"] == pytest.approx(np.log(1024), abs=1.5)
    assert seen[-1]["fast_loss"] < seen[0]["fast_loss"] - 0.5
    for metrics in seen:
        parts = metrics["action_loss"] + 0.1 * metrics["stage_loss"] + 0.05 * metrics["fast_loss"]
        assert metrics["loss"] == pytest.approx(parts, rel=1e-5)
    before, after = checkpoint.load(tmp_path / "initial"), checkpoint.load(path)
    assert after.statistics.fast == statistics.fast
    assert not np.array_equal(before.model.fast_embeddings[...], after.model.fast_embeddings[...])


def test_action_tokens_do_not_see_fast_tokens(copy: TrainingCopy, statistics: Statistics) -> None:
    batch = next(open_loader(copy, statistics))
    assert batch.fast is not None
    observation = Observation(
        {camera: jnp.asarray(image) for camera, image in batch.images.items()},
        *(jnp.asarray(array) for array in (batch.state, batch.task, batch.stage)),
    )
    model = PiBehavior(MODEL, nnx.Rngs(0))
    cholesky = jnp.asarray(statistics.regularised_cholesky(0.5), jnp.float32)

    def losses(fast: FastTokens | None) -> dict[str, float]:
        _, metrics = total_loss(
            model,
            TRAIN,
            cholesky,
            jax.random.split(jax.random.key(1), len(batch.task)),
            observation,
            jnp.asarray(batch.actions),
            fast,
        )
        return {name: float(value) for name, value in metrics.items()}

    without = losses(None)
    tokens, mask = map(jnp.asarray, batch.fast)
    given = losses(FastTokens(tokens, mask))
    other = losses(FastTokens((tokens + 1) % 1024, jnp.ones_like(mask)))
    assert given["fast_loss"] != pytest.approx(other["fast_loss"], rel=1e-3)
    assert "fast_loss" not in without
    for name in ("action_loss", "action_loss_grippers", "stage_loss"):
        assert given[name] == pytest.approx(without[name], rel=1e-5)
        assert other[name] == pytest.approx(without[name], rel=1e-5)
