"""Promotion on evidence only."""

import dataclasses
import json
import socket

import msgspec
import pytest

from components.errors import PassingError, UserError
from components.evaluation import champion, records
from components.evaluation.champion import Champion, Comparison, Forced, share
from components.evaluation.records import Conditions, Reference
from components.evaluation.registry import Registry
from components.evaluation.sequential import Rule
from components.leaderboard import config as leaderboard
from components.leaderboard.stage import STAGE as LEADERBOARD
from components.plan import config as plan_config
from components.plan.stage import STAGE as PLAN
from components.promote import stage as promote
from components.promote.config import Config, Inputs
from components.promote.stage import STAGE
from components.store.artifact import Artifact
from components.trial.config import Config as TrialConfig
from components.trial.config import Inputs as TrialInputs
from components.trial.stage import STAGE as TRIAL
from pi_behavior.challenge import TASKS as ALL_TASKS
from pi_behavior.policy.config import PolicyConfig
from pi_behavior.policy.mapping import read_mapping
from pipelines.tools import compare

TASK = "turning_on_radio"
TRIAL_FIELDS = {field.name for field in dataclasses.fields(TrialConfig)}


@pytest.fixture
def challenger(factory):
    """Makes the leaderboard of a policy that succeeds on the first `wins` of 20 instances of every task."""

    def build(wins, *, validation=None, untrained=0, policy=None, tasks=(TASK,), **sizes):
        config = plan_config.Config(
            **{"validation_instances": 10, "reported_instances": 20, **sizes},
            untrained=untrained is not None,
            videos=0,
            policy=policy or PolicyConfig(),
        )
        common = factory.model("common", tasks, initial=untrained is not None, seed=str(wins))
        inputs = plan_config.Inputs(common)
        plan = PLAN.execute(config, inputs, factory.workspace).artifact
        counts = {"validation": wins // 2 if validation is None else validation, "reported": wins}
        first = {"validation": 100, "reported": 0}

        def q(key):
            wins = untrained if key.policy == "untrained" else counts[key.split]
            wins = wins.get(key.task, 0) if isinstance(wins, dict) else wins
            return float(key.index - first[key.split] < wins)

        evaluations = factory.evaluations(plan, q, seed=f"{wins} {validation} {untrained}")
        made = LEADERBOARD.execute(
            leaderboard.Config(), leaderboard.Inputs(plan, evaluations), factory.workspace
        )
        return made.artifact, plan

    return build


@pytest.fixture
def test(factory):
    """Puts a challenger through a trial, in which it and its rival win so many rounds of 20 of every task."""

    def build(challenger, ours, theirs=0, **config):
        values = {"rounds": 20, **{k: v for k, v in config.items() if k in TRIAL_FIELDS}}
        trial = TRIAL.execute(TrialConfig(**values), TrialInputs(*challenger), factory.workspace).artifact

        def wins(is_challenger, task):
            count = ours if is_challenger else theirs
            return count[task] if isinstance(count, dict) else count

        return Inputs(*challenger, trial, (factory.confirmation(trial, wins),))

    return build


def decide(inputs: Inputs, workspace, **config):
    values = {k: v for k, v in config.items() if k not in TRIAL_FIELDS or k == "champion"}
    made = STAGE.execute(Config(**values), inputs, workspace)
    return json.loads((made.artifact.path / "decision.json").read_text()), made.result


@pytest.fixture
def folder(factory):
    return factory.workspace / "champion"


def test_first_champion_beats_untrained(factory, folder, challenger, test, changed_policy):
    one = challenger(10, policy=changed_policy)
    decision, result = decide(test(one, 20), factory.workspace)
    assert decision["promoted"]
    assert decision["compared_with"] == "untrained"
    # 20 rounds of one task are planned, the level is 0.05 / (1 * 2), and bets are 0.9 at most: 1.9 ** 6 = 47
    # is the first power above 40
    assert decision["level"] == 0.025
    assert decision["verdict"]["rounds"] == 6
    assert decision["verdict"]["evidence"] == pytest.approx(1.9**6)
    assert result.summary == f"promoted: {decision['reason']}"
    record, (board, _) = Champion.load(folder), one
    assert record.leaderboard == Reference(board.uri, board.digest)
    assert record.conditions == Conditions("2026", "household", 224, true_stage=False)
    assert record.policy == changed_policy
    assert record.forced is None
    (entry,) = record.checkpoints.values()
    assert entry.tasks == (TASK,)
    assert Artifact.load(factory.workspace / entry.uri).digest == entry.digest
    # the policy server reads it too, wherever the workspace is moved to
    moved = factory.workspace.rename(factory.workspace.with_name("moved"))
    ((served,), policy) = read_mapping(moved / "champion" / "champion.json")
    assert served.path.resolve() == moved / entry.uri / "checkpoint"
    assert policy == changed_policy


def test_a_champion_elsewhere_names_its_policies_by_absolute_paths(factory, challenger, test, tmp_path):
    place = str(tmp_path / "elsewhere")
    decide(test(challenger(10), 20, champion=place), factory.workspace, champion=place)
    entry = Champion.load(tmp_path / "elsewhere").checkpoints["common"]
    assert entry.path == str(factory.workspace / entry.uri / "checkpoint")


@pytest.mark.parametrize(("ours", "theirs"), [(0, 0), (4, 4), (5, 0), (2, 9)])
def test_no_first_champion_without_evidence(factory, folder, challenger, test, ours, theirs):
    decision, result = decide(test(challenger(10), ours, theirs), factory.workspace)
    assert not decision["promoted"]
    assert result.summary == f"not promoted: {decision['reason']}"
    assert Champion.load(folder) is None


@pytest.mark.parametrize(("ours", "promoted"), [(12, True), (1, False)])
def test_a_first_champion_above_the_floor(factory, challenger, test, ours, promoted):
    """Where step 0 was not kept; a q of 1/20 is above the floor of 0.02, and proves nothing."""
    decision, _ = decide(test(challenger(12, untrained=None), ours), factory.workspace)
    assert decision["promoted"] == promoted
    assert decision["compared_with"] == "floor"
    assert "better than q 0.02" in decision["reason"]


def test_later_champions_need_evidence(factory, folder, challenger, test):
    decide(test(challenger(10), 20), factory.workspace)
    first = Champion.load(folder)
    decision, _ = decide(test(challenger(10, policy=PolicyConfig(seed=1)), 20), factory.workspace)
    assert not decision["promoted"]  # a tie on validation: no test, and no share of the error is used up
    assert (decision["verdict"], decision["level"]) == (None, None)
    assert decision["compared_with"] == first.leaderboard.uri
    assert "not ahead of the champion on validation" in decision["reason"]
    decision, _ = decide(test(challenger(12, validation=9), 12, 10), factory.workspace)
    assert not decision["promoted"]  # two more of twenty may be luck
    assert decision["level"] == 0.05 / 2
    assert "no evidence" in decision["reason"]
    assert Champion.load(folder) == first
    assert Champion.former(folder) == []
    better = challenger(20, validation=10)
    decision, _ = decide(test(better, 20, 2), factory.workspace)
    assert decision["level"] == 0.05 / 6  # the second test against this champion
    assert decision["promoted"], decision
    second = Champion.load(folder)
    assert second.leaderboard.digest == better[0].digest
    assert Champion.former(folder) == [first]


def test_one_task_does_not_replace_a_champion_of_two(factory, folder, challenger, test):
    other = "picking_up_trash"
    decide(test(challenger(8, tasks=(TASK, other)), 20), factory.workspace)
    assert Champion.load(folder).reported.keys() == {TASK, other}
    # perfect on its one task: 6 wins more than the champion there, and 4 fewer on the other, on validation
    inputs = test(challenger(20, tasks=(TASK,)), 20, 10, lead=0.0)
    decision, _ = decide(inputs, factory.workspace)
    assert not decision["promoted"]
    assert decision["missing"] == [other]
    assert decision["lead"]["difference"] == pytest.approx((6 - 4) / 20)
    # of 20 rounds it wins none in the first 10, and loses one pair in each
    assert decision["verdict"]["answer"] == "not better"
    assert "without picking_up_trash, which count as 0" in decision["reason"]


def test_no_task_may_fall(factory, folder, challenger, test):
    """Twelve tasks of which eleven are won entirely, and one is lost entirely."""
    tasks = tuple(list(ALL_TASKS)[:12])
    before = dict.fromkeys(tasks[:11], 0) | {tasks[11]: 20}
    after = dict.fromkeys(tasks[:11], 20) | {tasks[11]: 0}
    decide(test(challenger(before, validation=before, tasks=tasks), 20), factory.workspace)
    inputs = test(challenger(after, validation=after, tasks=tasks), after, before)
    decision, _ = decide(inputs, factory.workspace)
    assert decision["verdict"]["answer"] == "better"
    assert not decision["promoted"]
    assert list(decision["fallen"]) == [tasks[11]]
    assert f"but {tasks[11]} fell" in decision["reason"]
    assert decide(inputs, factory.workspace, fall=0.99)[0]["promoted"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 56}, "image size is 224 for the champion and 56 for the challenger"),
        (
            {"validation_instances": 5},
            r"on 5 rollouts \(100_0, 101_0, 102_0, ...\) by the challenger and on 10",
        ),
        ({"policy": PolicyConfig(voting="oracle")}, "true stage is the default for the champion and True"),
    ],
)
def test_unequal_evaluations_are_refused(factory, folder, challenger, test, change, words):
    decide(test(challenger(10), 20), factory.workspace)
    first = Champion.load(folder)
    inputs = test(challenger(20, validation=5, **change), 20)
    with pytest.raises(UserError, match=words):
        decide(inputs, factory.workspace)
    assert Champion.load(folder) == first
    decision, _ = decide(inputs, factory.workspace, force="the cameras are new", by="A. Person")
    assert decision["promoted"]
    assert decision["forced"] == {"by": "A. Person", "why": "the cameras are new"}
    assert "forced by A. Person (the cameras are new); otherwise no comparison" in decision["reason"]
    assert Champion.load(folder).forced == Forced("A. Person", "the cameras are new")


