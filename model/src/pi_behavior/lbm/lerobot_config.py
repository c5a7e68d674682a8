"""`config.json` of LeRobot's checkpoints of this policy (type multi_task_dit), to and from ours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pi_behavior.checkpoint_description import CheckpointError
from pi_behavior.lbm.config import ClipTextConfig, ClipVisionConfig, DiffusionConfig, FlowConfig, LbmConfig

TYPE = "multi_task_dit"
STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
PUBLISHED_CLIP = "openai/clip-vit-base-patch16"
SCHEDULE = "squaredcos_cap_v2"


@dataclass(frozen=True)
class _Setting:
    """One key, and the field of ours that it is."""

    path: str
    read: Callable[[Any], Any] = lambda value: value
    write: Callable[[Any], Any] = lambda value: value


def _choice(**names: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Their names for ours, both ways."""
    theirs = {value: key for key, value in names.items()}

    def read(value: Any) -> str:
        if value not in theirs:
            raise ValueError(f"{value!r}; expected {' or '.join(theirs)}")
        return theirs[value]

    return read, names.__getitem__


def _size(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value or ()))


_SETTINGS: Mapping[str, _Setting] = {
    "n_obs_steps": _Setting("observation_steps"),
    "horizon": _Setting("horizon"),
    "n_action_steps": _Setting("execute"),
    "objective": _Setting("objective", *_choice(diffusion="diffusion", flow="flow_matching")),
    "noise_scheduler_type": _Setting("diffusion.sampler", *_choice(ddpm="DDPM", ddim="DDIM")),
    "num_train_timesteps": _Setting("diffusion.train_steps"),
    "prediction_type": _Setting("diffusion.prediction", *_choice(epsilon="epsilon", sample="sample")),
    "clip_sample": _Setting("diffusion.clip"),
    "clip_sample_range": _Setting("diffusion.clip_range"),
    "num_inference_steps": _Setting("diffusion.steps", lambda v: v or 0, lambda v: v or None),
    "sigma_min": _Setting("flow.sigma"),
    "num_integration_steps": _Setting("flow.steps"),
    "integration_method": _Setting("flow.solver", *_choice(euler="euler", rk4="rk4")),
    "timestep_sampling_strategy": _Setting("flow.times", *_choice(beta="beta", uniform="uniform")),
    "timestep_sampling_s": _Setting("flow.beta_scale"),
    "timestep_sampling_alpha": _Setting("flow.beta_a"),
    "timestep_sampling_beta": _Setting("flow.beta_b"),
    "hidden_dim": _Setting("width"),
    "num_layers": _Setting("depth"),
    "num_heads": _Setting("heads"),
    "dropout": _Setting("dropout"),
    "use_positional_encoding": _Setting("position_table"),
    "timestep_embed_dim": _Setting("time_width"),
    "use_rope": _Setting("rotary"),
    "rope_base": _Setting("rotary_base"),
    "use_separate_rgb_encoder_per_camera": _Setting("separate_vision"),
    "image_resize_shape": _Setting("resize", _size, lambda v: list(v) or None),
    "image_crop_shape": _Setting("crop", _size, lambda v: list(v) or None),
    "image_crop_is_random": _Setting("random_crop"),
    "do_mask_loss_for_padding": _Setting("mask_padding"),
    "tokenizer_max_length": _Setting("text.length"),
}
_FIXED: Mapping[str, Any] = {
    "type": TYPE,
    "beta_schedule": SCHEDULE,
    "tokenizer_padding": "max_length",
    "tokenizer_padding_side": "right",
    "tokenizer_truncation": True,
}
"""Keys whose value is always the same here."""
_OTHER: Mapping[str, Any] = {
    "vision_encoder_name": PUBLISHED_CLIP,
    "text_encoder_name": PUBLISHED_CLIP,
    "vision_encoder_lr_multiplier": 0.1,
    "optimizer_lr": 2e-5,
    "optimizer_betas": [0.95, 0.999],
    "optimizer_eps": 1e-8,
    "optimizer_weight_decay": 0.0,
    "scheduler_name": "cosine",
    "scheduler_warmup_steps": 0,
}
"""Keys that say how it was trained, with the values that we write: a policy in use does not need them."""
_IGNORED = {
    *("input_features", "output_features", "normalization_mapping", "beta_start", "beta_end"),
    *("drop_n_last_frames", "device", "use_amp", "use_peft", "push_to_hub", "repo_id", "private", "tags"),
    *("license", "pretrained_path", "use_separate_encoder_per_camera"),
}
"""Keys that are read elsewhere, or that change nothing."""
_MAPPING = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}


