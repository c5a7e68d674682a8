"""Names of the published checkpoints' tensors, by our own parameter paths; shapes are equal."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from flax import nnx

from pi_behavior.checkpoint import flat_parameters, update_parameters
from pi_behavior.network import PiBehavior

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


def published_shapes(model: PiBehavior) -> dict[str, tuple[int, ...]]:
    """Published names and shapes of a model; works on the result of nnx.eval_shape, without memory."""
    flat = flat_parameters(nnx.state(model, nnx.Param))
    return {NAMES[path]: tuple(leaf.shape) for path, leaf in flat.items()}


def load_published(model: PiBehavior, tensors: Mapping[str, Any]) -> None:
    """Set every parameter from tensors in the published names, in place.

    Raises:
        ValueError: names are missing or unknown, or shapes differ; the message lists all of them.
    """
    arrays = {name: jnp.asarray(tensor, jnp.float32) for name, tensor in tensors.items()}
    update_parameters(nnx.state(model, nnx.Param), arrays, NAMES)
