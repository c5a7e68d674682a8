"""Files of published models: tensors in the safetensors format, and CLIP's configuration."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from pi_behavior.checkpoint_description import CheckpointError

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
