"""Scores: which policy each task gets, and how it does on the reported instances.

Episode q, task score and overall score are those of the challenge (report, section 8.2). The policy of a task
is chosen on validation instances alone, so that the reported score stays an honest estimate.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components.errors import UserError
from components.evaluation.intervals import bootstrap, clopper_pearson
from components.evaluation.plan import COMMON, REPORTED, UNTRAINED, Plan
from components.evaluation.records import (
    Conditions,
    Denominators,
    Efficiency,
    Overall,
    Score,
    Scores,
    TaskScores,
)
from components.evaluation.rollouts import Rollout, RolloutKey
from components.leaderboard.choice import choose, gains
from pi_behavior.challenge import EDITIONS

_ENOUGH = 20
"""Sums of q and of 1 - q from which the bootstrap knows enough, and a tenth of the rollouts that it needs."""
Rollouts = Mapping[str, Mapping[str, Mapping[str, Sequence[Rollout]]]]
"""Rollouts by task, policy and split."""


def collect(rollouts: Iterable[Rollout], plan: Plan) -> Rollouts:
    """Sort rollouts by task, policy and split; of one that was done twice, the first finished one counts.

    Raises:
        UserError: rollouts are of another plan, planned ones are missing, or one was finished twice, with
            different outcomes.
    """
    found: dict[RolloutKey, Rollout] = {}
    for one in rollouts:
        if one.key.policy not in plan.policies:
            raise UserError(
                f"the plan has no policy {one.key.policy}, of which there are rollouts; expected the plan of "
                "these rollouts"
            )
        known = found.setdefault(one.key, one)
        if known.outcome is None:
            found[one.key] = one
        elif one.outcome not in (None, known.outcome):
            places = " and ".join(f"{each.folder}/{each.json}" for each in (known, one))
            raise UserError(
                f"{one.key.policy} {one.name} was done twice, with different outcomes: {places}. Give the "
                "evaluations of one run only: nobody may choose between two results"
            )
    planned = {
        RolloutKey(job.policy, job.split, job.task, index, number)
        for job in plan.jobs
        for index in job.instances
        for number in range(plan.rollouts)
    }
    missing = sorted(planned - found.keys())
    if missing:
        raise UserError(
            f"{len(missing)} of {len(planned)} planned rollouts are missing, the first of them of "
            f"{missing[0].policy} on {missing[0].task}: give the evaluation of this plan. What was not done "
            "is no score of 0"
        )
    table: dict[str, dict[str, dict[str, list[Rollout]]]] = {}
    for key in sorted(found):
        splits = table.setdefault(key.task, {}).setdefault(key.policy, {})
        splits.setdefault(key.split, []).append(found[key])
    return {task: table[task] for task in plan.tasks if task in table}


def score(rollouts: Sequence[Rollout], edition: str, seed: int) -> Score:
    """The score of rollouts of one policy and task."""
    success = clopper_pearson(sum(r.success for r in rollouts), len(rollouts))
    return Score(
        **_estimate([rollouts], edition, seed),
        unfinished=sum(r.outcome is None for r in rollouts),
        success_low=success.low,
        success_high=success.high,
    )


def overall(per_task: Sequence[Sequence[Rollout]], edition: str, seed: int) -> Overall:
    """The overall score over tasks."""
    return Overall(**_estimate(per_task, edition, seed), tasks=len(per_task))


def _estimate(per_task: Sequence[Sequence[Rollout]], edition: str, seed: int) -> dict[str, Any]:
    """The fields of an estimate."""
    groups = [[r.q for r in rollouts] for rollouts in per_task]
    q = _mean(groups)
    # tasks weigh the same whatever their number of rollouts, so the smallest decides how much is known
    count = len(groups) * min(map(len, groups))
    exact, resampled = clopper_pearson(q * count, count), bootstrap(groups, seed)
    # resampling shows only what was seen: of few rollouts, or of nearly all the same ones, too little
    many = len(groups) > 1 and min(q, 1 - q) * count >= _ENOUGH and count >= 10 * _ENOUGH
    headline = resampled if many else exact
    return {
        "q": q,
        "low": headline.low,
        "high": headline.high,
        "interval": "stratified bootstrap" if many else "Clopper-Pearson",
        "exact_low": exact.low,
        "exact_high": exact.high,
        "bootstrap_low": resampled.low,
        "bootstrap_high": resampled.high,
        "success": _mean([[float(r.success) for r in rollouts] for rollouts in per_task]),
        "n": sum(map(len, groups)),
        "efficiency": efficiency(per_task, edition),
    }


def efficiency(per_task: Sequence[Sequence[Rollout]], edition: str) -> Efficiency:
    """Time and ways over tasks, as the challenge's scoring script has them."""
    limit = EDITIONS[edition].time_limit

    def time(rollout: Rollout) -> float:
        if rollout.outcome is None:
            return 0.0
        # a rollout of no time at all cannot be divided by; it is one that broke off at once
        taken = rollout.outcome.normalized_time or 1 / limit
        return limit / (limit - 1) - 1 / ((limit - 1) * taken)

    def way(part: str) -> float | None:
        ways = [
            [getattr(r.outcome.distances, part) if r.outcome else 0.0 for r in rollouts]
            for rollouts in per_task
        ]
        return None if any(None in one for one in ways) else _mean(ways)

    times = _mean([[time(r) for r in rollouts] for rollouts in per_task])
    return Efficiency(times, way("base"), way("left"), way("right"))


