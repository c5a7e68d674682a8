"""The training loop: resume, sharding, checkpoints, hooks."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from pi_behavior import checkpoint
from pi_behavior.data.pipeline import Batch
from pi_behavior.network import PiBehavior
from pi_behavior.training.config import LearningRate
from pi_behavior.training.errors import NonFiniteError
from pi_behavior.training.hooks import INPUT_WAIT, JsonLines
from pi_behavior.training.loop import train
from pi_behavior.training.sharding import FSDP, make_mesh, spec

_spec = importlib.util.spec_from_file_location(
    "small_training", Path(__file__).with_name("small_training.py")
)
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)
MODEL, TRAIN, batches, statistics = small.MODEL, small.TRAIN, small.batches, small.statistics
CrashError, parameters = small.CrashError, small.parameters


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


def test_held_out_batches_are_measured_and_change_nothing(tmp_path: Path) -> None:
    def others(start: int) -> Iterator[Batch]:
        assert start == 0
        return batches(1000)

    config = dataclasses.replace(TRAIN, validate_every=2, validation_batches=3, log_every=3)
    rows: list[tuple[int, dict[str, float]]] = []
    train(
        MODEL,
        config,
        statistics(),
        batches,
        tmp_path / "measured",
        hooks=[lambda step, metrics: rows.append((step, dict(metrics)))],
        held_out=others,
    )
    assert [(step, "held_out_loss" in metrics) for step, metrics in rows] == [
        (2, True),
        (3, False),
        (4, True),
    ]
    held_out = {name.removeprefix("held_out_") for name in rows[0][1] if name.startswith("held_out_")}
    assert held_out == {
        name for name in rows[1][1] if name not in ("gradient_norm", "learning_rate", INPUT_WAIT)
    }
    assert rows[0][1]["held_out_loss"] != rows[2][1]["held_out_loss"]
    train(MODEL, config, statistics(), batches, tmp_path / "not")
    one, two = parameters(tmp_path / "measured/checkpoint"), parameters(tmp_path / "not/checkpoint")
    assert all(np.array_equal(one[name], two[name]) for name in one)

    # a run that only measures: step 0 of the same seed, twice the same, and on two devices as on one
    losses = []
    for fsdp in (1, 2, 1):
        still = dataclasses.replace(config, steps=1, learning_rate=LearningRate(1e-9, 1e-9), fsdp=fsdp)
        train(
            MODEL,
            still,
            statistics(),
            batches,
            tmp_path / f"still-{len(losses)}",
            hooks=[lambda _, metrics: losses.append(metrics["held_out_loss"])],
            held_out=others,
        )
    assert losses[0] == losses[2] == pytest.approx(losses[1], rel=1e-4)


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


def test_rules_name_the_axis_that_is_split() -> None:
    mesh = make_mesh(2)
    big = 2**20
    for name, shape, axis in (
        ("prefix.layers.mlp.down", (18, 4096, 2048), 1),  # never the layers, which are gathered one by one
        ("prefix.layers.attention.query", (18, 7, 2048, 256), 2),  # the first of its axes that divides
        ("token_embeddings", (big, 8), 1),  # its rows are looked up
        ("optimizer.inner_state.mu.token_embeddings", (big, 8), 1),
        ("stage_fusion.gate_task.kernel", (2048, 1024), 0),
        ("time_in.kernel", (8, 8), None),  # small
        ("action_in.kernel", (big + 1, 3), None),  # nothing divides
    ):
        assert tuple(spec(mesh, name, shape)) == tuple(FSDP if i == axis else None for i in range(len(shape)))
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


def test_the_learning_rate_is_a_metric(tmp_path: Path) -> None:
    rates: list[float] = []
    train(
        MODEL, TRAIN, statistics(), batches, tmp_path, hooks=[lambda _, m: rates.append(m["learning_rate"])]
    )
    assert rates[1] == pytest.approx(1e-2)  # after one step of warm-up
    assert rates[0] < rates[1] > rates[2] > rates[3] > 0


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size 3 is not a multiple of the 2 devices"):
        train(MODEL, dataclasses.replace(TRAIN, batch_size=3), statistics(), batches, tmp_path)
    with pytest.raises(
        ValueError, match="batch_size 4 is not a multiple of the 2 devices, times accumulate 4"
    ):
        train(MODEL, dataclasses.replace(TRAIN, accumulate=4), statistics(), batches, tmp_path)


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
