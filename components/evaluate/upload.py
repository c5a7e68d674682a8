"""Copies finished rollouts to S3 or a folder while the evaluation goes on.

Each worker copies its own in a thread. Whoever completes the evaluation copies what is left, so that nothing
is missing at the end.
"""

import dataclasses
import hashlib
import queue
import shutil
import sys
import threading
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from components.errors import PassingError, UserError
from components.evaluation.rollouts import Rollout
from components.store.files import sync
from components.store.s3 import SCHEME, Prefix
from components.store.sums import sha256_file

_PART = 8 * 2**20
"""Size of the parts of a file on S3, in bytes; S3 checks and retries each for itself."""
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_LAST = 120.0
"""Seconds that a worker at its end goes on copying; whoever completes the evaluation does the rest."""


class Destination(Protocol):
    """A place for results."""

    errors: tuple[type[Exception], ...]
    """What `put` raises where it does not succeed."""

    def put(self, source: Path, name: str) -> None:
        """Put a file there under a name with slashes, whole or not at all."""


class Folder:
    """A folder, such as on a mounted volume."""

    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._me = uuid.uuid4().hex[:12]
        """In names of files that are not whole: two workers may copy the same rollout at the same time."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"evaluate.results is {folder}: {error.strerror}; expected a folder") from error

    def put(self, source: Path, name: str) -> None:
        """Copy, and read back what was written."""
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{self._me}.partial")
        shutil.copyfile(source, aside)
        sync(aside)
        if sha256_file(aside) != sha256_file(source):
            raise OSError(f"{aside} differs from {source} after copying")
        aside.rename(target)
        sync(target.parent)


class Bucket:
    """A prefix in a bucket of S3."""

    def __init__(self, url: str) -> None:
        self._s3 = Prefix(url, "evaluate.results")
        self.errors = self._s3.errors
        from boto3.s3.transfer import TransferConfig

        self._transfer = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART)

    def put(self, source: Path, name: str) -> None:
        """Upload in parts, each with a checksum that the server compares, and compare the size."""
        client, bucket, key = self._s3.client, self._s3.bucket, self._s3.key(name)
        client.upload_file(
            str(source),
            bucket,
            key,
            ExtraArgs={"ChecksumAlgorithm": "SHA256", "Metadata": {"sha256": sha256_file(source)}},
            Config=self._transfer,
        )
        found = client.head_object(Bucket=bucket, Key=key)
        if found["ContentLength"] != source.stat().st_size:
            raise OSError(f"{SCHEME}{bucket}/{key} has {found['ContentLength']} bytes after uploading")


def find_destination(place: str) -> Destination:
    """The place of a name: s3://BUCKET/PREFIX, or a folder; UserError if nothing can be put there."""
    parts = urlsplit(place)
    if place.startswith(SCHEME) and parts.netloc:
        return Bucket(place)
    if parts.scheme:
        raise UserError(f"evaluate.results is {place}; expected s3://BUCKET/PREFIX or a folder")
    return Folder(Path(place))


class Uploads:
    """Copies the rollouts of an evaluation, each once, in a thread. Leaving the context ends it."""

    def __init__(self, destination: Destination, evaluation: str, sent: Path) -> None:
        """Prepare.

        Args:
            destination: where to.
            evaluation: the evaluation's fingerprint, under which its files are put.
            sent: a folder in which workers note what has arrived.
        """
        self._destination = destination
        self._evaluation = evaluation
        self._sent = sent
        self._waiting: queue.Queue[Rollout | None] = queue.Queue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)

    def __enter__(self) -> "Uploads":
        self._sent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join(_LAST)
        self._ended.set()

    def add(self, rollout: Rollout, content: Path) -> None:
        """Copy a rollout from the folder that becomes the artifact, soon."""
        self._waiting.put(dataclasses.replace(rollout, folder=str(content)))

    def complete(self, rollouts: Iterable[Rollout]) -> None:
        """Copy, now, what has not arrived.

        Raises:
            PassingError: something cannot be copied.
        """
        for one in rollouts:
            try:
                self._put(one)
            except self._destination.errors as error:
                raise PassingError(
                    f"{one.name} cannot be copied to evaluate.results: {error}. The evaluation is finished; "
                    "started again, it goes on with the copies"
                ) from error

    def _run(self) -> None:
        pause = _PAUSE
        while (one := self._waiting.get()) is not None:
            while not self._ended.is_set():
                try:
                    self._put(one)
                except FileNotFoundError:  # the evaluation is complete, and so are its copies
                    break
                except self._destination.errors as error:
                    print(f"{one.name} is not copied yet: {error}; trying again", file=sys.stderr, flush=True)
                    self._ended.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                else:
                    pause = _PAUSE
                    break

    def _put(self, rollout: Rollout) -> None:
        mark = self._sent / hashlib.sha256(str(rollout.json).encode()).hexdigest()[:32]
        if mark.exists():
            return
        for file in (rollout.video, rollout.json):  # the JSON last: where it is, all is
            if file is not None:
                parts = Path(file).parts
                name = "/".join((self._evaluation, *parts[1:-2], parts[-1]))
                self._destination.put(Path(rollout.folder, file), name)
        with suppress(FileNotFoundError):
            mark.touch()
