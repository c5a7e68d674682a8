"""Published checkpoints: read as checkpoints of ours, and written from them.

Layout of one: `params/`, an Orbax PyTree {"params": nested names}, in which some training runs wrap every
array as {"value": array}; `assets/<asset id>/` with `norm_stats.json` and `fast_tokenizer/`. The Pi0.5 base
has `params/` alone: what else lies beside it belongs to other robots.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx, traverse_util

from pi_behavior import checkpoint
from pi_behavior.challenge import EDITIONS
from pi_behavior.checkpoint_description import PARAMETERS, CheckpointError, read_config
from pi_behavior.config import ModelConfig
from pi_behavior.network import PiBehavior
from pi_behavior.published_layout import (
    BASE_NAMES,
    NAMES,
    Shapes,
    check_published,
    infer_config,
    published_shapes,
)
from pi_behavior.statistics import Statistics
from pi_behavior.statistics_files import NORM_STATS
from pi_behavior.tensors import check_tensors, flat_parameters, tensor_metadata, write_tensors

Kind = Literal["policy", "base"]
_PER_TASK = ("task_embeddings", "stage_fusion.stage_embeddings")
"""Parameters whose rows belong to tasks, in their order."""
ASSET_ID = "behavior-1k/2025-challenge-demos"
_ROOT, _WRAPPER = "params", "value"
_Path = tuple[str, ...]


@dataclass(frozen=True)
class Tensors:
    """What a folder of arrays holds, without the arrays."""

    folder: Path
    metadata: Mapping[str, Any]
    """Shape and dtype by name, nested names joined by slashes, without the published wrappers."""
    paths: Mapping[str, _Path]
    """Where in the Orbax tree each one is."""


@dataclass(frozen=True)
class Imported:
    """What an import made."""

    kind: Kind
    config: ModelConfig
    initialised: Shapes
    """Parameters, by our path, that the published checkpoint lacks and that are random."""
    extended: Mapping[str, tuple[int, int]]
    """Parameters with random rows after those of the published checkpoint: from which row to which."""


def open_tensors(source: Path) -> Tensors:
    """Look at the tensors of a published checkpoint; reads no arrays.

    Args:
        source: the checkpoint's folder or its `params` folder.

    Raises:
        CheckpointError: there are no arrays, or they cannot be read.
    """
    if not source.is_dir():
        raise CheckpointError(f"{source} is not a folder; expected one of a published checkpoint")
    folder = source / _ROOT if (source / _ROOT).is_dir() else source
    tree = tensor_metadata(folder)
    flat: dict[_Path, Any] = {
        tuple(map(str, path)): leaf for path, leaf in traverse_util.flatten_dict(tree).items()
    }
    arrays = {path: leaf for path, leaf in flat.items() if hasattr(leaf, "shape") and hasattr(leaf, "dtype")}
    if not arrays:
        raise CheckpointError(f"{folder} holds no arrays; expected those of a published checkpoint")
    # either wrapper counts only if it is around everything
    start = 1 if all(path[0] == _ROOT and len(path) > 1 for path in flat) else 0
    wrapped = all(path[-1] == _WRAPPER and len(path) > start + 1 for path in flat)
    paths = {"/".join(path[start : len(path) - wrapped]): path for path in arrays}
    return Tensors(folder, {name: arrays[path] for name, path in paths.items()}, paths)


def kind_of(names: set[str]) -> Kind:
    """Whether tensors are a policy's or Pi0.5 base's; a tensor that only policies have decides."""
    return "policy" if names & (set(NAMES.values()) - set(BASE_NAMES.values())) else "base"


def import_published(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    asset_id: str = "",
    edition: str | None = None,
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Write a published checkpoint as one of ours; it appears whole or not at all.

    Needs the memory of the float32 parameters once, and of the largest one besides.

    Args:
        source: the published checkpoint's folder or its `params` folder.
        out: the folder to make.
        seed: of the parameters that the source does not have.
        edition: the edition of the challenge whose tasks the network is for, by default the source's. Tasks
            that the source does not know have random embeddings.
        asset_id: which of a policy's assets to take; empty if there is only one.
        on_tensor: called with the tensors read and their number.

    Raises:
        CheckpointError: `out` exists; or the source is no whole published checkpoint, or its tensors are not
            the published ones: the message lists all that are missing, unknown or of a wrong shape.
    """
    _refuse_existing(out)
    tensors = open_tensors(source)
    kind = kind_of(set(tensors.metadata))
    names = NAMES if kind == "policy" else BASE_NAMES
    config = infer_config({name: tuple(leaf.shape) for name, leaf in tensors.metadata.items()})
    check_published(tensors.metadata, config, names)
    made = config if edition is None else replace(config, stage_counts=EDITIONS[edition].stage_counts)
    if kind == "policy" and made.stage_counts[: config.tasks] != config.stage_counts:
        raise CheckpointError(
            f"{source} knows {config.tasks} tasks, which are not the first of the {made.tasks} of {edition}"
        )
    statistics = _read_assets(tensors.folder.parent / "assets", asset_id) if kind == "policy" else None
    parameters: dict[str, np.ndarray] = {}
    for done, (path, name) in enumerate(names.items(), start=1):
        parameters[path] = _read(tensors, name)
        on_tensor(done, len(names))
    new = _initialise(made, seed, set(NAMES) - set(names))
    extended = {}
    if kind == "policy" and made != config:
        for path, rows in _initialise(made, seed, set(_PER_TASK)).items():
            known = parameters[path]
            extended[path] = (len(known), len(rows))
            parameters[path] = np.concatenate([known, rows[len(known) :]])
    checkpoint.save(out, {**parameters, **new}, config=made, statistics=statistics, step=0)
    return Imported(kind, made, {path: array.shape for path, array in sorted(new.items())}, extended)


