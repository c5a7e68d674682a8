"""`b1k estimate`: scales as the work does, and the guide shows what it prints."""

import re
from pathlib import Path

import pytest

from components.errors import UserError
from pi_behavior.challenge import TASKS
from pi_behavior.config import ModelConfig
from pi_behavior.flops import training_flops
from pipelines.tools.estimate import Options, Row, estimate, parameters, run

GUIDE = Path(__file__).parents[2] / "docs" / "cluster.md"


def _rows(**options: object) -> dict[str, Row]:
    return {row.what.partition(":")[0]: row for row in estimate(Options(**options)).rows}


def test_training_follows_from_flops_peak_and_utilisation() -> None:
    row = _rows(
        set=(
            (
                "steps=100",
                "batch_size=80",
            ),
        ),
        peak_tflops=500.0,
        utilisation=0.5,
    )["train, all tasks"]
    flops = 100 * 80 * training_flops(ModelConfig.presets["full"], 15, 200)
    assert row.amount == pytest.approx(flops / (500e12 * 0.5) / 3600)
    assert row.hours == pytest.approx(row.amount / 8)


def test_default_utilisation_is_that_of_the_report() -> None:
    """Two epochs of 1.19e8 frames in a month on 8 H200."""
    flops = 2 * 1.19e8 * training_flops(ModelConfig.presets["full"], 15, 200)
    assert Options().utilisation == pytest.approx(flops / (30 * 86400 * 8 * 989e12), abs=0.01)


def test_evaluation_under_the_rules_of_2025_is_as_long_as_the_report_says() -> None:
    """About 10 days on one machine for 50 tasks x 10 instances."""
    row = _rows(set=(("edition=2025",),))["evaluate, common policy on validation"]
    assert row.report == "240 (240 per 500)"
    assert row.amount == pytest.approx(240, rel=0.2)
    assert row.hours == pytest.approx(row.amount / 16, rel=0.05), "16 workers"


def test_rollouts_are_those_of_the_plan() -> None:
    one = _rows(
        set=(
            (
                "tasks=turning_on_radio",
                "workers=1",
            ),
        ),
        startup_seconds=0.0,
    )
    row = one["evaluate, all policies"]
    seconds = TASKS["turning_on_radio"].duration * 30 * 1.5 / 15
    # the group's policy on 10 validation and 10 reported instances, the common one on the latter
    assert row.amount * 3600 == pytest.approx(30 * seconds)
    more = _rows(
        set=(
            (
                "tasks=turning_on_radio",
                "workers=1",
                "untrained=true",
            ),
        ),
        startup_seconds=0.0,
    )
    assert more["evaluate, all policies"].amount * 3600 == pytest.approx(40 * seconds)


def test_the_confirmation_round_is_counted_to_its_last_block() -> None:
    """By hand: 10 rounds in blocks of 2, both sides, of one task; a worker loads the scene for each block."""
    one = _rows(set=(("tasks=turning_on_radio", "workers=1"),), startup_seconds=60.0)
    seconds = TASKS["turning_on_radio"].duration * 30 * 1.5 / 15
    row = one["evaluate, confirmation at most"]
    assert row.what.endswith(": 20 rollouts")
    starts = row.amount * 3600 - 20 * seconds
    assert starts == pytest.approx(5 * 2 * 60), "a process for each side and block"
    few = _rows(set=(("tasks=turning_on_radio", "workers=1", "trial.rounds=3"),), startup_seconds=0.0)
    assert few["evaluate, confirmation at most"].what.endswith(": 8 rollouts"), "whole blocks"


def test_a_queue_that_gives_few_gpus_makes_evaluation_longer_and_not_dearer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many, few = estimate(Options()), estimate(Options(queue=2))
    for one, other in zip(many.rows, few.rows, strict=True):
        if one.what.startswith("evaluate"):
            assert one.hours is not None
            assert other.hours is not None
            assert 6 < other.hours / one.hours < 8.5, "2 workers instead of 16"
            assert other.amount < one.amount * 1.01
    assert run(Options(queue=2)) == 0
    assert "evaluation in a queue with 2 GPUs: 38." in capsys.readouterr().out
    with pytest.raises(UserError, match="--queue 0; expected more than 0"):
        Options(queue=0)


def test_parameters_are_counted_on_the_network() -> None:
    trained, frozen = parameters(ModelConfig.presets["full"])
    assert (trained + frozen) / 1e6 == pytest.approx(3404.5, abs=0.1)
    assert 390e6 < frozen < 430e6


def test_money_only_with_prices(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options(format="markdown")) == 0
    free = capsys.readouterr().out
    assert "cost" not in free
    assert "no prices given" in free
    assert run(Options(format="markdown", training_gpu_hour=2.0)) == 0
    priced = capsys.readouterr().out
    amount = _rows()["train, all tasks"].amount
    (line,) = [line for line in priced.splitlines() if "train, all tasks" in line]
    assert line.rstrip(" |").endswith(f"{2 * amount:,.0f}")
    (evaluate,) = [line for line in priced.splitlines() if "evaluate, all policies" in line]
    assert evaluate.split("|")[-2].strip() == "", "no price was given for these"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "laptop"}, "profile laptop trains without GPUs"),
        ({"set": (("stepz=1",),)}, "no such value of the pipeline"),
        ({"set": (("workers=0",),)}, "workers is 0; expected at least 1"),
        ({"steps_per_second": 0.0}, "expected more than 0"),
        ({"set": (("model=huge",),)}, "expected one of tiny, small, full"),
        ({"utilisation": 1.5}, "expected a share"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        estimate(Options(**options))


def test_guide_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    run(Options(format="markdown"))
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    shown = re.findall(r"^\|.*$", GUIDE.read_text(), re.MULTILINE)
    assert [line for line in printed if line not in shown] == []
