"""The training loop: resume, sharding, checkpoints, hooks."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pi_behavior import checkpoint
from pi_behavior.config import ModelConfig, VisionConfig
from pi_behavior.correlation import REAL
from pi_behavior.data.pipeline import Batch
from pi_behavior.layout import CAMERAS
from pi_behavior.network import PiBehavior
from pi_behavior.statistics import Statistics
from pi_behavior.tensors import flat_parameters
from pi_behavior.training.config import LearningRate, TrainConfig
from pi_behavior.training.hooks import JsonLines
from pi_behavior.training.loop import NonFiniteError, train
from pi_behavior.training.sharding import FSDP, make_mesh, parameter_sharding

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
    fast=False,
    steps_per_token=5,
    prediction="clean",
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


def statistics() -> Statistics:
    ones, zeros = np.ones(23, np.float32), np.zeros(23, np.float32)
    return Statistics(
        state_mean=zeros,
        state_std=ones,
        state_q01=-ones,
        state_q99=ones,
        action_mean=zeros,
        action_std=ones,
        action_q01=-ones,
        action_q99=ones,
        action_step_mean=np.zeros((30, 23), np.float32),
        action_step_std=np.ones((30, 23), np.float32),
        action_step_q01=-np.ones((30, 23), np.float32),
        action_step_q99=np.ones((30, 23), np.float32),
        correlation_cholesky=np.eye(len(REAL), dtype=np.float32),
    )


def batches(start: int) -> Iterator[Batch]:
    step = start
    while True:
        rng = np.random.default_rng(step)
        images = {c: rng.integers(0, 256, (4, 28, 28, 3), np.uint8) for c in CAMERAS}
        yield Batch(
            images=images,
            state=rng.normal(size=(4, 32)).astype(np.float32),
            task=np.zeros(4, np.int32),
            stage=rng.integers(0, 5, 4).astype(np.int32),
            actions=rng.normal(size=(4, 30, 32)).astype(np.float32),
        )
        step += 1


def parameters(path: Path) -> dict[str, np.ndarray]:
    loaded = checkpoint.load(path)
    return {k: np.asarray(v) for k, v in flat_parameters(nnx.state(loaded.model)).items()}


class CrashError(Exception):
    """A crash in the middle."""


def stop_at(step: int):  # type: ignore[no-untyped-def]
    def hook(now: int, _: object) -> None:
        if now == step:
            raise CrashError

    return hook


def test_four_steps_equal_a_crash_after_three_and_a_resume(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(MODEL, TRAIN, statistics(), batches, whole)
    with pytest.raises(CrashError):
        train(MODEL, TRAIN, statistics(), batches, broken, hooks=[stop_at(3)])
    assert not (broken / "checkpoint").exists()
    steps: list[int] = []
    train(MODEL, TRAIN, statistics(), batches, broken, hooks=[lambda step, _: steps.append(step)])
    assert steps == [3, 4]
    once, resumed = parameters(whole / "checkpoint"), parameters(broken / "checkpoint")
    assert all(np.array_equal(once[name], resumed[name]) for name in once)


def test_sharded_parameters_give_the_result_of_one_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(jax.devices()) == 2
    monkeypatch.setattr("pi_behavior.training.sharding.SMALLEST_SHARDED", 16)
    train(MODEL, TRAIN, statistics(), batches, tmp_path / "data_parallel")
    train(MODEL, dataclasses.replace(TRAIN, fsdp=2), statistics(), batches, tmp_path / "fsdp")
    one, two = parameters(tmp_path / "data_parallel/checkpoint"), parameters(tmp_path / "fsdp/checkpoint")
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=2e-4, err_msg=name)


def test_the_largest_divisible_axis_is_sharded() -> None:
    mesh = make_mesh(2)
    spec = parameter_sharding(mesh, jax.ShapeDtypeStruct((3, 2**12, 2**13), jnp.float32)).spec
    assert tuple(spec) == (None, None, FSDP)
    assert tuple(parameter_sharding(mesh, jax.ShapeDtypeStruct((8,), jnp.float32)).spec) == (None,)
    with pytest.raises(ValueError, match="does not divide the 2 devices"):
        make_mesh(3)


def test_initial_parameters_are_kept_and_fine_tuning_starts_from_a_checkpoint(tmp_path: Path) -> None:
    train(MODEL, TRAIN, statistics(), batches, tmp_path / "a", keep_initial=True)
    untrained, trained = parameters(tmp_path / "a/initial"), parameters(tmp_path / "a/checkpoint")
    assert any(not np.array_equal(untrained[n], trained[n]) for n in trained)
    none = dataclasses.replace(TRAIN, steps=0)
    train(MODEL, none, statistics(), batches, tmp_path / "b", initial=tmp_path / "a/checkpoint")
    copied = parameters(tmp_path / "b/checkpoint")
    assert all(np.array_equal(copied[n], trained[n]) for n in trained)


def test_a_checkpoint_of_two_devices_opens_on_one(tmp_path: Path) -> None:
    train(MODEL, dataclasses.replace(TRAIN, steps=0), statistics(), batches, tmp_path)
    script = (
        "import jax, sys; from pathlib import Path; from pi_behavior import checkpoint;"
        "assert len(jax.devices()) == 1; assert checkpoint.load(Path(sys.argv[1])).step == 0"
    )
    one_device = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", script, str(tmp_path / "checkpoint")]
    subprocess.run(command, env=one_device, check=True)


def test_not_a_number_stops_the_run_and_names_the_steps(tmp_path: Path) -> None:
    def poisoned(start: int) -> Iterator[Batch]:
        for batch in batches(start):
            yield batch._replace(actions=np.full_like(batch.actions, np.nan))

    with pytest.raises(NonFiniteError, match=r"loss.*in steps 1 to 1"):
        train(MODEL, TRAIN, statistics(), poisoned, tmp_path)


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size 3 is not a multiple of the 2 devices"):
        train(MODEL, dataclasses.replace(TRAIN, batch_size=3), statistics(), batches, tmp_path)


def test_a_checkpoint_of_another_network_lists_what_differs(tmp_path: Path) -> None:
    train(MODEL, dataclasses.replace(TRAIN, steps=0), statistics(), batches, tmp_path)
    other = dataclasses.replace(MODEL, state_encoding="projected")
    target = nnx.state(PiBehavior(other, nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"(?s)missing state_projection.kernel.*unknown token_embeddings"):
        checkpoint.restore_parameters(tmp_path / "checkpoint", target)
    with pytest.raises(ValueError, match="is not a policy checkpoint"):
        checkpoint.load(tmp_path)


def test_metrics_of_repeated_steps_are_replaced_and_others_kept(tmp_path: Path) -> None:
    file, work = tmp_path / "metrics.jsonl", tmp_path / "work"

    def run() -> list[dict[str, float]]:
        train(MODEL, TRAIN, statistics(), batches, work, hooks=[JsonLines(file)])
        return [json.loads(line) for line in file.read_text().splitlines()]

    with pytest.raises(CrashError):
        train(MODEL, TRAIN, statistics(), batches, work, hooks=[JsonLines(file), stop_at(3)])
    with file.open("a") as cut_off:
        cut_off.write('{"step": 4, "lo')
    before = [json.loads(line) for line in file.read_text().splitlines()[:3]]
    after = run()
    assert [row["step"] for row in after] == [1, 2, 3, 4]
    assert after[:3] == before
    # killed after its last checkpoint, before the caller took note of it
    assert run() == after
