"""Policy checkpoints: parameters (Orbax), configuration and statistics in one folder.

Layout: `params/` (Orbax, by dotted parameter path), `statistics/` (see statistics.py), `checkpoint.json`.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import nnx

from pi_behavior.config import ModelConfig, VisionConfig
from pi_behavior.network import PiBehavior
from pi_behavior.network.layers import State
from pi_behavior.statistics import Statistics

DESCRIPTION = "checkpoint.json"
PARAMETERS = "params"
STATISTICS = "statistics"


@dataclass(frozen=True)
class Checkpoint:
    """A policy, ready for use."""

    model: PiBehavior
    config: ModelConfig
    statistics: Statistics
    step: int
    """Training step at which it was saved."""


def flat_parameters(state: State) -> dict[str, jax.Array]:
    """Parameters by dotted path."""
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}


def update_parameters(
    state: State, parameters: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> None:
    """Set a state's parameters from a mapping by name, in place.

    Args:
        state: the parameters to set.
        parameters: arrays by name.
        names: the mapping's name of every dotted path; without it, names are dotted paths.

    Raises:
        ValueError: names or shapes differ; the message lists all differences.
    """
    flat = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    if names is not None:
        flat = {names[path]: leaf for path, leaf in flat.items()}
    problems = [f"missing {name}" for name in flat.keys() - parameters.keys()]
    problems += [f"unknown {name}" for name in parameters.keys() - flat.keys()]
    problems += [
        f"{name} has the shape {tuple(parameters[name].shape)}, expected {tuple(leaf.shape)}"
        for name, leaf in flat.items()
        if name in parameters and tuple(parameters[name].shape) != tuple(leaf.shape)
    ]
    if problems:
        raise ValueError("the checkpoint does not fit the network:\n  " + "\n  ".join(sorted(problems)))
    for name, leaf in flat.items():
        leaf.set_value(parameters[name])


def save(
    path: Path,
    parameters: Mapping[str, jax.Array],
    *,
    config: ModelConfig,
    statistics: Statistics,
    step: int,
) -> None:
    """Write a checkpoint; it appears whole or not at all, and replaces one of the same name.

    Args:
        path: the folder to write.
        parameters: arrays by dotted path.
        config: the network's configuration.
        statistics: normalisation, correlation and tables from the demonstrations.
        step: training step.
    """
    aside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(aside.absolute() / PARAMETERS, dict(parameters))
    statistics.save(aside / STATISTICS)
    description = {"step": step, "model": dataclasses.asdict(config)}
    (aside / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
    os.sync()
    shutil.rmtree(path, ignore_errors=True)
    aside.rename(path)


def read_config(path: Path) -> tuple[ModelConfig, int]:
    """Read a checkpoint's configuration and step.

    Raises:
        ValueError: the folder is not a checkpoint, or of another version.
    """
    try:
        document = json.loads((path / DESCRIPTION).read_text())
        fields = document["model"]
        vision = VisionConfig(**fields.pop("vision"))
        fields["stage_counts"] = tuple(fields["stage_counts"])
        return ModelConfig(vision=vision, **fields), document["step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a policy checkpoint: {type(error).__name__}: {error}. Expected a folder with "
            f"{DESCRIPTION}, {PARAMETERS}/ and {STATISTICS}/, as the train stage writes it"
        ) from error


def restore_parameters(path: Path, target: State) -> None:
    """Read a checkpoint's parameters into a state, in place, with the state's shardings.

    Raises:
        ValueError: the checkpoint's names or shapes are not those of the state.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.metadata(path.absolute() / PARAMETERS).item_metadata
        target_flat = flat_parameters(target)
        if saved.keys() != target_flat.keys():
            update_parameters(
                target, {name: jax.ShapeDtypeStruct(m.shape, m.dtype) for name, m in saved.items()}
            )
        # never the sharding it was saved with: the machine that serves has other devices
        default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = {
            name: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or default
            )
            for name, leaf in target_flat.items()
        }
        update_parameters(target, checkpointer.restore(path.absolute() / PARAMETERS, abstract))


def load(path: Path) -> Checkpoint:
    """Open a checkpoint for use on the default device.

    Raises:
        ValueError: the folder is not a checkpoint, or does not fit its own configuration.
    """
    config, step = read_config(path)
    # shapes only: the values are read, and initialising them costs seconds and the memory twice
    model = nnx.eval_shape(lambda: PiBehavior(config, nnx.Rngs(0)))
    graph, state = nnx.split(model)
    restore_parameters(path, state)
    return Checkpoint(nnx.merge(graph, state), config, Statistics.load(path / STATISTICS), step)
