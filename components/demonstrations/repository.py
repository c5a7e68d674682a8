"""Puts a dataset under DVC in a git repository of its own.

The project's repository never holds data: a collected dataset lies in a workspace, whose repository tracks
one small `.dvc` file per version, while the files themselves go to a DVC remote.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from components.errors import PassingError, UserError
from components.store.files import write_atomic
from components.store.making import exclusive

_IDENTITY = ("-c", "user.name=b1k", "-c", "user.email=b1k@localhost", "-c", "commit.gpgsign=false")
_LEFT_BY_KILLED_WRITERS = ".*.partial*"
_SITE_CACHE = Path(".dvc/tmp/site")
# git and its libraries have no error codes for these
_UNREACHABLE = re.compile(
    r"could not resolve host|name resolution|failed to resolve|name or service not known"
    r"|connection (refused|reset|timed out|was reset)|operation timed out|failed to connect|couldn't connect"
    r"|network is unreachable|no route to host|max retries exceeded|early eof|returned error: (429|5\d\d)",
    re.IGNORECASE,
)


def version_dataset(workspace_repo: Path, data_path: str, remote: Path, message: str) -> str:
    """Record the present state of a dataset as a version, and push its files to a remote.

    Makes the repository at the first call, and only checks if nothing changed. If it is killed, the next call
    completes it: files are pushed before the version that names them is committed. Reads every object once.

    Args:
        workspace_repo: folder of the repository; inside another repository only where that ignores it.
        data_path: the dataset's folder, relative to the repository.
        remote: folder of the DVC remote.
        message: the version's commit message.

    Returns:
        The git commit of the version, 40 hex digits.

    Raises:
        UserError: there is no such dataset, it is empty, or the repository would lie in a tracked folder.
    """
    repository, remote = workspace_repo.resolve(), remote.resolve()
    data = repository / data_path
    if repository not in data.resolve().parents or not data.is_dir() or not any(data.iterdir()):
        raise UserError(
            f"{data} is not a folder with files inside {repository}; collect a dataset there first"
        )
    _refuse_tracked_place(repository)
    with exclusive(_lock_of(repository), f"another process records a version of {data}; waiting for it"):
        _repair(repository, remote)
        _prepare(repository, remote)
        # what DVC writes for data/demos, not atomically: data/demos.dvc and an entry in data/.gitignore
        place = Path(data_path)
        written = (f"{place.as_posix()}.dvc", (place.parent / ".gitignore").as_posix())
        for name in written:
            if not succeeds(repository, "checkout", "HEAD", "--", name):
                (repository / name).unlink(missing_ok=True)
        # DVC also reads a dvc.yaml of the working directory, which may be that of another repository
        with dvc_environment(repository / _SITE_CACHE), chdir(repository):
            _add_and_push(repository, data, remote)
        git(repository, "add", "--", ".dvc/config", ".dvc/.gitignore", ".dvcignore", *written)
        if not succeeds(repository, "diff", "--cached", "--quiet"):
            git(repository, *_IDENTITY, "commit", "--quiet", "--no-verify", "--message", message)
        return git(repository, "rev-parse", "HEAD")


def begin(workspace_repo: Path) -> str:
    """Make a git repository where there is none, and return the first commit of the one that is there.

    It tells a repository from one that was in the same place before.

    Raises:
        UserError: the repository would lie in a tracked folder.
    """
    repository = workspace_repo.resolve()
    repository.parent.mkdir(parents=True, exist_ok=True)
    _refuse_tracked_place(repository)
    with exclusive(_lock_of(repository), f"another process works in {repository}; waiting for it"):
        # without a folder of its own git would take the repository around this one
        has_own = (repository / ".git").exists()
        if not has_own or not succeeds(repository, "rev-parse", "--verify", "--quiet", "HEAD"):
            repository.mkdir(exist_ok=True)
            _remove_locks(repository)
            git(repository, "init", "--quiet", "--initial-branch=main")
            git(
                repository,
                *_IDENTITY,
                "commit",
                "--quiet",
                "--no-verify",
                "--allow-empty",
                "--message",
                "Begin",
            )
        return git(repository, "rev-list", "--max-parents=0", "HEAD").splitlines()[-1]


def git(repository: Path, *arguments: str) -> str:
    """What git prints in a repository, without settings of user or machine.

    Raises:
        PassingError: git did not reach another machine.
        UserError: git failed otherwise.
    """
    answer = _run_git(repository, arguments)
    if answer.returncode:
        kind = PassingError if says_unreachable(answer.stderr) else UserError
        raise kind(f"git {' '.join(arguments)} failed in {repository}: {answer.stderr.strip()}")
    return answer.stdout.strip()


def says_unreachable(message: str) -> bool:
    """Whether a message of git or DVC is about a machine that cannot be reached, which may pass."""
    return _UNREACHABLE.search(message) is not None


def md5(path: Path) -> str:
    """Digest of a file as DVC names it, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def dvc_environment(site_cache: Path) -> Iterator[None]:
    """Keep DVC to one folder: no analytics, no caches or settings elsewhere on the machine.

    Clones that it makes of repositories serve until the end, where they are removed.
    """
    settings = {
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(site_cache),
        "DVC_GLOBAL_CONFIG_DIR": str(site_cache / "config"),
        "DVC_SYSTEM_CONFIG_DIR": str(site_cache / "config"),
    }
    # DVC would make it writable for everybody, whatever the umask
    (site_cache / "repo").mkdir(parents=True, exist_ok=True)
    before = {name: os.environ[name] for name in settings if name in os.environ}
    os.environ.update(settings)
    try:
        yield
    finally:
        if "dvc.repo.open_repo" in sys.modules:
            sys.modules["dvc.repo.open_repo"].clean_repos()
        for name in settings:
            del os.environ[name]
        os.environ.update(before)


