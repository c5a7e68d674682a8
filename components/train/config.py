"""What the stage train takes and makes."""

import re
from dataclasses import dataclass, field

from components.runtime.declaration import Declaration
from components.runtime.values import PER_TASK
from components.store.artifact import Artifact
from pi_behavior.challenge import check_tasks, task
from pi_behavior.config import OPERATIONAL, NetworkConfig, require
from pi_behavior.families import SIZES
from pi_behavior.training.config import TrainConfig


@dataclass(frozen=True)
class Config(TrainConfig):
    """A training run of the network `model`."""

    name: str = field(default="common", metadata=PER_TASK)
    """Name of the policy: common, or the task group that it is fine-tuned for."""
    tasks: tuple[str, ...] = ()
    """Names of the tasks to train on; none means all tasks of the dataset."""
    model: NetworkConfig = SIZES["tiny"]
    """The network: tiny, small or full, lbm-tiny or another size of that family, and fields that differ from
    it."""
    initial_checkpoint: str = ""
    """Folder of a checkpoint to start from, where no policy is given as `initial`; `b1k checkpoint import`
    makes one of Pi0.5 base. A trained policy also passes on normalisation, correlation and tokenizer. Empty:
    random values."""
    keep_initial: bool = field(default=False, metadata=PER_TASK)
    """Keep the parameters of step 0 as a second checkpoint, to be evaluated as the untrained policy."""
    together: int = 1
    """Samples of one group of pictures that follow each other in a batch: 1, 2, 4 or 8. More cost less
    decoding and are more alike."""
    task_weights: tuple[str, ...] = ()
    """Relative share of tasks in the batches, such as turning_on_radio=2; a task that is not named has 1.
    Empty: every frame counts the same."""
    held_out: float = 0.0
    """Share of each task's instances whose demonstrations are not trained on, but measured: the losses on
    them get the prefix `held_out_`."""
    input_workers: int = field(default=0, metadata=OPERATIONAL)
    """Processes that decode and assemble batches; 0: a thread of the training process."""
    track: bool = field(default=True, metadata=OPERATIONAL)
    """Log to Weights & Biases (offline unless WANDB_MODE says otherwise)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            *((False, f"model.{line}") for line in self.model.training_problems()),
            *check_tasks(self.tasks),
            (bool(self.name), "name is empty; expected common or a task group"),
            (self.together in (1, 2, 4, 8), f"together is {self.together}; expected 1, 2, 4 or 8"),
            (0 <= self.held_out < 1, f"held_out is {self.held_out}; expected 0 up to, not including, 1"),
            (self.input_workers >= 0, f"input_workers is {self.input_workers}; expected 0 or more"),
        )
        self.weights()

    def weights(self) -> dict[int, float] | None:
        """`task_weights` by task index; ValueError if one is not as expected."""
        found = {}
        for text in self.task_weights:
            name, _, weight = text.partition("=")
            require(*check_tasks((name,)))
            positive = re.fullmatch(r"[0-9]*\.?[0-9]+", weight) is not None and float(weight) > 0
            require((positive, f"task_weights has {text!r}; expected TASK=NUMBER with a number above 0"))
            found[task(name).index] = float(weight)
        return found or None


@dataclass(frozen=True)
class Inputs:
    """What training reads."""

    dataset: Artifact
    """The checked demonstrations."""
    statistics: Artifact
    """Their statistics."""
    initial: Artifact | None = None
    """A trained policy to start from."""
    prepared: Artifact | None = None
    """Their training copy. Not given, the original videos are decoded, which takes many more cores."""


DECLARATION = Declaration(
    "train", Config, Inputs, image="trainer", makes="Model", output="policy", page="training_curve"
)
