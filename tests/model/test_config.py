"""Configurations: checks, presets, and their JSON documents."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from pi_behavior.config import ModelConfig, from_document
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.training.config import TrainConfig


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (ModelConfig(), {"noise_beta": 2.0}, "noise_beta is 2.0; expected 0 to 1"),
        (ModelConfig(), {"steps_per_token": 4}, "steps_per_token is 4; expected a divisor of 30"),
        (ModelConfig(), {"stage_counts": (5, 16)}, "a task has 16 stages; expected at most 15"),
        (ModelConfig(), {"heads": 6, "kv_heads": 4}, "heads is 6; expected a multiple of kv_heads 4"),
        (ModelConfig().vision, {"image_size": 100}, "image_size is 100; expected a multiple of patch 14"),
        (TrainConfig(), {"log_every": 0}, "log_every is 0; expected at least 1"),
        (TrainConfig(), {"ema_decay": 1.0}, "ema_decay is 1.0; expected 0 up to, not including, 1"),
        (PolicyConfig(), {"seed": 2**32}, "seed is 4294967296; expected an integer of 32 bits"),
    ],
)
def test_values_out_of_range_are_refused(config: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(config, **change)


def test_everything_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"(?s)^depth is 0.*\nvocabulary is -1.*\nnoise_beta is 2"):
        ModelConfig(depth=0, vocabulary=-1, noise_beta=2)


@pytest.mark.parametrize("name", list(ModelConfig.presets))
def test_documents_hold_everything(name: str) -> None:
    config = ModelConfig.presets[name]
    assert from_document(ModelConfig, json.loads(json.dumps(asdict(config)))) == config


def test_a_document_may_lack_fields() -> None:
    assert from_document(PolicyConfig, {"execute": 10}) == PolicyConfig(execute=10)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"depth": 2.5}, r"Expected `int`, got `float` - at `\$.depth`"),
        ({"kv_mix": "none"}, "Invalid enum value 'none'"),
        ({"vision": {"heads": 7}}, "width is 1152; expected a multiple of heads 7"),
        (
            {"vision": {"layers": 7}, "size": 1},
            "ModelConfig has no size, vision.layers; it may be",
        ),
    ],
)
def test_documents_that_do_not_fit_are_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_document(ModelConfig, document)
