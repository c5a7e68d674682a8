"""The plan: complete, balanced, deterministic."""

import dataclasses
import json
from collections import Counter

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from components.errors import UserError
from components.evaluation.evaluator import Order
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import Plan, Policy
from components.evaluation.timeline import timeline
from components.plan.config import Config, Inputs
from components.plan.stage import STAGE
from components.store import lineage
from pi_behavior.checkpoint_description import write_config
from pi_behavior.families import SIZES
from pi_behavior.policy.config import PolicyConfig

TASKS = ("turning_on_radio", "picking_up_trash")


def config(**changes):
    values = {"validation_instances": 6, "reported_instances": 5, "workers": 2, "videos": 2}
    return Config(**{**values, **changes})


def rollouts(plan: Plan):
    return Counter((j.policy, j.task, j.split, i, i in j.videos) for j in plan.jobs for i in j.instances)


def test_first_evaluation(factory):
    common = factory.model("common", TASKS)
    policy = PolicyConfig(execute=10, compress_from=13, inpainting="off", clip=True)
    settings = config(splits=("validation",), policy=policy)
    made = STAGE.execute(settings, Inputs(common), factory.workspace)
    plan = Plan.load(made.artifact.path)
    assert made.result.parameters["Output"] == [{"worker": "0"}, {"worker": "1"}]
    assert made.result.summary == "12 rollouts on 2 tasks"
    # unseen training instances: the demonstrations use the first 100
    assert rollouts(plan) == {
        ("common", t, "validation", i, False): 1 for t in TASKS for i in range(100, 106)
    }
    assert (plan.tasks, plan.policy) == (TASKS, policy)
    assert plan.policies == {"common": Policy(common.uri, common.digest, "checkpoint")}
    assert (factory.workspace / plan.policies["common"].checkpoint).is_dir()
    # another number of workers is the same plan
    more = dataclasses.replace(settings, workers=5)
    again = STAGE.execute(more, Inputs(common), factory.workspace)
    assert (again.cached, again.artifact) == (True, made.artifact)
    assert again.result.parameters["Output"] == [{"worker": str(number)} for number in range(5)]
    assert "with 5 workers" in STAGE.details(more, made.artifact)


def test_a_long_plan_says_what_fewer_workers_mean_in_days(factory):
    common = factory.model("common", TASKS)
    made = STAGE.execute(config(splits=("validation",)), Inputs(common), factory.workspace)
    plan = Plan.load(made.artifact.path)
    assert "queue" not in timeline(plan, 8), "hours"
    # by hand: 2 jobs of 6 rollouts of half a day; 1 worker does 12 of them, 2 do 6 each, 4 do 3, 6 do 2
    jobs = tuple(dataclasses.replace(job, seconds=43_200.0) for job in plan.jobs)
    long = dataclasses.replace(plan, jobs=jobs, startup=0.0)
    assert "in days, if a queue lets fewer run: 4: 1.5, 2: 3.0, 1: 6.0\n" in timeline(long, 6)
    assert "queue" not in timeline(long, 1)


@pytest.mark.parametrize(("size", "expected"), [("tiny", 10), ("lbm-base", 0)])
def test_chunks_are_not_replayed_for_policies_that_read_several_observations(factory, size, expected):
    common = factory.model(size, TASKS)
    with pytest.raises(UserError, match="is not a policy checkpoint"):
        STAGE.execute(config(action_chunk_size=10), Inputs(common), factory.workspace)
    write_config(common.path / "checkpoint", SIZES[size], 1)
    made = STAGE.execute(config(action_chunk_size=10), Inputs(common), factory.workspace)
    assert Plan.load(made.artifact.path).action_chunk_size == expected


def test_second_evaluation(factory):
    common = factory.model("common", TASKS)
    groups = (factory.model("best", TASKS[:1]), factory.model("bad", TASKS[1:]))
    settings = config(untrained=True, workers=3)
    plan = Plan.load(STAGE.execute(settings, Inputs(common, groups), factory.workspace).artifact.path)
    expected = Counter()
    for group, task in (("group:best", TASKS[0]), ("group:bad", TASKS[1])):
        expected.update((group, task, "validation", i, False) for i in range(100, 106))
        for policy in (group, "common", "untrained"):
            # the household records every reported rollout of the trained policies
            trained = policy != "untrained"
            expected.update((policy, task, "reported", i, trained or i < 2) for i in range(5))
    assert rollouts(plan) == expected
    assert set(plan.policies) == {"common", "group:best", "group:bad", "untrained"}
    assert plan.policies["untrained"] == Policy(common.uri, common.digest, "initial")


