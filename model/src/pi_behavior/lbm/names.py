"""Names of the policy's tensors in files: LeRobot's checkpoints, CLIP's as published, and plain ones.

Our layers are stacked along a leading axis, and kernels are [in, out]; published ones have a name for each
layer, and are [out, in].
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from flax import nnx

from pi_behavior.checkpoint_description import CheckpointError
from pi_behavior.lbm.config import LbmConfig
from pi_behavior.lbm.network import LargeBehaviorModel
from pi_behavior.tensors import flat_parameters

Form = Literal["same", "linear", "patch", "row"]
"""How a published tensor differs: not; [out, in]; [out, channel, row, column]; one more leading axis."""
VISION, TEXT = "observation_encoder.vision_encoder", "observation_encoder.text_encoder"
_VISION_LEVELS, _TEXT_LEVELS = ".model.vision_model.", ".text_encoder.text_model."
_CLIP = {
    "class_token": "embeddings.class_embedding",
    "position": "embeddings.position_embedding.weight",
    "patch": "embeddings.patch_embedding.weight",
    "token": "embeddings.token_embedding.weight",
    "pre_norm": "pre_layrnorm",
    "post_norm": "post_layernorm",
    "final_norm": "final_layer_norm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "mlp_in": "mlp.fc1",
    "mlp_out": "mlp.fc2",
}
_DIT = {
    "time_in": "time_mlp.1",
    "time_out": "time_mlp.3",
    "input_proj": "input_proj",
    "output_proj": "output_proj",
    "position": "pos_embedding",
    "adaln": "adaLN_modulation.1",
    "mlp_in": "mlp.0",
    "mlp_out": "mlp.2",
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a published file."""

    name: str
    """Its name in LeRobot's checkpoints."""
    plain: str
    """Its name in plain files: our path, with slashes and the number of the layer."""
    path: str
    """The dotted path of the parameter of ours that it is a part of."""
    index: tuple[int, ...]
    """Where in that parameter it is: encoder and layer, where these are stacked."""
    form: Form
    shape: tuple[int, ...]
    """As published."""

    @property
    def place(self) -> tuple[str, str]:
        """How its name begins and ends, whatever the levels between; of CLIP's parts they differ."""
        for part, levels in ((VISION, _VISION_LEVELS), (TEXT, _TEXT_LEVELS)):
            before, found, after = self.name.partition(levels)
            if found and before.startswith(part):
                return f"{before}.", f".{after}"
        return self.name, self.name

    @property
    def clip(self) -> str:
        """Its name in CLIP's own files; empty where it is none of CLIP's."""
        for levels in (_VISION_LEVELS, _TEXT_LEVELS):
            _, found, after = self.name.partition(levels)
            if found:
                return f"{levels.strip('.').rpartition('.')[2]}.{after}"
        return ""

    @property
    def our_shape(self) -> tuple[int, ...]:
        """Its shape in our form."""
        return self.to_ours(np.broadcast_to(np.float32(0.0), self.shape)).shape

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """A published tensor as float32 in our form."""
        array = np.asarray(tensor, np.float32)
        if self.form == "row":
            return array[0]
        return array.transpose(_AXES[self.form]) if self.form in _AXES else array

    def to_published(self, tensor: np.ndarray) -> np.ndarray:
        """Invert `to_ours`."""
        if self.form == "row":
            return tensor[None]
        back = np.argsort(_AXES[self.form]) if self.form in _AXES else None
        return np.ascontiguousarray(tensor if back is None else tensor.transpose(back))


_AXES = {"linear": (1, 0), "patch": (2, 3, 1, 0)}


@cache
def entries(config: LbmConfig) -> tuple[Entry, ...]:
    """All tensors of a policy in published files; takes no memory."""
    model = nnx.eval_shape(lambda: LargeBehaviorModel(config, nnx.Rngs(0)))
    shapes = {path: leaf.shape for path, leaf in flat_parameters(nnx.state(model, nnx.Param)).items()}
    return tuple(entry for path, shape in shapes.items() for entry in _entries(config, path, shape))


