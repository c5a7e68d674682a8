"""`b1k checkpoint`: import, export and inspect checkpoints in the published layout and in ours."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Column, Table

from components.errors import UserError
from components.runtime.progress import Progress


@dataclass(frozen=True)
class Import:
    """Make a checkpoint of ours from Pi0.5 base, to train from, or from a published policy, to serve.

    Which of the two it is follows from the names of the tensors, the network's sizes from their shapes. A
    folder with model.safetensors and config.json is a Large Behavior Model of LeRobot (multi_task_dit).
    """

    source: tyro.conf.Positional[Path]
    """Folder of the published checkpoint, or its params folder."""
    out: tyro.conf.Positional[Path]
    """Folder to make."""
    seed: int = 0
    """Seed of the parameters that the source does not have."""
    edition: str = ""
    """Edition of the challenge whose tasks the network is for; by default the source's, and 2025's for Pi0.5
    base. With 2026, a published policy of 50 tasks gets random embeddings for the 50 new ones."""
    asset_id: str = ""
    """Which assets of a policy to take, if there are several."""
    clip: Path | None = None
    """Folder of CLIP as published, whose tokenizer a policy of LeRobot is to have."""
    size: str = ""
    """Make a network of this size, such as lbm-base, from CLIP's weights: the source is CLIP as published."""


@dataclass(frozen=True)
class Export:
    """Write a checkpoint of ours in the published layout: params/ and assets/, or LeRobot's files of a Large
    Behavior Model.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Folder of a checkpoint, such as <workspace>/artifacts/train/<fingerprint>/checkpoint."""
    out: tyro.conf.Positional[Path]
    """Folder to make."""
    asset_id: str = "behavior-1k/2025-challenge-demos"
    """Folder below assets/ for the statistics and the FAST tokenizer."""


@dataclass(frozen=True)
class Inspect:
    """List the tensors of a checkpoint, ours or published, and say what it is. Loads none of them."""

    folder: tyro.conf.Positional[Path]
    """Folder of the checkpoint."""


@dataclass(frozen=True)
class Names:
    """Print the published names and shapes of a network's tensors as JSON, and on stderr how many parameters
    they have; needs no memory.
    """

    size: str = "full"
    """Size of the network: full or small; lbm (LeRobot's defaults), lbm-tiny or lbm-base."""
    edition: str = ""
    """Edition of the challenge whose tasks the network is for; by default the published 2025."""


Command = (
    Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Names, tyro.conf.subcommand("names")]
)


def run(command: Command) -> int:
    """Run one of the commands; returns exit code 0."""
    # seconds of imports that `--help` should not wait for
    from pi_behavior.checkpoint import CheckpointError

    try:
        match command:
            case Import():
                _import(command)
            case Export():
                _export(command)
            case Inspect():
                _inspect(command.folder)
            case Names():
                _names(command.size, command.edition)
    except CheckpointError as error:
        raise UserError(str(error)) from error
    return 0


def _export(command: Export) -> None:
    from pi_behavior.checkpoint_description import read_config
    from pi_behavior.lbm.config import LbmConfig
    from pi_behavior.lbm.lerobot import export_lerobot
    from pi_behavior.published_exchange import export_published

    if isinstance(read_config(command.checkpoint)[0], LbmConfig):
        export_lerobot(command.checkpoint, command.out)
        print(f"{command.out}: a policy of LeRobot (multi_task_dit)")
    else:
        export_published(command.checkpoint, command.out, asset_id=command.asset_id)
        print(f"{command.out}: params and assets/{command.asset_id} in the published layout")


def _import(command: Import) -> None:
    from pi_behavior.lbm.lerobot import import_lerobot, is_lerobot
    from pi_behavior.published_exchange import import_published

    if command.size:
        _start_from_clip(command)
        return
    if is_lerobot(command.source):
        with Progress().task("reading tensors") as bar:
            policy = import_lerobot(
                command.source,
                command.out,
                clip=command.clip,
                on_tensor=lambda done, total: bar.update(completed=done, total=total),
            )
        missing = (
            "" if policy.tokenizer else ", without a tokenizer: give CLIP's folder as --clip to serve it"
        )
        print(f"{command.out}: policy of LeRobot with its normalisation{missing}")
        return
    with Progress().task("reading tensors") as bar:
        made = import_published(
            command.source,
            command.out,
            seed=command.seed,
            asset_id=command.asset_id,
            edition=_edition(command.edition),
            on_tensor=lambda done, total: bar.update(completed=done, total=total),
        )
    if made.kind == "policy":
        print(f"{command.out}: published policy, with its statistics; it can be served and fine-tuned")
        if made.extended:
            print(
                f"new tasks have random embeddings, from seed {command.seed}; train before they are served:"
            )
        for name, (start, stop) in made.extended.items():
            print(f"  {name} [{start}:{stop}]")
        return
    print(f"{command.out}: Pi0.5 base, without statistics; train it before it is served")
    print(f"{len(made.initialised)} new parameters, at random from seed {command.seed}:")
    for name, shape in made.initialised.items():
        print(f"  {name} {list(shape)}")