def test_two_groups_of_one_name(factory):
    common = factory.model("common", TASKS)
    groups = (factory.model("best", TASKS[:1]), factory.model("best", TASKS[1:]))
    with pytest.raises(UserError, match="two policies of groups have the name best"):
        STAGE.execute(config(), Inputs(common, groups), factory.workspace)


def test_fewer_rollouts_than_workers(factory):
    only = config(splits=("reported",), reported_instances=1, workers=5, videos=0)
    made = STAGE.execute(only, Inputs(factory.model("common", TASKS[:1])), factory.workspace)
    assert made.result.parameters["Output"] == [{"worker": "0"}]


def test_a_trained_policy_by_its_folder(factory, tmp_path):
    common = factory.model("common", TASKS)
    made = STAGE.execute(config(trained=str(common.path)), Inputs(), factory.workspace)
    plan = Plan.load(made.artifact.path)
    assert plan.policies == {"common": Policy(common.uri, common.digest, "checkpoint")}
    # its lineage is followed, and other weights at the same place are another plan
    assert common.path in {node.path for node in lineage.chain(made.artifact)}
    factory.retrained(common, TASKS)
    again = STAGE.execute(config(trained=str(common.path)), Inputs(), factory.workspace)
    assert (again.cached, again.artifact.path == made.artifact.path) == (False, False)
    with pytest.raises(UserError, match=r"both are given .* expected one of them"):
        STAGE.execute(config(trained=str(common.path)), Inputs(common), factory.workspace)
    with pytest.raises(UserError, match=r"neither is given .* expected one of them"):
        STAGE.execute(config(), Inputs(), factory.workspace)
    with pytest.raises(UserError, match="is not an artifact"):
        STAGE.execute(config(trained=str(tmp_path / "none")), Inputs(), factory.workspace)
    with pytest.raises(UserError, match=r"the plan artifact .* has no checkpoint"):
        STAGE.execute(config(trained=str(made.artifact.path), tasks=TASKS), Inputs(), factory.workspace)
    with pytest.raises(UserError, match="lies outside of the workspace"):
        STAGE.execute(config(trained=str(common.path)), Inputs(), tmp_path / "another")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ("turning_on_radios",)}, "did you mean 'turning_on_radio'"),
        ({"splits": ()}, "expected validation, reported or both"),
        ({"workers": 0}, "expected at least 1"),
        (
            {"evaluator": "omnigibson", "reported_instances": 11},
            "expected at most 10, the reported instances",
        ),
        ({"validation_instances": 51}, "expected at most 50, the validation instances"),
        ({"evaluator": "omnigibson", "edition": "2025", "rollouts": 2}, "rolls each instance out once"),
        (
            {"evaluator": "omnigibson", "policy": PolicyConfig(voting="oracle")},
            "omnigibson cannot tell the true stage",
        ),
    ],
)
def test_bad_config(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_no_initial_checkpoint(factory):
    common = factory.model("common", TASKS, initial=False)
    with pytest.raises(UserError, match="train the common policy with keep_initial"):
        STAGE.execute(config(untrained=True), Inputs(common), factory.workspace)


def test_command_line_of_the_official_evaluator(tmp_path):
    assert command("2026", tmp_path, indices=(10, 11)) == [
        *("omnigibson-python", "-m", "omnigibson.eval.eval", "--task-name", "turning_on_radio"),
        *("--host", "127.0.0.1", "--port", "8000", "--instance-indices", "10", "11", "--num-rollouts", "1"),
        *("--mode", "public_test", "--output-dir", str(tmp_path), "--headless", "--write-video"),
        *("--replay-action-chunk-size", "10"),
    ]
    own = {"wrapper": "a.Wrapper", "robot_config": "robot.yaml", "environments": 2}
    assert command("2026", tmp_path, indices=(10, 11), **own)[-8:] == [
        *("--num-envs", "2", "--replay-action-chunk-size", "10"),
        *("--env-wrapper", "a.Wrapper", "--robot-config", "robot.yaml"),
    ]
    assert find_evaluator("omnigibson", "2026").instance_ids("turning_on_radio", "reported", [0]) == [301]
    household = find_evaluator("household", "2026")
    assert household.instance_ids("turning_on_radio", "validation", [100, 101]) == [101, 102]


def test_command_line_of_the_official_evaluator_of_2025(tmp_path):
    common = [
        *("omnigibson-python", "-m", "omnigibson.learning.eval", "policy=websocket"),
        *("task.name=turning_on_radio", "model.host=127.0.0.1", "model.port=8000"),
    ]
    folder = tmp_path / "of (2), a=b"
    rest = [f'log_path="{folder}"', "write_video=true", "headless=true"]
    reported = command("2025", folder, indices=(0, 9), split="reported")
    assert reported == [*common, "eval_instance_ids=[0,9]", *rest]
    # all public test instances are reported, so checkpoints are chosen on training instances
    validation = command("2025", folder, indices=(3,))
    assert validation == [*common, "eval_instance_ids=[3]", *rest, "eval_on_train_instances=true"]
    parsed = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(validation[3:])}
    assert parsed == {
        "policy": "websocket",
        "task.name": "turning_on_radio",
        "model.host": "127.0.0.1",
        "model.port": 8000,
        "eval_instance_ids": [3],
        "log_path": str(folder),
        "write_video": True,
        "headless": True,
        "eval_on_train_instances": True,
    }


