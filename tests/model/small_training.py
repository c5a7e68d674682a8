"""A training of seconds, for tests; as a program: WORK STEPS UNTIL trains on this process's devices.

With UNTIL above 0 the process sends itself a SIGTERM after that step, and ends with exit code 75.
"""

import dataclasses
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from pi_behavior import checkpoint
from pi_behavior.config import ModelConfig, VisionConfig
from pi_behavior.correlation import REAL
from pi_behavior.data.pipeline import Batch
from pi_behavior.layout import CAMERAS
from pi_behavior.statistics import Statistics
from pi_behavior.tensors import flat_parameters
from pi_behavior.training import sharding
from pi_behavior.training.config import LearningRate, TrainConfig
from pi_behavior.training.errors import PreemptedError
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


class CrashError(Exception):
    """A crash in the middle."""


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


def parameters(path: Path) -> dict[str, np.ndarray]:
    loaded = checkpoint.load(path)
    return {k: np.asarray(v) for k, v in flat_parameters(nnx.state(loaded.model)).items()}


def batches(start: int, size: int = 4) -> Iterator[Batch]:
    step = start
    while True:
        rng = np.random.default_rng(step)
        images = {c: rng.integers(0, 256, (size, 28, 28, 3), np.uint8) for c in CAMERAS}
        yield Batch(
            images=images,
            state=rng.normal(size=(size, 32)).astype(np.float32),
            task=np.zeros(size, np.int32),
            stage=rng.integers(0, 5, size).astype(np.int32),
            actions=rng.normal(size=(size, 30, 32)).astype(np.float32),
        )
        step += 1


def main(work: Path, steps: int, until: int) -> None:
    """Train with batches of eight on all devices of this process, with parameters split over them."""
    sharding.SMALLEST_SHARDED = 16
    config = dataclasses.replace(
        TRAIN,
        steps=steps,
        batch_size=8,
        save_every=3,
        fsdp=len(jax.devices()),
        learning_rate=LearningRate(1e-3),
    )

    def tell(step: int, _: object) -> None:
        if step == until:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        train(MODEL, config, statistics(), lambda start: batches(start, 8), work, hooks=[tell])
    except PreemptedError:
        sys.exit(os.EX_TEMPFAIL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
