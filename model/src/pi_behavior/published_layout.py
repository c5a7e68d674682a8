"""Names and sizes of the published checkpoints' tensors; those of ours have other names and equal shapes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from flax import nnx

from pi_behavior.challenge import EDITIONS, edition_of_tasks
from pi_behavior.checkpoint_description import CheckpointError
from pi_behavior.config import ModelConfig, NetworkConfig, VisionConfig
from pi_behavior.families import family_of
from pi_behavior.network import PiBehavior
from pi_behavior.tensors import check_tensors, flat_parameters, update_parameters

_BLOCK = "PaliGemma/img/Transformer/encoderblock"
_ATTENTION = f"{_BLOCK}/MultiHeadDotProductAttention_0"
_LLM = "PaliGemma/llm"


def _vision() -> dict[str, str]:
    names = {
        "patch_kernel": "PaliGemma/img/embedding/kernel",
        "patch_bias": "PaliGemma/img/embedding/bias",
        "positions": "PaliGemma/img/pos_embedding",
        "norm_scale": "PaliGemma/img/Transformer/encoder_norm/scale",
        "norm_bias": "PaliGemma/img/Transformer/encoder_norm/bias",
        "head_kernel": "PaliGemma/img/head/kernel",
        "head_bias": "PaliGemma/img/head/bias",
    }
    for index in "01":
        for part in ("scale", "bias"):
            names[f"blocks.norm_{index}_{part}"] = f"{_BLOCK}/LayerNorm_{index}/{part}"
        for part in ("kernel", "bias"):
            names[f"blocks.mlp_{index}_{part}"] = f"{_BLOCK}/MlpBlock_0/Dense_{index}/{part}"
    for head in ("query", "key", "value", "out"):
        for part in ("kernel", "bias"):
            names[f"blocks.{head}_{part}"] = f"{_ATTENTION}/{head}/{part}"
    return {f"vision.{ours}": published for ours, published in names.items()}


def _transformer(ours: str, suffix: str) -> dict[str, str]:
    layers = f"{_LLM}/layers"
    names = {
        "layers.attention.query": f"{layers}/attn/q_einsum{suffix}/w",
        "layers.attention.key_value": f"{layers}/attn/kv_einsum{suffix}/w",
        "layers.attention.output": f"{layers}/attn/attn_vec_einsum{suffix}/w",
        "layers.mlp.gate_up": f"{layers}/mlp{suffix}/gating_einsum",
        "layers.mlp.down": f"{layers}/mlp{suffix}/linear",
    }
    norms = {
        "layers.attention_norm": f"{layers}/pre_attention_norm",
        "layers.mlp_norm": f"{layers}/pre_ffw_norm",
        "final_norm": f"{_LLM}/final_norm",
    }
    for name, published in norms.items():
        if suffix:
            names |= _dense(f"{name}.modulation", f"{published}{suffix}/Dense_0")
        else:
            names[name] = f"{published}/scale"
    return {f"{ours}.{name}": published for name, published in names.items()}


def _dense(ours: str, published: str) -> dict[str, str]:
    return {f"{ours}.{part}": f"{published}/{part}" for part in ("kernel", "bias")}


def _names() -> dict[str, str]:
    names = {
        **_vision(),
        **_transformer("prefix", ""),
        **_transformer("expert", "_1"),
        "token_embeddings": f"{_LLM}/embedder/input_embedding",
        "task_embeddings": "task_embeddings/embedding",
        "stage_fusion.stage_embeddings": "task_stage_embeddings/embedding",
        "fast_embeddings": "fast_token_embedding/embedding",
        "kv_mix.key_coefficients": "kv_transform/k_coeffs",
        "kv_mix.key_bias": "kv_transform/k_bias",
        "kv_mix.value_coefficients": "kv_transform/v_coeffs",
        "kv_mix.value_bias": "kv_transform/v_bias",
    }
    dense = {
        "stage_fusion.gate_task": "gate_task",
        "stage_fusion.gate_sincos": "gate_sincos",
        "stage_fusion.gate_stage": "gate_task_stage",
        "stage_fusion.balanced_0": "fusion_layer1",
        "stage_fusion.balanced_1": "fusion_layer2",
        "stage_fusion.stage_projection": "stage_projection",
        "stage_head": "stage_pred_from_vlm",
        "fast_head": "fast_token_proj",
        "time_in": "time_mlp_in",
        "time_out": "time_mlp_out",
        "action_in": "action_in_proj",
        "action_out": "action_out_proj",
    }
    for ours, published in dense.items():
        names |= _dense(ours, published)
    return names


NAMES: Mapping[str, str] = MappingProxyType(_names())
"""Published name of every parameter of the report's network, by our dotted path."""


_NEW = ("task_embeddings", "stage_fusion", "fast_embeddings", "fast_head", "kv_mix", "stage_head")
BASE_NAMES: Mapping[str, str] = MappingProxyType(
    {path: name for path, name in NAMES.items() if path.split(".")[0] not in _NEW}
)
"""The part of NAMES that Pi0.5 base has; training starts from random values for the others."""

Shapes = dict[str, tuple[int, ...]]


