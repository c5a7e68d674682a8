"""LeRobot's checkpoints of this policy: read as checkpoints of ours, and written from them.

A folder with `model.safetensors`, `config.json`, `policy_preprocessor.json` and `policy_postprocessor.json`,
and the states of their steps, which hold the extremes of states and actions.
"""

import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pi_behavior import checkpoint
from pi_behavior.checkpoint_description import (
    PARAMETERS,
    STATISTICS,
    CheckpointError,
    read_config,
)
from pi_behavior.lbm.clip_files import (
    CONFIG,
    HEAD_WIDTH,
    WEIGHTS,
    published_heads,
    read_tensors,
    tensor_metadata,
)
from pi_behavior.lbm.config import ClipTextConfig, ClipVisionConfig, LbmConfig
from pi_behavior.lbm.lerobot_config import PUBLISHED_CLIP, read_config_document, write_config_document
from pi_behavior.lbm.lerobot_processors import read_json, read_processors, write_json, write_processors
from pi_behavior.lbm.names import TEXT, VISION, assemble, entries
from pi_behavior.lbm.statistics import PolicyFiles
from pi_behavior.lbm.tokens import TOKENIZER, TextTokenizer
from pi_behavior.tensors import read_arrays

_CLIP = "clip"
"""Folder in an exported policy with the heads of its encoders, where they are not the published CLIP's."""
_BUFFERS = ("position_ids", "inv_freq", "cos_cached", "sin_cached")
"""Endings of tensors that are computed, and that some versions save."""
_CLIP_END = r"(embeddings|encoder\.layers)\..*$"
"""The part of a name of CLIP's that is the same in all versions."""
OnTensor = Callable[[int, int], None]


@dataclass(frozen=True)
class ImportedPolicy:
    """What an import made."""

    config: LbmConfig
    tokenizer: bool
    """Whether it has a tokenizer, and so can be served."""


def is_lerobot(folder: Path) -> bool:
    """Whether a folder is a checkpoint in this format, of whatever policy."""
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


def import_lerobot(
    source: Path, out: Path, *, clip: Path | None = None, on_tensor: OnTensor = lambda done, total: None
) -> ImportedPolicy:
    """Write a checkpoint of LeRobot as one of ours; it appears whole or not at all.

    Args:
        source: the folder.
        out: the folder to make.
        clip: a folder of CLIP's, for the tokenizer, which the source may lack.
        on_tensor: called with the tensors read and their number.

    Raises:
        CheckpointError: `out` exists, or the source is no whole checkpoint of this policy; the message says
            what is missing, unknown or of a wrong shape.
    """
    if out.exists() or out.is_symlink():
        raise CheckpointError(f"{out} is there already; give a folder that does not exist, or remove it")
    document = read_json(source / CONFIG)
    file = source / WEIGHTS
    shapes = {name: leaf.shape for name, leaf in tensor_metadata(file).items()}
    vision, text = _encoders(source, document, shapes)
    config = read_config_document(document, vision, text)
    names = _match(config, list(shapes))
    tensors: dict[str, np.ndarray] = {}
    for done, (name, theirs) in enumerate(names.items(), start=1):
        tensors |= read_tensors(file, {name: theirs})
        on_tensor(done, len(names))
    ranges, pixels = read_processors(source, config)
    config = replace(config, pixels=pixels)
    tokenizer = _tokenizer(source, clip, config)
    checkpoint.save(
        out,
        assemble(config, tensors, key="name"),
        config=config,
        statistics=PolicyFiles(ranges, tokenizer),
        step=0,
    )
    return ImportedPolicy(config, tokenizer is not None)


def export_lerobot(path: Path, out: Path) -> None:
    """Write a checkpoint of ours in LeRobot's format; it appears whole or not at all.

    Args:
        path: the checkpoint.
        out: the folder to make.

    Raises:
        CheckpointError: `out` exists, or the checkpoint cannot be read, is of another family, or normalises
            in a way that LeRobot does not know.
    """
    if out.exists() or out.is_symlink():
        raise CheckpointError(f"{out} is there already; give a folder that does not exist, or remove it")
    config, _ = read_config(path)
    if not isinstance(config, LbmConfig):
        raise CheckpointError(f"{path} is of another family of policies; LeRobot's format is for lbm")
    try:
        files = PolicyFiles.load(path / STATISTICS, config.text.length)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    if config.normalisation != "min_max" or files.ranges.action.low.ndim != 1:
        raise CheckpointError(
            f"the normalisation of {path} is {config.normalisation}; LeRobot's format knows min_max alone"
        )
    parameters = read_arrays(path / PARAMETERS)
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    published = {e.name: e.to_published(parameters[e.path][e.index]) for e in entries(config)}
    save_file({name: np.ascontiguousarray(t) for name, t in published.items()}, aside / WEIGHTS)
    clip = PUBLISHED_CLIP
    if config.vision != ClipVisionConfig() or config.text != ClipTextConfig():
        clip = _CLIP
        (aside / _CLIP).mkdir()
        heads = {
            f"{part}_config": {"num_attention_heads": getattr(config, part).heads}
            for part in ("vision", "text")
        }
        write_json(aside / _CLIP / CONFIG, {"model_type": "clip", **heads})
    if files.tokenizer is not None:
        files.tokenizer.save(aside)
    write_json(aside / CONFIG, write_config_document(config, clip))
    write_processors(aside, config, files.ranges, clip)
    os.sync()
    aside.rename(out)


