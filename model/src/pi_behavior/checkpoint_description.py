"""What a checkpoint says of itself, `checkpoint.json`: the network's configuration and the training step.

Reads without JAX, so that a checkpoint can be checked in a moment.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from pi_behavior.config import from_document
from pi_behavior.families import FAMILIES, PolicyModel, family_of

DESCRIPTION = "checkpoint.json"
PARAMETERS = "params"
STATISTICS = "statistics"


class CheckpointError(ValueError):
    """A folder is not the checkpoint that was expected; the message says why, and what to do."""


class _Description(msgspec.Struct):
    step: int
    model: dict[str, Any]
    family: str = "pi-behavior"


def write_config(path: Path, config: PolicyModel, step: int) -> None:
    """Write the description into a checkpoint's folder."""
    text = json.dumps({"step": step, "family": family_of(config), "model": asdict(config)}, indent=2)
    (path / DESCRIPTION).write_text(text + "\n")


def read_config(path: Path) -> tuple[PolicyModel, int]:
    """Read a checkpoint's configuration and step.

    Raises:
        CheckpointError: the folder is not a checkpoint, or of another version.
    """
    try:
        description = msgspec.json.decode((path / DESCRIPTION).read_bytes(), type=_Description)
        if description.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ValueError(f"its family is {description.family!r}; this version knows {known}")
        return from_document(FAMILIES[description.family], description.model), description.step
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a policy checkpoint: {error}. Expected a folder with {DESCRIPTION}, "
            f"{PARAMETERS}/ and {STATISTICS}/, as the train stage writes it"
        ) from error