def test_forced_against_the_evidence(factory, folder, challenger, test):
    decide(test(challenger(10), 20), factory.workspace)
    inputs = test(challenger(2), 20)
    decision, _ = decide(inputs, factory.workspace, force="a demonstration", by="A. Person")
    assert decision["promoted"]
    assert "otherwise not ahead of the champion" in decision["reason"]
    with pytest.raises(ValueError, match="expected why and by whom, or neither"):
        Config(force="because")


def test_the_champion_of_now(factory, folder, challenger, test):
    """A trial against a champion that was replaced since decides nothing; a new one is another artifact."""
    decide(test(challenger(6), 20), factory.workspace)
    late = challenger(16)
    old = test(late, 20)
    decide(test(challenger(20), 20), factory.workspace)
    now = Champion.load(folder)
    with pytest.raises(UserError, match=r"has .* now: it was replaced since. Start the run again"):
        decide(old, factory.workspace)
    assert Champion.load(folder) == now
    new = test(late, 20)
    assert new.trial.path != old.trial.path
    decision, _ = decide(new, factory.workspace)
    assert decision["compared_with"] == now.leaderboard.uri
    with pytest.raises(UserError, match="expected the trial of this challenger"):
        decide(Inputs(*challenger(3), new.trial, new.confirmation), factory.workspace)