def network_shapes(config: NetworkConfig) -> Shapes:
    """Shapes of a network's parameters by dotted path; takes no memory."""
    model = nnx.eval_shape(lambda: family_of(config).create(config, nnx.Rngs(0)))
    return {path: tuple(leaf.shape) for path, leaf in flat_parameters(nnx.state(model, nnx.Param)).items()}


def published_shapes(config: ModelConfig) -> Shapes:
    """Published names and shapes of a network's parameters; takes no memory.

    Raises:
        CheckpointError: the network has other parameters than the published one, or gives them another
            meaning; the message lists all differences.
    """
    shapes, published = network_shapes(config), ModelConfig()
    problems = [f"parameter {path} has no published name" for path in shapes.keys() - NAMES.keys()]
    problems += [f"there is no parameter for {NAMES[path]}" for path in NAMES.keys() - shapes.keys()]
    # these change what the same names mean
    problems += [
        f"{name} is {getattr(config, name)!r}; published is {getattr(published, name)!r}"
        for name in ("prediction", "steps_per_token")
        if getattr(config, name) != getattr(published, name)
    ]
    if config.stage_counts not in {edition.stage_counts for edition in EDITIONS.values()}:
        problems.append(f"the stages of its {config.tasks} tasks are not those of an edition")
    if problems:
        raise CheckpointError(
            "this network has no published form; use one of size small or full:\n  "
            + "\n  ".join(sorted(problems))
        )
    return {NAMES[path]: shape for path, shape in shapes.items()}


_TOKENS = "image tokens"
_PROBE = ModelConfig(
    vision=VisionConfig(image_size=65, patch=13, width=119, depth=19, heads=7, mlp=23),
    width=58,
    mlp=31,
    depth=37,
    heads=86,
    kv_heads=43,
    head_dim=47,
    expert_width=53,
    expert_mlp=59,
    vocabulary=61,
    fast_vocabulary=67,
)
"""Every size differs from all others, so that an axis of a tensor tells which size it is."""


@cache
def _axes() -> tuple[tuple[str, int, int, str], ...]:
    """Rows of (published name, its number of axes, axis, the size that this axis is)."""
    vision = ("patch", "width", "depth", "heads", "mlp")
    model = ("width", "mlp", "depth", "heads", "kv_heads", "head_dim", "expert_width", "expert_mlp")
    size_of = {getattr(_PROBE.vision, name): f"vision {name}" for name in vision}
    size_of |= {getattr(_PROBE, name): name for name in (*model, "vocabulary", "fast_vocabulary")}
    size_of[_PROBE.vision.tokens] = _TOKENS
    return tuple(
        (name, len(shape), axis, size_of[size])
        for name, shape in published_shapes(_PROBE).items()
        for axis, size in enumerate(shape)
        if size in size_of
    )


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """Work out a published network's sizes from the shapes of its tensors.

    The majority decides where tensors contradict each other, so that a later comparison names the wrong
    ones. Sizes of which no tensor tells are the defaults, as are all settings.

    Raises:
        CheckpointError: the sizes do not fit each other.
    """
    votes: dict[str, Counter[int]] = {}
    for name, rank, axis, size in _axes():
        shape = shapes.get(name, ())
        if len(shape) == rank and shape[axis] > 0:
            votes.setdefault(size, Counter())[shape[axis]] += 1
    sizes = {size: counter.most_common(1)[0][0] for size, counter in votes.items()}
    tokens = sizes.pop(_TOKENS, 0)
    vision = {name.removeprefix("vision "): n for name, n in sizes.items() if name.startswith("vision ")}
    if tokens:
        vision["image_size"] = round(tokens**0.5) * vision.get("patch", VisionConfig.patch)
    elif "patch" in vision:
        vision["image_size"] = vision["patch"] * 16
    others: dict[str, Any] = {name: n for name, n in sizes.items() if not name.startswith("vision ")}
    tasks = next(iter(shapes.get(NAMES["task_embeddings"], ())), 0)
    if edition := edition_of_tasks(tasks):
        others["stage_counts"] = EDITIONS[edition].stage_counts
    try:
        return replace(ModelConfig(), vision=replace(VisionConfig(), **vision), **others)
    except ValueError as error:
        raise CheckpointError(
            f"the sizes of the checkpoint's tensors do not fit each other: {error}"
        ) from error


def check_published(tensors: Mapping[str, Any], config: ModelConfig, names: Mapping[str, str]) -> None:
    """Compare tensors in published names with what a network of these sizes has.

    Args:
        tensors: anything with shapes, by published name.
        config: the network.
        names: NAMES or BASE_NAMES.

    Raises:
        CheckpointError: names or shapes differ; the message lists all of them.
    """
    shapes = published_shapes(config)
    check_tensors({name: shapes[name] for name in names.values()}, tensors)


def load_published(model: PiBehavior, tensors: Mapping[str, Any]) -> None:
    """Set every parameter from tensors in the published names, in place.

    Raises:
        CheckpointError: names are missing or unknown, or shapes differ; the message lists all of them.
    """
    arrays = {name: jnp.asarray(tensor, jnp.float32) for name, tensor in tensors.items()}
    update_parameters(nnx.state(model, nnx.Param), arrays, NAMES)
