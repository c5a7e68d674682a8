"""Values of any origin come to the types of a configuration, and every mistake is said."""

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.runtime.values import (
    InvalidValuesError,
    build,
    convert,
    fields,
    flat,
    merge,
    nested,
    spread,
)
from pi_behavior.config import require


@dataclass(frozen=True)
class Inner:
    """Inside."""

    presets: ClassVar[dict[str, "Inner"]]
    width: int = 1
    """How wide,
    in pixels."""
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            (self.width > 0, f"width is {self.width}; expected more than 0"),
            (self.seed >= 0, f"seed is {self.seed}; expected 0 or more"),
        )


Inner.presets = {"small": Inner(), "large": Inner(10)}


@dataclass(frozen=True)
class Base:
    """What is inherited."""

    rate: float = 0.5
    """Rate."""


@dataclass(frozen=True)
class Outer(Base):
    """Outside."""

    names: tuple[str, ...] = ()
    """Names."""
    mode: Literal["on", "off"] = "on"
    """Mode."""
    seed: int = 0
    """Seed."""
    deep: bool = False
    """Deep."""
    inner: Inner = Inner.presets["small"]
    """The inside."""


configurations = st.builds(
    Outer,
    rate=st.floats(allow_nan=False, allow_infinity=False),
    names=st.lists(st.from_regex(r"[a-z_]{1,5}", fullmatch=True)).map(tuple),
    mode=st.sampled_from(["on", "off"]),
    seed=st.integers(0, 2**31),
    deep=st.booleans(),
    inner=st.builds(Inner, width=st.integers(1, 2**31), seed=st.integers(0, 9)),
)


def _as_kfp_passes(value: object) -> object:
    """Whole numbers inside of objects as floating point."""
    if isinstance(value, dict):
        return {name: _as_kfp_passes(inner) for name, inner in value.items()}
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@given(configurations)
def test_json_text_and_kfps_numbers_come_back_as_they_were(config: Outer) -> None:
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    assert build(Outer, merge(Outer, values)) == config
    assert build(Outer, merge(Outer, _as_kfp_passes(values))) == config
    assert build(Outer, merge(Outer, json.dumps(values))) == config
    texts: dict[str, object] = {}
    for path, value in flat(values):
        text = " ".join(value) if isinstance(value, list) else str(value)
        texts = merge(Outer, texts, nested(path, text))
    assert build(Outer, texts) == config


@given(configurations, configurations)
def test_later_values_count_and_others_stay(first: Outer, second: Outer) -> None:
    below, above = dataclasses.asdict(first), {"inner": {"width": second.inner.width}, "mode": second.mode}
    made = build(Outer, merge(Outer, below, above))
    assert (made.inner.width, made.mode) == (second.inner.width, second.mode)
    assert (made.inner.seed, made.seed, made.rate) == (first.inner.seed, first.seed, first.rate)


def test_a_preset_keeps_the_changes_to_it_wherever_its_name_comes() -> None:
    changed = {"inner": {"seed": 3}}
    for layers in ([{"inner": "large"}, changed], [changed, {"inner": "large"}]):
        assert build(Outer, merge(Outer, *layers)).inner == Inner(10, 3)


def test_one_value_reaches_every_field_of_its_name() -> None:
    assert spread(Outer, {"seed": 4, "other": 1}) == {"seed": 4, "inner": {"seed": 4}}


def test_fields_know_paths_documentation_and_choices() -> None:
    found = {one.path: one for one in fields(Outer)}
    assert list(found) == ["rate", "names", "mode", "seed", "deep", "inner", "inner.width", "inner.seed"]
    assert found["inner.width"].documentation == "How wide, in pixels."
    assert found["rate"].documentation == "Rate."
    assert found["mode"].choices == ("on", "off")
    assert found["inner"].choices == ("small", "large")


def test_all_mistakes_are_said_at_once() -> None:
    values = {
        "rate": "fast",
        "seed": 1.5,
        "mode": "of",
        "deep": "yes",
        "names": 3,
        "inner": {"width": 0, "seed": -1},
        "sed": 1,
    }
    with pytest.raises(InvalidValuesError) as raised:
        build(Outer, merge(Outer, values), "stage.")
    assert raised.value.lines == (
        "stage.rate is 'fast'; expected a number",
        "stage.seed is 1.5; expected a whole number",
        "stage.mode is 'of'; expected one of on, off",
        "stage.deep is 'yes'; expected true or false",
        "stage.names is 3; expected a list, each text",
        "stage.inner.width is 0; expected more than 0",
        "stage.inner.seed is -1; expected 0 or more",
        "stage.sed does not exist; expected one of rate, names, mode, seed, deep, inner; did you mean seed?",
    )


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ("huge", "inner is 'huge'; expected one of small, large"),
        (3, "inner is 3; expected an object"),
        ({"": "huge"}, "expected one of small, large"),
    ],
)
def test_wrong_presets(inner: object, message: str) -> None:
    with pytest.raises(InvalidValuesError, match=message):
        build(Outer, merge(Outer, {"inner": inner}))


@pytest.mark.parametrize("value", ["nan", "inf", float("nan"), True, None, [1]])
def test_numbers_are_finite_numbers(value: object) -> None:
    with pytest.raises(ValueError, match="a number"):
        convert(float, value)
