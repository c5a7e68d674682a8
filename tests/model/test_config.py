"""Sizes by name and changes to them."""

import pytest

from pi_behavior.config import SIZES, model_config


def test_changes_set_fields_of_every_kind() -> None:
    changed = model_config(
        "tiny", ["noise_beta=0", "kv_mix=lower_half", "fast=true", "depth=4", "kv_mix=last", "dtype=bfloat16"]
    )
    assert (changed.noise_beta, changed.kv_mix, changed.fast, changed.depth) == (0.0, "last", True, 4)
    assert changed.dtype == "bfloat16"
    assert changed.vision == SIZES["tiny"].vision
    assert model_config("tiny") == SIZES["tiny"]


@pytest.mark.parametrize(
    ("size", "change", "message"),
    [
        ("tiyn", "", "unknown model size 'tiyn'.*did you mean 'tiny'"),
        ("tiny", "noise_bet=0", "changes no field.*did you mean 'noise_beta'"),
        ("tiny", "fast", "expected name=value"),
        ("tiny", "fast=1", "fast is '1'; expected one of true, false"),
        ("tiny", "kv_mix=none", "expected one of learned, layerwise, last, lower_half"),
        ("tiny", "depth=2.5", r"depth is '2.5'; expected a number \(int\)"),
        ("tiny", "noise_beta=2", r"noise_beta 2.0 is outside \[0, 1\]"),
        ("tiny", "vision=4", "changes no field"),
    ],
)
def test_what_does_not_fit_is_refused(size: str, change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_config(size, [change] if change else [])
