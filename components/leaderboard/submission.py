"""The submission: the evaluator's JSONs of the chosen policies, in the challenge's folder layout and zip.

Outputs are copied byte by byte; the challenge forbids editing them and choosing the best of several rollouts.
Beside the zip of the whole folder lie one of the results alone, and the videos, which are not part of it.
"""

import os
import shlex
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from components.evaluation import records
from components.evaluation.evaluator import Order
from components.evaluation.evaluators import find_evaluator
from components.evaluation.plan import REPORTED, Plan
from components.evaluation.records import Conditions
from components.evaluation.rollouts import Rollout
from components.evaluation.serving import served_policies, server_options
from components.leaderboard.config import Config
from components.leaderboard.manifest import MANIFEST, MAPPING, METRICS, README, Manifest
from components.store.files import link
from components.store.sums import SUMS, format_sums, hash_files
from pi_behavior.challenge import EDITIONS

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of the zip format: the same files give the same zip
Reported = Mapping[str, Sequence[Rollout]]
"""The reported rollouts of the chosen policy by task."""


def package(
    target: Path,
    config: Config,
    date: str,
    plan: Plan,
    files: Mapping[str, Path],
    conditions: Conditions,
    reported: Reported,
) -> None:
    """Write the submission's folder, its zips and its videos into `target`, which is emptied first.

    `date` is YYYY-MM-DD; `files` are the wrapper and the robot configuration where they are our own.
    """
    shutil.rmtree(target, ignore_errors=True)
    folder = target / config.submission(date)
    (folder / "json").mkdir(parents=True)
    for rollouts in reported.values():
        for rollout in rollouts:
            if rollout.json is not None:
                source = Path(rollout.folder, rollout.json)
                shutil.copyfile(source, folder / "json" / source.name)
            if rollout.video is not None and rollout.json is not None:
                source = Path(rollout.folder, rollout.video)
                link(source, target / "videos" / source.name)
    for path in files.values():
        shutil.copyfile(path, folder / path.name)
    chosen = {task: rollouts[0].key.policy for task, rollouts in reported.items()}
    served = {name: one for name, one in served_policies(plan, chosen, "").items() if one.tasks}
    manifest = Manifest(
        edition=plan.edition,
        reduced=find_evaluator(plan.evaluator, plan.edition).reduced,
        conditions=conditions,
        policies={name: one.digest for name, one in served.items()},
        tasks=chosen,
        instances={task: tuple(sorted({r.instance for r in rs})) for task, rs in reported.items()},
        rollouts=plan.rollouts,
        missing=tuple(r.name for rs in reported.values() for r in rs if r.json is None),
        reruns={r.name: r.reruns for rs in reported.values() for r in rs if r.reruns},
        videos=config.videos,
    )
    records.write(folder / MANIFEST, manifest)
    records.write(folder / MAPPING, {"checkpoints": served})
    (folder / README).write_text(_readme(folder.name, config, plan, manifest, reported))
    (folder / SUMS).write_text(format_sums(hash_files(folder)))
    _zip(target / f"{folder.name}.zip", (path for path in folder.rglob("*") if path.is_file()))
    _zip(target / f"{folder.name}{METRICS}", (folder / "json").iterdir())


def _zip(target: Path, paths: Iterable[Path]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(paths):
            entry = zipfile.ZipInfo(path.relative_to(target.parent).as_posix(), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            file.writestr(entry, path.read_bytes())


def _commands(plan: Plan, reported: Reported) -> list[str]:
    """The evaluator's command of every task, as it was planned; its workers shared the instances."""
    evaluator = find_evaluator(plan.evaluator, plan.edition)
    commands = []
    for task, rollouts in reported.items():
        indices = tuple(sorted({rollout.key.index for rollout in rollouts}))
        words = evaluator.command(
            Order(
                task=task,
                split=REPORTED,
                indices=indices,
                rollouts=plan.rollouts,
                videos=indices,
                host="HOST",
                port=8000,
                output=Path("OUTPUT"),
                image_size=plan.image_size,
                action_chunk_size=plan.action_chunk_size,
                oracle_stage=plan.oracle_stage,
                environments=len(indices) if plan.environments else 0,
                wrapper=plan.wrapper,
                robot_config=plan.own.get("robot_config", ""),
            )
        )
        # the interpreter's path on this machine means nothing elsewhere
        words[0] = os.path.basename(words[0]).replace("omnigibson-python", "python")
        commands.append(shlex.join(words))
    return commands


def _readme(title: str, config: Config, plan: Plan, manifest: Manifest, reported: Reported) -> str:
    again = [f"- {name}: {'; '.join(reasons)}" for name, reasons in manifest.reruns.items()]
    reduced = "**Reduced tasks: one room, few objects. Not BEHAVIOR scores; not for submission.**\n\n"
    files = ", ".join([*plan.own.values(), *([] if "wrapper" in plan.own else filter(None, [plan.wrapper]))])
    server = ["python", "-m", *server_options(MAPPING, "0.0.0.0", 8000, plan.policy)]  # noqa: S104
    digests = [f"- {name}: sha256 {digest}" for name, digest in manifest.policies.items()]
    instances = max(map(len, manifest.instances.values()))
    line = "\n"
    return f"""\
# {title}

Edition {plan.edition}, {config.track} track, {config.testset} test set, {len(reported)} of \
{EDITIONS[plan.edition].tasks} tasks, {instances} instances x {plan.rollouts} rollouts each.

{reduced if manifest.reduced else ""}## Commands

Policy server; options that are not given have their defaults:

    {shlex.join(server)}

`{MAPPING}` has the policy of each task. It belongs into the workspace that holds the policies'
artifacts, whose digests are:

{line.join(digests)}

Evaluator, for each task:

{line.join("    " + command for command in _commands(plan, reported))}

Environment wrapper and robot configuration: {files or "the evaluator's defaults, unchanged"}.

Videos: {config.videos or "not published"}.

Rollouts that never finished and count as 0: {", ".join(manifest.missing) or "none"}.

Rollouts that were started again, and how their earlier starts ended, none of which left a result:

{line.join(again) or "none"}

`{SUMS}` has the digests of all files: `sha256sum -c {SUMS}` checks them.
"""