def test_a_trial_without_rollouts(factory, challenger, test):
    inputs = dataclasses.replace(test(challenger(10), 20), confirmation=())
    with pytest.raises(UserError, match="the trial has no whole round of rollouts"):
        decide(inputs, factory.workspace)


def test_a_test_that_is_begun_again_keeps_its_share_of_the_error(folder):
    folder.mkdir(parents=True)
    board, other, champion = (Reference(name, name) for name in ("board", "other", "champion"))

    def level(challenger, champion=None, rounds=10):
        return Comparison.begin(folder, challenger, champion, Rule(0.05, 0.05, 0.1, rounds)).level

    assert [level(board), level(board), level(other)] == [0.025, 0.025, 0.05 / 6]
    assert level(board, rounds=20) == 0.05 / 12
    assert level(board, champion) == 0.025
    assert sum(share(0.05, k) for k in range(1, 1001)) == pytest.approx(0.05 * (1 - 1 / 1001))


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


@pytest.mark.parametrize("writes", range(4))
def test_killed_between_any_two_files(factory, folder, challenger, test, monkeypatch, writes):
    """Decision, history and champion: every file is whole, and what is begun again comes to the same end."""
    decide(test(challenger(10), 20), factory.workspace)
    first, inputs = Champion.load(folder), test(challenger(20), 20)
    real, left = records.write_atomic, [writes]

    def write(path, content):
        if not left[0]:
            raise Killed
        left[0] -= 1
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_atomic", write)
        patch.setattr(champion, "write_atomic", write)
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


def test_a_registry_that_was_away_is_told_later(factory, folder, challenger, test):
    with socket.create_server(("127.0.0.1", 0)) as free:
        away = Registry(f"http://127.0.0.1:{free.getsockname()[1]}")
    inputs = test(challenger(10), 20)
    with pytest.raises(PassingError, match="cannot be reached"):
        decide(inputs, factory.workspace, registry=away)
    first = Champion.load(folder)
    assert decide(inputs, factory.workspace)[0]["promoted"]
    assert (Champion.load(folder), Champion.former(folder)) == (first, [])


