"""Evaluate: one worker runs its shard of the plan.

Starts the policy server and the evaluator as two processes, starts a crashed or hanging evaluator again for
the rollouts that are missing, and continues from the finished rollouts after a kill. Report, section 8.3.
"""

from dataclasses import dataclass
from importlib.util import find_spec

from components.evaluate.server import policy_server, rule_counts
from components.evaluate.supervisor import Supervisor
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import Plan
from components.evaluation.rollouts import save
from components.runtime.errors import UserError
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact


@dataclass(frozen=True)
class Config:
    """A worker."""

    worker: str = "0"
    """Number of the worker in the plan; text, as it comes from a loop over the plan's workers."""

    def __post_init__(self) -> None:
        """Check that it is a number."""
        if not self.worker.isdigit():
            raise ValueError(f"worker is {self.worker!r}; expected a number such as 0")


@dataclass(frozen=True)
class Inputs:
    """What a worker reads."""

    plan: Artifact
    """The plan; the checkpoints that it names lie in the same workspace."""


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Do the worker's rollouts; write `rollouts/`, `rollouts.json` and `logs/`."""
    plan = Plan.load(inputs.plan.path)
    try:
        evaluator = find_evaluator(plan.evaluator, plan.edition)
    except ValueError as error:
        raise UserError(f"the plan's {error}") from error
    supervisor = Supervisor(
        plan,
        int(config.worker),
        evaluator,
        policy_server(plan),
        folder=work.path,
        workspace=work.workspace,
        progress=work.progress,
    )
    rollouts = supervisor.run()
    save(rollouts, work.path)
    finished = sum(rollout.outcome is not None for rollout in rollouts)
    return Result(
        metrics={
            "rollouts": len(rollouts),
            "unfinished": len(rollouts) - finished,
            "restarts": supervisor.restarts,
            "q": sum(rollout.q for rollout in rollouts) / len(rollouts),
            **{f"rule_{rule}": count for rule, count in rule_counts(work.path).items()},
        },
        metadata={"worker": config.worker, "rollouts": len(rollouts), "unfinished": len(rollouts) - finished},
    )


# where the simulator is ours, its source decides the outcome too
_SIMULATOR = ("household",) if find_spec("household") else ()
STAGE = Stage(
    "evaluate",
    Config,
    Inputs,
    run,
    ("components.plan", "components.runtime.processes", "pi_behavior", *_SIMULATOR),
)
