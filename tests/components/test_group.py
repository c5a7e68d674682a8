"""Task groups by validation score."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import UserError
from components.evaluation import records
from components.group import stage as group_stage
from components.group.config import Config, Inputs
from components.group.stage import STAGE
from components.plan import config as plan
from components.plan.stage import STAGE as PLAN

TASKS = ("turning_on_radio", "picking_up_trash")


def split(scores, config):
    found = group_stage.split(scores, dict.fromkeys(scores, 1), config)
    assert all(group.q == {task: scores[task] for task in group.tasks} for group in found.groups)
    return {group.name: list(group.tasks) for group in found.groups}, found.rule


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


def evaluations(factory, score, **config):
    inputs = plan.Inputs(factory.model("common", TASKS))
    made = PLAN.execute(plan.Config(**config), inputs, factory.workspace)
    return factory.evaluations(made.artifact, score)


def test_stage(factory):
    # the unfinished rollout counts: 2 of 4
    scores = {100: 1.0, 101: 1.0, 102: 0.0, 103: None}
    found = evaluations(
        factory,
        lambda key: scores[key.index] if key.task == TASKS[0] else 0.0,
        splits=("validation",),
        validation_instances=4,
        workers=2,
    )
    made = STAGE.execute(Config(), Inputs(found), factory.workspace)
    assert made.result.parameters["Output"] == [
        {"name": "best", "tasks": "turning_on_radio"},
        {"name": "bad", "tasks": "picking_up_trash"},
    ]
    assert made.result.summary == "best: turning_on_radio; bad: picking_up_trash"
    content = records.read(made.artifact.path / "groups.json", records.TaskGroups, "")
    assert content.groups[0].q == {"turning_on_radio": 0.5}
    assert content.episodes == dict.fromkeys(TASKS, 4)


def test_no_validation(factory):
    found = evaluations(factory, lambda key: 1.0, splits=("reported",), reported_instances=1)
    with pytest.raises(UserError, match="plan the evaluation with the split validation"):
        STAGE.execute(Config(), Inputs(found), factory.workspace)