def test_instance_ids_of_2025_come_from_the_challenges_metadata(tmp_path, monkeypatch):
    evaluator = find_evaluator("omnigibson", "2025")
    monkeypatch.delenv("OMNIGIBSON_DATA_PATH", raising=False)
    with pytest.raises(UserError, match="OMNIGIBSON_DATA_PATH is not set"):
        evaluator.instance_ids("picking_up_trash", "reported", [0])
    monkeypatch.setenv("OMNIGIBSON_DATA_PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"test_instances\.csv cannot be read .* download"):
        evaluator.instance_ids("picking_up_trash", "reported", [0])
    metadata = tmp_path / "2025-challenge-task-instances" / "metadata"
    metadata.mkdir(parents=True)
    (metadata / "test_instances.csv").write_text(
        'id,name,ids\n0,turning_on_radio,"5,6"\n1,picking_up_trash," 41, 208"\n'
    )
    episodes = [10, 20, 10020, 10070, 11990, 20010]
    lines = [json.dumps({"episode_index": e, "length": 9}) for e in episodes]
    (metadata / "episodes.jsonl").write_text("\n".join(lines))
    assert evaluator.instance_ids("picking_up_trash", "reported", [1, 0]) == [208, 41]
    assert evaluator.instance_ids("picking_up_trash", "validation", [0, 1, 2]) == [2, 7, 199]
    with pytest.raises(UserError, match="has 2 instances of turning_on_radio; index 2 was asked for"):
        evaluator.instance_ids("turning_on_radio", "reported", [2])
    with pytest.raises(UserError, match="no instance ids of hanging_pictures"):
        evaluator.instance_ids("hanging_pictures", "reported", [0])


def command(edition, output, *, indices, split="validation", **more):
    return find_evaluator("omnigibson", edition).command(
        Order(
            task="turning_on_radio",
            split=split,
            indices=indices,
            rollouts=1,
            videos=indices,
            host="127.0.0.1",
            port=8000,
            output=output,
            image_size=224,
            action_chunk_size=10,
            oracle_stage=False,
            **more,
        )
    )


def test_broken_plan(tmp_path):
    with pytest.raises(UserError, match="give an artifact of the stage plan"):
        Plan.load(tmp_path)
    (tmp_path / "plan.json").write_text('{"jobs": [{}]}')
    with pytest.raises(UserError, match="damaged or of another version"):
        Plan.load(tmp_path)


def test_wrapper_and_robot_of_a_plan(factory, tmp_path):
    """They lie in the artifact, are part of what it is, and are refused where the evaluator has its own."""
    common = Inputs(factory.model("common", TASKS))
    wrapper, robot = tmp_path / "mine.py", tmp_path / "robot.yaml"
    values = {
        "evaluator": "omnigibson",
        "wrapper": str(wrapper),
        "wrapper_class": "Wrapper",
        "robot_config": str(robot),
    }
    wrapper.write_text("class Wrapper: ...")
    with pytest.raises(UserError, match=r"robot_config is .*robot\.yaml, which is not a file"):
        STAGE.execute(Config(**values), common, factory.workspace)
    places = set()
    for text in ("cameras: 2", "cameras: 3"):
        robot.write_text(text)
        made = STAGE.execute(Config(**values), common, factory.workspace).artifact
        found = Plan.load(made.path)
        assert found.wrapper == "mine.Wrapper"
        contents = {what: path.read_text() for what, path in found.files(made.path).items()}
        assert contents == {"wrapper": "class Wrapper: ...", "robot_config": text}
        places.add(made.path)
    assert len(places) == 2
    for given, words in (
        ({"robot_config": "r.yaml"}, "robot_config is 'r.yaml'; expected nothing: the evaluator household"),
        ({**values, "wrapper_class": ""}, "the name of a class in it"),
        ({"evaluator": "omnigibson", "edition": "2025", "robot_config": "r.yaml"}, "of 2025 has its own"),
    ):
        with pytest.raises(ValueError, match=words):
            Config(**given)
    plain = {"evaluator": "omnigibson", "wrapper_class": "omnigibson.eval.wrappers.RGBDFullResWrapper"}
    assert Config(**plain).wrapper_name == plain["wrapper_class"]
