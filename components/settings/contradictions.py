"""Values that are right on their own, but contradict each other or the files that they name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.evaluation.champion import Champion
from components.evaluation.evaluators import HOUSEHOLD
from components.evaluation.plan import COMMON
from components.evaluation.records import Conditions
from components.store.champion import champion_folder
from components.store.lineage import locate
from pi_behavior.challenge import EDITIONS, task
from pi_behavior.checkpoint_description import CheckpointError, read_config
from pi_behavior.config import NetworkConfig


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
    """What is wrong with a pipeline's configurations together, a line each."""
    if "plan" not in configs:  # none of the pipelines that evaluate a policy
        return
    yield from _tasks(configs)
    if "collect" in configs and place.complete:
        yield from _collection(configs)
    if "train" in configs:
        yield from _training(configs, place)
    elif place.complete and not configs["plan"].trained:
        yield "policy is empty; expected the folder of a trained policy, an artifact of the stage train"
    if place.workspace is not None:
        yield from _missing(configs)
        yield from _champion(configs, place.workspace)


def _tasks(configs: Configs) -> Iterator[str]:
    """Tasks that the edition does not have, or the network has no embeddings of."""
    plan, train = configs["plan"], configs.get("train")
    edition = EDITIONS[plan.edition]
    if others := [name for name in plan.tasks if name not in edition.task_names]:
        yield f"tasks: {', '.join(others)} are not among the {edition.tasks} of the edition {plan.edition}"
    if train is not None:
        known = train.model.tasks
        if others := [name for name in train.tasks if task(name).index >= known]:
            yield (
                f"tasks: {', '.join(others)} are unknown to the network, which has embeddings of the first "
                f"{known}; give another model, such as full_2026"
            )


def _collection(configs: Configs) -> Iterator[str]:
    collect, plan = configs["collect"], configs["plan"]
    if plan.evaluator != HOUSEHOLD:
        yield (
            f"evaluator is {plan.evaluator}; expected {HOUSEHOLD}, the simulator in which this pipeline "
            "collects its demonstrations"
        )
    if collect.image_size != plan.image_size:
        yield (
            f"collect.image_size is {collect.image_size} and plan.image_size {plan.image_size}; expected the "
            "same: policies see in rollouts what they were trained on"
        )


def _training(configs: Configs, place: Place) -> Iterator[str]:
    if place.complete and not configs["dataset"].repository:
        yield "repository is empty; expected the git and DVC repository of the demonstrations"
    train, gpus, devices = configs["train"], place.train_gpus, max(place.train_gpus, 1)
    for name in ("train", "finetune"):
        fsdp, batch = configs[name].fsdp, configs[name].batch_size
        if name != "train" and (fsdp, batch) == (train.fsdp, train.batch_size):
            continue
        if devices % fsdp:
            yield f"{name}.fsdp is {fsdp}; expected a divisor of the {devices} devices of a training"
        if gpus and batch % gpus:
            yield f"{name}.batch_size is {batch}; expected a multiple of the {gpus} GPUs of training"
    copy, wanted = configs["prepare"], train.model.image_size
    if not copy.serves(wanted):
        yield f"prepare.image_size is {copy.image_size}; expected {wanted}, which the network reads"
    tokens, most = configs["statistics"].fast_vocabulary, train.model.fast_tokens
    if most and not 0 < tokens <= most:
        yield (
            f"statistics.fast_vocabulary is {tokens}; expected 1 to {most}, the tokens that the network "
            "predicts (train.model.fast_vocabulary), or train.model.fast=false"
        )


def _missing(configs: Configs) -> Iterator[str]:
    """Folders and files that are not there, and a starting checkpoint that does not fit the network."""
    train, policy = configs.get("train"), configs["plan"].trained
    if train is not None and train.initial_checkpoint:
        yield from _start(train.model, Path(train.initial_checkpoint))
    if train is None and policy and not Path(policy).is_dir():
        yield f"policy is {policy!r}; there is no such folder"
    for name in ("wrapper", "robot_config"):
        file = getattr(configs["plan"], name)
        if file and not Path(file).is_file():
            yield f"plan.{name} is {file!r}; there is no such file"


def _champion(configs: Configs, workspace: Path) -> Iterator[str]:
    """A champion that the run's last stage, or retraining, could not use."""
    folder = configs["promote"].champion
    for name in ("news", "trial"):
        if name in configs and configs[name].champion != folder:
            yield (
                f"{name}.champion is {configs[name].champion!r} and promote.champion {folder!r}; expected "
                "the same folder"
            )
    try:
        champion = Champion.load(champion_folder(folder, workspace))
        if champion is None:
            return
        if not configs["promote"].force:
            plan = configs["plan"]
            files = {name: path for name, path in plan.files.items() if path.is_file()}
            conditions = Conditions.of(
                plan.edition, plan.evaluator, plan.image_size, plan.policy, plan.wrapper_name, files
            )
            champion.check(conditions)
    except UserError as error:
        yield str(error)
        return
    if "news" in configs and COMMON in champion.checkpoints:
        folder = locate(champion.checkpoints[COMMON].uri, workspace) / "checkpoint"
        yield from _start(configs["train"].model, folder)


def _start(model: NetworkConfig, folder: Path) -> Iterator[str]:
    try:
        found, _ = read_config(folder)
    except CheckpointError as error:
        yield f"initial_checkpoint: {error}"
        return
    theirs, ours = found.shaping, model.shaping
    different = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    if different:
        names = ", ".join(different)
        yield f"initial_checkpoint {folder} has another network than model; different are its {names}"