def _entries(config: LbmConfig, path: str, shape: tuple[int, ...]) -> Iterator[Entry]:
    part, *names = path.split(".")
    separate = part == "vision" and config.separate_vision
    stacked = names[0] in ("layers", "blocks")
    axes = shape[: separate + stacked]
    for index in np.ndindex(*axes):
        encoder = str(index[0]) if separate else ""
        layer = str(index[-1]) if stacked else ""
        name, form = _published(config, part, names, encoder, layer)
        inner = shape[len(axes) :]
        if form in _AXES:
            inner = tuple(inner[axis] for axis in np.argsort(_AXES[form]))
        plain = [part, encoder, names[0], layer, *names[1:], "kernel" if names[-1] == "patch" else ""]
        yield Entry(
            name=name,
            plain="/".join(word for word in plain if word),
            path=path,
            index=tuple(map(int, index)),
            form=form,
            shape=(1, *inner) if form == "row" else inner,
        )


def _published(config: LbmConfig, part: str, names: list[str], encoder: str, layer: str) -> tuple[str, Form]:
    """LeRobot's name of a tensor, and its form."""
    leaf = names[-1] if names[-1] in ("kernel", "scale", "bias") else ""
    module = names[-2] if leaf else names[-1]
    ending = {"kernel": ".weight", "scale": ".weight", "bias": ".bias", "": ""}[leaf]
    form: Form = "linear" if leaf == "kernel" else "same"
    if part == "dit":
        inside = f"transformer_blocks.{layer}." if layer else ""
        if module == "position":
            form = "row"
        if module not in ("qkv", "attn_out"):
            return f"noise_predictor.{inside}{_DIT[module]}{ending}", form
        attention = {"qkv": "attn.qkv_proj", "attn_out": "attn.out_proj"}
        if not config.rotary:
            attention = {"qkv": "multihead_attn.in_proj", "attn_out": "multihead_attn.out_proj"}
            ending = ending.replace(".", "_") if module == "qkv" else ending
        return f"noise_predictor.{inside}{attention[module]}{ending}", form
    if module == "projection":
        return f"{TEXT}.projection{ending}", form
    place = TEXT + _TEXT_LEVELS if part == "text" else VISION + _VISION_LEVELS
    if encoder:
        place = f"{VISION}s.{encoder}{_VISION_LEVELS}"
    inside = f"encoder.layers.{layer}." if layer else ""
    return f"{place}{inside}{_CLIP[module]}{ending}", "patch" if module == "patch" else form


def assemble(
    config: LbmConfig, tensors: Mapping[str, np.ndarray], *, key: Literal["name", "plain"], optional: str = ""
) -> dict[str, np.ndarray]:
    """All parameters of a policy; see `assemble_parts`."""
    return assemble_parts(entries(config), tensors, key=key, optional=optional)


def assemble_parts(
    parts: Iterable[Entry],
    tensors: Mapping[str, np.ndarray],
    *,
    key: Literal["name", "plain"],
    optional: str = "",
) -> dict[str, np.ndarray]:
    """Parameters by our dotted path, from tensors in other names.

    Args:
        parts: the tensors that the parameters consist of.
        tensors: published tensors in LeRobot's form and names, or plain ones in ours.
        key: which names they have.
        optional: part of a path whose tensors may be absent; they are zero then.

    Raises:
        CheckpointError: names are missing, or shapes differ; the message lists all of them.
    """
    problems: list[str] = []
    stacked: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    for entry in parts:
        name = getattr(entry, key)
        tensor = tensors.get(name)
        shape = entry.shape if key == "name" else entry.our_shape
        if tensor is None and optional and optional in entry.path:
            tensor = np.zeros(shape, np.float32)
        if tensor is None:
            problems.append(f"missing {name}")
        elif tensor.shape != shape:
            problems.append(f"{name} has the shape {tensor.shape}, expected {shape}")
        else:
            ours = entry.to_ours(tensor) if key == "name" else np.asarray(tensor, np.float32)
            stacked.setdefault(entry.path, {})[entry.index] = ours
    if problems:
        raise CheckpointError("the tensors do not fit the network:\n  " + "\n  ".join(sorted(problems)))
    return {path: _stack(found) for path, found in stacked.items()}


def _stack(parts: Mapping[tuple[int, ...], np.ndarray]) -> np.ndarray:
    if () in parts:
        return parts[()]
    lengths = [max(index) + 1 for index in zip(*parts, strict=True)]
    return np.stack([parts[index] for index in np.ndindex(*lengths)]).reshape(
        *lengths, *next(iter(parts.values())).shape
    )
