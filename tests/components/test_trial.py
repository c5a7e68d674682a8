"""Trials: what is drawn, how it is rolled out, when it ends. Programs stand in for simulator and server."""

import dataclasses
import sys

import numpy as np
import pytest

from benchmarks.faults import Bench
from components.evaluate import config as evaluate_config
from components.evaluate import stage as evaluate
from components.evaluation.champion import challenger_of
from components.evaluation.evaluator import Instances
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import Plan
from components.evaluation.rollouts import Distances, Outcome, Rollout, RolloutKey, load
from components.evaluation.sequential import judge
from components.evaluation.trial import Trial
from components.leaderboard import config as leaderboard
from components.leaderboard.stage import STAGE as LEADERBOARD
from components.plan import config as plan_config
from components.plan.stage import STAGE as PLAN
from components.trial.config import Config, Inputs
from components.trial.stage import STAGE
from pi_behavior.checkpoint_description import write_config
from pi_behavior.families import SIZES
from pi_behavior.policy.config import PolicyConfig

RADIO, TRASH = TASKS = ("turning_on_radio", "picking_up_trash")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A trial, and what it was drawn for."""

    made: object
    board: object
    scored: object

    @property
    def trial(self):
        return Trial.load(self.made.artifact.path)

    @property
    def plan(self):
        return Plan.load(self.made.artifact.path)


@pytest.fixture
def draw(factory):
    """Draws the trial of a policy that wins the first `wins` of 10 validation instances of every task."""

    def build(wins=10, *, tasks=TASKS, initial=True, policy=None, chunk=0, seed="", **config):
        common = factory.model("common", tasks, initial=initial, seed=f"{wins} {seed}")
        planned = plan_config.Config(
            reported_instances=1, videos=0, policy=policy or PolicyConfig(), action_chunk_size=chunk
        )
        write_config(common.path / "checkpoint", SIZES["tiny"], 1)
        plan = PLAN.execute(planned, plan_config.Inputs(common), factory.workspace).artifact
        evaluations = factory.evaluations(plan, lambda key: float(key.index - 100 < wins))
        board = LEADERBOARD.execute(
            leaderboard.Config(), leaderboard.Inputs(plan, evaluations), factory.workspace
        ).artifact
        made = STAGE.execute(Config(**{"rounds": 5, **config}), Inputs(board, plan), factory.workspace)
        return Drawn(made, board, Plan.load(plan.path))

    return build


def crown(factory, drawn):
    """Make a leaderboard's policies the champion."""
    folder = factory.workspace / "champion"
    challenger_of(drawn.board, drawn.scored, folder, factory.workspace).replace(None, folder)


def instances(plan, policy, task):
    return [i for job in plan.jobs if (job.policy, job.task) == (policy, task) for i in job.instances]


def test_what_is_drawn(factory, draw):
    first = draw(2, policy=PolicyConfig(execute=10), chunk=5)
    crown(factory, first)
    drawn = draw(10, workers=3)
    trial, plan = drawn.trial, drawn.plan
    assert drawn.made.result.parameters == {"Output": [{"worker": "0"}, {"worker": "1"}, {"worker": "2"}]}
    assert drawn.made.result.summary == "at most 10 pairs against the rival: champion"
    assert (trial.tasks, trial.rule.rounds, trial.missing) == (sorted(TASKS), 5, [])
    ours, theirs = (plan.execution(side[RADIO]) for side in (trial.ours, trial.theirs))
    # each side is executed as it was evaluated, with the same noise, which is none of its evaluation
    assert (ours.policy.execute, theirs.policy.execute) == (PolicyConfig().execute, 10)
    assert (ours.action_chunk_size, theirs.action_chunk_size) == (0, 5)
    assert ours.policy.seed == theirs.policy.seed != PolicyConfig().seed
    # the same unseen instances in the same random order, once each
    for task in TASKS:
        mine = instances(plan, trial.ours[task], task)
        assert mine == instances(plan, trial.theirs[task], task)
        assert len(set(mine)) == 5
        assert set(mine) <= set(range(150, 200))
        assert mine != sorted(mine)
    # workers see codes, of which none is in another trial, and durations that were measured
    other = draw(10, seed="another")
    assert not set(plan.policies) & set(other.plan.policies)
    assert {job.split for job in plan.jobs} == {"confirmation"}
    assert not any(job.videos for job in plan.jobs)
    # drawn again it is the same
    assert draw(10, workers=9).made.cached


def test_sides_take_turns_in_random_order(factory, draw):
    crown(factory, draw(0))
    orders = set()
    for seed in "abcdefgh":
        drawn = draw(10, seed=seed, rounds=5, block=2)
        plan, ours = drawn.plan, set(drawn.trial.ours.values())
        assert [len(job.instances) for job in plan.jobs] == [2] * 4 + [2] * 4 + [1] * 4
        assert plan.window == 4
        blocks = [[job.policy in ours for job in plan.jobs[i : i + 4]] for i in (0, 4, 8)]
        assert all(sorted(one[::2]) == [False, True] and one[::2] == one[1::2] for one in blocks)
        orders.add(tuple(one[0] for one in blocks))
    assert len(orders) > 2


def test_one_policy_on_both_sides_is_rolled_out_once(factory, draw):
    first = draw(9)
    crown(factory, first)
    common = factory.model("common", TASKS, seed="9 ")
    plan = PLAN.execute(
        plan_config.Config(reported_instances=1, videos=0), plan_config.Inputs(common), factory.workspace
    ).artifact
    evaluations = factory.evaluations(plan, lambda _: 1.0, seed="more luck")
    board = LEADERBOARD.execute(
        leaderboard.Config(), leaderboard.Inputs(plan, evaluations), factory.workspace
    ).artifact
    made = STAGE.execute(Config(rounds=2), Inputs(board, plan), factory.workspace)
    trial, drawn = Trial.load(made.artifact.path), Plan.load(made.artifact.path)
    assert trial.ours == trial.theirs
    assert [(job.task, len(job.instances)) for job in drawn.jobs] == [(task, 2) for task in sorted(TASKS)]


