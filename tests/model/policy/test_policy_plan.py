"""How much memory serving takes, without a GPU."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from flax import nnx

from benchmarks.serving import write_random_checkpoint
from pi_behavior.config import ModelConfig
from pi_behavior.network import PiBehavior
from pi_behavior.policy.config import PolicyConfig, Serving
from pi_behavior.policy.plan import needs, usable

TINY = dataclasses.replace(ModelConfig.presets["tiny"], dtype="bfloat16")
SERVING = Serving({"tiny": TINY}, (2, 1), 1, "auto", "auto")
POLICY = PolicyConfig(num_steps=2)
SIZE = sum(
    leaf.size for leaf in jax.tree.leaves(nnx.eval_shape(lambda: nnx.state(PiBehavior(TINY, nnx.Rngs(0)))))
)


def test_weights_are_counted_in_their_type_and_the_rest_grows_with_the_batch() -> None:
    found = needs(SERVING, POLICY)
    assert [(need.computes, need.batch) for need in found] == [
        ("bfloat16", 1),
        ("bfloat16", 2),
        ("float32", 1),
        ("float32", 2),
    ]
    assert [need.weights for need in found] == [2 * SIZE, 2 * SIZE, 4 * SIZE, 4 * SIZE]
    assert found[0].working < found[1].working < 2.5 * found[0].working
    assert found[0].memory == found[0].weights + found[0].working


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"compute": "float32"}, {("float32", 4)}),
        ({"compute": "float32", "parameters": "bfloat16"}, {("float32", 2)}),
        ({"parameters": "float32"}, {("bfloat16", 4), ("float32", 4)}),
        ({"networks": {"a": dataclasses.replace(TINY, dtype="float32")}}, {("float32", 4)}),
        ({"networks": {"a": TINY, "b": TINY}, "max_loaded": 2}, {("bfloat16", 4), ("float32", 8)}),
    ],
)
def test_types_that_are_given_and_several_checkpoints(changes, kinds) -> None:
    found = needs(dataclasses.replace(SERVING, batch_sizes=(1,), **changes), POLICY)
    assert {(need.computes, need.weights / SIZE) for need in found} == kinds
    if changes.get("parameters", "auto") != "auto":  # weights that are not in the type of the computation
        plain = needs(dataclasses.replace(SERVING, batch_sizes=(1,)), POLICY)
        by_type = {need.computes: need.working for need in plain}
        copied = {"float32": 4 * SIZE, "bfloat16": 2 * SIZE}
        for need in found:
            same = need.weights == copied[need.computes]
            assert need.working == by_type[need.computes] + (0 if same else copied[need.computes])


def test_the_command_needs_neither_gpu_nor_weights(tmp_path: Path) -> None:
    def plan(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "pi_behavior.policy.server", "--plan", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    folder = write_random_checkpoint(tmp_path / "c", TINY)
    document = json.loads((folder / "checkpoint.json").read_text())
    (folder / "params").rename(tmp_path / "elsewhere")
    small = ("--checkpoint", str(folder), "--batch-sizes", "1", "--policy.num-steps", "1")
    done = plan(*small)
    assert (done.returncode, document["step"]) == (0, 7)
    assert done.stdout.splitlines()[-1] == "fits"
    done = plan(*small, "--gpu-gib", "0.001")
    assert done.returncode == 1
    assert "does not fit; try smaller --batch-sizes" in done.stdout
    done = plan("--size", "enormous")
    assert (done.returncode, "or --size: tiny, small, full" in done.stderr) == (2, True)


def test_a_size_alone_cannot_be_served() -> None:
    command = [sys.executable, "-m", "pi_behavior.policy.server", "--size", "tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "--size is for --plan" in done.stderr) == (2, True)


@pytest.mark.slow
def test_the_full_network_of_2026_fits_into_24_gib_and_two_of_them_do_not_in_float32() -> None:
    serving = Serving({"a": ModelConfig.presets["full_2026"]}, (1,), 1, "auto", "auto")
    assert all(need.memory < usable(24.0) for need in needs(serving, PolicyConfig()))
    two = dataclasses.replace(
        serving, networks={**serving.networks, "b": serving.networks["a"]}, max_loaded=2
    )
    assert {need.computes for need in needs(two, PolicyConfig()) if need.memory > usable(24.0)} == {"float32"}
