"""Promotion on evidence only."""

import dataclasses
import json

import msgspec
import pytest

from components.errors import UserError
from components.evaluation import records
from components.evaluation.records import Champion, Reference
from components.leaderboard import config as leaderboard
from components.leaderboard.stage import STAGE as LEADERBOARD
from components.plan import config as plan_config
from components.plan.stage import STAGE as PLAN
from components.promote import stage as promote
from components.promote.config import Config, Inputs
from components.promote.stage import STAGE
from components.store.artifact import Artifact
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.mapping import read_mapping

TASK = "turning_on_radio"


@pytest.fixture
def challenger(factory):
    """Makes the leaderboard of a policy that succeeds on the first `successes` of 20 instances."""

    def build(successes, *, untrained=0, policy=None):
        config = plan_config.Config(
            validation_instances=1,
            reported_instances=20,
            untrained=untrained is not None,
            videos=0,
            policy=policy or PolicyConfig(),
        )
        inputs = plan_config.Inputs(factory.model("common", (TASK,)))
        plan = PLAN.execute(config, inputs, factory.workspace).artifact
        wins = {"common": successes, "untrained": untrained}
        evaluations = factory.evaluations(
            plan,
            lambda key: float(key.split == "validation" or key.index < wins[key.policy]),
            seed=f"{successes}",
        )
        made = LEADERBOARD.execute(
            leaderboard.Config(), leaderboard.Inputs(plan, evaluations), factory.workspace
        )
        return Inputs(made.artifact, plan)

    return build


def decide(inputs: Inputs, workspace, config=None):
    made = STAGE.execute(config or Config(), inputs, workspace)
    return json.loads((made.artifact.path / "decision.json").read_text()), made.result


@pytest.fixture
def folder(factory):
    return factory.workspace / "champion"


def test_first_champion_beats_untrained(factory, folder, challenger, changed_policy):
    inputs = challenger(5, policy=changed_policy)
    decision, result = decide(inputs, factory.workspace)
    assert decision["promoted"]
    assert decision["comparison"]["difference"] == 0.25
    assert result.summary == f"promoted: {decision['reason']}"
    record = Champion.load(folder)
    assert record.leaderboard == Reference(inputs.leaderboard.uri, inputs.leaderboard.digest)
    assert (record.edition, record.evaluator, record.policy) == ("2026", "household", changed_policy)
    (entry,) = record.checkpoints.values()
    assert entry.tasks == (TASK,)
    assert Artifact.load(factory.workspace / entry.uri).digest == entry.digest
    # the policy server reads it too, wherever the workspace is moved to
    moved = factory.workspace.rename(factory.workspace.with_name("moved"))
    ((served,), policy) = read_mapping(moved / "champion" / "champion.json")
    assert served.path.resolve() == moved / entry.uri / "checkpoint"
    assert policy == changed_policy


def test_a_champion_elsewhere_names_its_policies_by_absolute_paths(factory, challenger, tmp_path):
    inputs = challenger(5)
    decide(inputs, factory.workspace, Config(champion=str(tmp_path / "elsewhere")))
    entry = Champion.load(tmp_path / "elsewhere").checkpoints["common"]
    assert entry.path == str(factory.workspace / entry.uri / "checkpoint")


@pytest.mark.parametrize(("successes", "untrained"), [(0, 0), (2, 2), (0, None)])
def test_no_first_champion_on_a_tie(factory, folder, challenger, successes, untrained):
    decision, result = decide(challenger(successes, untrained=untrained), factory.workspace)
    assert not decision["promoted"]
    assert result.summary == f"not promoted: {decision['reason']}"
    assert Champion.load(folder) is None


def test_later_champions_need_evidence(factory, folder, challenger):
    decide(challenger(5), factory.workspace)
    first = Champion.load(folder)
    decision, _ = decide(challenger(5, policy=PolicyConfig(seed=1)), factory.workspace)
    assert not decision["promoted"]  # a tie
    assert decision["compared_with"] == first.leaderboard.uri
    decision, _ = decide(challenger(7), factory.workspace)
    assert not decision["promoted"]  # two more of twenty may be luck
    assert "no evidence" in decision["reason"]
    assert Champion.load(folder) == first
    assert Champion.former(folder) == []
    better = challenger(12)
    decision, _ = decide(better, factory.workspace)
    assert decision["promoted"]
    assert decision["comparison"]["low"] > 0
    second = Champion.load(folder)
    assert second.leaderboard.digest == better.leaderboard.digest
    decide(challenger(20, policy=PolicyConfig(seed=1)), factory.workspace)
    assert Champion.former(folder) == [first, second]


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


