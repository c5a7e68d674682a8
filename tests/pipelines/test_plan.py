"""`b1k train --plan`: exit codes and words, on a network that compiles quickly."""

import os
import subprocess
import sys

import pytest

SMALL = ["train.model.depth=1", "train.model.vision.depth=1", "batch_size=4", "train.augment=false"]


def plan(*words: str) -> subprocess.CompletedProcess[str]:
    # devices are asked for by the command
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "pipelines.cli", "train", "--plan", "--profile", "laptop", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_plan_says_whether_a_training_fits() -> None:
    fits = plan("--set", *SMALL, "--memory-gib", "4", "--devices", "2", "--peak-tflops", "1")
    assert fits.returncode == 0, fits.stderr
    assert "fits: 2 x 2 samples at a time, accumulate 1" in fits.stdout
    for row in ("parameters, GiB", "temporaries, GiB", "sent, all-reduce, GB", "seconds of a step"):
        assert row in fits.stdout
    tight = plan("--set", *SMALL, "--memory-gib", "0.001", "--devices", "2")
    assert tight.returncode == 1, tight.stderr
    assert "does not fit" in tight.stdout
    assert "--find-batch" in tight.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--usable", "1.5"], "--usable 1.5; expected a share above 0"),
        (["--set", "batch_size=3", "--devices", "2"], "batch_size 3 is not a multiple of the 2 devices"),
    ],
)
def test_mistakes_are_the_users(words: list[str], message: str) -> None:
    answer = plan(*words)
    assert answer.returncode == 2
    assert message in answer.stderr