def _run_git(repository: Path, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "-C", str(repository), "-c", "safe.directory=*", *arguments]
    try:
        return subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError(
            "git is not installed; the dataset's versions are kept in a git repository"
        ) from error


def succeeds(repository: Path, *arguments: str) -> bool:
    """Whether a git command in a repository exits with 0."""
    return _run_git(repository, arguments).returncode == 0


def _refuse_tracked_place(repository: Path) -> None:
    parent = repository.parent
    if succeeds(parent, "rev-parse", "--is-inside-work-tree") and not succeeds(
        parent, "check-ignore", "--quiet", str(repository)
    ):
        raise UserError(
            f"{repository} lies in the git repository {git(parent, 'rev-parse', '--show-toplevel')}, which "
            "does not ignore it; choose a folder outside or add it to .gitignore"
        )


def _prepare(repository: Path, remote: Path) -> None:
    """Initialise git and DVC. All files are written again, which repairs what a kill left."""
    remote.mkdir(parents=True, exist_ok=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    contents = {
        ".dvc/config": "[core]\n    remote = storage\n    analytics = false\n    check_update = false\n"
        f"    autostage = true\n['remote \"storage\"']\n    url = {remote}\n",
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
        ".dvcignore": f"# what killed writers and downloads leave\n{_LEFT_BY_KILLED_WRITERS}\n.cache/\n",
    }
    for name, content in contents.items():
        write_atomic(repository / name, content)


def _add_and_push(repository: Path, data: Path, remote: Path) -> None:
    """Let DVC do it; UserError if not all files are in the remote then, of which DVC only warns."""
    # half a second of imports that other users of this module should not wait for
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(repository)) as repo:
            (stage,) = repo.add(str(data))
            repo.push(str(data))
    except DvcException as error:
        raise UserError(f"DVC could not add and push {data}: {error}") from error
    store = remote / "files/md5"
    folder = _object(store, stage.outs[0].hash_info.value)
    if not folder.is_file() or not _has_all_files(store, folder):
        raise UserError(f"DVC did not push all files of {data} to {remote}; try again")


def _repair(repository: Path, remote: Path) -> None:
    """Remove what a killed call left and DVC or its git library would trust, or fail on.

    DVC takes an object that exists for a whole one, a folder's object for the presence of all its files, and
    its index of a push for complete; its git library fails at once on a lock.
    """
    shutil.rmtree(repository / ".dvc/tmp", ignore_errors=True)
    _remove_locks(repository)
    for store in (repository / ".dvc/cache/files/md5", remote / "files/md5"):
        objects = [path for path in store.rglob("*") if path.is_file()]
        for path in objects:
            if md5(path) != (path.parent.name + path.name).removesuffix(".dir"):
                path.unlink()
        for path in objects:
            if path.suffix == ".dir" and path.exists() and not _has_all_files(store, path):
                path.unlink()


def _lock_of(repository: Path) -> Path:
    return repository.with_name(f".{repository.name}.lock")


def _remove_locks(repository: Path) -> None:
    for lock in (repository / ".git").rglob("*.lock"):
        lock.unlink()


def _has_all_files(store: Path, folder: Path) -> bool:
    return all(_object(store, entry["md5"]).is_file() for entry in json.loads(folder.read_bytes()))


def _object(store: Path, digest: str) -> Path:
    return store / digest[:2] / digest[2:]