def _start_from_clip(command: Import) -> None:
    from pi_behavior.families import SIZES
    from pi_behavior.lbm.clip_start import start_from_clip
    from pi_behavior.lbm.config import LbmConfig

    config = SIZES.get(command.size)
    if not isinstance(config, LbmConfig):
        raise UserError(f"the size is {command.size!r}; expected one of {', '.join(LbmConfig.presets)}")
    origin = start_from_clip(command.source, command.out, config, seed=command.seed)
    print(
        f"{command.out}: {command.size} with CLIP's weights (sha256 {origin.sha256}, licence "
        f"{origin.licence}), the rest at random from seed {command.seed}; train it before it is served"
    )


def _inspect(folder: Path) -> None:
    import numpy as np

    from pi_behavior.checkpoint import digest
    from pi_behavior.checkpoint_description import DESCRIPTION
    from pi_behavior.lbm.clip_files import WEIGHTS, tensor_metadata
    from pi_behavior.published_exchange import open_tensors

    # names a damaged file
    own = digest(folder) if (folder / DESCRIPTION).is_file() else ""
    file = folder / WEIGHTS
    tensors = tensor_metadata(file) if file.is_file() else open_tensors(folder).metadata
    size = Column("size", justify="right")
    table = Table("tensor", "shape", "dtype", size, title=escape(str(folder)))
    counts = {name: math.prod(leaf.shape) for name, leaf in tensors.items()}
    sizes = {name: counts[name] * np.dtype(leaf.dtype).itemsize for name, leaf in tensors.items()}
    for name, leaf in sorted(tensors.items()):
        table.add_row(escape(name), escape(str(list(leaf.shape))), str(leaf.dtype), decimal(sizes[name]))
    Console(soft_wrap=True).print(table)
    total, width = sum(counts.values()), sum(sizes.values())
    print(f"{len(tensors)} tensors, {total:,} parameters, {decimal(width)}")
    if own:
        print(f"sha256 {own}")
    print(_kind(folder, tensors))


def _kind(folder: Path, tensors: Mapping[str, Any]) -> str:
    from pi_behavior.checkpoint_description import DESCRIPTION, STATISTICS, read_config, read_edition
    from pi_behavior.families import SIZES
    from pi_behavior.published_layout import BASE_NAMES, NAMES

    for place in (folder, folder.parent):
        if (place / DESCRIPTION).is_file():
            config, step = read_config(place)
            size = next((name for name, known in SIZES.items() if known == config), "other")
            state = f", trained on demonstrations of {edition}" if (edition := read_edition(place)) else ""
            if not (place / STATISTICS).is_dir():
                state = ", without statistics: train it first"
            return f"a checkpoint of ours, step {step}, size {size}{state}"
    if any(name.startswith("noise_predictor.") for name in tensors):
        return "a Large Behavior Model of LeRobot (multi_task_dit)"
    if tensors.keys() == set(NAMES.values()):
        return "a published policy"
    if tensors.keys() == set(BASE_NAMES.values()):
        return "Pi0.5 base"
    return "unknown: neither a published policy nor Pi0.5 base; `b1k checkpoint import` lists the differences"


def _edition(name: str) -> str | None:
    """An option's edition, None if it was not given; UserError if there is none of that name."""
    from pi_behavior.challenge import edition

    try:
        return name if name and edition(name) else None
    except ValueError as error:
        raise UserError(f"--edition: {error}") from error


def _names(size: str, edition: str) -> None:
    from pi_behavior.challenge import EDITIONS
    from pi_behavior.config import ModelConfig
    from pi_behavior.families import SIZES
    from pi_behavior.lbm.config import LbmConfig
    from pi_behavior.lbm.names import entries
    from pi_behavior.published_layout import published_shapes

    if size not in SIZES:
        raise UserError(f"the size is {size!r}; expected one of {', '.join(SIZES)}")
    config = SIZES[size]
    if isinstance(config, LbmConfig):
        shapes = {entry.name: entry.shape for entry in entries(config)}
    elif isinstance(config, ModelConfig):
        stages = EDITIONS[_edition(edition) or "2025"].stage_counts
        shapes = published_shapes(replace(config, stage_counts=stages))
    lines = (f" {json.dumps(name)}: {json.dumps(shape)}" for name, shape in sorted(shapes.items()))
    print("{\n" + ",\n".join(lines) + "\n}", flush=True)
    # the names alone are JSON
    count = sum(map(math.prod, shapes.values()))
    print(f"{len(shapes)} tensors, {count:,} parameters", file=sys.stderr)
