"""Resolves a dataset's version and fetches its files from DVC."""

import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.demonstrations.repository import git, says_unreachable
from components.demonstrations.repository import md5 as file_md5
from components.errors import PassingError, UserError, causes, is_passing
from components.store.lineage import Dependency

_COMMIT = re.compile(r"[0-9a-f]{40}")
_THREADS = 8
DEMONSTRATIONS = "demonstrations"
"""Name of a version of the demonstrations in lineage."""


@dataclass(frozen=True)
class Version:
    """One version of a dataset, as DVC records it."""

    rev: str
    """Git commit of the repository."""
    md5: str
    """DVC's digest of the folder: MD5 of its sorted file list, with the suffix `.dir`."""
    files: Mapping[str, str]
    """Path relative to the dataset -> MD5."""


def absolute(repository: str) -> str:
    """The URL or absolute path of a repository, which means the same in every folder; UserError if empty."""
    if not repository:
        raise UserError("no repository given; expected the git and DVC repository of the demonstrations")
    return str(Path(repository).resolve()) if Path(repository).is_dir() else repository


def resolve_revision(repository: str, revision: str) -> str:
    """The git commit that a branch, tag or commit names (of a URL no short one); UserError if none does."""
    if _COMMIT.fullmatch(revision):
        return revision
    folder = Path(repository)
    if folder.is_dir():
        try:
            return git(folder, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        except UserError as error:
            raise UserError(
                f"{repository} has no revision {revision!r}; expected a branch, tag or commit of a git "
                f"repository ({error})"
            ) from error
    if "://" not in repository and "@" not in repository:
        raise UserError(
            f"repository {repository!r} is neither a folder nor a URL; expected a git and DVC repository"
        )
    lines = git(Path.cwd(), "ls-remote", "--", repository).splitlines()
    found = {name: commit for commit, name in (line.split("\t") for line in lines)}
    # an annotated tag's own line names the tag, the line with ^{} its commit
    for name in (f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}", f"refs/heads/{revision}", revision):
        if name in found:
            return found[name]
    raise UserError(f"{repository} has no branch, tag or full commit {revision!r}")


def open_version(repository: str, rev: str, path: str, remote: str) -> tuple[Any, Version]:
    """Open a version of a dataset, named as in `Source`; call it inside `dvc_environment`.

    Returns:
        DVC's file system of the repository, and the version.

    Raises:
        PassingError: the repository or the remote cannot be reached.
        UserError: repository, revision, path or remote do not exist.
    """
    # half a second of imports, which --help and a cached stage should not wait for
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError
    from dvc_data.index import DataIndexDirError

    options: dict[str, Any] = {}
    if "/" in remote:
        options = {"remote": "given", "remote_config": {"url": remote}}
    elif remote:
        options = {"remote": remote}
    try:
        system = DVCFileSystem(repository, rev=rev, **options)
        folder = system.info(path)
        found = system.find(path, detail=True, dvc_only=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{repository} at {rev} has no {path!r} under DVC; expected the dataset's folder"
        ) from error
    except (DataIndexDirError, DvcException, SCMError) as error:
        *_, reason = causes(error)
        if is_passing(error) or any(says_unreachable(str(one)) for one in causes(error)):
            raise PassingError(f"cannot reach {path!r} of {repository} at {rev}: {reason}") from error
        if not isinstance(error, DataIndexDirError):
            raise UserError(f"cannot open {path!r} of {repository} at {rev}: {reason}") from error
        raise UserError(
            f"the list of files of {path!r} at {rev} is neither in the DVC cache nor in the remote; was the "
            f"version pushed ('dvc push'), and can the remote be reached? {error.__cause__}"
        ) from error
    md5 = str(folder.get("md5") or "")
    if not md5.endswith(".dir") or not found:
        raise UserError(f"{path!r} of {repository} at {rev} is not a folder with files under DVC")
    if any(info["dvc_info"]["entry"].hash_info.name != "md5" for info in found.values()):
        raise UserError(
            f"{path!r} of {repository} at {rev} was added with DVC 2, whose digests depend on line ends; "
            "run 'dvc cache migrate --dvc-files' there and commit"
        )
    prefix = path.rstrip("/") + "/"
    files = {name.removeprefix(prefix): str(info["md5"]) for name, info in sorted(found.items())}
    return system, Version(rev, md5, files)


def fetch(system: Any, version: Version, path: str, target: Path, on_file: Callable[[], None]) -> None:
    """Fetch the files of a version into `target`; keeps right ones that are there, removes all others.

    Raises:
        UserError: a file is missing in cache and remote, or its content is not what DVC recorded.
    """
    target.mkdir(exist_ok=True)
    for there in [p for p in target.rglob("*") if p.is_file()]:
        if there.relative_to(target).as_posix() not in version.files:
            there.unlink()

    def one(name: str) -> None:
        _fetch_one(system, f"{path.rstrip('/')}/{name}", target / name, version.files[name])

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(one, version.files):  # an error cancels what has not begun
            on_file()


def _fetch_one(system: Any, source: str, target: Path, md5: str) -> None:
    if target.is_file() and file_md5(target) == md5:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.partial")
    try:
        system.get_file(source, str(aside))
    except OSError as error:
        if is_passing(error):
            raise PassingError(f"{source} cannot be fetched now: {error}") from error
        raise UserError(
            f"{source} (md5 {md5}) is neither in the DVC cache nor in the remote; was the version pushed "
            f"('dvc push')? {error}"
        ) from error
    actual = file_md5(aside)
    if actual != md5:
        aside.unlink()
        raise UserError(f"{source} has the md5 {actual}; DVC recorded {md5}: the cache or remote is corrupt")
    aside.replace(target)


def dependency(repository: str, path: str, rev: str, md5: str) -> Dependency:
    """A version that a stage used, as lineage records it."""
    digest = {"gitCommit": rev, "md5": md5.removesuffix(".dir")}
    return Dependency(DEMONSTRATIONS, f"dvc+{repository}#{path}", digest)


def manifest(version: Version) -> str:
    """The version's files as JSON, path -> MD5."""
    return json.dumps(dict(version.files), indent=0, sort_keys=True) + "\n"
