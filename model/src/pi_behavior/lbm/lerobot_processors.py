"""Pre- and postprocessor of LeRobot's checkpoints: lists of steps, of which one normalises."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pi_behavior.checkpoint_description import CheckpointError
from pi_behavior.lbm.clip_files import read_tensors
from pi_behavior.lbm.config import LbmConfig
from pi_behavior.lbm.images import PIXELS
from pi_behavior.lbm.lerobot_config import ACTION, IMAGES, STATE, write_config_document
from pi_behavior.lbm.normalisation import Range, Ranges

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor", "policy_postprocessor"
_NORMALIZER, _UNNORMALIZER = "normalizer_processor", "unnormalizer_processor"


def read_json(file: Path) -> Any:
    """Parse a file; CheckpointError where that cannot be."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def write_json(file: Path, document: Any) -> None:
    """Write a file of a folder that is not there yet."""
    file.write_text(json.dumps(document, indent=2) + "\n")


def read_processors(source: Path, config: LbmConfig) -> tuple[Ranges, Any]:
    """The scales of states and actions, and whose colours images are normalised with.

    Raises:
        CheckpointError: a file is missing or damaged, or images are normalised in a way that is unknown here.
    """
    before = _state(source, PREPROCESSOR, _NORMALIZER)
    after = _state(source, POSTPROCESSOR, _UNNORMALIZER)
    state = _read_range(before, STATE, config.state_dim, source)
    action = _read_range(after if f"{ACTION}.min" in after else before, ACTION, config.action_dim, source)
    found = set()
    for camera in config.cameras:
        mean, std = (before.get(f"{IMAGES}{camera}.{kind}") for kind in ("mean", "std"))
        if mean is None or std is None:
            found.add("imagenet")
            continue
        given = np.stack([mean.reshape(-1), std.reshape(-1)])
        names = [
            n for n, known in PIXELS.items() if given.shape == (2, 3) and np.allclose(given, known, atol=1e-4)
        ]
        if not names:
            raise CheckpointError(
                f"the images of {camera} are normalised with mean and deviation {given.tolist()}; "
                f"expected those of {' or '.join(PIXELS)}"
            )
        found.add(names[0])
    if len(found) > 1:
        raise CheckpointError(f"the cameras' images are normalised differently, as {' and '.join(found)}")
    return Ranges(state, action), found.pop()


def _read_range(tensors: Mapping[str, np.ndarray], name: str, width: int, source: Path) -> Range:
    low, high = (tensors.get(f"{name}.{kind}") for kind in ("min", "max"))
    if low is None or high is None or low.shape != (width,) or high.shape != (width,):
        raise CheckpointError(
            f"the normalisation in {source} has no {name}.min and {name}.max of {width} numbers; it has "
            f"{', '.join(sorted(tensors)) or 'nothing'}"
        )
    return Range(low.astype(np.float32), high.astype(np.float32))


def _state(source: Path, processor: str, registered: str) -> dict[str, np.ndarray]:
    """The tensors of a processor's normalising step."""
    document = read_json(source / f"{processor}.json")
    steps = document.get("steps", []) if isinstance(document, dict) else document
    for number, step in enumerate(steps):
        if isinstance(step, dict) and step.get("registry_name") == registered:
            usual = f"{processor}_step_{number}_{registered}.safetensors"
            return read_tensors(source / (step.get("state_file") or usual))
    raise CheckpointError(f"{source / processor}.json has no step {registered}")


def write_processors(folder: Path, config: LbmConfig, ranges: Ranges, clip: str) -> None:
    """Write both processors, with the states of their normalising steps."""
    document = write_config_document(config, clip)
    features = {
        name: {"type": feature["type"], "shape": feature["shape"]}
        for name, feature in {**document["input_features"], **document["output_features"]}.items()
    }
    mean, std = (np.array(values, np.float32)[:, None, None] for values in PIXELS[config.pixels])
    tensors = {
        f"{name}.{kind}": np.ascontiguousarray(values)
        for name, scale in ((STATE, ranges.state), (ACTION, ranges.action))
        for kind, values in (("min", scale.low), ("max", scale.high))
    }
    for camera in config.cameras:
        tensors |= {f"{IMAGES}{camera}.mean": mean, f"{IMAGES}{camera}.std": std}
    norm = {"eps": 1e-8, "features": features, "norm_map": document["normalization_mapping"]}
    tokens = {
        "tokenizer_name": clip,
        "max_length": config.text.length,
        "padding": "max_length",
        "padding_side": "right",
        "truncation": True,
        "task_key": "task",
    }
    before: list[tuple[str, dict[str, Any]]] = [
        ("rename_observations_processor", {"rename_map": {}}),
        ("to_batch_processor", {}),
        ("tokenizer_processor", tokens),
        ("device_processor", {"device": "cpu", "float_dtype": None}),
        (_NORMALIZER, norm),
    ]
    after = [
        (_UNNORMALIZER, {**norm, "features": {ACTION: features[ACTION]}}),
        ("device_processor", {"device": "cpu", "float_dtype": None}),
    ]
    for processor, steps in ((PREPROCESSOR, before), (POSTPROCESSOR, after)):
        listed = []
        for number, (name, settings) in enumerate(steps):
            step: dict[str, Any] = {"registry_name": name, "config": settings}
            if name in (_NORMALIZER, _UNNORMALIZER):
                step["state_file"] = f"{processor}_step_{number}_{name}.safetensors"
                save_file(tensors, folder / step["state_file"])
            listed.append(step)
        write_json(folder / f"{processor}.json", {"name": processor, "steps": listed})