def read_config_document(
    document: Mapping[str, Any], vision: ClipVisionConfig, text: ClipTextConfig
) -> LbmConfig:
    """The policy that a `config.json` describes.

    Args:
        document: the parsed file.
        vision: sizes of the image encoder, which the file does not have.
        text: sizes of the text encoder.

    Raises:
        CheckpointError: it is that of another policy, or a key is unknown or has a value that cannot be used;
            the message lists all of them.
    """
    if document.get("type") != TYPE:
        raise CheckpointError(f"config.json is of the type {document.get('type')!r}; expected {TYPE}")
    known = {*_SETTINGS, *_FIXED, *_OTHER, *_IGNORED}
    problems = [
        f"{key} is {value!r}; this version does not know the key"
        for key, value in document.items()
        if key not in known and value is not None
    ]
    problems += [
        f"{key} is {document[key]!r}; expected {value!r}"
        for key, value in _FIXED.items()
        if key in document and document[key] != value
    ]
    found: dict[str, dict[str, Any]] = {}
    given = dict(document)
    if "use_separate_encoder_per_camera" in given:  # its name in older versions
        given.setdefault("use_separate_rgb_encoder_per_camera", given["use_separate_encoder_per_camera"])
    for key, setting in _SETTINGS.items():
        if key not in given:
            continue
        section, _, name = setting.path.rpartition(".")
        try:
            found.setdefault(section, {})[name] = setting.read(given[key])
        except (ValueError, TypeError) as error:
            problems.append(f"{key} is {error}")
    problems += [
        f"normalization_mapping has {kind} {mode}; expected {_MAPPING.get(kind, 'no such kind')}"
        for kind, mode in (document.get("normalization_mapping") or {}).items()
        if mode != _MAPPING.get(kind)
    ]
    if problems:
        raise CheckpointError("config.json cannot be used:\n  " + "\n  ".join(problems))
    try:
        return LbmConfig(
            vision=vision,
            text=replace(text, **found.get("text", {})),
            diffusion=DiffusionConfig(**found.get("diffusion", {})),
            flow=FlowConfig(**found.get("flow", {})),
            **_features(document),
            **found[""],
        )
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"config.json cannot be used: {error}") from error


def _features(document: Mapping[str, Any]) -> dict[str, Any]:
    inputs, outputs = document["input_features"], document["output_features"]
    cameras = tuple(name.removeprefix(IMAGES) for name, f in inputs.items() if f["type"] == "VISUAL")
    return {
        "cameras": cameras,
        "state_dim": int(inputs[STATE]["shape"][0]),
        "action_dim": int(outputs[ACTION]["shape"][0]),
    }


def write_config_document(config: LbmConfig, clip: str) -> dict[str, Any]:
    """The `config.json` of a policy.

    Args:
        config: the policy.
        clip: name or folder of the CLIP that its encoders are like.
    """
    rows, columns = config.resize or config.crop or (config.vision.image_size,) * 2
    inputs: dict[str, Any] = {STATE: {"type": "STATE", "shape": [config.state_dim]}}
    for camera in config.cameras:
        inputs[IMAGES + camera] = {"type": "VISUAL", "shape": [3, rows, columns]}
    document: dict[str, Any] = {
        **_FIXED,
        "input_features": inputs,
        "output_features": {ACTION: {"type": "ACTION", "shape": [config.action_dim]}},
        "normalization_mapping": dict(_MAPPING),
        **_OTHER,
        "vision_encoder_name": clip,
        "text_encoder_name": clip,
    }
    for key, setting in _SETTINGS.items():
        value: Any = config
        for name in setting.path.split("."):
            value = getattr(value, name)
        document[key] = setting.write(value)
    return document
