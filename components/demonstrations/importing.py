"""Bring a dataset from the Hugging Face Hub into a git and DVC repository: `b1k dataset import`.

A killed import continues with the file, and within it the byte, at which it was. A later revision of the
same dataset costs the files that changed.
"""

import shutil
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from components.demonstrations.repository import version_dataset
from components.demonstrations.selection import chosen_files, meta_files, task_indices
from components.demonstrations.source import Source
from components.errors import PassingError, UserError
from components.runtime.progress import Progress
from components.store.making import exclusive
from pi_behavior.data.lerobot import DatasetError, LeRobotDataset

_SCHEME = "hf://"
_THREADS = 8


@dataclass(frozen=True)
class Options:
    """Bring a dataset from the Hugging Face Hub into a git and DVC repository, as a new version."""

    source: tyro.conf.Positional[str]
    """hf://OWNER/NAME, or hf://OWNER/NAME@REVISION with a branch, tag or commit."""
    repository: Path = Path("workspace/demonstrations")
    """The repository; it is made where there is none."""
    remote: Path = Path("workspace/remote")
    """Folder of the DVC remote."""
    tasks: tuple[str, ...] = ()
    """Names of the tasks to fetch; none means all."""
    cameras: tuple[str, ...] = ()
    """Cameras to fetch: head, left_wrist, right_wrist; none means all."""
    modalities: tuple[str, ...] = ()
    """Videos to fetch: rgb, depth, segmentation; none means all."""
    endpoint: str = ""
    """URL of the Hub; empty: that of the variable HF_ENDPOINT, or the public one."""


def run(options: Options) -> int:
    """Fetch what is new, record the version, print its commit; exit code 0."""
    name, _, revision = options.source.removeprefix(_SCHEME).partition("@")
    if not options.source.startswith(_SCHEME) or name.count("/") != 1 or not all(name.split("/")):
        raise UserError(f"source is {options.source!r}; expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    repository = options.repository.resolve()
    repository.mkdir(parents=True, exist_ok=True)
    lock = repository.with_name(f".{repository.name}.importing")
    with exclusive(lock, f"another process imports into {repository}; waiting for it"):
        try:
            commit, files = _download(options, name, revision or "main", repository / Source().path)
        except Exception as error:
            raise _explained(error, name, revision or "main") from error
        message = f"{name} at {commit}"
        version = version_dataset(repository, Source().path, options.remote, message)
    print(f"dataset import: {files} files of {name} at {commit} are version {version} of {repository}")
    return 0


def _download(options: Options, name: str, revision: str, data: Path) -> tuple[str, int]:
    """Fetch the chosen files; returns the Hub's commit and the number of files."""
    # a second of imports that --help should not wait for
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    endpoint = options.endpoint or None
    info = HfApi(endpoint=endpoint).dataset_info(name, revision=revision, files_metadata=True)
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
    commit = str(info.sha)
    one = partial(
        hf_hub_download,
        name,
        repo_type="dataset",
        revision=commit,
        local_dir=data,
        endpoint=endpoint,
    )
    _fetch(one, meta_files(sizes), "fetching meta/")
    names = chosen_files(
        LeRobotDataset(data),
        [n for n in sizes if not Path(n).name.startswith(".")],
        tasks=task_indices(options.tasks),
        cameras=options.cameras,
        modalities=options.modalities,
    )
    new = sum(sizes[n] for n in names if not (data / n).is_file())
    free = shutil.disk_usage(data).free
    # DVC keeps the files in its cache and in the remote, too
    if 3 * new > free:
        raise UserError(
            f"{new:,} bytes are to be fetched, and DVC keeps them in its cache and remote too; {data} has "
            f"{free:,} free. Make space, or choose tasks, cameras and modalities"
        )
    _fetch(one, names, "fetching files")
    for path in [p for p in data.rglob("*") if p.is_file() and ".cache" not in p.relative_to(data).parts]:
        if path.relative_to(data).as_posix() not in names:
            path.unlink()
    return commit, len(names)


def _fetch(one: Any, names: Collection[str], what: str) -> None:
    with Progress().task(what, total=len(names)) as bar, ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(one, names):  # an error cancels what has not begun
            bar.advance()


def _explained(error: Exception, name: str, revision: str) -> Exception:
    """The Hub's error in words; any other error itself."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    if isinstance(error, DatasetError):
        return UserError(str(error))
    if not isinstance(error, HTTPError | errors.LocalEntryNotFoundError):
        return error
    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"{name} is gated: accept its terms on its page, log in with 'hf auth login', try again"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(
            f"the Hub has no dataset {name!r}, or it is private: 'hf auth login', then try again"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{name} has no revision {revision!r}; expected a branch, tag or commit")
    # none where no server answered
    status = getattr(getattr(error, "response", None), "status_code", 500)
    if status in (408, 429) or status >= 500:
        return PassingError(f"{name} cannot be fetched now; what was fetched is kept, try again: {error}")
    return UserError(f"{name} cannot be fetched: {error}")
