"""Evaluate: a worker does rollouts of a plan, together with all others that are started for it.

They share the plan's rollouts through a queue in the workspace, and make one artifact together; those of a
trial end as soon as its test has an answer. Each starts
the policy server and the evaluator as two processes, and starts a crashed or hanging one again. Report,
section 8.3.
"""

import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from components.evaluate.config import DECLARATION, Config, Inputs
from components.evaluate.courses import write_traces
from components.evaluate.server import policy_server, rule_counts
from components.evaluate.supervisor import LOGS, Supervisor, conclude
from components.evaluate.upload import Uploads, find_destination
from components.evaluation import records
from components.evaluation.durations import DURATIONS, Duration, Durations
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import Plan
from components.evaluation.rollouts import ROLLOUTS, Rollout, save
from components.evaluation.serving import SERVER
from components.evaluation.timeline import comparison, table
from components.evaluation.trial import Trial
from components.runtime import page
from components.runtime.stage import Result, Stage, Work
from components.store.artifact import Artifact
from components.store.files import write_atomic
from components.store.making import CONTENT
from pi_behavior.families import MODULES

_SCHEDULE = "schedule.txt"


def share(config: Config, inputs: Inputs, work: Work) -> None:
    """Do rollouts until all of the plan are done, here or by other workers."""
    plan, trial = Plan.load(inputs.plan.path), Trial.find(inputs.plan.path)
    plan.artifacts(work.workspace)  # refuses other weights than those that were planned
    with _uploads(config, work.path) or nullcontext() as uploads:
        Supervisor(
            plan,
            config.worker,
            find_evaluator(plan.evaluator, plan.edition),
            policy_server(max(1, plan.environments)),
            folder=work.path,
            workspace=work.workspace,
            progress=work.progress,
            files=inputs.plan.path,
            limits=config.limits,
            finished=lambda one: None if uploads is None else uploads.add(one, work.path / CONTENT),
            suffice=None if trial is None else partial(trial.is_decided, plan),
        ).run()


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Complete the artifact: `rollouts/`, `rollouts.json`, `durations.json` and `logs/`."""
    plan, folder = Plan.load(inputs.plan.path), work.path.parent
    if not plan.jobs:  # a trial without a test
        save([], work.path / ROLLOUTS)
        write_atomic(work.path / _SCHEDULE, "")
        return Result(metrics={"rollouts": 0, "unfinished": 0}, summary="there is nothing to roll out")
    evaluator = find_evaluator(plan.evaluator, plan.edition)
    rollouts, results = conclude(plan, evaluator, folder, lambda text: print(text, file=sys.stderr))
    if uploads := _uploads(config, folder):
        uploads.complete(one for one in rollouts if one.outcome is not None)
    times = {one.key: results.times(one) for one in rollouts if one.outcome is not None}
    rollouts = write_traces(work.path, rollouts, {key: folder / LOGS / t.logs for key, t in times.items()})
    save(rollouts, work.path / ROLLOUTS)
    durations = [Duration(k.policy, k.task, k.split, k.index, k.rollout, t) for k, t in times.items()]
    records.write(
        work.path / DURATIONS,
        Durations(plan.edition, plan.evaluator, plan.environments, plan.image_size, tuple(durations)),
    )
    _copy_logs(folder / LOGS, work.path / LOGS)
    write_atomic(work.path / _SCHEDULE, f"{table(plan, durations)}\n{comparison(plan, durations)}\n")
    count, unfinished = len(rollouts), sum(rollout.outcome is None for rollout in rollouts)
    q = sum(rollout.q for rollout in rollouts) / count
    return Result(
        metrics={
            "rollouts": count,
            "unfinished": unfinished,
            "reruns": sum(rollout.attempts - 1 for rollout in rollouts),
            "q": q,
            **{f"rule_{rule}": count for rule, count in rule_counts(work.path / LOGS).items()},
        },
        metadata={"rollouts": count, "unfinished": unfinished},
        summary=f"mean q {q:.2f} over {count} rollouts, of which {unfinished} never finished",
        html=_page(rollouts),
    )


def _page(rollouts: Sequence[Rollout]) -> str:
    """The scores by policy, task and split."""
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
    return page.page("Rollouts", page.table(header, rows))


def details(config: Config, made: Artifact) -> str:
    """What the rollouts took, beside what was expected."""
    return (made.path / _SCHEDULE).read_text().rstrip()


def _uploads(config: Config, folder: Path) -> Uploads | None:
    """What copies the rollouts of an evaluation, whose workers' folder has its fingerprint as a name."""
    if not config.results:
        return None
    return Uploads(find_destination(config.results), folder.stem, folder / "sent")


def _copy_logs(source: Path, target: Path) -> None:
    """Copy the workers' logs, into which a worker that was cut off may still write."""
    shutil.rmtree(target, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, target)


# where the simulator is ours, its source decides the outcome too
_SIMULATOR = ("household.eval",) if find_spec("household") else ()
STAGE = Stage(DECLARATION, run, programs=(SERVER, *MODULES, *_SIMULATOR), share=share, details=details)
