"""Configuration of the network. Sizes: report, section 4 and appendices B, C."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar

import msgspec

from pi_behavior.challenge import EDITIONS, MAX_STAGES, STAGE_COUNTS
from pi_behavior.layout import ACTION_HORIZON, CAMERAS, MODEL_DIM

T = TypeVar("T")
StateEncoding = Literal["digitised", "projected"]
Prediction = Literal["velocity", "clean"]
KVSource = Literal["layerwise", "last", "lower_half"]
Rematerialise = Literal["none", "dots", "all"]
NumberType = Literal["float32", "bfloat16"]
AttentionKind = Literal["auto", "xla", "cudnn"]
STAGE_TOKENS = 4
OPERATIONAL: Mapping[str, bool] = MappingProxyType({"operational": True})
"""Metadata of a field that changes how a run works, not what comes out of it: a changed value makes no other
artifact."""


def require(*requirements: tuple[bool, str]) -> None:
    """Check a configuration, and name everything that is wrong with it at once.

    Args:
        requirements: whether it holds, and what to say if not: the value, and what was expected.

    Raises:
        ValueError: some do not hold; one line for each.
    """
    broken = [message for holds, message in requirements if not holds]
    if broken:
        raise ValueError("\n".join(broken))


def from_document(kind: type[T], document: Mapping[str, Any]) -> T:
    """Make a configuration from its JSON document. Fields that the document lacks have their defaults.

    Raises:
        ValueError: a field is unknown, as one of a later version is, or its value does not fit.
    """
    try:
        config = msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    if unknown := sorted(_unknown(document, msgspec.to_builtins(config))):
        raise ValueError(f"{kind.__name__} has no {', '.join(unknown)}; it may be of another version")
    return config


def _unknown(document: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in document.items():
        if name not in known:
            yield prefix + name
        elif isinstance(value, Mapping):
            yield from _unknown(value, known[name], f"{prefix}{name}.")


def _positive(config: object, *names: str) -> list[tuple[bool, str]]:
    """Requirements: fields of at least 1."""
    return [(getattr(config, n) >= 1, f"{n} is {getattr(config, n)}; expected at least 1") for n in names]


def _multiple(config: object, *pairs: tuple[str, str]) -> list[tuple[bool, str]]:
    """Requirements: the first field of a pair is a multiple of the second."""
    return [
        (
            getattr(config, unit) >= 1 and getattr(config, name) % getattr(config, unit) == 0,
            f"{name} is {getattr(config, name)}; expected a multiple of {unit} {getattr(config, unit)}",
        )
        for name, unit in pairs
    ]


@dataclass(frozen=True)
class NetworkConfig:
    """The configuration of a network of some family: what code outside of the family's folder asks of it.

    Loads without JAX, as every configuration does.
    """

    presets: ClassVar[Mapping[str, "NetworkConfig"]] = MappingProxyType({})
    """Configurations by name, in this class those of all families. Values given besides a name change its
    fields."""

    @property
    def image_size(self) -> int:
        """Height and width of the images that training reads, in pixels."""
        raise NotImplementedError

    @property
    def observation_steps(self) -> int:
        """Observations that are read: the current one and those before it."""
        return 1

    @property
    def horizon(self) -> int:
        """Actions of a chunk; the first observation_steps - 1 of them are of the past."""
        return ACTION_HORIZON

    @property
    def dtype(self) -> NumberType:
        """Type of the computation."""
        raise NotImplementedError

    @property
    def fast_tokens(self) -> int:
        """Most tokens of the FAST tokenizer that training reads; 0 if it reads none."""
        return 0

    @property
    def tasks(self) -> int:
        """Tasks that the network can be asked to do: those with indices below this."""
        raise NotImplementedError

    def is_frozen(self, name: str) -> bool:
        """Whether a parameter, by its dotted path, is not trained."""
        raise NotImplementedError

    def training_flops(self, flow_samples: int, fast_tokens: int) -> int:
        """Model FLOPs of loss and gradient for one observation, see `flops`."""
        raise NotImplementedError

    @property
    def shaping(self) -> Mapping[str, object]:
        """The fields that decide which parameters there are, and of which shapes."""
        raise NotImplementedError

    def training_problems(self) -> Iterator[str]:
        """Why the network cannot be trained on the demonstrations, a line each."""
        return iter(())


@dataclass(frozen=True)
class VisionConfig:
    """A SigLIP vision transformer."""

    image_size: int = 224
    """Height and width of the images, in pixels."""
    patch: int = 14
    """Height and width of a patch, in pixels."""
    width: int = 1152
    """Width of the transformer."""
    depth: int = 27
    """Layers."""
    heads: int = 16
    """Attention heads."""
    mlp: int = 4304
    """Hidden width of the feed-forward layers."""

    @property
    def tokens(self) -> int:
        """Tokens per image."""
        return (self.image_size // self.patch) ** 2

    def __post_init__(self) -> None:
        """Check that sizes divide."""
        require(
            *_positive(self, "image_size", "patch", "width", "depth", "heads", "mlp"),
            *_multiple(self, ("image_size", "patch"), ("width", "heads")),
        )


_SHAPES = (
    *("vision", "width", "mlp", "depth", "heads", "kv_heads", "head_dim", "expert_width", "expert_mlp"),
    *("vocabulary", "fast_vocabulary", "stage_counts", "state_encoding", "steps_per_token", "kv_mix"),
    *("stage_conditioning", "fast"),
)


@dataclass(frozen=True)
class ModelConfig(NetworkConfig):
    """The whole network of the report. The defaults are the published policy's, 3,404.5 M parameters."""

    presets: ClassVar[Mapping[str, "ModelConfig"]]
    """Configurations by name: tiny, small, full (the published network, for the 50 tasks of 2025), full_2026
    (for 100 tasks). Values given besides a name change its fields."""

    vision: VisionConfig = VisionConfig()
    """The transformer that encodes the cameras' images."""
    width: int = 2048
    """Width of the prefix transformer (Gemma 2B)."""
    mlp: int = 16384
    """Hidden width of the prefix transformer's feed-forward layers."""
    depth: int = 18
    """Layers of the prefix transformer and of the action expert."""
    heads: int = 8
    """Attention heads of the prefix transformer and of the action expert."""
    kv_heads: int = 1
    """Heads of keys and values, each shared by several heads of queries."""
    head_dim: int = 256
    """Width of an attention head."""
    expert_width: int = 1024
    """Width of the action expert (Gemma 300M)."""
    expert_mlp: int = 4096
    """Hidden width of the action expert's feed-forward layers."""
    vocabulary: int = 257_152
    """Rows of the token embedding; the state's 256 bins use the first 256."""
    fast_vocabulary: int = 1024
    """Most tokens of the FAST tokenizer."""
    stage_counts: tuple[int, ...] = STAGE_COUNTS
    """Stages per task; its length is the number of task embeddings. The published network's are those of
    2025."""
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
    dtype: NumberType = "bfloat16"
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
    def image_size(self) -> int:
        """Height and width of the images that training reads, in pixels."""
        return self.vision.image_size

    @property
    def fast_tokens(self) -> int:
        """Most tokens of the FAST tokenizer that training reads; 0 if it reads none."""
        return self.fast_vocabulary if self.fast else 0

    def is_frozen(self, name: str) -> bool:
        """Whether a parameter, by its dotted path, is not trained."""
        return self.freeze_vision and name.split(".")[0] == "vision"

    def training_flops(self, flow_samples: int, fast_tokens: int) -> int:
        """Model FLOPs of loss and gradient for one observation, see `flops`."""
        from pi_behavior.flops import training_flops  # it counts from these configurations

        return training_flops(self, flow_samples, fast_tokens)

    @property
    def shaping(self) -> Mapping[str, object]:
        """The fields that decide which parameters there are, and of which shapes."""
        return {name: getattr(self, name) for name in _SHAPES}

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
        require(
            *_positive(self, "width", "mlp", "depth", "heads", "kv_heads", "head_dim", "expert_width"),
            *_positive(self, "expert_mlp", "vocabulary", "fast_vocabulary", "steps_per_token"),
            *_multiple(self, ("heads", "kv_heads")),
            (
                self.steps_per_token > 0 and ACTION_HORIZON % self.steps_per_token == 0,
                f"steps_per_token is {self.steps_per_token}; expected a divisor of {ACTION_HORIZON}",
            ),
            (
                max(self.stage_counts) <= MAX_STAGES,
                f"a task has {max(self.stage_counts)} stages; expected at most {MAX_STAGES}",
            ),
            (0.0 <= self.noise_beta <= 1.0, f"noise_beta is {self.noise_beta}; expected 0 to 1"),
        )


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
        stage_counts=EDITIONS["2026"].stage_counts,
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
        stage_counts=EDITIONS["2026"].stage_counts,
        freeze_vision=False,
        dtype="float32",
    )


ModelConfig.presets = MappingProxyType(
    {
        "tiny": _tiny(),
        "small": _small(),
        "full": ModelConfig(),
        "full_2026": ModelConfig(stage_counts=EDITIONS["2026"].stage_counts),
    }
)
