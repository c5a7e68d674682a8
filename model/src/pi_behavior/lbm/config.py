"""Configuration of the Large Behavior Model. The defaults are those of LeRobot's policy."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

from pi_behavior.challenge import TASKS_BY_INDEX
from pi_behavior.config import (
    AttentionKind,
    NetworkConfig,
    NumberType,
    Rematerialise,
    _multiple,
    _positive,
    require,
)
from pi_behavior.layout import ACTION_DIM, ACTION_HORIZON, CAMERAS


@dataclass(frozen=True)
class ClipVisionConfig:
    """CLIP's vision transformer; the defaults are ViT-B/16's."""

    image_size: int = 224
    """Height and width of the images, in pixels."""
    patch: int = 16
    """Height and width of a patch, in pixels."""
    width: int = 768
    """Width of the transformer: numbers per image."""
    depth: int = 12
    """Layers."""
    heads: int = 12
    """Attention heads."""
    mlp: int = 3072
    """Hidden width of the feed-forward layers."""

    def __post_init__(self) -> None:
        """Check that sizes divide."""
        require(
            *_positive(self, "image_size", "patch", "width", "depth", "heads", "mlp"),
            *_multiple(self, ("image_size", "patch"), ("width", "heads")),
        )


@dataclass(frozen=True)
class ClipTextConfig:
    """CLIP's text transformer; the defaults are those of ViT-B/16's partner."""

    vocabulary: int = 49_408
    """Tokens; the last one marks the end of the text."""
    length: int = 77
    """Tokens that are read of a text."""
    width: int = 512
    """Width of the transformer."""
    depth: int = 12
    """Layers."""
    heads: int = 8
    """Attention heads."""
    mlp: int = 2048
    """Hidden width of the feed-forward layers."""

    def __post_init__(self) -> None:
        """Check that sizes divide."""
        require(
            *_positive(self, "vocabulary", "length", "width", "depth", "heads", "mlp"),
            *_multiple(self, ("width", "heads")),
        )


@dataclass(frozen=True)
class DiffusionConfig:
    """Denoising diffusion: the schedule of the noise, what the network predicts, and the sampler."""

    train_steps: int = 100
    """Steps from data to noise."""
    prediction: Literal["epsilon", "sample"] = "epsilon"
    """What the network predicts: the noise, or the clean chunk."""
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    """ddpm draws new noise at every step; ddim draws none."""
    steps: int = 0
    """Steps of the sampler, at most train_steps; 0 is all of them."""
    clip: bool = True
    """Whether the estimate of the clean chunk is clipped at every step."""
    clip_range: float = 1.0
    """Largest magnitude of a clipped estimate."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            *_positive(self, "train_steps"),
            (0 <= self.steps <= self.train_steps, f"steps is {self.steps}; expected 0 to {self.train_steps}"),
            (self.clip_range > 0, f"clip_range is {self.clip_range}; expected more than 0"),
        )


@dataclass(frozen=True)
class FlowConfig:
    """Flow matching from noise (time 0) to data (time 1)."""

    sigma: float = 0.0
    """Noise that is left at time 1."""
    times: Literal["beta", "uniform"] = "beta"
    """Distribution of the times of training; beta favours noisy ones."""
    beta_scale: float = 0.999
    """Largest time of the distribution beta."""
    beta_a: float = 1.5
    """First parameter of the distribution beta."""
    beta_b: float = 1.0
    """Second parameter of the distribution beta."""
    solver: Literal["euler", "rk4"] = "euler"
    """How the flow is integrated: Euler, or the classical Runge-Kutta of fourth order."""
    steps: int = 100
    """Steps of the solver."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            *_positive(self, "steps"),
            (0.0 <= self.sigma < 1.0, f"sigma is {self.sigma}; expected 0 up to, not including, 1"),
            (0 < self.beta_scale <= 1, f"beta_scale is {self.beta_scale}; expected more than 0, at most 1"),
            (
                self.beta_a > 0 and self.beta_b > 0,
                f"beta_a, beta_b are {self.beta_a}, {self.beta_b}; expected more than 0",
            ),
        )


def _encoder_flops(config: ClipVisionConfig | ClipTextConfig, tokens: int) -> int:
    """Forward pass of an encoder's layers for one sequence."""
    e = config.width
    return config.depth * tokens * (8 * e * e + 4 * e * config.mlp + 4 * tokens * e)


_SHAPES = (
    *("vision", "text", "cameras", "state_dim", "action_dim", "observation_steps", "horizon"),
    *("width", "depth", "heads", "time_width", "rotary", "position_table", "separate_vision"),
)


