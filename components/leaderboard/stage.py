"""Leaderboard: choose policies on validation, score the reported instances, package, and write the report.

Report, sections 6.4 (a policy per task) and 8.2 (scores).
"""

import dataclasses
import json
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from components.errors import UserError
from components.evaluation import records
from components.evaluation.plan import COMMON, REPORTED, Plan
from components.evaluation.records import SCORES, Conditions
from components.evaluation.rollouts import EPISODES, ROLLOUTS, load, save
from components.leaderboard import gallery, matrices, report
from components.leaderboard.config import DECLARATION, Config, Inputs
from components.leaderboard.matrices import Matrix
from components.leaderboard.scores import collect, score_all
from components.leaderboard.submission import package
from components.runtime.curves import Curve, draw, draw_all
from components.runtime.stage import Result, Stage, Work
from components.store.lineage import Node


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Write `scores.json`, `episodes.json`, `submission/` and `report/`."""
    plan = Plan.load(inputs.plan.path)
    curves, pictures = _training(plan, work.workspace)
    artifacts = (*inputs.validation, *inputs.evaluations)
    table = collect(chain.from_iterable(load(a.path / ROLLOUTS) for a in artifacts), plan)
    without = [t for t in plan.tasks if not any(s.get(REPORTED) for s in table.get(t, {}).values())]
    if without:
        raise UserError(f"no reported rollouts of {', '.join(without)}; plan with the split {REPORTED}")
    files = plan.files(inputs.plan.path)
    conditions = Conditions.of(
        plan.edition, plan.evaluator, plan.image_size, plan.policy, plan.wrapper, files
    )
    scores = score_all(table, config.seed, conditions)
    records.write(work.path / SCORES, scores)
    rollouts = [r for ps in table.values() for splits in ps.values() for rs in splits.values() for r in rs]
    save(rollouts, work.path / EPISODES)
    now = datetime.now(UTC)
    reported = {task: table[task][name][REPORTED] for task, name in scores.chosen.items()}
    package(work.path / "submission", config, now.date().isoformat(), plan, files, conditions, reported)
    page = work.path / "report"
    shown = report.Report(
        scores=scores,
        table=table,
        plan=plan,
        artifacts=[inputs.plan, *artifacts],
        created=now.strftime("%d %B %Y, %H:%M UTC"),
        filmed=gallery.collect(rollouts, page, work.progress),
        curves=curves,
        matrices=pictures,
        price=config.gpu_hour_price,
    )
    report.write(shown, page)
    total = scores.overall
    metrics = {"q": total.q, "q_low": total.low, "q_high": total.high, "success": total.success}
    counted = scores.denominators
    metrics |= {f"q_{name}": value for name, value in dataclasses.asdict(counted).items()}
    metrics |= {f"q_{task}": one.policies[one.chosen][REPORTED].q for task, one in scores.tasks.items()}
    return Result(
        metrics=metrics,
        metadata={"q": total.q, "tasks": total.tasks},
        summary=f"q {total.q:.2f} (95 % {total.low:.2f} to {total.high:.2f}) over {total.tasks} "
        f"task{'s' * (total.tasks > 1)}, {total.n} rollouts",
        html=report.alone(shown),
    )


def _training(plan: Plan, workspace: Path) -> tuple[list[Curve], list[Matrix]]:
    """Training curves of the plan's policies, and the matrices of the common one."""
    curves: list[Curve] = []
    pictures: list[Matrix] = []
    for name, artifact in plan.artifacts(workspace).items():
        file = artifact.path / "metrics.jsonl"
        if plan.policies[name].folder == "checkpoint" and file.is_file():
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            curves += draw_all(name, rows)
        use = Node.read(artifact.path).run.get("b1k_gpus")
        if use is not None and plan.policies[name].folder == "checkpoint":
            pairs = enumerate(zip(use["busy"], use["memory"], strict=True))
            rows = [{"minute": i * use["period"] / 60, "busy": b, "memory": m} for i, (b, m) in pairs]
            curve = draw(name, "GPU use in per cent, by minutes", rows, ("busy", "memory"), over="minute")
            curves += [curve] if curve else []
        if name == COMMON:
            checkpoint = artifact.path / "checkpoint"
            pictures = [*matrices.kv_mix(checkpoint), *matrices.correlation(checkpoint)]
            spectrum = [draw("noise", "spectrum", picture.spectrum) for picture in pictures]
            curves += [curve for curve in spectrum if curve is not None]
    return curves, pictures


STAGE = Stage(DECLARATION, run)
