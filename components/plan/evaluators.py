"""Evaluators as data: a command line and a file pattern. Source: the 2026 challenge's evaluator."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_FIRST_INSTANCE = {"public_test": 301, "hidden_test": 321, "all_test": 301, "train": 1}
"""Instance id of index 0 in each mode of the 2026 evaluator, and of the household's all_test."""


@dataclass(frozen=True)
class Evaluator:
    """A program that takes the 2026 evaluator's command line and writes its files."""

    program: tuple[str, ...]
    """The command without options."""
    validation_mode: str
    """Mode of the instances that checkpoints are chosen on; they are never reported."""
    validation_first: int
    """First index of the validation instances in that mode."""
    startup_seconds: float
    """Time of one process before its first step: loading the scene."""
    steps_per_second: float
    """Control steps per second, policy included; for the expected duration of a job."""
    stall_seconds: float
    """No output for this long means that it hangs."""
    reported_mode: str = "public_test"
    """Mode of the instances that scores are reported on."""
    reduced: bool = False
    """Whether its tasks are reduced ones, whose scores are not comparable with the challenge's."""
    sizes: bool = False
    """Whether it knows the options --image-size and --action-chunk-size."""
    oracle: bool = False
    """Whether it can tell the policy the true stage: it knows the option --oracle-stage."""

    def mode(self, split: str) -> str:
        """The evaluator's mode for a split: validation or reported."""
        return self.validation_mode if split == "validation" else self.reported_mode

    def first_index(self, split: str) -> int:
        """Index of a split's first instance in its mode."""
        return self.validation_first if split == "validation" else 0

    def instance_id(self, split: str, index: int) -> int:
        """The instance id, as it stands in file names, of an index in a split's mode."""
        return _FIRST_INSTANCE[self.mode(split)] + index

    def command(
        self,
        *,
        task: str,
        split: str,
        indices: tuple[int, ...],
        rollouts: int,
        video: bool,
        host: str,
        port: int,
        output: Path,
        image_size: int,
        action_chunk_size: int,
        oracle_stage: bool,
    ) -> list[str]:
        """The command line that does rollouts of one task.

        Args:
            task: name of the task.
            split: validation or reported.
            indices: indices of the instances in the split's mode.
            rollouts: rollouts per instance.
            video: write videos.
            host: host of the policy server.
            port: port of the policy server.
            output: folder that gets json/ and videos/.
            image_size: side of the policy's pictures in pixels, where the evaluator lets us choose it.
            action_chunk_size: actions per request, where the evaluator lets us choose it; 0 is one.
            oracle_stage: tell the policy the true stage; only for an evaluator that can.
        """
        words = [*self.program, "--task-name", task, "--host", host, "--port", str(port)]
        words += ["--instance-indices", *map(str, indices), "--num-rollouts", str(rollouts)]
        words += ["--mode", self.mode(split), "--output-dir", str(output), "--headless"]
        if video:
            words.append("--write-video")
        if self.sizes:
            words += ["--image-size", str(image_size)]
            if action_chunk_size:
                words += ["--action-chunk-size", str(action_chunk_size)]
        if oracle_stage:
            words.append("--oracle-stage")
        return words


EVALUATORS: Mapping[str, Evaluator] = MappingProxyType(
    {
        "household": Evaluator(
            (sys.executable, "-m", "household.eval"),
            # the demonstrations use the first 100 training instances; those after them are unseen
            validation_mode="train",
            validation_first=100,
            startup_seconds=5.0,
            steps_per_second=100.0,
            stall_seconds=180.0,
            # nobody keeps instances from us here, and 40 give tighter intervals than 20
            reported_mode="all_test",
            reduced=True,
            sizes=True,
            oracle=True,
        ),
        "omnigibson": Evaluator(
            ("omnigibson-python", "-m", "omnigibson.eval.eval"),
            # all training instances have demonstrations; of the 20 public ones only 0 to 9 are reported
            validation_mode="public_test",
            validation_first=10,
            startup_seconds=240.0,
            steps_per_second=15.0,
            stall_seconds=1800.0,
        ),
    }
)
