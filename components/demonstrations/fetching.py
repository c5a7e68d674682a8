"""Fetches the files of a dataset's version from DVC; content that the machine holds already is linked.

Every file is read once: in that pass it is compared with what DVC recorded, and the SHA-256 for the artifact
is computed. What was fetched is noted in a file beside the data, so that a killed fetch reads nothing twice.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from components.demonstrations.versions import Version, about_remote
from components.errors import PassingError, UserError, is_passing
from components.store.files import sync
from components.store.sums import SUMS, parse_sums

MANIFEST, FETCHED, DATA = "dvc.json", "fetched.jsonl", "data"
"""In a dataset's artifact: the MD5 of every file by path; while it is made: what was fetched; the files."""
_THREADS = 8
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Content:
    """A file whose content is known."""

    path: Path
    sha256: str
    """In hex digits."""


def known_contents(artifacts: Path) -> dict[str, Content]:
    """What datasets of the workspace hold, finished or not, by MD5.

    A file that was changed since it was recorded is not among it.
    """
    found: dict[str, Content] = {}
    for sums in artifacts.glob(f"*/{SUMS}"):
        with suppress(OSError, ValueError):  # removed now, or damaged
            folder, digests, recorded = sums.parent, parse_sums(sums.read_text()), sums.stat().st_mtime_ns
            for name, md5 in json.loads((folder / MANIFEST).read_text()).items():
                path, digest = folder / DATA / name, digests.get(f"{DATA}/{name}")
                if digest and md5 not in found and path.stat().st_mtime_ns <= recorded:
                    found[md5] = Content(path, digest)
    for notes in artifacts.glob(f"*.partial/{FETCHED}"):
        for line in notes.read_text().splitlines():
            with suppress(OSError, ValueError):  # the last line of a killed fetch may be cut short
                name, md5, sha256, changed = json.loads(line)
                path = notes.parent / DATA / name
                if md5 not in found and path.stat().st_mtime_ns == changed:
                    found[md5] = Content(path, sha256)
    return found


class Fetch:
    """Fetches files of a version into an artifact under construction.

    Args:
        system: DVC's file system of the repository.
        version: the version.
        source: the dataset's folder in the repository.
        artifact: the artifact's folder, which gets `data/`.
    """

    def __init__(self, system: Any, version: Version, source: str, artifact: Path) -> None:
        self._system, self._version, self._source = system, version, source.rstrip("/")
        self.data, self._notes = artifact / DATA, artifact / FETCHED
        self._cache = getattr(system.repo.cache, "local", None)
        self._lock = Lock()
        self._known = known_contents(artifact.parent)
        self.sums: dict[str, str] = {}
        """SHA-256 of what was fetched, by its path in the artifact."""
        self.data.mkdir(exist_ok=True)

    def remove_others(self, names: Collection[str]) -> None:
        """Remove all files that are not among the names."""
        for there in [p for p in self.data.rglob("*") if p.is_file()]:
            if there.relative_to(self.data).as_posix() not in names:
                there.unlink()

    def check_space(self, names: Collection[str]) -> None:
        """Refuse what does not fit on the disk.

        DVC records the size of the whole version alone: of a part, the share of files stands for it.
        """
        files = self._version.files
        new = [n for n in names if files[n] not in self._known and not self._cached(files[n]).exists()]
        needed = self._version.size * len(new) // len(files)
        free = shutil.disk_usage(self.data).free
        if needed > free:
            raise UserError(
                f"{len(new)} of {len(names)} files have to be fetched, about {needed:,} bytes; "
                f"{self.data} has {free:,} bytes free. Make space, or choose tasks, cameras and modalities"
            )

    def __call__(self, names: Collection[str], on_file: Callable[[], None] = lambda: None) -> None:
        """Fetch files; keeps those that are there.

        Raises:
            UserError: a file is missing in cache and remote, or its content is not what DVC recorded.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(self._one, names):  # an error cancels what has not begun
                on_file()

    def finish(self) -> Mapping[str, str]:
        """Remove the notes, which are no part of the artifact; returns the sums."""
        self._notes.unlink(missing_ok=True)
        return self.sums

    def _one(self, name: str) -> None:
        md5, target = self._version.files[name], self.data / name
        content = self._known.get(md5)
        if content is None or content.path != target or not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f".{target.name}.partial")
            content = self._link(content, aside) or self._read(name, md5, aside)
            sync(aside)
            aside.replace(target)
            self._note(name, md5, content.sha256, target.stat().st_mtime_ns)
        self.sums[f"{DATA}/{name}"] = content.sha256

    def _link(self, content: Content | None, aside: Path) -> Content | None:
        """The content as another link to the same file; a copy elsewhere is read as new content is."""
        if content is None:
            return None
        aside.unlink(missing_ok=True)
        try:
            os.link(content.path, aside)
        except OSError:  # removed meanwhile, or a file system without links
            return None
        return content

    def _read(self, name: str, md5: str, aside: Path) -> Content:
        """New content, compared with what DVC recorded."""
        source = f"{self._source}/{name}"
        aside.unlink(missing_ok=True)
        try:
            os.link(self._cached(md5), aside)
        except OSError:  # not there, on another disk, or not ours
            try:
                self._system.get_file(source, str(aside))
            except OSError as error:
                if is_passing(error):
                    raise PassingError(f"{source} cannot be fetched now: {error}") from error
                raise UserError(
                    f"{source} (md5 {md5}) is neither in the DVC cache nor in the remote; was the version "
                    f"pushed ('dvc push')? {about_remote(self._system)}{error}"
                ) from error
        actual, sha256 = _digests(aside)
        if actual != md5:
            aside.unlink()
            raise UserError(
                f"{source} has the md5 {actual}; DVC recorded {md5}: the cache or remote is corrupt"
            )
        return Content(aside, sha256)

    def _cached(self, md5: str) -> Path:
        """Where the repository's own DVC cache holds a content."""
        return Path(self._cache.oid_to_path(md5)) if self._cache is not None else Path(os.devnull, md5)

    def _note(self, *values: str | int) -> None:
        with self._lock, self._notes.open("a") as file:
            file.write(json.dumps(values) + "\n")


def _digests(path: Path) -> tuple[str, str]:
    """MD5 and SHA-256 of a file in hex digits."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            md5.update(block)
            sha256.update(block)
    return md5.hexdigest(), sha256.hexdigest()
