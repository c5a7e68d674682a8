"""A checkpoint to start a training from: CLIP's weights and tokenizer, and random values for the rest."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from pi_behavior import checkpoint
from pi_behavior.checkpoint_description import ORIGIN, CheckpointError
from pi_behavior.files import write_atomic
from pi_behavior.lbm.clip_files import read_clip
from pi_behavior.lbm.config import LbmConfig
from pi_behavior.lbm.network import LargeBehaviorModel
from pi_behavior.lbm.tokens import TextTokenizer
from pi_behavior.tensors import flat_parameters


@dataclass(frozen=True)
class Origin:
    """Weights of others that a checkpoint was made from."""

    name: str
    sha256: str
    """Digest of their folder, as `checkpoint.digest` makes it."""
    licence: str
    """As the folder states it."""


@dataclass(frozen=True)
class _Files:
    tokenizer: TextTokenizer
    origin: Origin
    layout: None = None
    """Of demonstrations, which there were none."""

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder)
        write_atomic(folder / ORIGIN, json.dumps(asdict(self.origin), indent=2) + "\n")


def start_from_clip(source: Path, out: Path, config: LbmConfig, *, seed: int) -> Origin:
    """Write a checkpoint with CLIP's weights; it appears whole or not at all.

    Args:
        source: CLIP as published: model.safetensors, config.json and tokenizer.
        out: the folder to make.
        config: the policy.
        seed: of the parameters that CLIP does not have.

    Raises:
        CheckpointError: `out` exists, weights or tokenizer are absent, or those of another size.
    """
    if out.exists() or out.is_symlink():
        raise CheckpointError(f"{out} is there already; give a folder that does not exist, or remove it")
    tokenizer = TextTokenizer.load(source, config.text.length)
    if tokenizer.vocabulary != config.text.vocabulary:
        raise CheckpointError(
            f"the tokenizer in {source} has {tokenizer.vocabulary} tokens; expected {config.text.vocabulary}"
        )
    weights = read_clip(source, config)
    origin = Origin("CLIP", checkpoint.digest(source), _licence(source))

    def rest() -> dict[str, jax.Array]:
        flat = flat_parameters(nnx.state(LargeBehaviorModel(config, nnx.Rngs(seed)), nnx.Param))
        return {path: array for path, array in flat.items() if path not in weights}

    # compiled, so that random values in place of CLIP's are never made
    made = {path: np.asarray(array) for path, array in jax.jit(rest)().items()}
    files = _Files(tokenizer, origin)
    checkpoint.save(out, {**weights, **made}, config=config, statistics=files, step=0)
    return origin


def _licence(folder: Path) -> str:
    """The licence that a folder of a model hub states: in the head of its README, or as a file."""
    readme = folder / "README.md"
    if readme.is_file() and (
        found := re.search(r"^license:\s*(\S+)", readme.read_text(errors="replace"), re.MULTILINE)
    ):
        return found.group(1)
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        if (folder / name).is_file():
            return (folder / name).read_text(errors="replace").strip().partition("\n")[0]
    return "not stated in the folder"
