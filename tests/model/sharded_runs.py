"""Trains both families on several placements of eight CPU devices; for test_sharding.py, as another process.

Writes the metrics of every step and the last parameters of each placement into an npz file.
"""

import os
import sys
from dataclasses import replace

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax
import numpy as np

from pi_behavior.config import ModelConfig, NetworkConfig, VisionConfig
from pi_behavior.families import SIZES, family_of
from pi_behavior.layout import CAMERAS
from pi_behavior.lbm.config import ClipTextConfig, ClipVisionConfig
from pi_behavior.observation import FastTokens, Observation
from pi_behavior.tensors import flat_parameters
from pi_behavior.training import sharding
from pi_behavior.training.config import LearningRate, TrainConfig
from pi_behavior.training.state import create_state
from pi_behavior.training.step import TrainBatch, make_step

WINNER = ModelConfig(
    vision=VisionConfig(image_size=28, patch=14, width=16, depth=2, heads=2, mlp=32),
    width=32,
    mlp=32,
    depth=2,
    heads=8,
    head_dim=16,
    expert_width=32,
    expert_mlp=32,
    vocabulary=320,
    fast_vocabulary=64,
    dtype="float32",
)
LBM = replace(
    SIZES["lbm-tiny"],
    vision=ClipVisionConfig(image_size=24, patch=8, width=16, depth=2, heads=2, mlp=32),
    text=ClipTextConfig(vocabulary=640, length=12, width=16, depth=2, heads=2, mlp=32),
    width=32,
    depth=2,
    heads=2,
    time_width=16,
    dropout=0.1,
    crop=(24, 24),
    freeze_text=True,
)
BATCH, STEPS, FAST = 32, 20, 6
PLACEMENTS = {
    # name: devices, fsdp, accumulate
    "one": (1, 1, 1),
    "eight": (8, 8, 1),
    "four_by_two": (8, 2, 1),
    "one_accumulating": (1, 1, 4),
    "eight_accumulating": (8, 8, 2),
}
RUNS = [
    *(("winner", WINNER, name) for name in PLACEMENTS),
    *(("lbm", LBM, name) for name in ("one", "eight", "eight_accumulating")),
]


def batch_of(step: int) -> TrainBatch:
    rng = np.random.default_rng(step)
    images = {c: rng.integers(0, 256, (BATCH, 28, 28, 3), np.uint8) for c in CAMERAS}
    observation = Observation(
        images=images,
        state=rng.normal(size=(BATCH, 32)).astype(np.float32),
        task=rng.integers(0, 3, BATCH).astype(np.int32),
        stage=rng.integers(0, 5, BATCH).astype(np.int32),
    )
    fast = FastTokens(
        rng.integers(0, 64, (BATCH, FAST)).astype(np.int32),
        np.arange(FAST) < rng.integers(1, FAST, BATCH)[:, None],
    )
    return TrainBatch(observation, rng.normal(size=(BATCH, 30, 32)).astype(np.float32), fast)


def run(model: NetworkConfig, devices: int, fsdp: int, accumulate: int) -> dict[str, np.ndarray]:
    config = TrainConfig(
        steps=STEPS,
        batch_size=BATCH,
        flow_samples=3,
        fsdp=fsdp,
        accumulate=accumulate,
        learning_rate=LearningRate(peak=1e-3),
        warmup_steps=2,
    )
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    graph, state = create_state(model, config, mesh)
    step = make_step(graph, model, config, family_of(model).blank_constants(model), state, mesh)
    found: dict[str, list[float]] = {}
    for number in range(STEPS):
        batch = jax.device_put(batch_of(number), sharding.batch_sharding(mesh))
        state, metrics = step(state, batch)
        for name, value in metrics.items():
            found.setdefault(f"metrics/{name}", []).append(float(value))
    weights = {f"parameters/{name}": np.asarray(w) for name, w in flat_parameters(state.parameters).items()}
    return {**{name: np.array(values) for name, values in found.items()}, **weights}


if __name__ == "__main__":
    sharding.SMALLEST_SHARDED = 16
    results = {
        f"{family}/{name}/{key}": value
        for family, model, name in RUNS
        for key, value in run(model, *PLACEMENTS[name]).items()
    }
    np.savez(sys.argv[1], **results)
