"""Promotion on evidence only."""

import json

import pytest

from components.leaderboard import stage as leaderboard
from components.plan import stage as plan_stage
from components.promote import stage as promote
from components.runtime.errors import UserError
from components.store.artifact import Artifact

TASK = "turning_on_radio"


@pytest.fixture
def challenger(factory):
    """Makes the leaderboard of a policy that succeeds on the first `successes` of 20 instances."""

    def build(successes, *, untrained=0, name="common"):
        model = factory.model(name, (TASK,))
        plan, _, _ = plan_stage.STAGE.execute(
            plan_stage.Config(
                validation_instances=1,
                reported_instances=20,
                untrained=untrained is not None,
                videos=0,
            ),
            plan_stage.Inputs((model,)),
            factory.workspace,
        )
        wins = {"common": successes, "untrained": untrained}
        evaluations = factory.evaluations(
            plan,
            lambda key: float(key.split == "validation" or key.index < wins[key.policy]),
            seed=f"{successes}",
        )
        board, _, _ = leaderboard.STAGE.execute(
            leaderboard.Config(), leaderboard.Inputs(plan, evaluations, (model,)), factory.workspace
        )
        return promote.Inputs(board, (model,))

    return build


def decide(inputs: promote.Inputs, workspace):
    artifact, result, _ = promote.STAGE.execute(promote.Config(), inputs, workspace)
    return json.loads((artifact.path / "decision.json").read_text()), result


def champion(factory):
    return json.loads((factory.workspace / "champion" / "champion.json").read_text())


def test_first_champion_beats_untrained(factory, challenger):
    inputs = challenger(5)
    decision, result = decide(inputs, factory.workspace)
    assert decision["promoted"]
    assert decision["comparison"]["difference"] == 0.25
    assert result.parameters == {"promoted": "true"}
    record = champion(factory)
    assert record["leaderboard"]["digest"] == inputs.leaderboard.digest
    entry = record["checkpoints"]["common"]
    assert entry["tasks"] == [TASK]
    assert (factory.workspace / entry["path"]).is_dir()
    assert Artifact.load(factory.workspace / entry["uri"]).digest == entry["digest"]


@pytest.mark.parametrize(("successes", "untrained"), [(0, 0), (2, 2), (0, None)])
def test_no_first_champion_on_a_tie(factory, challenger, successes, untrained):
    decision, result = decide(challenger(successes, untrained=untrained), factory.workspace)
    assert not decision["promoted"]
    assert result.parameters == {"promoted": "false"}
    assert not (factory.workspace / "champion" / "champion.json").exists()


def test_later_champions_need_evidence(factory, challenger):
    decide(challenger(5), factory.workspace)
    first = champion(factory)
    decision, _ = decide(challenger(5, name="again"), factory.workspace)
    assert not decision["promoted"]  # a tie
    assert decision["compared_with"] == first["leaderboard"]["uri"]
    decision, _ = decide(challenger(7), factory.workspace)
    assert not decision["promoted"]  # two more of twenty may be luck
    assert "no evidence" in decision["reason"]
    assert champion(factory) == first
    better = challenger(15)
    decision, _ = decide(better, factory.workspace)
    assert decision["promoted"]
    assert decision["comparison"]["low"] > 0
    assert champion(factory)["leaderboard"]["digest"] == better.leaderboard.digest


def test_killed_between_champion_and_artifact(factory, challenger, monkeypatch):
    """The champion is this challenger already; its own decision stands all the same."""
    inputs = challenger(5)
    with monkeypatch.context() as patch:
        patch.setattr(promote.Result, "__init__", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            decide(inputs, factory.workspace)
    assert champion(factory)["leaderboard"]["digest"] == inputs.leaderboard.digest
    decision, _ = decide(inputs, factory.workspace)
    assert decision["promoted"]


def test_champion_on_other_instances(factory, challenger):
    decide(challenger(5), factory.workspace)
    path = factory.workspace / "champion" / "champion.json"
    record = champion(factory)
    path.write_text(json.dumps({**record, "episodes": {"another_task": {"301_0": 1.0}}}))
    with pytest.raises(UserError, match=r"cannot be compared(.|\n)*same tasks and instances"):
        decide(challenger(6), factory.workspace)


def test_not_a_leaderboard(factory):
    model = factory.model("common", (TASK,))
    with pytest.raises(UserError, match="is not a leaderboard"):
        promote.STAGE.execute(promote.Config(), promote.Inputs(model, (model,)), factory.workspace)
