"""Policy checkpoints: parameters (Orbax), configuration and statistics in one folder.

Layout: `params/` (Orbax, by dotted parameter path), `statistics/` (see statistics.py), `checkpoint.json`.
A network that was not trained yet, such as an imported Pi0.5 base, has no statistics.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.experimental.multihost_utils import sync_global_devices

from pi_behavior.config import ModelConfig, VisionConfig
from pi_behavior.network import PiBehavior
from pi_behavior.network.layers import State
from pi_behavior.statistics import Statistics

DESCRIPTION = "checkpoint.json"
PARAMETERS = "params"
STATISTICS = "statistics"


_CHUNK_BYTES = 2**27
_WRITTEN_GB = 5
_LARGE = 2**16
"""Entries from which on a parameter is read in another type; smaller ones, such as norms, cost no memory."""


class CheckpointError(ValueError):
    """A folder is not the checkpoint that was expected; the message says why, and what to do."""


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
        CheckpointError: names or shapes differ; the message lists all differences.
    """
    flat = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    if names is not None:
        flat = {names[path]: leaf for path, leaf in flat.items()}
    check_tensors({name: leaf.shape for name, leaf in flat.items()}, parameters)
    for name, leaf in flat.items():
        leaf.set_value(parameters[name])


def check_tensors(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Any]) -> None:
    """Compare the tensors of a checkpoint, or what is known of them, with the shapes of a network.

    Raises:
        CheckpointError: names or shapes differ; the message lists all differences.
    """
    problems = [f"missing {name}" for name in expected.keys() - found.keys()]
    problems += [f"unknown {name}" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has the shape {tuple(found[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    if problems:
        raise CheckpointError("the checkpoint does not fit the network:\n  " + "\n  ".join(sorted(problems)))


def write_tensors(path: Path, tree: Mapping[str, Any]) -> None:
    """Write arrays with Orbax; those of NumPy without a second copy of them in memory.

    Args:
        path: the folder to make.
        tree: arrays by name, or nested mappings of them.
    """
    handlers = ocp.type_handlers
    registry = handlers.create_type_handler_registry(
        # the copy is for asynchronous saving, and here nothing changes the arrays
        (np.ndarray, handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, handlers.ArrayHandler()),
    )
    handler = ocp.PyTreeCheckpointHandler(save_concurrent_gb=_WRITTEN_GB, type_handler_registry=registry)
    # chunks bound what is compressed at a time
    chunked = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), dict(tree))
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(
            path.absolute(),
            args=ocp.args.PyTreeSave(dict(tree), save_args=chunked, ocdbt_target_data_file_size=_CHUNK_BYTES),
        )


def save(
    path: Path,
    parameters: Mapping[str, jax.Array | np.ndarray],
    *,
    config: ModelConfig,
    statistics: Statistics | None,
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
        description = {"step": step, "model": dataclasses.asdict(config)}
        (aside / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        os.sync()
        shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)
    sync_global_devices(f"whole of {path.name}")


def read_config(path: Path) -> tuple[ModelConfig, int]:
    """Read a checkpoint's configuration and step.

    Raises:
        CheckpointError: the folder is not a checkpoint, or of another version.
    """
    try:
        document = json.loads((path / DESCRIPTION).read_text())
        fields = document["model"]
        vision = VisionConfig(**fields.pop("vision"))
        fields["stage_counts"] = tuple(fields["stage_counts"])
        return ModelConfig(vision=vision, **fields), document["step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a policy checkpoint: {type(error).__name__}: {error}. Expected a folder with "
            f"{DESCRIPTION}, {PARAMETERS}/ and {STATISTICS}/, as the train stage writes it"
        ) from error


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


def tensor_metadata(path: Path) -> Any:
    """Shapes and types of the arrays that Orbax wrote into a folder, as a tree; reads no arrays.

    Raises:
        CheckpointError: the folder is missing, or not one that Orbax wrote as a whole.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder; expected one with arrays that Orbax wrote")
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            found = checkpointer.metadata(path.absolute()).item_metadata
            # without its index no array can be read, and the metadata alone would not tell
            whole = (path / "manifest.ocdbt").exists() or not (path / "d").exists()
            if found is not None and whole:
                return found.tree
    except Exception as error:  # Orbax and TensorStore have no common one
        raise CheckpointError(
            f"{path} cannot be read: {type(error).__name__}: {error}. Expected a whole folder of arrays "
            "that Orbax wrote; is the copy complete?"
        ) from error
    if found is None:
        raise CheckpointError(f"{path} holds no arrays; expected a folder that Orbax wrote, such as params")
    raise CheckpointError(f"{path} lacks manifest.ocdbt, the index of its arrays; is the copy complete?")


def digest(path: Path) -> str:
    """Hex SHA-256 of a folder: of its files' lines in the format of `sha256sum`, sorted by path."""
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())

    def line(name: str) -> str:
        with (path / name).open("rb") as file:
            return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n"

    # hashlib releases the interpreter lock
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return hashlib.sha256("".join(pool.map(line, files)).encode()).hexdigest()


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
    with ocp.StandardCheckpointer() as checkpointer:
        update_parameters(target, checkpointer.restore(folder.absolute(), abstract))


def load(path: Path, dtype: str | None = None) -> Checkpoint:
    """Open a checkpoint for use on the default device.

    Args:
        path: the folder.
        dtype: type of the large parameters in memory; None is float32, as they are stored.

    Raises:
        CheckpointError: the folder is not a checkpoint, has no statistics, or does not fit its own
            configuration.
    """
    config, step = read_config(path)
    statistics = read_statistics(path)
    # shapes only: the values are read, and initialising them costs seconds and the memory twice
    model = nnx.eval_shape(lambda: PiBehavior(config, nnx.Rngs(0)))
    graph, state = nnx.split(model)
    restore_parameters(path, state, dtype)
    return Checkpoint(nnx.merge(graph, state), config, statistics, step)