def export_published(path: Path, out: Path, *, asset_id: str = ASSET_ID) -> None:
    """Write a checkpoint of ours in the published layout; it appears whole or not at all.

    Args:
        path: the checkpoint.
        out: the folder to make.
        asset_id: folder of statistics and FAST tokenizer below `assets/`.

    Raises:
        CheckpointError: `out` exists, or the checkpoint cannot be read, has no statistics, or its network
            is not one of the published form.
    """
    _refuse_existing(out)
    place = Path(asset_id)
    if not asset_id or place.is_absolute() or ".." in place.parts:
        raise CheckpointError(f"the asset id is {asset_id!r}; expected a relative path such as {ASSET_ID}")
    config, _ = read_config(path)
    if not isinstance(config, ModelConfig):
        raise CheckpointError(f"{path} is of another family of policies")
    shapes = published_shapes(config)
    statistics = checkpoint.read_statistics(path)
    folder = path / PARAMETERS
    metadata = tensor_metadata(folder)
    check_tensors({ours: shapes[name] for ours, name in NAMES.items()}, metadata)
    tensors = Tensors(folder, metadata, {ours: (ours,) for ours in NAMES})
    flat = {tuple(name.split("/")): _read(tensors, ours) for ours, name in NAMES.items()}
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write_tensors(aside / _ROOT, {_ROOT: traverse_util.unflatten_dict(flat)})
    statistics.save(aside / "assets" / place)
    os.sync()
    aside.rename(out)


def _refuse_existing(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise CheckpointError(f"{out} is there already; give a folder that does not exist, or remove it")


def _read(tensors: Tensors, name: str) -> np.ndarray:
    """One tensor as float32: bfloat16 sources never exist twice as a whole."""
    path = tensors.paths[name]
    leaf = traverse_util.unflatten_dict({path: tensors.metadata[name]})
    how = traverse_util.unflatten_dict({path: ocp.RestoreArgs(restore_type=np.ndarray, dtype=np.float32)})
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree = checkpointer.restore(
                tensors.folder.absolute(),
                args=ocp.args.PyTreeRestore(item=leaf, restore_args=how, partial_restore=True),
            )
    except Exception as error:  # Orbax and TensorStore have no common one
        raise CheckpointError(
            f"{name} in {tensors.folder} cannot be read: {str(error).splitlines()[0]}. Is the copy complete?"
        ) from error
    return traverse_util.flatten_dict(tree)[path]


def _read_assets(folder: Path, asset_id: str) -> Statistics:
    found = {p.parent.relative_to(folder).as_posix(): p.parent for p in sorted(folder.rglob(NORM_STATS))}
    if not found:
        raise CheckpointError(
            f"{folder} has no <asset id>/{NORM_STATS}; a policy needs the statistics that it was trained with"
        )
    if asset_id not in found and (asset_id or len(found) > 1):
        raise CheckpointError(
            f"{folder} holds statistics of {', '.join(found)}; give one of them as the asset id"
            + (f", not {asset_id!r}" if asset_id else "")
        )
    try:
        return Statistics.load(found[asset_id] if asset_id else next(iter(found.values())))
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _initialise(config: ModelConfig, seed: int, paths: set[str]) -> dict[str, np.ndarray]:
    """These parameters as a new network has them; the compiler leaves out the others, and their memory."""
    if not paths:
        return {}

    def create() -> dict[str, jax.Array]:
        flat = flat_parameters(nnx.state(PiBehavior(config, nnx.Rngs(seed)), nnx.Param))
        return {path: flat[path] for path in paths}

    return {path: np.asarray(array) for path, array in jax.jit(create)().items()}