@pytest.mark.parametrize("writes", range(4))
def test_killed_between_any_two_files(factory, folder, challenger, monkeypatch, writes):
    """Decision, history and champion: every file is whole, and what is begun again comes to the same end."""
    decide(challenger(5), factory.workspace)
    first, inputs = Champion.load(folder), challenger(15)
    real, left = records.write_atomic, [writes]

    def write(path, content):
        if not left[0]:
            raise Killed
        left[0] -= 1
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_atomic", write)
        patch.setattr(promote.Result, "save", lambda *_: write(None, None))
        with pytest.raises(Killed):
            decide(inputs, factory.workspace)
    promoted = Champion.load(folder)
    assert (promoted == first) == (writes < 3)
    decision, _ = decide(inputs, factory.workspace)
    assert decision["promoted"]
    assert decision["compared_with"] == first.leaderboard.uri
    assert Champion.load(folder).leaderboard.digest == inputs.leaderboard.digest
    assert Champion.load(folder) == promoted or writes < 3
    assert Champion.former(folder) == [first]


def test_a_killed_promotion_does_not_replace_a_later_champion(factory, folder, challenger, monkeypatch):
    decide(challenger(2), factory.workspace)
    inputs = challenger(12)
    with monkeypatch.context() as patch:
        patch.setattr(promote.Result, "save", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            decide(inputs, factory.workspace)
    decide(challenger(20), factory.workspace)
    later = Champion.load(folder)
    decision, _ = decide(inputs, factory.workspace)
    assert decision["promoted"]  # then; it is in the history since
    assert Champion.load(folder) == later
    assert inputs.leaderboard.digest == Champion.former(folder)[-1].leaderboard.digest


def test_champion_on_other_instances(factory, folder, challenger):
    decide(challenger(5), factory.workspace)
    record = dataclasses.replace(Champion.load(folder), episodes={"another_task": {"301_0": 1.0}})
    records.write(folder / "champion.json", record)
    with pytest.raises(UserError, match=r"cannot be compared(.|\n)*same tasks and instances"):
        decide(challenger(6), factory.workspace)


@pytest.mark.parametrize("old", [b'{"leaderboard": {"uri": "u", "digest": "d"}, "checkpoints": {}}', b"{"])
def test_a_champion_of_an_earlier_version_is_refused_in_words(factory, folder, challenger, old):
    folder.mkdir(parents=True)
    (folder / "champion.json").write_bytes(old)
    with pytest.raises(UserError, match=r"damaged or of another version.*move the file away"):
        decide(challenger(5), factory.workspace)
    assert (folder / "champion.json").read_bytes() == old


def test_damaged_history(folder, factory, challenger):
    folder.mkdir(parents=True)
    (folder / "history.jsonl").write_bytes(msgspec.json.encode({"format": 2}) + b"\n")
    with pytest.raises(UserError, match=r"history\.jsonl is damaged"):
        decide(challenger(5), factory.workspace)


def test_other_weights_are_not_promoted(factory, folder, challenger):
    inputs = challenger(5)
    factory.retrained(factory.model("common", (TASK,)), (TASK,))
    with pytest.raises(UserError, match="it was trained again since"):
        decide(inputs, factory.workspace)
    assert Champion.load(folder) is None


def test_not_a_leaderboard(factory, challenger):
    inputs = challenger(5)
    with pytest.raises(UserError, match="give an artifact of the stage leaderboard"):
        decide(Inputs(inputs.plan, inputs.plan), factory.workspace)


def test_the_plan_of_another_evaluation(factory, challenger):
    inputs = challenger(5)
    config = plan_config.Config(reported_instances=1)
    group = factory.model("best", (TASK,))
    common = factory.model("common", (TASK,))
    other = PLAN.execute(config, plan_config.Inputs(common, (group,)), factory.workspace).artifact
    evaluations = factory.evaluations(other, lambda key: float(key.policy == "group:best"))
    boards = leaderboard.Inputs(inputs.plan, evaluations)
    with pytest.raises(UserError, match=r"the plan has no policy group:best.*expected the plan of"):
        LEADERBOARD.execute(leaderboard.Config(), boards, factory.workspace)
