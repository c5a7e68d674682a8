"""Task groups by validation score."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.group import stage as group_stage
from components.group.stage import Config, split
from components.plan import stage as plan_stage
from components.runtime.errors import UserError

TASKS = ("turning_on_radio", "picking_up_trash")


def test_thresholds():
    scores = {"a": 0.5, "b": 0.49, "c": 0.0, "d": 1.0}
    assert split(scores, Config()) == ({"best": ["d", "a"], "good": ["b"], "bad": ["c"]}, "thresholds")


def test_empty_groups_are_dropped():
    assert split({"a": 0.0, "b": 0.0}, Config()) == ({"bad": ["a", "b"]}, "thresholds")


def test_minimum_splits_by_rank():
    scores = {"a": 0.1, "b": 0.3, "c": 0.2}
    assert split(scores, Config(minimum=2)) == ({"best": ["b", "c"], "good": ["a"]}, "rank")
    assert split({"a": 0.1}, Config(minimum=3)) == ({"good": ["a"]}, "thresholds")


@given(
    st.dictionaries(st.text("abc", min_size=1), st.floats(0, 1), min_size=1, max_size=20),
    st.integers(1, 3),
)
def test_every_task_is_in_one_group(scores, minimum):
    groups, _ = split(scores, Config(minimum=minimum))
    assert sorted(task for tasks in groups.values() for task in tasks) == sorted(scores)
    assert all(groups.values())
    assert len(groups) >= min(minimum, len(scores))
    # a task of a better group never scores less
    ranked = [scores[task] for name in ("best", "good", "bad") for task in groups.get(name, [])]
    assert ranked == sorted(ranked, reverse=True)


@pytest.mark.parametrize(
    "change", [{"best": 0.1, "good": 0.2}, {"best": 1.1}, {"good": -0.1}, {"minimum": 0}, {"minimum": 4}]
)
def test_bad_config(change):
    with pytest.raises(ValueError, match="expected"):
        Config(**change)


def test_stage(factory):
    config = plan_stage.Config(sets=("validation",), validation_instances=4, workers=2)
    inputs = plan_stage.Inputs((factory.model("common", TASKS),))
    plan, _, _ = plan_stage.STAGE.execute(config, inputs, factory.workspace)
    # the unfinished rollout counts: 2 of 4
    scores = {100: 1.0, 101: 1.0, 102: 0.0, 103: None}
    evaluations = factory.evaluations(plan, lambda key: scores[key.index] if key.task == TASKS[0] else 0.0)
    artifact, result, _ = group_stage.STAGE.execute(
        Config(), group_stage.Inputs(evaluations), factory.workspace
    )
    assert result.parameters["Output"] == [
        {"name": "best", "tasks": "turning_on_radio"},
        {"name": "bad", "tasks": "picking_up_trash"},
    ]
    content = json.loads((artifact.path / "groups.json").read_text())
    assert content["groups"][0]["q"] == {"turning_on_radio": 0.5}


def test_no_validation(factory):
    config = plan_stage.Config(sets=("reported",), reported_instances=1)
    inputs = plan_stage.Inputs((factory.model("common", TASKS),))
    plan, _, _ = plan_stage.STAGE.execute(config, inputs, factory.workspace)
    evaluations = factory.evaluations(plan, lambda key: 1.0)
    with pytest.raises(UserError, match=r"plan the evaluation with --config\.sets validation"):
        group_stage.STAGE.execute(Config(), group_stage.Inputs(evaluations), factory.workspace)
