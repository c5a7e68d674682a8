"""What is new in the demonstrations since a revision: `b1k dataset new`.

Reads DVC's lists of files and git's log, never the data themselves.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.demonstrations.repository import dvc_environment, git, succeeds
from components.demonstrations.source import Source
from components.demonstrations.versions import Version, absolute, open_version, resolve_revision
from components.errors import UserError
from pi_behavior.challenge import TASKS_BY_INDEX

_EPISODE = re.compile(r"data/task-(\d+)/episode_(\d+)\.parquet")
_COMMITS = 100


@dataclass(frozen=True)
class Options(Source):
    """Is there a newer version of the demonstrations, and what is in it?

    Prints JSON and exits with 0 either way. Compares what DVC recorded of the dataset at two revisions; no
    data are downloaded.
    """

    since: str = ""
    """Branch, tag or commit of the version to compare with; empty: everything is new."""


def run(options: Options) -> int:
    """Print what is new as JSON; exit code 0."""
    with TemporaryDirectory(prefix="b1k-") as folder, dvc_environment(Path(folder)):
        print(json.dumps(whats_new(options, options.since), indent=2))
    return 0


def whats_new(source: Source, since: str) -> dict[str, Any]:
    """Compare two versions of a dataset; call it inside `dvc_environment`.

    Returns:
        {"news": whether the files of `revision` differ from those of `since` and are not an older state,
        "repository", "path", "revision", "since": {"rev", "md5"} each, `since` None for no comparison,
        "commits": [{"rev", "date", "subject"}] newest first, at most 100, "files": {"added", "removed",
        "changed"}, "episodes": {task: {"added", "removed", "changed"}}, None where file names do not tell}.
    """
    repository = absolute(source.repository)
    rev = resolve_revision(repository, source.revision)
    since = resolve_revision(repository, since) if since else ""
    after = read_version(repository, rev, source.path, source.remote)
    before = read_version(repository, since, source.path, source.remote) if since else None
    with TemporaryDirectory(prefix="b1k-") as folder:
        history = Path(repository)
        if not history.is_dir():
            git(Path(folder), "clone", "--bare", "--filter=blob:none", "--quiet", "--", repository, "history")
            history = Path(folder, "history")
        commits = _commits(history, since, rev)
        older = bool(since) and succeeds(history, "merge-base", "--is-ancestor", rev, since)
    return {
        "news": before is None or (before.md5 != after.md5 and not older),
        "repository": repository,
        "path": source.path,
        "revision": {"rev": after.rev, "md5": after.md5},
        "since": None if before is None else {"rev": before.rev, "md5": before.md5},
        "commits": commits,
        **_differences({} if before is None else before.files, after.files),
    }


def read_version(repository: str, rev: str, path: str, remote: str) -> Version:
    """What DVC recorded of a dataset at a commit; UserError if there is no such thing."""
    return open_version(repository, rev, path, remote)[1]


def _commits(history: Path, since: str, rev: str) -> list[dict[str, str]]:
    span = f"{since}..{rev}" if since else rev
    try:
        lines = git(history, "log", f"--max-count={_COMMITS}", "--format=%H%x09%cI%x09%s", span, "--")
    except UserError as error:
        raise UserError(f"the repository does not hold the commits {span}: {error}") from error
    rows = (line.split("\t", 2) for line in lines.splitlines())
    return [{"rev": commit, "date": date, "subject": subject} for commit, date, subject in rows]


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Any]:
    kinds = {
        "added": after.keys() - before.keys(),
        "removed": before.keys() - after.keys(),
        "changed": {name for name in before.keys() & after.keys() if before[name] != after[name]},
    }
    counts = {kind: Counter(map(_task, names)) for kind, names in kinds.items()}
    tasks = sorted({task for count in counts.values() for task in count if task})
    episodes = {task: {kind: count[task] for kind, count in counts.items()} for task in tasks}
    return {
        "files": {kind: len(names) for kind, names in kinds.items()},
        "episodes": episodes if any(map(_task, after)) else None,
    }


def _task(name: str) -> str:
    """The task of an episode's file; empty for other files."""
    match = _EPISODE.fullmatch(name)
    if match is None:
        return ""
    task = TASKS_BY_INDEX.get(int(match[1]))
    return f"task-{match[1]}" if task is None else task.name
