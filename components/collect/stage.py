"""Collect demonstrations in the household simulator, and put them under DVC in a git repository.

Scripted experts solve reduced tasks: one room, one or two objects. Episodes that are there already are kept.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

from components.collect.config import DECLARATION, Config, Inputs
from components.demonstrations.repository import begin, version_dataset
from components.demonstrations.source import Source
from components.errors import UserError
from components.runtime.processes import Child, ChildError, describe_exit, log_tail
from components.runtime.stage import Result, Stage, Work
from components.store.files import write_atomic
from components.store.lineage import Dependency
from components.store.making import exclusive

_PROGRAM = "household.collect"
_DATA = Source().path
_REMOTE = "remote"
"""Folder of the DVC remote, beside the repository."""
_EPISODE_FILES = "meta/episodes/**/episode_*.json"
_POLL = 0.5
_MISTAKE = 2


def resolve(config: Config, inputs: Inputs, workspace: Path) -> Config:
    """Make the repository's path absolute; UserError without one."""
    if not config.repository or "://" in config.repository:
        raise UserError(
            f"repository is {config.repository!r}; expected a folder to collect the demonstrations in"
        )
    return dataclasses.replace(config, repository=str(Path(config.repository).resolve()))


def external(config: Config, inputs: Inputs, workspace: Path) -> tuple[Dependency, ...]:
    """The repository by its first commit: after it was removed, demonstrations are collected again."""
    commit = begin(Path(config.repository))
    return (Dependency("repository", f"git+{config.repository}", {"gitCommit": commit}),)


def run(config: Config, inputs: Inputs, work: Work) -> Result:
    """Collect what is missing, record the version, and write `demonstrations.json` and `collect.log`."""
    repository = Path(config.repository)
    lock = repository.with_name(f".{repository.name}.collecting")
    with exclusive(lock, f"collect: another process collects into {repository}; waiting for it"):
        _collect(config, repository / _DATA, work)
        message = f"{config.episodes} episodes per task"
        commit = version_dataset(repository, _DATA, repository.with_name(_REMOTE), message)
        facts = json.loads((repository / _DATA / "meta/info.json").read_text())
    counts = {name: int(facts[f"total_{name}"]) for name in ("tasks", "episodes", "frames")}
    found = {"repository": config.repository, "commit": commit, **counts}
    write_atomic(work.path / "demonstrations.json", json.dumps(found, indent=2) + "\n")
    return Result(
        metrics={name: float(count) for name, count in counts.items()},
        parameters={"commit": commit},
        metadata={"commit": commit, **counts},
        summary=f"{counts['episodes']} episodes of {counts['tasks']} tasks, commit {commit}",
    )


def _collect(config: Config, data: Path, work: Work) -> None:
    """Run the collection until all episodes are there.

    Raises:
        UserError: the simulator refuses the values, or a dataset with other settings is there.
        ChildError: it ended otherwise.
    """
    command = [sys.executable, "-m", _PROGRAM, "--output", str(data)]
    command += ["--tasks", *config.tasks] if config.tasks else []
    command += ["--episodes", str(config.episodes), "--image-size", str(config.image_size)]
    command += ["--seed", str(config.seed), "--workers", str(config.processes)]
    log = work.path / "collect.log"
    total = config.episodes * len(config.tasks) or None
    with (
        work.progress.task("collecting demonstrations", total) as bar,
        Child("the collection", command, log) as child,
    ):
        while (code := child.poll()) is None:
            bar.update(completed=_episodes(data))
            time.sleep(_POLL)
        bar.update(completed=_episodes(data))
    if code == _MISTAKE:
        raise UserError(f"the demonstrations cannot be collected{log_tail(log)}")
    if code:
        raise ChildError(f"the collection ended with {describe_exit(code)}{log_tail(log)}")


def _episodes(data: Path) -> int:
    return sum(1 for _ in data.glob(_EPISODE_FILES))


STAGE = Stage(DECLARATION, run, resolve, external, programs=(_PROGRAM,))
