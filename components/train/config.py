"""What the stage train takes and makes."""

from dataclasses import dataclass, field

from components.runtime.declaration import Declaration
from components.runtime.values import PER_TASK
from components.store.artifact import Artifact
from pi_behavior.challenge import check_tasks
from pi_behavior.config import OPERATIONAL, ModelConfig, require
from pi_behavior.training.config import TrainConfig


@dataclass(frozen=True)
class Config(TrainConfig):
    """A training run of the network `model`."""

    name: str = field(default="common", metadata=PER_TASK)
    """Name of the policy: common, or the task group that it is fine-tuned for."""
    tasks: tuple[str, ...] = ()
    """Names of the tasks to train on; none means all tasks of the dataset."""
    model: ModelConfig = ModelConfig.presets["tiny"]
    """The network: tiny, small or full, and fields that differ from it."""
    initial_checkpoint: str = ""
    """Folder of a checkpoint to start from, where no policy is given as `initial`; `b1k checkpoint import`
    makes one of Pi0.5 base. A trained policy also passes on normalisation, correlation and tokenizer. Empty:
    random values."""
    keep_initial: bool = field(default=False, metadata=PER_TASK)
    """Keep the parameters of step 0 as a second checkpoint, to be evaluated as the untrained policy."""
    frame_cache: bool = field(default=True, metadata=OPERATIONAL)
    """Decode all videos once into the workspace; needs space for the raw frames."""
    track: bool = field(default=True, metadata=OPERATIONAL)
    """Log to Weights & Biases (offline unless WANDB_MODE says otherwise)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(*check_tasks(self.tasks), (bool(self.name), "name is empty; expected common or a task group"))


@dataclass(frozen=True)
class Inputs:
    """What training reads."""

    dataset: Artifact
    """The checked demonstrations."""
    statistics: Artifact
    """Their statistics."""
    initial: Artifact | None = None
    """A trained policy to start from."""


DECLARATION = Declaration(
    "train", Config, Inputs, image="trainer", makes="Model", output="policy", page="training_curve"
)
