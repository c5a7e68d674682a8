"""Scores: which policy each task gets, and how it does on the reported instances.

Episode q, task score and overall score are those of the challenge (report, section 8.2). The policy of a task
is chosen on validation instances alone, so that the reported score stays an honest estimate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from components.errors import UserError
from components.evaluation.intervals import bootstrap, clopper_pearson
from components.evaluation.plan import COMMON, REPORTED, UNTRAINED, VALIDATION, Plan
from components.evaluation.records import Conditions, Estimate, Overall, Score, Scores, TaskScores
from components.evaluation.rollouts import Rollout, RolloutKey

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
        RolloutKey(job.policy, job.split, job.task, index, number): job.worker
        for job in plan.jobs
        for index in job.instances
        for number in range(plan.rollouts)
    }
    workers = [worker for key, worker in planned.items() if key not in found]
    if workers:
        raise UserError(
            f"{len(workers)} of {len(planned)} planned rollouts are missing, which workers "
            f"{', '.join(map(str, sorted(set(workers))))} were to do: run these again, and give the "
            "evaluations of all workers. What was not done is no score of 0"
        )
    table: dict[str, dict[str, dict[str, list[Rollout]]]] = {}
    for key in sorted(found):
        splits = table.setdefault(key.task, {}).setdefault(key.policy, {})
        splits.setdefault(key.split, []).append(found[key])
    return {task: table[task] for task in plan.tasks if task in table}


def choose(policies: Mapping[str, Mapping[str, Sequence[Rollout]]]) -> str:
    """The policy with the highest mean q on validation instances; the common one on a tie.

    Policies without validation or without reported rollouts, and the untrained one, cannot be chosen.
    """
    candidates = {
        name: sum(r.q for r in splits[VALIDATION]) / len(splits[VALIDATION])
        for name, splits in policies.items()
        if name != UNTRAINED and splits.get(VALIDATION) and splits.get(REPORTED)
    }
    if not candidates:
        return COMMON
    return min(candidates, key=lambda name: (-candidates[name], name != COMMON, name))


def score(rollouts: Sequence[Rollout], seed: int) -> Score:
    """The score of rollouts of one policy and task."""
    success = clopper_pearson(sum(r.success for r in rollouts), len(rollouts))
    times = [2 - 1 / r.outcome.normalized_time for r in rollouts if r.success and r.outcome]
    return Score(
        **asdict(_estimate([rollouts], seed)),
        unfinished=sum(r.outcome is None for r in rollouts),
        success_low=success.low,
        success_high=success.high,
        time=sum(times) / len(times) if times else None,
    )


def overall(per_task: Sequence[Sequence[Rollout]], seed: int) -> Overall:
    """The overall score over tasks."""
    return Overall(**asdict(_estimate(per_task, seed)), tasks=len(per_task))


def _estimate(per_task: Sequence[Sequence[Rollout]], seed: int) -> Estimate:
    groups = [[r.q for r in rollouts] for rollouts in per_task]
    q = sum(sum(group) / len(group) for group in groups) / len(groups)
    # tasks weigh the same whatever their number of rollouts, so the smallest decides how much is known
    count = len(groups) * min(map(len, groups))
    interval, resampled = clopper_pearson(q * count, count), bootstrap(groups, seed)
    return Estimate(
        q=q,
        low=interval.low,
        high=interval.high,
        success=sum(sum(r.success for r in rs) / len(rs) for rs in per_task) / len(per_task),
        bootstrap_low=resampled.low,
        bootstrap_high=resampled.high,
        n=sum(map(len, groups)),
    )


def score_all(table: Rollouts, seed: int, conditions: Conditions) -> Scores:
    """Choose a policy for every task, and score all of them."""
    chosen = {task: choose(policies) for task, policies in table.items()}
    names = sorted({name for policies in table.values() for name in policies}, key=policy_order)
    complete = [n for n in names if all(p.get(n, {}).get(REPORTED) for p in table.values())]
    return Scores(
        conditions=conditions,
        overall=overall([table[task][name][REPORTED] for task, name in chosen.items()], seed),
        policies={n: overall([p[n][REPORTED] for p in table.values()], seed) for n in complete},
        tasks={
            task: TaskScores(
                chosen[task],
                {
                    name: {split: score(rs, seed) for split, rs in policies[name].items()}
                    for name in sorted(policies, key=policy_order)
                },
            )
            for task, policies in table.items()
        },
    )


def policy_order(name: str) -> tuple[int, str]:
    """Sort key: groups, the common policy, the untrained one."""
    return (1 if name == COMMON else 2 if name == UNTRAINED else 0, name)
