"""Evaluate: one worker runs its shard of the plan.

Starts the policy server and the evaluator as two processes, starts a crashed or hanging evaluator again for
the missing rollouts, and continues from the finished rollouts after a kill. Report, section 8.3.
"""

from collections.abc import Sequence
from importlib.util import find_spec

from components.evaluate.config import DECLARATION, Config, Inputs
from components.evaluate.courses import write_traces
from components.evaluate.server import policy_server, rule_counts
from components.evaluate.supervisor import Supervisor
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import Plan
from components.evaluation.rollouts import ROLLOUTS, Rollout, save
from components.evaluation.serving import SERVER
from components.runtime.page import page, table
from components.runtime.stage import Result, Stage, Work


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Do the worker's rollouts; write `rollouts/`, `rollouts.json` and `logs/`."""
    plan = Plan.load(inputs.plan.path)
    plan.artifacts(work.workspace)  # refuses other weights than those that were planned
    supervisor = Supervisor(
        plan,
        config.worker,
        find_evaluator(plan.evaluator, plan.edition),
        policy_server(plan.policy),
        folder=work.path,
        workspace=work.workspace,
        progress=work.progress,
    )
    rollouts = write_traces(work.path, supervisor.run())
    save(rollouts, work.path / ROLLOUTS)
    count, unfinished = len(rollouts), sum(rollout.outcome is None for rollout in rollouts)
    q = sum(rollout.q for rollout in rollouts) / count
    return Result(
        metrics={
            "rollouts": count,
            "unfinished": unfinished,
            "reruns": sum(rollout.attempts - 1 for rollout in rollouts),
            "q": q,
            **{f"rule_{rule}": times for rule, times in rule_counts(work.path).items()},
        },
        metadata={"worker": config.worker, "rollouts": count, "unfinished": unfinished},
        summary=f"mean q {q:.2f} over {count} rollouts, of which {unfinished} never finished",
        html=_page(config.worker, rollouts),
    )


def _page(worker: int, rollouts: Sequence[Rollout]) -> str:
    """The scores of this worker's rollouts, by policy, task and split."""
    groups: dict[tuple[str, str, str], list[Rollout]] = {}
    for one in rollouts:
        groups.setdefault((one.key.policy, one.key.task, one.key.split), []).append(one)
    rows = [
        (
            *name,
            len(group),
            f"{sum(one.q for one in group) / len(group):.3f}",
            sum(one.success for one in group),
            sum(one.outcome is None for one in group),
        )
        for name, group in sorted(groups.items())
    ]
    header = ("policy", "task", "instances", "rollouts", "mean q", "successes", "never finished")
    return page(f"Rollouts of worker {worker}", table(header, rows))


# where the simulator is ours, its source decides the outcome too
_SIMULATOR = ("household.eval",) if find_spec("household") else ()
STAGE = Stage(DECLARATION, run, programs=(SERVER, *_SIMULATOR))