def _tokenizer(source: Path, clip: Path | None, config: LbmConfig) -> TextTokenizer | None:
    for folder in (clip, source):
        if folder is not None and (folder is clip or (folder / TOKENIZER).is_file()):
            found = TextTokenizer.load(folder, config.text.length)
            if found.vocabulary != config.text.vocabulary:
                raise CheckpointError(
                    f"the tokenizer in {folder} has {found.vocabulary} tokens; the policy reads "
                    f"{config.text.vocabulary}"
                )
            return found
    return None


def _match(config: LbmConfig, found: list[str]) -> dict[str, str]:
    """The name in the file of every tensor: of CLIP's parts, the levels between begin and end may differ."""
    names: dict[str, str] = {}
    problems: list[str] = []
    left = set(found)
    for entry in entries(config):
        begin, end = entry.place
        same = [entry.name] if entry.name in left else []
        same = same or [name for name in left if name.startswith(begin) and name.endswith(end)]
        if len(same) == 1:
            names[entry.name] = same[0]
            left.discard(same[0])
        else:
            many = f"; {' and '.join(sorted(same))} both could be it" if same else ""
            problems.append(f"missing {entry.name}{many}")
    problems += [f"unknown {name}" for name in left if not name.endswith(_BUFFERS)]
    if problems:
        raise CheckpointError("the checkpoint does not fit the network:\n  " + "\n  ".join(sorted(problems)))
    return names


def _encoders(
    source: Path, document: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[ClipVisionConfig, ClipTextConfig]:
    """The encoders' sizes, which `config.json` does not say, from the shapes of their tensors."""

    def sizes(part: str) -> dict[str, tuple[int, ...]]:
        inside = (re.search(_CLIP_END, name) for name in shapes if name.startswith(part))
        return {match.group(): shapes[match.string] for match in inside if match}

    def shape(found: Mapping[str, tuple[int, ...]], name: str, rank: int) -> tuple[int, ...]:
        if len(found.get(name, ())) != rank:
            raise CheckpointError(f"the checkpoint has no tensor of {rank} axes that ends with {name}")
        return found[name]

    vision, text = sizes(VISION), sizes(TEXT)
    width, _, patch, _ = shape(vision, "embeddings.patch_embedding.weight", 4)
    positions = shape(vision, "embeddings.position_embedding.weight", 2)[0] - 1
    vocabulary, text_width = shape(text, "embeddings.token_embedding.weight", 2)
    try:
        return (
            ClipVisionConfig(
                image_size=math.isqrt(max(positions, 1)) * patch,
                patch=patch,
                width=width,
                depth=_depth(vision),
                heads=_heads(source, document, "vision", width),
                mlp=shape(vision, "encoder.layers.0.mlp.fc1.weight", 2)[0],
            ),
            ClipTextConfig(
                vocabulary=vocabulary,
                length=shape(text, "embeddings.position_embedding.weight", 2)[0],
                width=text_width,
                depth=_depth(text),
                heads=_heads(source, document, "text", text_width),
                mlp=shape(text, "encoder.layers.0.mlp.fc1.weight", 2)[0],
            ),
        )
    except ValueError as error:
        raise CheckpointError(f"the sizes of the encoders' tensors do not fit each other: {error}") from error


def _depth(names: Mapping[str, tuple[int, ...]]) -> int:
    layers = Counter(name.split(".")[2] for name in names if name.startswith("encoder.layers."))
    return len(layers)


def _heads(source: Path, document: Mapping[str, Any], part: str, width: int) -> int:
    """Attention heads, of which no tensor tells: from CLIP's own file if it is here, else as published."""
    given = str(document.get(f"{part}_encoder_name") or "")
    for folder in (source / given, Path(given)):
        heads = published_heads(folder, part) if given and folder != source else None
        if heads is not None:
            return heads
    if width % HEAD_WIDTH:
        raise CheckpointError(
            f"the {part} encoder is {width} wide, and {part}_encoder_name, {given!r}, is no folder with "
            f"CLIP's {CONFIG}, which says how many heads it has; without it, heads are {HEAD_WIDTH} wide"
        )
    return width // HEAD_WIDTH