def test_a_killed_promotion_does_not_replace_a_later_champion(factory, folder, challenger, test, monkeypatch):
    decide(test(challenger(6), 20), factory.workspace)
    inputs = test(challenger(18), 20)
    with monkeypatch.context() as patch:
        patch.setattr(promote.Result, "save", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            decide(inputs, factory.workspace)
    later = test(challenger(20), 20)
    decide(later, factory.workspace, force="a later one", by="A. Person")
    now = Champion.load(folder)
    # then; it is in the history since, and its trial is the one against the champion before it
    assert test((inputs.leaderboard, inputs.plan), 20).trial == inputs.trial
    decision, _ = decide(inputs, factory.workspace)
    assert decision["promoted"]
    assert Champion.load(folder) == now
    assert inputs.leaderboard.digest == Champion.former(folder)[-1].leaderboard.digest


@pytest.mark.parametrize("old", [b'{"leaderboard": {"uri": "u", "digest": "d"}, "checkpoints": {}}', b"{"])
def test_a_champion_of_an_earlier_version_is_refused_in_words(folder, challenger, test, old):
    folder.mkdir(parents=True)
    (folder / "champion.json").write_bytes(old)
    with pytest.raises(UserError, match=r"damaged or of another version.*move the file away"):
        test(challenger(5), 20)
    assert (folder / "champion.json").read_bytes() == old


def test_damaged_history(folder, challenger, test):
    folder.mkdir(parents=True)
    (folder / "history.jsonl").write_bytes(msgspec.json.encode({"format": 2}) + b"\n")
    with pytest.raises(UserError, match=r"history\.jsonl is damaged"):
        test(challenger(5), 20)


def test_other_weights_are_not_promoted(factory, folder, challenger, test):
    inputs = test(challenger(10), 20)
    factory.retrained(factory.model("common", (TASK,), seed="10"), (TASK,), seed="10")
    with pytest.raises(UserError, match="it was trained again since"):
        decide(inputs, factory.workspace)
    assert Champion.load(folder) is None


def test_not_a_leaderboard(challenger, test):
    _, plan = challenger(5)
    with pytest.raises(UserError, match="give an artifact of the stage leaderboard"):
        test((plan, plan), 20)


def test_the_plan_of_another_evaluation(factory, challenger):
    _, plan = challenger(5)
    config = plan_config.Config(reported_instances=1)
    group = factory.model("best", (TASK,))
    common = factory.model("common", (TASK,))
    other = PLAN.execute(config, plan_config.Inputs(common, (group,)), factory.workspace).artifact
    evaluations = factory.evaluations(other, lambda key: float(key.policy == "group:best"))
    boards = leaderboard.Inputs(plan, evaluations)
    with pytest.raises(UserError, match=r"the plan has no policy group:best.*expected the plan of"):
        LEADERBOARD.execute(leaderboard.Config(), boards, factory.workspace)


def test_compare_two_leaderboards(factory, folder, challenger, test, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    other = "picking_up_trash"
    (both, plan), (one, _) = challenger(8, tasks=(TASK, other)), challenger(20)
    decide(test((both, plan), 20), factory.workspace)
    assert compare.run(compare.Options(one.path, both.path)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{TASK} │ 1.000 │ 0.400 │ +0.600 │ 20" in said
    assert f"{other} │ 0.000 (missing) │ 0.400 │ -0.400 │ 20" in said
    assert "mean over tasks │ 0.500 │ 0.400 │ +0.100 │ 40" in said
    # of 10 instances the first wins 10 and 0, the second 4 and 4. The sum of squares of the differences about
    # the mean of their task is 2.4 in each, so the standard error is sqrt(4.8 / 18 / 20) = 0.115
    assert "validation: difference in q +0.100, standard error 0.115, 20 pairs" in said
    assert "reported: not better at level 0.05 after" in said
    # a champion's folder stands for its leaderboard
    assert compare.run(compare.Options(one.path, folder)) == 0
    assert " ".join(capsys.readouterr().out.split()) == said
    # the other way round, the one task of the second counts
    assert compare.run(compare.Options(both.path, one.path, fall=0.1)) == 0
    said = capsys.readouterr().out
    assert other not in said
    assert f"{TASK} fell: the 95 % bound of its difference is -0." in said


def test_compare_refuses_what_is_not_alike(challenger):
    (one, _), (other, _) = challenger(5), challenger(5, image_size=56)
    with pytest.raises(UserError, match=r"image size is 224 for /.* and 56 for /.*Evaluate both alike"):
        compare.run(compare.Options(one.path, other.path))
    with pytest.raises(UserError, match="--level 0: expected more than 0"):
        compare.Options(one.path, other.path, level=0)