@dataclass(frozen=True)
class LbmConfig(NetworkConfig):
    """The whole policy. With two cameras and seven-dimensional state and action, 248.9 M parameters."""

    presets: ClassVar[Mapping[str, "LbmConfig"]]
    """Configurations by name: lbm (LeRobot's defaults), lbm-tiny, lbm-base. Values given besides a name
    change its fields."""

    vision: ClipVisionConfig = ClipVisionConfig()
    """The transformer that encodes the cameras' images."""
    text: ClipTextConfig = ClipTextConfig()
    """The transformer that encodes the instruction."""
    diffusion: DiffusionConfig = DiffusionConfig()
    """Settings of the objective diffusion."""
    flow: FlowConfig = FlowConfig()
    """Settings of the objective flow."""
    cameras: tuple[str, ...] = CAMERAS
    """Names of the cameras, in the order of their features."""
    state_dim: int = ACTION_DIM
    """Numbers of the robot's state."""
    action_dim: int = ACTION_DIM
    """Numbers of an action."""
    observation_steps: int = 2
    """Observations that are read: the current one and those before it."""
    horizon: int = 32
    """Predicted actions; the first observation_steps - 1 of them are of the past."""
    execute: int = 24
    """Actions that are executed of each chunk, from the current one on."""
    width: int = 512
    """Width of the diffusion transformer."""
    depth: int = 6
    """Blocks of the diffusion transformer."""
    heads: int = 8
    """Attention heads of the diffusion transformer."""
    dropout: float = 0.1
    """Share of the diffusion transformer's attention weights that training drops."""
    time_width: int = 256
    """Width of the embedding of the diffusion step or the flow's time."""
    rotary: bool = True
    """Rotary positions on queries and keys."""
    rotary_base: float = 10_000.0
    """Base of the rotary positions' periods."""
    position_table: bool = False
    """A learned vector per step of the chunk, added to the blocks' input."""
    separate_vision: bool = False
    """An image encoder for each camera instead of one for all."""
    freeze_text: bool = True
    """Train the projection of the text feature alone, and leave CLIP's text transformer as it is."""
    objective: Literal["diffusion", "flow"] = "diffusion"
    """What is trained and sampled."""
    mask_padding: bool = False
    """Leave steps after an episode's end out of the loss."""
    pixels: Literal["imagenet", "clip"] = "imagenet"
    """Whose mean and deviation colours are normalised with; the original uses ImageNet's."""
    resize: tuple[int, ...] = ()
    """Rows and columns that images are resized to; empty for no resizing."""
    crop: tuple[int, ...] = (224, 224)
    """Rows and columns of the crop that follows; empty for none."""
    random_crop: bool = True
    """Crop at random places in training; the centre otherwise."""
    normalisation: Literal["min_max", "percentile"] = "min_max"
    """min_max: state and actions by their extremes, as LeRobot does. percentile: actions by percentiles of
    each step of the chunk, clipped to 1.5, as TRI does; training here takes the 1 % and 99 % that the
    statistics hold (TRI: 2 % and 98 %), and at least one deviation to either side of the mean."""
    dtype: NumberType = "float32"
    """Type of the computation; parameters are float32."""
    rematerialise: Rematerialise = "none"
    """What the backward pass recomputes instead of storing it: nothing, everything but the results of
    matrix products with weights (dots), or all of a layer's activations (all)."""
    attention: AttentionKind = "auto"
    """Implementation of CLIP's attention: cudnn on a GPU in bfloat16, else xla."""

    @property
    def conditioning_width(self) -> int:
        """Numbers of the conditioning vector: state, image features and text feature of every step."""
        features = len(self.cameras) * self.vision.width
        return self.observation_steps * (self.state_dim + features + self.width)

    @property
    def image_size(self) -> int:
        """Height and width of the images that training reads, in pixels."""
        return self.vision.image_size

    @property
    def tasks(self) -> int:
        """Tasks that there is an instruction for."""
        return max(TASKS_BY_INDEX) + 1

    def is_frozen(self, name: str) -> bool:
        """Whether a parameter, by its dotted path, is not trained: CLIP's text transformer."""
        return self.freeze_text and name.startswith("text.") and not name.startswith("text.projection.")

    def training_flops(self, flow_samples: int, fast_tokens: int) -> int:
        """Model FLOPs of loss and gradient for one observation; products alone, see `flops`."""
        vision, text = self.vision, self.text
        patches = (vision.image_size // vision.patch) ** 2
        per_image = 2 * patches * vision.patch**2 * 3 * vision.width + _encoder_flops(vision, 1 + patches)
        images = self.observation_steps * len(self.cameras) * per_image
        instruction = _encoder_flops(text, text.length)
        w, h = self.width, self.horizon
        condition = self.time_width + self.conditioning_width
        block = h * (24 * w * w + 4 * h * w) + 2 * condition * 6 * w
        chunk = self.depth * block + 4 * h * self.action_dim * w + 8 * self.time_width**2
        trained = images + 2 * text.width * w + flow_samples * chunk
        return 3 * trained + (1 if self.freeze_text else 3) * instruction

    @property
    def shaping(self) -> Mapping[str, object]:
        """The fields that decide which parameters there are, and of which shapes."""
        return {name: getattr(self, name) for name in _SHAPES}

    def training_problems(self) -> Iterator[str]:
        """Why the network cannot be trained on the demonstrations, a line each."""
        ahead = self.horizon - self.observation_steps + 1
        if ahead < ACTION_HORIZON:
            yield (
                f"horizon is {self.horizon}, {ahead} actions from now on; training here needs "
                f"{ACTION_HORIZON} of them"
            )
        fixed: dict[str, object] = {
            "cameras": CAMERAS,
            "state_dim": ACTION_DIM,
            "action_dim": ACTION_DIM,
            "normalisation": "percentile",
            "separate_vision": False,
            "mask_padding": False,
        }
        for name, expected in fixed.items():
            if getattr(self, name) != expected:
                yield f"{name} is {getattr(self, name)}; training here reads {expected}"

    @property
    def executed(self) -> slice:
        """Which actions of a chunk are executed."""
        return slice(self.observation_steps - 1, self.observation_steps - 1 + self.execute)

    def __post_init__(self) -> None:
        """Check that sizes fit each other."""
        usable = self.horizon - self.observation_steps + 1
        require(
            *_positive(self, "state_dim", "action_dim", "observation_steps", "horizon", "width", "depth"),
            *_positive(self, "heads", "time_width", "execute"),
            *_multiple(self, ("width", "heads")),
            (bool(self.cameras), "cameras is empty; expected at least one name"),
            (
                len(set(self.cameras)) == len(self.cameras),
                f"cameras is {' '.join(self.cameras)}; expected different names",
            ),
            (
                self.execute <= usable,
                f"execute is {self.execute}; expected at most horizon - observation_steps + 1 = {usable}",
            ),
            (
                self.time_width % 2 == 0 and self.time_width >= 4,
                f"time_width is {self.time_width}; expected an even number from 4 up",
            ),
            (
                not self.rotary or self.width // max(self.heads, 1) % 2 == 0,
                f"width / heads is {self.width / max(self.heads, 1):g}; rotary positions need an even number",
            ),
            (0.0 <= self.dropout < 1.0, f"dropout is {self.dropout}; expected 0 up to, not including, 1"),
            (self.rotary_base > 1.0, f"rotary_base is {self.rotary_base}; expected more than 1"),
            *(
                (
                    not size or (len(size) == 2 and min(size) >= 1),
                    f"{name} is {size}; expected rows and columns, or nothing",
                )
                for name, size in (("resize", self.resize), ("crop", self.crop))
            ),
        )


def _tiny() -> LbmConfig:
    """Trains from scratch on two cores in minutes; the differences to the original are its options."""
    return LbmConfig(
        vision=ClipVisionConfig(image_size=56, patch=14, width=96, depth=2, heads=4, mlp=192),
        text=ClipTextConfig(vocabulary=1024, length=32, width=64, depth=2, heads=4, mlp=128),
        diffusion=DiffusionConfig(prediction="sample", sampler="ddim", steps=10, clip_range=1.5),
        width=128,
        depth=3,
        heads=4,
        dropout=0.0,
        time_width=64,
        freeze_text=False,
        crop=(),
        observation_steps=1,
        horizon=ACTION_HORIZON,
        normalisation="percentile",
    )


LbmConfig.presets = MappingProxyType(
    {
        "lbm": LbmConfig(cameras=("front", "wrist"), state_dim=7, action_dim=7),
        "lbm-tiny": _tiny(),
        "lbm-base": LbmConfig(
            width=768,
            depth=8,
            heads=12,
            resize=(256, 256),
            normalisation="percentile",
            dtype="bfloat16",
            rematerialise="dots",
        ),
    }
)
