"""The submission: the evaluator's JSONs of the chosen policies, in the challenge's folder layout and zip.

Outputs are copied byte by byte; the challenge forbids editing them and choosing the best of several rollouts.
"""

import os
import shlex
import shutil
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from components.evaluation.evaluator import Order
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import REPORTED, Plan
from components.evaluation.rollouts import Rollout
from components.evaluation.serving import served_policies, server_options
from components.leaderboard.config import Config
from pi_behavior.challenge import EDITIONS

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of the zip format: the same files give the same zip


def package(
    target: Path, config: Config, date: str, plan: Plan, reported: Mapping[str, Sequence[Rollout]]
) -> None:
    """Write the submission's folder and its zip into `target`, which is emptied first.

    `reported` has the reported rollouts of the chosen policy by task; `date` is YYYY-MM-DD.
    """
    shutil.rmtree(target, ignore_errors=True)
    folder = target / config.submission(date)
    (folder / "json").mkdir(parents=True)
    for rollouts in reported.values():
        for rollout in rollouts:
            if rollout.json is not None:
                source = Path(rollout.folder, rollout.json)
                shutil.copyfile(source, folder / "json" / source.name)
    for path in config.files.values():
        shutil.copyfile(path, folder / path.name)
    (folder / "README.md").write_text(_readme(folder.name, config, plan, reported))
    with zipfile.ZipFile(target / f"{folder.name}.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(target).as_posix(), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            file.writestr(entry, path.read_bytes())


def _readme(title: str, config: Config, plan: Plan, reported: Mapping[str, Sequence[Rollout]]) -> str:
    evaluator = find_evaluator(plan.evaluator, plan.edition)
    indices = sorted({i for job in plan.jobs if job.split == REPORTED for i in job.instances})
    chosen = {task: rollouts[0].key.policy for task, rollouts in reported.items()}
    served = {name: one for name, one in served_policies(plan, chosen, "").items() if one.tasks}
    missing = [r.name for rollouts in reported.values() for r in rollouts if not r.json]
    again = [
        f"- {r.name}: {'; '.join(r.reruns)}" for rollouts in reported.values() for r in rollouts if r.reruns
    ]
    reduced = "**Reduced tasks: one room, few objects. Not BEHAVIOR scores; not for submission.**\n\n"
    files = ", ".join(path.name for path in config.files.values())
    evaluation = evaluator.command(
        Order(
            task="TASK",
            split=REPORTED,
            indices=tuple(indices),
            rollouts=plan.rollouts,
            video=True,
            host="HOST",
            port=8000,
            output=Path("OUTPUT"),
            image_size=plan.image_size,
            action_chunk_size=plan.action_chunk_size,
            oracle_stage=plan.oracle_stage,
        )
    )
    # the interpreter's path on this machine means nothing elsewhere
    evaluation[0] = os.path.basename(evaluation[0]).replace("omnigibson-python", "python")
    server = ["python", "-m", *server_options("mapping.json", "0.0.0.0", 8000, plan.policy, every=False)]  # noqa: S104
    mapping = msgspec.json.format(msgspec.json.encode({"checkpoints": served}), indent=2).decode()
    return f"""\
# {title}

Edition {plan.edition}, {config.track} track, {config.testset} test set, {len(reported)} of \
{EDITIONS[plan.edition].tasks} tasks, {len(indices)} instances x {plan.rollouts} rollouts each.

{reduced if evaluator.reduced else ""}## Commands

Policy server; options that are not given have their defaults:

    {shlex.join(server)}

`mapping.json`, in the workspace that holds the artifacts: the policy that was chosen for each task.

{textwrap.indent(mapping, "    ")}

Evaluator, per task:

    {shlex.join(evaluation)}

Environment wrapper and robot configuration: {files or "the evaluator's defaults, unchanged"}.

Rollouts that never finished and count as 0: {", ".join(missing) or "none"}.

Rollouts that were started again, and how their earlier starts ended, none of which left a result:

{chr(10).join(again) or "none"}
"""