def rollouts(drawn, scores):
    """Rollouts from q by side (0: challenger), task and round; None is one that is not there."""
    for number, side in enumerate((drawn.trial.ours, drawn.trial.theirs)):
        for task, policy in side.items():
            for at, index in enumerate(instances(drawn.plan, policy, task)):
                q = scores(number, task, at)
                if q is not None:
                    outcome = Outcome(q, q == 1.0, 1, 1.0, Distances(1.0, 1.0, 1.0))
                    key = RolloutKey(policy, "confirmation", task, index, 0)
                    yield Rollout(key, index + 1, 1, outcome=outcome)


def test_whole_rounds_count_alone(draw):
    drawn = draw()

    def differences(found):
        return drawn.trial.differences(drawn.plan, found).tolist()

    # the challenger's q is 1 at the trash and 0.5 at the radio, its rival's 0.25 everywhere
    q = {(0, TRASH): 1.0, (0, RADIO): 0.5, (1, TRASH): 0.25, (1, RADIO): 0.25}
    found = list(rollouts(drawn, lambda side, task, at: q[side, task]))
    assert differences(found) == differences(found[::-1]) == [[0.75, 0.25]] * 5
    # one of the third round is missing: those after it do not count, whatever they are
    gap = rollouts(drawn, lambda side, task, at: None if (side, task, at) == (1, RADIO, 2) else q[side, task])
    assert differences(gap) == [[0.75, 0.25]] * 2
    assert differences([]) == []
    assert not drawn.trial.is_decided(drawn.plan, [])
    # a rollout that never finished is there, and counts as 0
    assert differences(dataclasses.replace(one, outcome=None) for one in found) == [[0.0, 0.0]] * 5


def test_what_a_side_lacks(factory, draw):
    crown(factory, draw(2))
    drawn = draw(10, tasks=(RADIO,), lead=0.0)
    assert drawn.trial.missing == [TRASH]
    found = rollouts(drawn, lambda *_: 0.5)
    assert drawn.trial.differences(drawn.plan, found).tolist() == [[-0.5, 0.0]] * 5  # trash, radio


def test_a_floor_stands_for_a_rival(draw):
    drawn = draw(10, initial=False, floor=0.1)
    assert (drawn.trial.rival, drawn.trial.theirs, drawn.plan.window) == ("floor", {}, 2)
    found = rollouts(drawn, lambda *_: 0.5)
    assert drawn.trial.differences(drawn.plan, found).tolist() == [[0.4, 0.4]] * 5


def test_without_a_lead_nothing_is_rolled_out(factory, draw, tmp_path):
    crown(factory, draw(9))
    drawn = draw(3)
    assert drawn.made.result.summary.startswith(
        "no test: not ahead of the champion on validation, difference in q -0.600, standard error "
    )
    assert drawn.made.result.parameters == {"Output": [{"worker": "0"}]}
    assert (drawn.plan.jobs, drawn.trial.rule) == ((), None)
    made = rolled_out(factory, drawn)
    assert made.result.summary == "there is nothing to roll out"
    assert load(made.artifact.path / "rollouts.json") == []


def rolled_out(factory, drawn):
    inputs = evaluate_config.Inputs(drawn.made.artifact)
    return evaluate.STAGE.execute(evaluate_config.Config(), inputs, factory.workspace)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Lays out programs in place of simulator and policy server."""
    bench = Bench(tmp_path / "bench")
    bench.prepare({})
    program = (sys.executable, str(bench.folder / "evaluator.py"))
    splits = {"confirmation": Instances("all_test", 50, first=150, id_of_0=301)}
    evaluator = dataclasses.replace(find_evaluator("household", "2026"), program=program, splits=splits)
    monkeypatch.setattr(evaluate, "find_evaluator", lambda *_: evaluator)
    server = [sys.executable, str(bench.folder / "server.py")]
    monkeypatch.setattr(evaluate, "policy_server", lambda _: lambda *files: [*server, *map(str, files)])
    return bench


def test_the_test_closes_the_queue(draw, programs, factory):
    """All rollouts score 0.5, which is above a floor of 0.02 after a few rounds of the 20."""
    drawn = draw(tasks=(RADIO,), initial=False, rounds=20, block=4)
    made = rolled_out(factory, drawn)
    found = load(made.artifact.path / "rollouts.json")
    verdict = judge(drawn.trial.differences(drawn.plan, found), drawn.trial.rule)
    # bets of 0.9 on 0.48: 1.432 ** 11 = 51.9 is the first power above 40, and blocks end after 4, 8 and 12
    assert (verdict.answer, verdict.rounds, len(found)) == ("better", 11, 12)
    assert [start["indices"] for start in programs.starts()] == [
        list(j.instances) for j in drawn.plan.jobs[:3]
    ]


def test_a_tie_goes_to_the_end_of_the_plan(draw, programs, factory):
    drawn = draw(tasks=(RADIO,), rounds=3, block=2)
    made = rolled_out(factory, drawn)
    assert made.result.summary == "mean q 0.50 over 6 rollouts, of which 0 never finished"
    found = load(made.artifact.path / "rollouts.json")
    assert np.all(drawn.trial.differences(drawn.plan, found) == 0)
    assert len({one.key.policy for one in found}) == 2
