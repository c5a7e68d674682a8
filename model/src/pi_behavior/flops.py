"""Model FLOPs of one training step: the matrix products that the network's definition asks for.

A product of [m, k] and [k, n] counts 2 m k n. A trained part costs three times its forward pass (the backward
pass has two products for each), a frozen one its forward pass. Recomputation by rematerialisation, norms,
softmax, rotations and optimizer are not counted, as in the usual definition of model FLOP utilisation
(arXiv 2204.02311, appendix B).
"""

from dataclasses import dataclass

from pi_behavior.challenge import MAX_STAGES
from pi_behavior.config import ModelConfig
from pi_behavior.layout import CAMERAS, MODEL_DIM


@dataclass(frozen=True)
class ForwardFlops:
    """Forward pass of one observation, by part."""

    vision: int
    """Encoder of all cameras."""
    prefix: int
    """Prefix transformer with stage fusion, heads and KV mix."""
    chunk: int
    """Action expert, for one flow sample."""


def forward_flops(config: ModelConfig, fast_tokens: int = 0) -> ForwardFlops:
    """Count a forward pass.

    Args:
        config: the network.
        fast_tokens: FAST tokens in the prefix, padding included.
    """
    return ForwardFlops(_vision(config), _prefix(config, fast_tokens), _chunk(config))


def training_flops(config: ModelConfig, flow_samples: int, fast_tokens: int = 0) -> int:
    """Model FLOPs of loss and gradient for one observation.

    vision x (1 if frozen, else 3) + 3 x (prefix + flow_samples x chunk); with knowledge insulation too, since
    the stage and FAST losses still train the prefix.
    """
    forward = forward_flops(config, fast_tokens)
    return (1 if config.freeze_vision else 3) * forward.vision + 3 * (
        forward.prefix + flow_samples * forward.chunk
    )


def _vision(config: ModelConfig) -> int:
    vision = config.vision
    e, s = vision.width, vision.tokens
    layer = 8 * e * e + 4 * s * e + 4 * e * vision.mlp
    token = 2 * vision.patch**2 * 3 * e + vision.depth * layer + 2 * e * config.width
    return len(CAMERAS) * s * token


def _attention_and_mlp(config: ModelConfig, width: int, mlp: int, keys: int) -> int:
    """One layer, per token, with attention to so many keys."""
    heads, key_value = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return 4 * width * heads + 4 * width * key_value + 6 * width * mlp + 4 * keys * heads


def _prefix(config: ModelConfig, fast_tokens: int) -> int:
    w, tokens = config.width, config.prefix_tokens + fast_tokens
    total = config.depth * tokens * _attention_and_mlp(config, w, config.mlp, tokens)
    total += 2 * w * MAX_STAGES + fast_tokens * 2 * w * config.fast_vocabulary
    if config.stage_conditioning:
        # three gates 2w -> w, w/2, w/2, two layers 2w -> 2w -> w, and the projection w -> w
        total += 2 * (2 * w * 2 * w + 2 * w * 2 * w + 2 * w * w + w * w)
    if config.state_encoding == "projected":
        total += 2 * MODEL_DIM * w
    if config.kv_mix == "learned":
        total += 2 * 2 * config.depth**2 * config.prefix_tokens * config.kv_heads * config.head_dim
    return total


def _chunk(config: ModelConfig) -> int:
    e, tokens = config.expert_width, config.action_tokens
    layer = _attention_and_mlp(config, e, config.expert_mlp, config.prefix_tokens + tokens)
    ends = 2 * 2 * MODEL_DIM * config.steps_per_token * e
    norms = (2 * config.depth + 1) * 2 * e * 3 * e
    return tokens * (config.depth * layer + ends) + norms + 2 * 2 * e * e
