"""Configuration of the network and of a training run. Sizes: report, section 4 and appendices B, C."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_type_hints

from pi_behavior.challenge import MAX_STAGES, STAGE_COUNTS
from pi_behavior.layout import ACTION_HORIZON, CAMERAS, MODEL_DIM

StateEncoding = Literal["digitised", "projected"]
Prediction = Literal["velocity", "clean"]
KVSource = Literal["layerwise", "last", "lower_half"]
Rematerialise = Literal["none", "dots", "all"]
AttentionKind = Literal["auto", "xla", "cudnn"]
STAGE_TOKENS = 4


@dataclass(frozen=True)
class VisionConfig:
    """A SigLIP vision transformer."""

    image_size: int = 224
    """Height and width of the images, in pixels."""
    patch: int = 14
    """Height and width of a patch, in pixels."""
    width: int = 1152
    depth: int = 27
    heads: int = 16
    mlp: int = 4304

    @property
    def tokens(self) -> int:
        """Tokens per image."""
        return (self.image_size // self.patch) ** 2

    def __post_init__(self) -> None:
        """Check that sizes divide."""
        if self.image_size % self.patch:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch {self.patch}")
        if self.width % self.heads:
            raise ValueError(f"vision width {self.width} is not a multiple of heads {self.heads}")


@dataclass(frozen=True)
class ModelConfig:
    """The whole network. The defaults are the published policy's, 3,404.5 M parameters."""

    vision: VisionConfig = VisionConfig()
    width: int = 2048
    """Width of the prefix transformer (Gemma 2B)."""
    mlp: int = 16384
    depth: int = 18
    """Layers of the prefix transformer and of the action expert."""
    heads: int = 8
    kv_heads: int = 1
    head_dim: int = 256
    expert_width: int = 1024
    """Width of the action expert (Gemma 300M)."""
    expert_mlp: int = 4096
    vocabulary: int = 257_152
    """Rows of the token embedding; the state's 256 bins use the first 256."""
    fast_vocabulary: int = 1024
    stage_counts: tuple[int, ...] = STAGE_COUNTS
    """Stages per task; its length is the number of task embeddings."""
    state_encoding: StateEncoding = "digitised"
    """digitised: 32 tokens, one per dimension, from 256 bins (the report). projected: one token, a linear
    map of the state; learns faster from scratch."""
    steps_per_token: int = 1
    """Action steps per token of the expert; 1 is the report's."""
    prediction: Prediction = "velocity"
    """What the expert outputs: the flow's velocity (the report) or the clean chunk, which learns faster at
    small width and is converted to a velocity."""
    freeze_vision: bool = True
    """Train with frozen SigLIP weights (report, appendix B)."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the computation; parameters are float32."""
    rematerialise: Rematerialise = "all"
    """What the backward pass recomputes instead of storing it: nothing, everything but the results of
    matrix products with weights (dots), or all of a layer's activations (all: least memory, a third more
    compute)."""
    attention: AttentionKind = "auto"
    """Implementation of the attention of images and prefix: cudnn on a GPU in bfloat16, else xla."""
    kv_mix: Literal["learned"] | KVSource = "learned"
    """Which layers of the prefix an expert layer reads: a learned combination of all (report, section 4.3),
    or a fixed choice without weights, see `network.kv_mix.source_layers`."""
    kv_mix_start: KVSource = "layerwise"
    """The fixed choice that a learned combination starts as; layerwise is the identity, Pi0.5's pairing."""
    knowledge_insulation: bool = False
    """Stop the action loss's gradient at the KV cache, so that only the stage and FAST losses train the
    prefix; the report's run had it off."""
    stage_conditioning: bool = True
    """Whether the network is told the stage, by the four tokens of stage fusion; without, they are absent."""
    fast: bool = True
    """Whether the FAST embedding and head exist (report, section 4.7)."""
    noise_beta: float = 0.5
    """Shrinkage of the noise correlation: beta Sigma + (1 - beta) I; 0 is white noise."""

    @property
    def tasks(self) -> int:
        """Number of task embeddings."""
        return len(self.stage_counts)

    @property
    def image_tokens(self) -> int:
        """Tokens of all cameras."""
        return len(CAMERAS) * self.vision.tokens

    @property
    def state_tokens(self) -> int:
        """Tokens of the robot's state."""
        return MODEL_DIM if self.state_encoding == "digitised" else 1

    @property
    def stage_tokens(self) -> int:
        """Tokens of stage fusion."""
        return STAGE_TOKENS if self.stage_conditioning else 0

    @property
    def prefix_tokens(self) -> int:
        """Tokens of the prefix without FAST: images, task, stage fusion, state."""
        return self.image_tokens + 1 + self.stage_tokens + self.state_tokens

    @property
    def action_tokens(self) -> int:
        """Tokens of one action chunk."""
        return ACTION_HORIZON // self.steps_per_token

    def __post_init__(self) -> None:
        """Check that sizes fit each other."""
        if ACTION_HORIZON % self.steps_per_token:
            raise ValueError(f"steps_per_token {self.steps_per_token} does not divide {ACTION_HORIZON}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if max(self.stage_counts) > MAX_STAGES:
            raise ValueError(f"a task has {max(self.stage_counts)} stages; at most {MAX_STAGES}")
        if not 0.0 <= self.noise_beta <= 1.0:
            raise ValueError(f"noise_beta {self.noise_beta} is outside [0, 1]")


def _tiny() -> ModelConfig:
    """Trains from scratch on two cores in minutes; the differences to the report are its options."""
    return ModelConfig(
        vision=VisionConfig(image_size=56, patch=14, width=96, depth=2, heads=4, mlp=192),
        width=128,
        mlp=256,
        depth=3,
        heads=4,
        head_dim=32,
        expert_width=128,
        expert_mlp=256,
        vocabulary=256,
        state_encoding="projected",
        steps_per_token=5,
        prediction="clean",
        freeze_vision=False,
        dtype="float32",
        rematerialise="none",
        fast=False,
    )


def _small() -> ModelConfig:
    """About 30 M parameters, for benchmarks and ablations."""
    return ModelConfig(
        vision=VisionConfig(image_size=112, patch=14, width=256, depth=6, heads=4, mlp=1024),
        width=512,
        mlp=1024,
        depth=6,
        heads=8,
        head_dim=64,
        expert_width=256,
        expert_mlp=768,
        vocabulary=256,
        freeze_vision=False,
        dtype="float32",
    )


SIZES = {"tiny": _tiny(), "small": _small(), "full": ModelConfig()}
"""Configurations by name."""


def model_config(size: str, changes: Sequence[str] = ()) -> ModelConfig:
    """Look a configuration up by name, and change fields of it.

    Args:
        size: tiny, small or full.
        changes: fields of ModelConfig as name=value, such as noise_beta=0 or kv_mix=last.

    Raises:
        ValueError: a name is unknown (the message suggests the closest one), or a value does not fit.
    """
    if size not in SIZES:
        raise ValueError(
            f"unknown model size {size!r}: expected one of {', '.join(SIZES)}{_closest(size, SIZES)}"
        )
    config = SIZES[size]
    kinds = get_type_hints(ModelConfig)
    names = [f.name for f in fields(ModelConfig) if isinstance(getattr(config, f.name), str | int | float)]
    values = {}
    for change in changes:
        name, separator, text = change.partition("=")
        if not separator or name not in names:
            raise ValueError(
                f"{change!r} changes no field of the network: expected name=value with one of "
                f"{', '.join(names)}{_closest(name, names)}"
            )
        values[name] = _parse(name, text, kinds[name])
    return replace(config, **values)


def _closest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _parse(name: str, text: str, kind: Any) -> Any:
    """A field's value from text; Literal fields are texts of which only some are allowed."""
    known: Mapping[str, Any] = {str(value): value for part in get_args(kind) for value in _values(part)}
    if kind is bool:
        known = {"true": True, "false": False}
    if known:
        if text.lower() not in known:
            raise ValueError(f"{name} is {text!r}; expected one of {', '.join(known)}")
        return known[text.lower()]
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected a number ({kind.__name__})") from None


def _values(part: Any) -> tuple[Any, ...]:
    """The values of a Literal, also inside of a union."""
    return get_args(part) or (part,)


@dataclass(frozen=True)
class TrainConfig:
    """One training run. The defaults are the report's (8 x H200, 15 days)."""

    steps: int = 20_000
    batch_size: int = 2048
    """Observations per step, over all devices."""
    flow_samples: int = 15
    """(time, noise) pairs per observation, on one prefix pass (report, section 6.2)."""
    peak_learning_rate: float = 1e-4
    final_learning_rate: float = 1e-5
    warmup_steps: int = 1000
    weight_decay: float = 1e-10
    clip_norm: float = 1.0
    """Largest global norm of the gradient."""
    ema_decay: float = 0.99
    """Decay of the exponential moving average of the weights; 0 turns it off."""
    stage_weight: float = 0.1
    """Weight of the stage loss (report, section 6.3.2)."""
    fast_weight: float = 0.05
    """Weight of the FAST loss (report, section 6.3.3)."""
    augment: bool = True
    """Augment images: crop, rotate, colour."""
    fsdp: int = 1
    """Devices over which parameters and optimizer state are sharded; the others are data-parallel."""
    save_every: int = 1000
    log_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("batch_size", "flow_samples", "save_every", "log_every", "fsdp"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.steps < 0 or self.warmup_steps < 0:
            raise ValueError(f"steps {self.steps} and warmup_steps {self.warmup_steps} may not be negative")