def denominators(per_task: Iterable[Sequence[Rollout]], edition: str) -> Denominators:
    """The three ways to count the overall q of the challenge."""
    rules = EDITIONS[edition]
    prescribed = [
        [r for r in rollouts if r.key.index < rules.instances and r.key.rollout < rules.rollouts]
        for rollouts in per_task
    ]
    sums = [sum(r.q for r in rollouts) for rollouts in prescribed]
    # a rollout that never finished is not submitted
    submitted = [[r.q for r in rollouts if r.outcome is not None] for rollouts in prescribed]
    count = rules.instances * rules.rollouts  # where an edition says no other
    return Denominators(
        rules=sum(sums) / rules.denominators.get("rules", count) / rules.tasks,
        repository=sum(sums) / rules.denominators.get("repository", count) / rules.tasks,
        leaderboard=sum(sum(qs) / len(qs) for qs in submitted if qs) / rules.tasks,
    )


def _mean(groups: Sequence[Sequence[float]]) -> float:
    return sum(sum(group) / len(group) for group in groups) / len(groups)


def score_all(table: Rollouts, seed: int, conditions: Conditions) -> Scores:
    """Choose a policy for every task, and score all of them."""
    edition, found = conditions.edition, gains(table)
    chosen = {task: choose(policies, found[task]) for task, policies in table.items()}
    names = sorted({name for policies in table.values() for name in policies}, key=policy_order)
    complete = [n for n in names if all(p.get(n, {}).get(REPORTED) for p in table.values())]
    reported = [table[task][name][REPORTED] for task, name in chosen.items()]
    return Scores(
        conditions=conditions,
        overall=overall(reported, edition, seed),
        denominators=denominators(reported, edition),
        policies={n: overall([p[n][REPORTED] for p in table.values()], edition, seed) for n in complete},
        tasks={
            task: TaskScores(
                chosen[task],
                found[task],
                {
                    name: {split: score(rs, edition, seed) for split, rs in policies[name].items()}
                    for name in sorted(policies, key=policy_order)
                },
            )
            for task, policies in table.items()
        },
    )


def policy_order(name: str) -> tuple[int, str]:
    """Sort key: groups, the common policy, the untrained one."""
    return (1 if name == COMMON else 2 if name == UNTRAINED else 0, name)
