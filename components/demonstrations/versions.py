"""Resolves a dataset's version in git and DVC."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.demonstrations.repository import git, says_unreachable
from components.errors import PassingError, UserError, causes, is_passing
from components.store.lineage import Dependency

_COMMIT = re.compile(r"[0-9a-f]{40}")
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
    size: int = 0
    """Bytes of all files; 0 where DVC did not record it."""


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
            f"version pushed ('dvc push'), and can the remote be reached? {about_remote(system)}"
            f"{error.__cause__}"
        ) from error
    md5 = str(folder.get("md5") or "")
    if found and not md5 and folder["type"] == "directory":
        raise UserError(
            f"{path!r} of {repository} at {rev} is tracked in parts, as 'dvc add {path}/*' does it; remove "
            f"the .dvc files in it ('dvc remove') and run 'dvc add {path}': it has versions as a whole"
        )
    if not md5.endswith(".dir") or not found:
        raise UserError(f"{path!r} of {repository} at {rev} is not a folder with files under DVC")
    hashes = [info["dvc_info"]["entry"].hash_info for info in found.values()]
    if None in hashes:  # what DVC finds in the repository that was imported from
        raise UserError(
            f"{path!r} of {repository} at {rev} has no list of files. {about_remote(system)}Or use the "
            "repository that it is from"
        )
    if any(one.name != "md5" for one in hashes):
        raise UserError(
            f"{path!r} of {repository} at {rev} was added with DVC 2, whose digests depend on line ends; "
            "run 'dvc cache migrate --dvc-files' there and commit"
        )
    prefix = path.rstrip("/") + "/"
    files = {name.removeprefix(prefix): str(info["md5"]) for name, info in sorted(found.items())}
    return system, Version(rev, md5, files, int(folder.get("size") or 0))


def about_remote(system: Any) -> str:
    """What may be wrong with where DVC looks for files, in a sentence; empty if nothing is known."""
    from dvc.config_schema import RelPath

    config = system.repo.config
    name = config["core"].get("remote")
    if any(out.stage.is_repo_import for out in system.repo.index.outs):
        return "It was made by 'dvc import': run 'dvc fetch' and 'dvc push' where it was imported. "
    if name is None:
        return "The repository has no default remote: 'dvc remote add --default NAME URL'. "
    url = config["remote"].get(name, {}).get("url", "")
    if isinstance(url, RelPath):
        return (
            f"The remote {name!r} is given by a relative path, which from here is {url}; give an absolute "
            "one with --config.remote, or in the repository. "
        )
    is_gone = "://" not in url and not Path(url).is_dir()
    return f"The folder {url} of the remote {name!r} is not there. " if is_gone else ""


def dependency(repository: str, path: str, rev: str, md5: str) -> Dependency:
    """A version that a stage used, as lineage records it."""
    digest = {"gitCommit": rev, "md5": md5.removesuffix(".dir")}
    return Dependency(DEMONSTRATIONS, f"dvc+{repository}#{path}", digest)


def manifest(files: Mapping[str, str]) -> str:
    """Files of a version as JSON, path -> MD5."""
    return json.dumps(dict(files), indent=0, sort_keys=True) + "\n"
