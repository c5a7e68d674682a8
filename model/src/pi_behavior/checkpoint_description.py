"""What a checkpoint says of itself, `checkpoint.json`: the network's configuration, the training step, and
the edition of the challenge whose demonstrations it was trained on.

Reads without JAX, so that a checkpoint can be checked in a moment.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from pi_behavior.challenge import Proprioception
from pi_behavior.config import NetworkConfig, from_document
from pi_behavior.families import FAMILIES, name_of

DESCRIPTION = "checkpoint.json"
PARAMETERS = "params"
STATISTICS = "statistics"
ORIGIN = "origin.json"
"""In `statistics/`: name, digest and licence of weights of others that a checkpoint was made from."""


class CheckpointError(ValueError):
    """A folder is not the checkpoint that was expected; the message says why, and what to do."""


class _Description(msgspec.Struct):
    step: int
    model: dict[str, Any]
    family: str = "pi-behavior"
    edition: str | None = None
    proprioception: int | None = None


def write_config(
    path: Path, config: NetworkConfig, step: int, demonstrations: tuple[str, Proprioception] | None = None
) -> None:
    """Write the description into a checkpoint's folder.

    Args:
        path: the folder.
        config: the network's configuration.
        step: training step.
        demonstrations: edition and layout of what it was trained on, where that is known.
    """
    edition, layout = demonstrations or (None, None)
    document = {
        "step": step,
        "family": name_of(config),
        "edition": edition,
        "proprioception": layout and layout.length,
        "model": asdict(config),
    }
    (path / DESCRIPTION).write_text(json.dumps(document, indent=2) + "\n")


def read_edition(path: Path) -> str | None:
    """The edition whose demonstrations a checkpoint was trained on; None if it does not say.

    Raises:
        CheckpointError: the folder is not a checkpoint.
    """
    return _read(path).edition


def read_config(path: Path) -> tuple[NetworkConfig, int]:
    """Read a checkpoint's configuration and step.

    Raises:
        CheckpointError: the folder is not a checkpoint, or of another version.
    """
    description = _read(path)
    try:
        if description.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ValueError(f"its family is {description.family!r}; this version knows {known}")
        return from_document(FAMILIES[description.family][0], description.model), description.step
    except ValueError as error:
        raise _not_one(path, error) from error


def _read(path: Path) -> _Description:
    try:
        return msgspec.json.decode((path / DESCRIPTION).read_bytes(), type=_Description)
    except (OSError, msgspec.MsgspecError) as error:
        raise _not_one(path, error) from error


def _not_one(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a policy checkpoint: {error}. Expected a folder with {DESCRIPTION}, "
        f"{PARAMETERS}/ and {STATISTICS}/, as the train stage writes it"
    )
