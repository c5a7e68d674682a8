"""What a run is refused for, before anything of it starts."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.champion import Champion
from components.evaluation.records import Conditions, Reference
from components.runtime.values import InvalidValuesError
from components.settings.checks import Arguments, parse, resolve
from components.settings.contradictions import Place
from components.settings.sections import INPUTS, PIPELINES, inputs, is_free
from components.settings.stage import STAGE
from pi_behavior.config import ModelConfig
from pi_behavior.families import SIZES
from pi_behavior.policy.config import PolicyConfig

WHOLE = "train_and_evaluate"


def _resolve(*words: str, pipeline: str = WHOLE, place: Place | None = None, **settings: object) -> dict:
    given, mistakes = parse(pipeline, ("repository=/r", *words) if pipeline != "evaluate" else words)
    given.settings |= settings
    return resolve(pipeline, Arguments(), given, place or Place(), mistakes)


def _refusals(*words: str, **options: object) -> tuple[str, ...]:
    with pytest.raises(InvalidValuesError) as raised:
        _resolve(*words, **options)
    return raised.value.lines


def test_an_input_reaches_all_its_stages_and_a_setting_its_field() -> None:
    words = ("seed=5", "tasks=turning_on_radio", "group_steps=7", "best=0.6", "train.learning_rate.peak=3e-5")
    found = _resolve(*words, "inpainting=off", "model=small", "train.model.noise_beta=0")
    assert [found[name].seed for name in ("train", "leaderboard")] == [5, 5]
    assert found["plan"].policy.seed == 5
    assert {found[name].tasks for name in ("statistics", "train", "plan")} == {("turning_on_radio",)}
    assert (found["finetune"].steps, found["train"].steps) == (7, 20_000)
    assert found["group"].best == 0.6
    assert found["plan"].policy.inpainting == "off"
    small = ModelConfig.presets["small"]
    assert found["train"].model == dataclasses.replace(small, noise_beta=0.0)


def test_fine_tuning_is_what_training_is_but_for_its_own_section() -> None:
    found = _resolve("train.learning_rate.peak=3e-5", "finetune.warmup_steps=4", "batch_size=8")
    train, finetune = found["train"], found["finetune"]
    assert finetune.learning_rate == train.learning_rate
    assert (finetune.batch_size, finetune.warmup_steps, train.warmup_steps) == (8, 4, 1000)
    assert _resolve(finetune={"batch_size": 4})["finetune"].batch_size == 4


def test_a_demo_is_of_the_simulator_that_collects_and_of_pictures_of_one_size() -> None:
    assert _resolve("episodes=3", "plan.image_size=56", pipeline="demo")["collect"].episodes == 3
    lines = _refusals("evaluator=omnigibson", "collect.image_size=64", pipeline="demo")
    assert [line.partition(";")[0] for line in lines] == [
        "evaluator is omnigibson",
        "collect.image_size is 64 and plan.image_size 224",
    ]
    (line,) = _refusals("plan.image_size=56", pipeline="demo", dataset={"revision": "main"})
    assert line.startswith("dataset.revision is set by the pipeline")


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_inputs_are_few_and_every_other_field_is_a_setting(pipeline: str) -> None:
    typed = inputs(pipeline)
    assert len(typed) <= 15
    assert set(typed) <= {*INPUTS, "policy"}
    free = [
        f"{section.name}.{one.path}"
        for section in PIPELINES[pipeline]
        for one in section.fields
        if is_free(pipeline, section, one)
    ]
    assert "leaderboard.team" in free
    assert not {"train.steps", "train.name", "plan.splits", "finetune.tasks"} & set(free)
    assert all(
        one.documentation for section in PIPELINES[pipeline] for one in section.fields if "." in one.path
    )


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (("steps",), ["--set got 'steps'; expected name=value"]),
        (("stepz=3",), [f"--set stepz: there is no such value of the pipeline {WHOLE}; did you mean steps?"]),
        (("steps=three",), ["steps is 'three'; expected a whole number"]),
        (("steps=-1",), ["steps is -1; expected 0 or more"]),
        (("batch_size=0",), ["batch_size is 0; expected at least 1"]),
        (("edition=2024",), ["edition is '2024'; expected one of 2025, 2026"]),
        (("model=huge",), [f"model is 'huge'; expected one of {', '.join(SIZES)}"]),
        (("augment=maybe",), ["augment is 'maybe'; expected true or false"]),
        (("voting=no",), ["voting is 'no'; expected one of published, off, oracle"]),
        (("best=1.5",), ["group.best is 1.5 and good 0.0; expected 0 <= good < best <= 1"]),
        (("team=a.b",), ["leaderboard.team is 'a.b'; expected a name without dots and slashes"]),
        (("track=x",), ["--set track may mean train.track or leaderboard.track; give one of these names"]),
        (("steps=1", "steps=2"), ["steps is given twice: 1 and 2; give it once"]),
        (("steps=1", "train.steps=2"), ["steps is given twice: 1 and 2; give it once"]),
        (("best=0.7", "group.best=0.8"), ["group.best is given twice: 0.7 and 0.8; give it once"]),
        (("compress_from=3",), [
            "plan.policy.compress_from is 3; expected at least execute, 20, which is no compression",
            "plan.policy.compress_from is 3; a cubic spline needs 4 steps",
        ]),
        (("repository=",), ["repository is given twice: /r and ; give it once"]),
        (("fsdp=3",), ["train.fsdp is 3; expected a divisor of the 1 devices of a training"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_was_expected(words: tuple[str, ...], lines: list[str]) -> None:
    assert _refusals(*words) == tuple(lines)


def test_the_same_value_twice_is_no_mistake() -> None:
    assert _resolve("steps=1", "train.steps=1", train={"steps": 1.0})["train"].steps == 1


def test_mistakes_of_all_stages_are_said_together() -> None:
    settings = {"train": {"steps": 3, "name": "x"}, "plan": {"policy": {"execute": 99}}, "foo": 1}
    lines = _refusals("steps=5", "best=0", "tasks=turning_on_radios", "team=", **settings)
    assert [line.split()[0] for line in lines] == [
        "steps", "train.name", "settings.foo:", "tasks:", "plan.policy.compress_from", "group.best",
        "leaderboard.team",
    ]  # fmt: skip
    assert "steps is given twice: 5 as input, 3 in settings as train.steps" in lines[0]
    assert "did you mean 'turning_on_radio'" in lines[3]


def test_settings_as_json_and_words_add_up() -> None:
    words = ('settings={"train": {"warmup_steps": 3.0}}', "train.clip_norm=2", "train.log_every=9")
    train = _resolve(*words)["train"]
    assert (train.warmup_steps, train.clip_norm, train.log_every) == (3, 2.0, 9)
    assert "settings are not JSON" in _refusals("settings={")[0]


def test_what_is_missing_is_asked_for() -> None:
    given, _ = parse(WHOLE, ())
    with pytest.raises(InvalidValuesError, match="repository is empty"):
        resolve(WHOLE, Arguments(), given, Place())
    resolve(WHOLE, Arguments(), given, Place(complete=False))
    assert "policy is empty" in _refusals(pipeline="evaluate")[0]


def test_stages_fit_each_other_and_the_machine(tmp_path: Path) -> None:
    eight = Place(train_gpus=8)
    assert _refusals("fsdp=3", "batch_size=12", place=eight) == (
        "train.fsdp is 3; expected a divisor of the 8 devices of a training",
        "train.batch_size is 12; expected a multiple of the 8 GPUs of training",
    )
    assert _refusals(finetune={"batch_size": 4}, place=eight) == (
        "finetune.batch_size is 4; expected a multiple of the 8 GPUs of training",
    )
    assert "fast_vocabulary is 2048" in _refusals("model=full", "statistics.fast_vocabulary=2048")[0]
    _resolve("model=full", "statistics.fast_vocabulary=0", "train.model.fast=false")
    here = Place(workspace=tmp_path)
    for section in ("news", "trial"):
        (refusal,) = _refusals(f"{section}.champion=/a", pipeline="retrain", place=here)
        assert refusal.startswith(f"{section}.champion is '/a' and promote.champion ''; expected the same")
    oracle = _refusals(
        "voting=oracle", "evaluator=omnigibson", "reported_instances=11", "rollouts=2", "edition=2025"
    )
    assert [line.split()[0] for line in oracle] == [
        "plan.policy.voting",
        "reported_instances",
        "plan.rollouts",
    ]


def test_folders_are_looked_at_where_they_can_be_seen(tmp_path: Path) -> None:
    here = Place(workspace=tmp_path)
    nothing = f"initial_checkpoint={tmp_path / 'nothing'}"
    _resolve(nothing)
    assert "is not a policy checkpoint" in _refusals(nothing, place=here)[0]
    assert (
        "there is no such file"
        in _refusals("wrapper=/none.py", "wrapper_class=W", "evaluator=omnigibson", place=here)[0]
    )
    assert "there is no such folder" in _refusals("policy=/none", pipeline="evaluate", place=here)[0]
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    described = {"step": 1, "model": dataclasses.asdict(ModelConfig.presets["small"])}
    (checkpoint / "checkpoint.json").write_text(json.dumps(described))
    start = f"initial_checkpoint={checkpoint}"
    _resolve(start, "model=small", "train.model.noise_beta=0", place=here)
    assert "has another network than model" in _refusals(start, "model=tiny", place=here)[0]


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_word_is_a_value_or_a_mistake(name: str, value: str) -> None:
    given, mistakes = parse(WHOLE, (f"{name}={value}",))
    assert bool(mistakes) != bool(given.inputs or given.settings or value.strip() == "{}")


def test_a_champion_that_cannot_be_compared_with_is_refused_before_the_run(tmp_path: Path) -> None:
    here, file = Place(workspace=tmp_path), tmp_path / "champion" / "champion.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"leaderboard": {"uri": "", "digest": ""}, "checkpoints": {}, "episodes": {}}))
    assert "of another version" in _refusals(place=here)[0]
    conditions = Conditions("2026", "omnigibson", 0, true_stage=False)
    policy = PolicyConfig()
    Champion(conditions, Reference("", ""), {}, policy, 0, {}, {}, "2026-01-01", format=4).replace(
        None, file.parent
    )
    refusal = _refusals(place=here)[0]
    assert "evaluator is omnigibson for the champion and household for the challenger" in refusal
    _resolve("evaluator=omnigibson", place=here)
    _resolve("promote.force=why", "promote.by=who", place=here)


def _task(tmp_path: Path, **parameters: object) -> list[str]:
    out = tmp_path / "out"
    outputs = {
        "artifacts": {"values": {"artifacts": [{"name": "values", "uri": str(out / "artifact")}]}},
        "outputFile": str(out / "executor_output.json"),
    }
    values = {
        "pipeline": WHOLE,
        "train_gpus": 0.0,
        "profile": {},
        "settings": {},
        "sections": "",
        **parameters,
    }
    document = json.dumps({"inputs": {"parameterValues": values}, "outputs": outputs})
    return ["--executor-input", document, "--workspace", str(tmp_path / "workspace")]


def test_the_task_settings_refuses_what_was_typed_into_the_ui(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        STAGE.main(_task(tmp_path, repository="", steps=-1.0, settings={"group": {"best": 1.5}}))
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "2 mistakes" in said
    assert "steps is -1" in said
    assert "group.best is 1.5" in said


def test_the_task_settings_looks_at_files_again_where_the_same_values_were_right_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text("")
    plan = {"wrapper": str(wrapper), "wrapper_class": "Wrapper"}
    values = {"repository": "/r", "evaluator": "omnigibson", "settings": {"plan": plan}}
    for code in (0, 2):
        with pytest.raises(SystemExit) as stop:
            STAGE.main(_task(tmp_path, **values))
        assert stop.value.code == code
        wrapper.unlink(missing_ok=True)
    assert "there is no such file" in capsys.readouterr().err


def test_the_task_settings_writes_down_the_whole_configuration(tmp_path: Path) -> None:
    profile = {"train": {"learning_rate": {"peak": 0.5}}, "plan": {"policy": {"execute": 10.0}}}
    with pytest.raises(SystemExit) as stop:
        STAGE.main(
            _task(tmp_path, repository="/r", steps=9.0, profile=profile, settings={"group": {"best": 0.9}})
        )
    assert stop.value.code == 0
    (path,) = (tmp_path / "workspace").glob("artifacts/settings/*/settings.json")
    found = json.loads(path.read_text())
    assert (found["train"]["steps"], found["train"]["learning_rate"]["peak"]) == (9, 0.5)
    assert (found["plan"]["policy"]["execute"], found["group"]["best"]) == (10, 0.9)
