"""The submission: the evaluator's JSONs of the chosen checkpoints, in the challenge's folder layout and zip.

Outputs are copied byte by byte; the challenge forbids editing them and choosing the best of several rollouts.
"""

import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.evaluation.evaluators import Order, find_evaluator
from components.evaluation.plan import REPORTED, Plan
from components.evaluation.rollouts import Rollout
from components.runtime.errors import UserError
from pi_behavior.challenge import EDITIONS

TRACKS = ("standard", "privileged")
TESTSETS = ("public", "hidden")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of the zip format: the same files give the same zip


@dataclass(frozen=True)
class Identity:
    """Who submits what: the parts of the folder's name."""

    track: str
    testset: str
    team: str
    affiliation: str
    date: str
    """YYYY-MM-DD."""

    def __post_init__(self) -> None:
        """Check that the parts can be told apart in the name."""
        for field, value, known in (("track", self.track, TRACKS), ("testset", self.testset, TESTSETS)):
            if value not in known:
                raise ValueError(f"{field} is {value!r}; expected one of {', '.join(known)}")
        for field, value in (("team", self.team), ("affiliation", self.affiliation)):
            if not value or set(value) & set("./\\"):
                raise ValueError(f"{field} is {value!r}; expected a name without dots and slashes")

    @property
    def folder(self) -> str:
        """TRACK.TESTSET.TEAM.AFFILIATION.DATE, spaces as underscores."""
        parts = (self.track, self.testset, self.team, self.affiliation, self.date)
        return ".".join(parts).replace(" ", "_")


def package(
    target: Path,
    identity: Identity,
    plan: Plan,
    chosen: Mapping[str, Sequence[Rollout]],
    policies: Mapping[str, str],
    files: Sequence[str],
) -> Path:
    """Write the submission folder and its zip; an earlier one in the target is replaced.

    Args:
        target: folder to write into.
        identity: who submits what.
        plan: the evaluation.
        chosen: reported rollouts of the chosen policy by task.
        policies: name of the chosen policy by task.
        files: further files of the submission: environment wrapper (.py), robot configuration.

    Returns:
        The zip file.

    Raises:
        UserError: a further file is missing.
    """
    shutil.rmtree(target, ignore_errors=True)
    folder = target / identity.folder
    (folder / "json").mkdir(parents=True)
    for rollouts in chosen.values():
        for rollout in rollouts:
            if rollout.json is not None:
                source = rollout.folder / rollout.json
                shutil.copyfile(source, folder / "json" / source.name)
    for name in filter(None, files):
        if not Path(name).is_file():
            raise UserError(f"{name} is not a file; expected the environment wrapper or robot configuration")
        shutil.copyfile(name, folder / Path(name).name)
    (folder / "README.md").write_text(_readme(identity, plan, chosen, policies, files))
    archive = target / f"{identity.folder}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(target).as_posix(), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            file.writestr(entry, path.read_bytes())
    return archive


def _readme(
    identity: Identity,
    plan: Plan,
    chosen: Mapping[str, Sequence[Rollout]],
    policies: Mapping[str, str],
    files: Sequence[str],
) -> str:
    evaluator = find_evaluator(plan.evaluator, plan.edition)
    indices = sorted({i for job in plan.jobs if job.split == REPORTED for i in job.instances})
    words = evaluator.command(
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
            oracle_stage=plan.settings.oracle_stage,
        )
    )
    # the interpreter's path on this machine means nothing elsewhere
    command = " ".join([os.path.basename(words[0]).replace("omnigibson-python", "python"), *words[1:]])
    settings = plan.settings
    server = (
        "python -m pi_behavior.policy.server --mapping mapping.json --host 0.0.0.0 --port 8000 "
        f"--policy.execute {settings.execute} --policy.compress-from {settings.compress_from} "
        f"--policy.num-steps {settings.num_steps} --policy.seed {settings.seed}"
    )
    edition = EDITIONS[plan.edition]
    missing = [r.name for rs in chosen.values() for r in rs if not r.json]
    lines = [
        f"# {identity.folder}",
        "",
        f"Edition {plan.edition}, {identity.track} track, {identity.testset} test set, "
        f"{len(chosen)} of {edition.tasks} tasks, {len(indices)} instances x {plan.rollouts} rollouts each.",
    ]
    if evaluator.reduced:
        lines += [
            "",
            "**Reduced tasks: one room, few objects. Not BEHAVIOR scores; not for submission.**",
        ]
    lines += ["", "## Commands", "", "Policy server:", "", f"    {server}", "", "Evaluator, per task:", ""]
    lines += [f"    {command}", "", "## Checkpoints", "", "| task | checkpoint |", "| --- | --- |"]
    lines += [f"| {task} | {policies[task]} |" for task in chosen]
    names = [Path(name).name for name in files if name]
    lines += ["", "Environment wrapper and robot configuration: "]
    lines[-1] += f"{', '.join(names)}." if names else "the evaluator's defaults, unchanged."
    lines += ["", f"Rollouts that never finished and count as 0: {', '.join(missing) or 'none'}.", ""]
    return "\n".join(lines)
