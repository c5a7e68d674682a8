"""Policy checkpoints: parameters (Orbax), configuration and statistics in one folder.

Layout: `params/` (Orbax, by dotted parameter path), `statistics/` (see statistics_files.py) and
`checkpoint.json`. A network that was not trained yet, such as an imported Pi0.5 base, has no statistics.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.experimental.multihost_utils import sync_global_devices

from pi_behavior.challenge import Proprioception
from pi_behavior.checkpoint_description import PARAMETERS, STATISTICS, write_config
from pi_behavior.checkpoint_description import CheckpointError as CheckpointError
from pi_behavior.checkpoint_description import read_config as read_config
from pi_behavior.config import NetworkConfig, NumberType
from pi_behavior.families import family_of
from pi_behavior.files import changed_files, hash_files, write_sums
from pi_behavior.network.layers import State
from pi_behavior.statistics import Statistics
from pi_behavior.tensors import (
    check_tensors,
    flat_parameters,
    tensor_metadata,
    update_parameters,
    write_tensors,
)

_LARGE = 2**16
"""Entries from which on a parameter is read in another type; smaller ones, such as norms, cost no memory."""


@dataclass(frozen=True)
class Checkpoint:
    """A policy, ready for use."""

    model: nnx.Module
    config: NetworkConfig
    statistics: Statistics
    step: int
    """Training step at which it was saved."""
    path: Path = Path()
    """The folder that it was read from."""


class SavedBeside(Protocol):
    """What goes into the folder `statistics/` of a checkpoint."""

    @property
    def layout(self) -> tuple[str, Proprioception] | None:
        """Edition and proprioception of the demonstrations; None where that is not known."""

    def save(self, folder: Path) -> None:
        """Write the files."""


def save(
    path: Path,
    parameters: Mapping[str, jax.Array | np.ndarray],
    *,
    config: NetworkConfig,
    statistics: SavedBeside | None,
    step: int,
) -> None:
    """Write a checkpoint; it appears whole or not at all, and replaces one of the same name.

    Where several processes hold the arrays, all call it, and return when it is there.

    Args:
        path: the folder to write.
        parameters: arrays by dotted path.
        config: the network's configuration.
        statistics: normalisation, correlation and tables from the demonstrations; None for a network that
            can only be trained.
        step: training step.
    """
    aside = path.with_name(f".{path.name}.partial")
    first = jax.process_index() == 0
    if first:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    sync_global_devices(f"folder of {path.name}")
    write_tensors(aside / PARAMETERS, parameters)
    if first:
        if statistics is not None:
            statistics.save(aside / STATISTICS)
        write_config(aside, config, step, None if statistics is None else statistics.layout)
        write_sums(aside)
        os.sync()
        shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)
    sync_global_devices(f"whole of {path.name}")


def read_statistics(path: Path) -> Statistics:
    """Read a checkpoint's statistics.

    Raises:
        CheckpointError: there are none, or they cannot be read.
    """
    if not (path / STATISTICS).is_dir():
        raise CheckpointError(
            f"{path} has no {STATISTICS}/: its network was not trained on demonstrations yet, so it cannot "
            "act. Train it first: give the folder to the train stage as initial_checkpoint"
        )
    try:
        return Statistics.load(path / STATISTICS)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def digest(path: Path) -> str:
    """Hex SHA-256 of a folder: of its files' lines in the format of `sha256sum`, sorted by path.

    Raises:
        CheckpointError: a file is not what it was when the checkpoint was saved; the message names it.
    """
    found = hash_files(path)
    if damaged := changed_files(path, found):
        raise CheckpointError(
            f"{path} is damaged: {', '.join(damaged[:5])} is not what was saved. Copy the checkpoint again"
        )
    lines = (f"{digest}  {name}\n" for name, digest in found.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def restore_parameters(path: Path, target: State, dtype: str | None = None) -> None:
    """Read a checkpoint's parameters into a state, in place, with the state's shardings.

    Args:
        path: the checkpoint.
        target: the state.
        dtype: type to convert large parameters to while reading; None keeps the state's.

    Raises:
        CheckpointError: the checkpoint cannot be read, or its names or shapes are not those of the state.
    """
    folder = path / PARAMETERS
    target_flat = flat_parameters(target)
    check_tensors({name: leaf.shape for name, leaf in target_flat.items()}, tensor_metadata(folder))
    # never the sharding it was saved with: the machine that serves has other devices
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = {
        name: jax.ShapeDtypeStruct(
            leaf.shape,
            dtype if dtype is not None and leaf.size >= _LARGE else leaf.dtype,
            sharding=getattr(leaf, "sharding", None) or default,
        )
        for name, leaf in target_flat.items()
    }
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            restored = checkpointer.restore(folder.absolute(), abstract)
    except Exception as error:  # Orbax and TensorStore have no common one
        file = re.search(rf"{re.escape(str(folder.absolute()))}[\w./-]*", str(error))
        said = str(error).splitlines()[0][:300]
        raise CheckpointError(
            f"{file[0] if file else folder} cannot be read: {said}. Is the copy complete?"
        ) from error
    update_parameters(target, restored)


def load(path: Path, dtype: str | None = None, compute: NumberType | None = None) -> Checkpoint:
    """Open a checkpoint for use on the default device.

    Args:
        path: the folder.
        dtype: type of the large parameters in memory; None is float32, as they are stored.
        compute: type of the computation; None is the checkpoint's own.

    Raises:
        CheckpointError: the folder is not a checkpoint, has no statistics, or does not fit its own
            configuration.
    """
    config, step = read_config(path)
    changes = {"dtype": compute or config.dtype}
    config = replace(config, **changes)
    statistics = read_statistics(path)
    # shapes only: the values are read, and initialising them costs seconds and the memory twice
    model = nnx.eval_shape(lambda: family_of(config).create(config, nnx.Rngs(0)))
    graph, state = nnx.split(model)
    restore_parameters(path, state, dtype)
    return Checkpoint(nnx.merge(graph, state), config, statistics, step, path)
