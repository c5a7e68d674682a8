"""A network's parameters by dotted path, and named arrays in Orbax's format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from pi_behavior.checkpoint_description import CheckpointError
from pi_behavior.network.layers import State

_CHUNK_BYTES = 2**27
_WRITTEN_GB = 5


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


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a checkpoint of ours, by dotted path, as float32.

    Raises:
        CheckpointError: the folder is missing or damaged.
    """
    metadata = tensor_metadata(path)
    how = {name: ocp.RestoreArgs(restore_type=np.ndarray, dtype=np.float32) for name in metadata}
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return dict(
                checkpointer.restore(
                    path.absolute(), args=ocp.args.PyTreeRestore(item=dict(metadata), restore_args=how)
                )
            )
    except Exception as error:  # Orbax and TensorStore have no common one
        raise CheckpointError(
            f"{path} cannot be read: {str(error).splitlines()[0]}. Is the copy complete?"
        ) from error


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
