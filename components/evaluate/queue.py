"""What workers of one evaluation tell each other through a folder of a shared file system: who lives, and who
does what.

A worker lives as long as it holds the lock of its own file and goes on writing to it. Both are looked at, as
the kernel frees the lock of a process that ended, and only the writing shows that one hangs. Times of
different nodes are never compared: a worker sees for itself how long a file stays the same.

A claim is a symbolic link whose name holds the instance, and whose target is the worker: it appears as a
whole, or fails because there is one. The claim of a worker that is gone is not removed, which two could do at
a time, but replaced by one with the next number. Claims save work and decide nothing: results that two
workers made of one rollout meet when they are put in place, and the first one stays.
"""

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from components.store.making import is_held

_BEAT = 5.0
"""Least seconds between two signs of life."""
_ASIDE = b"aside"


@dataclass(frozen=True)
class Claims:
    """The claims at a moment."""

    holders: Mapping[str, str] = field(default_factory=dict)
    """Claims that count, as instance and worker: the last one of each instance, if its worker works."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """The number of the last claim of each instance."""


class Queue:
    """One worker's access to the queue. Use it as a context manager: leaving gives all claims back."""

    def __init__(self, folder: Path, worker: int, lease: float) -> None:
        """Prepare.

        Args:
            folder: the folder that all workers share.
            worker: the worker's number; a worker that is started again is another one.
            lease: seconds without a sign of life after which a worker counts as gone.
        """
        self.me = f"{worker}-{uuid.uuid4().hex[:12]}"
        self._workers, self._claims = folder / "workers", folder / "claims"
        self._lease = lease
        self._count = 0
        self._beaten = float("-inf")
        self._state = b"works"
        self._mine: set[str] = set()
        """Names of our claims."""
        self._seen: dict[str, tuple[bytes, float]] = {}
        """What workers wrote last, and when we saw it first."""

    def __enter__(self) -> "Queue":
        self._workers.mkdir(parents=True, exist_ok=True)
        self._claims.mkdir(exist_ok=True)
        aside = self._workers / f".{self.me}.partial"
        self._file = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.beat(now=True)
        aside.rename(self._workers / self.me)
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()
        with suppress(FileNotFoundError):
            (self._workers / self.me).unlink()
        os.close(self._file)

    def beat(self, *, now: bool = False) -> None:
        """Give a sign of life, if the last one is some time ago; to be called often."""
        if now or time.monotonic() - self._beaten > min(_BEAT, self._lease / 4):
            self._beaten = time.monotonic()
            self._count += 1
            try:
                os.pwrite(self._file, b"%-6s %12d\n" % (self._state, self._count), 0)
                os.fsync(self._file)
            except OSError as error:
                if error.errno != errno.ESTALE:  # another worker has finished the evaluation
                    raise

    def stand_aside(self) -> None:
        """Say that we do no work, and give all claims back."""
        self.give_back()
        self._state = _ASIDE
        self.beat(now=True)

    def working(self) -> set[str]:
        """The workers that live and work, we among them if we do."""
        found, known = set(), self._seen
        self._seen = {}
        for name in _names(self._workers):
            if name.startswith("."):
                continue
            path = self._workers / name
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                continue
            before, since = known.get(name, (b"", 0.0))
            if text != before:
                since = time.monotonic()
            self._seen[name] = (text, since)
            is_alive = name == self.me or (time.monotonic() - since < self._lease and is_held(path))
            if is_alive and not text.startswith(_ASIDE):
                found.add(name)
        return found

    def claims(self) -> Claims:
        """The claims now."""
        numbers: dict[str, int] = {}
        for name in _names(self._claims):
            instance, _, number = name.rpartition("@")
            numbers[instance] = max(numbers.get(instance, 0), int(number))
        working, holders = self.working(), {}
        for instance, last in numbers.items():
            with suppress(FileNotFoundError):  # given back since
                worker = os.readlink(self._claims / f"{instance}@{last}")
                if worker in working:
                    holders[instance] = worker
        return Claims(holders, numbers)

    def claim(self, instance: str, claims: Claims) -> bool:
        """Claim an instance that was free when we looked; False if it was not, or another was faster."""
        if instance in claims.holders:
            return claims.holders[instance] == self.me
        name = f"{instance}@{claims.numbers.get(instance, 0) + 1}"
        try:
            (self._claims / name).symlink_to(self.me)
        except (FileExistsError, FileNotFoundError):
            return False
        self._mine.add(name)
        return True

    def holds(self, instance: str) -> bool:
        """Whether we have claimed an instance."""
        return any(name.rpartition("@")[0] == instance for name in self._mine)

    def give_back(self, instance: str | None = None) -> None:
        """Give back one claim, or all."""
        for name in [name for name in self._mine if instance in (None, name.rpartition("@")[0])]:
            with suppress(FileNotFoundError):
                (self._claims / name).unlink()
            self._mine.discard(name)


def _names(folder: Path) -> list[str]:
    """What is in a folder; nothing once another worker has finished the evaluation and removed it."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
