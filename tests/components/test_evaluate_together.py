"""Several environments of one process against one batched policy server: every answer goes to its own.

Real server and simulator, and a network with random weights: its answers depend on task, state, pictures and
noise, so one that came to another environment would change what follows.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.serving import write_random_checkpoint
from components.runtime.processes import Child, is_healthy, read_port
from household import robot
from household.cli import UserError
from household.eval import EvalConfig, evaluate
from household.protocol import PolicyClient
from pi_behavior.config import ModelConfig

ENVIRONMENTS, STEPS = 4, 40
TASK = "turning_on_radio"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A policy server whose network is compiled for batches of one size."""
    folder = tmp_path_factory.mktemp("server")
    write_random_checkpoint(folder / "checkpoint", ModelConfig.presets["tiny"])
    command = [sys.executable, "-m", "pi_behavior.policy.server", "--checkpoint", str(folder / "checkpoint")]
    command += ["--port", "0", "--port-file", str(folder / "port"), "--policy.num-steps", "2"]
    command += ["--batch-sizes", str(ENVIRONMENTS)]
    with Child("the server", command, folder / "log") as child:
        found = child.wait_until(lambda: read_port(folder / "port"), 120.0)
        child.wait_until(lambda: is_healthy("127.0.0.1", found) or None, 60.0)
        yield found


def observation(environment: int, step: int) -> dict[str, Any]:
    """An observation that no other environment or step has."""
    random = np.random.default_rng([environment, step])
    cameras = {
        key: random.integers(0, 256, (32, 32, 4), np.uint8) for key in robot.CAMERA_OBSERVATION_KEYS.values()
    }
    return {
        robot.PROPRIOCEPTION_KEY: random.uniform(-1, 1, 256).astype(np.float32),
        "task_id": np.array([environment], np.int64),
        **cameras,
    }


def actions(port: int, environments: list[int]) -> np.ndarray:
    """Actions [steps, environments, 23] of an episode of environments in one batch."""
    found = []
    with PolicyClient("127.0.0.1", port, 20.0, 60.0) as client:
        client.reset()
        for step in range(STEPS):
            each = [observation(environment, step) for environment in environments]
            found.append(
                client.infer({key: np.stack([one[key] for one in each]) for key in each[0]})["action"]
            )
    return np.array(found)


def test_no_answer_goes_to_another_environment(port: int) -> None:
    together = actions(port, list(range(ENVIRONMENTS)))
    assert together.shape == (STEPS, ENVIRONMENTS, 23)
    for environment in range(ENVIRONMENTS):
        assert np.array_equal(together[:, environment], actions(port, [environment])[:, 0])
    shuffled = actions(port, [2, 0, 3, 1])
    assert np.array_equal(shuffled, together[:, [2, 0, 3, 1]])
    others = [not np.array_equal(together[:, 0], together[:, other]) for other in range(1, ENVIRONMENTS)]
    assert all(others), "else the test would see nothing"


def results(port: int, output: Path, **changes: Any) -> dict[str, bytes]:
    config = EvalConfig(
        TASK,
        output,
        port=port,
        instance_indices=tuple(range(3)),
        image_size=32,
        replay_action_chunk_size=10,
        max_steps=60,
        **changes,
    )
    return {path.name: path.read_bytes() for path in evaluate(config)}


def test_rollouts_together_are_the_same_as_one_after_the_other(port: int, tmp_path: Path) -> None:
    alone = results(port, tmp_path / "alone")
    assert len(set(alone.values())) == 3
    assert results(port, tmp_path / "together", num_envs=3) == alone
    # one that was finished before is not done again
    (tmp_path / "together" / "json" / f"{TASK}_302_0.json").unlink()
    assert results(port, tmp_path / "together", num_envs=3) == alone
    with pytest.raises(
        UserError, match="--num-envs is 4, and there are 3 --instance-indices; expected as many"
    ):
        results(port, tmp_path / "other", num_envs=4)
