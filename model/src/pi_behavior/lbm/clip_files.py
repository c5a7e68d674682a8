"""CLIP's weights, from a folder in the published format (openai/clip-vit-base-patch16 and its kind)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from pi_behavior.checkpoint_description import CheckpointError
from pi_behavior.lbm.config import LbmConfig
from pi_behavior.lbm.names import assemble_parts, entries

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": jnp.bfloat16, "I64": "int64"}
HEAD_WIDTH = 64
"""Width of an attention head in every published CLIP."""


def read_tensors(file: Path, names: Mapping[str, str] | None = None) -> dict[str, np.ndarray]:
    """Tensors of a file by name, or only some of them under other names.

    Args:
        file: in the safetensors format.
        names: which tensors, by the name that each is to get.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            wanted = {name: name for name in opened.keys()} if names is None else names  # noqa: SIM118
            return {ours: opened.get_tensor(theirs) for ours, theirs in wanted.items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}. Is the copy complete?") from error


def tensor_metadata(file: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of the tensors of a file by name; reads none of them.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: jax.ShapeDtypeStruct(tuple(part.get_shape()), _TYPES[part.get_dtype()])
                for name, part in slices.items()
            }
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}. Is the copy complete?") from error


def read_clip(folder: Path, config: LbmConfig) -> dict[str, np.ndarray]:
    """CLIP's parameters, by our dotted path, for a policy's encoders.

    Args:
        folder: holds `model.safetensors`, and may hold CLIP's `config.json`.
        config: the policy; each of several image encoders gets the same weights.

    Raises:
        CheckpointError: weights are absent, or those of another size; the message lists all differences.
    """
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder} has no {WEIGHTS}: expected CLIP as it is published, such as a copy of "
            f"openai/clip-vit-base-patch16 with {WEIGHTS}, {CONFIG} and the tokenizer"
        )
    for part, ours in (("vision", config.vision), ("text", config.text)):
        heads = published_heads(folder, part)
        if heads is not None and heads != ours.heads:
            raise CheckpointError(
                f"CLIP's {part} transformer in {folder} has {heads} heads; the policy's has {ours.heads}"
            )
    wanted = [entry for entry in entries(config) if entry.clip]
    have = tensor_metadata(folder / WEIGHTS)
    names = {entry.name: entry.clip for entry in wanted if entry.clip in have}
    return assemble_parts(wanted, read_tensors(folder / WEIGHTS, names), key="name")


def published_heads(folder: Path, part: str) -> int | None:
    """Attention heads that CLIP's `config.json` gives for the part vision or text; None without the file.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not (folder / CONFIG).is_file():
        return None
    try:
        document: Any = json.loads((folder / CONFIG).read_text())
        section = document.get(f"{part}_config") or document
        heads = section.get("num_attention_heads")
        return None if heads is None else int(heads)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / CONFIG} cannot be read: {error}") from error
