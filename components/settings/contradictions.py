"""Values that are right on their own, but contradict each other or the files that they name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.evaluation.plan import COMMON
from components.evaluation.records import Champion
from pi_behavior.checkpoint_description import CheckpointError, read_config
from pi_behavior.config import ModelConfig

_SHAPES = (
    *("vision", "width", "mlp", "depth", "heads", "kv_heads", "head_dim", "expert_width", "expert_mlp"),
    *("vocabulary", "fast_vocabulary", "stage_counts", "state_encoding", "steps_per_token", "kv_mix"),
    *("stage_conditioning", "fast"),
)
"""Fields of the network that decide which parameters it has, and of which shapes."""


@dataclass(frozen=True)
class Place:
    """What is known of the place of a run."""

    train_gpus: int = 0
    """GPUs of a training."""
    workspace: Path | None = None
    """The workspace, where the folders that values name can be seen from here; None where they cannot."""
    complete: bool = True
    """Whether all values are given; a profile alone lacks those that belong to a run."""


Configs = Mapping[str, Any]
"""The configurations of a pipeline's sections by name."""


def contradictions(configs: Configs, place: Place) -> Iterator[str]:
    """What is wrong with a pipeline's configurations together, a line each; some may be missing."""
    if place.complete:
        yield from _required(configs)
    for name in ("train", "finetune"):
        if name in configs:
            yield from _devices(name, configs, place.train_gpus)
    yield from _vocabulary(configs)
    if place.workspace is not None:
        yield from _missing(configs, place.workspace)


def _required(configs: Configs) -> Iterator[str]:
    if "dataset" in configs and not configs["dataset"].repository:
        yield "repository is empty; expected the git and DVC repository of the demonstrations"
    if "plan" in configs and "train" not in configs and not configs["plan"].trained:
        yield "policy is empty; expected the folder of a trained policy, an artifact of the stage train"


def _devices(name: str, configs: Configs, gpus: int) -> Iterator[str]:
    """Whether devices and batch divide; a fine-tuning is checked only where it differs from the training."""
    config, common = configs[name], configs["train"]
    if config is not common and (config.fsdp, config.batch_size) == (common.fsdp, common.batch_size):
        return
    devices = max(gpus, 1)
    if devices % config.fsdp:
        yield f"{name}.fsdp is {config.fsdp}; expected a divisor of the {devices} devices of a training"
    if gpus and config.batch_size % gpus:
        yield f"{name}.batch_size is {config.batch_size}; expected a multiple of the {gpus} GPUs of training"


def _vocabulary(configs: Configs) -> Iterator[str]:
    if "train" not in configs or not configs["train"].model.fast:
        return
    tokens, most = configs["statistics"].fast_vocabulary, configs["train"].model.fast_vocabulary
    if not 0 < tokens <= most:
        yield (
            f"statistics.fast_vocabulary is {tokens}; expected 1 to {most}, the tokens that the network "
            "predicts (train.model.fast_vocabulary), or train.model.fast=false"
        )


def _missing(configs: Configs, workspace: Path) -> Iterator[str]:
    """Folders and files that are not there, and starting checkpoints that do not fit the network."""
    if "train" in configs:
        train = configs["train"]
        if train.initial_checkpoint:
            yield from _start(train.model, Path(train.initial_checkpoint))
    elif "plan" in configs and configs["plan"].trained and not Path(configs["plan"].trained).is_dir():
        yield f"policy is {configs['plan'].trained!r}; there is no such folder"
    for name in ("wrapper", "robot_config"):
        file = getattr(configs["leaderboard"], name) if "leaderboard" in configs else ""
        if file and not Path(file).is_file():
            yield f"leaderboard.{name} is {file!r}; there is no such file"
    yield from _champion(configs, workspace)


def _champion(configs: Configs, workspace: Path) -> Iterator[str]:
    """A champion that the run's last stage, or retraining, could not use."""
    if "promote" not in configs:
        return
    if "news" in configs and configs["news"].champion != configs["promote"].champion:
        yield (
            f"news.champion is {configs['news'].champion!r} and promote.champion "
            f"{configs['promote'].champion!r}; expected the same folder"
        )
    try:
        champion = Champion.load(Path(configs["promote"].champion or workspace / "champion"))
        if champion is None:
            return
        champion.check(configs["plan"].edition, configs["plan"].evaluator)
    except UserError as error:
        yield str(error)
        return
    if "news" in configs and COMMON in champion.checkpoints:
        folder = workspace / champion.checkpoints[COMMON].uri / "checkpoint"
        yield from _start(configs["train"].model, folder)


def _start(model: ModelConfig, folder: Path) -> Iterator[str]:
    try:
        found, _ = read_config(folder)
    except CheckpointError as error:
        yield f"initial_checkpoint: {error}"
        return
    different = [name for name in _SHAPES if getattr(found, name) != getattr(model, name)]
    if different:
        names = ", ".join(different)
        yield f"initial_checkpoint {folder} has another network than model; different are its {names}"
