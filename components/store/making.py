"""Makes artifacts: one process at a time, in a partial folder that is renamed when it is whole."""

import errno
import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from components.errors import UserError
from components.store.files import remove_leftovers, sync, sync_tree, write_atomic
from components.store.signing import sign
from components.store.sums import ENVELOPE, LINEAGE, SUMS, format_sums, hash_files, sha256_file, tree_digest

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

CONTENT = "content"
"""In the partial folder of an artifact that several processes make together: what becomes the artifact."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


def partial_of(final: Path) -> Path:
    """The folder in which an artifact is under construction. It survives a kill."""
    return final.with_suffix(".partial")


def lock_of(final: Path) -> Path:
    """The lock file for making or removing an artifact."""
    return final.with_suffix(".lock")


def supports_locks(folder: Path) -> bool:
    """Whether the file system of a folder knows file locks (flock)."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            return _take(file, folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except UserError:
            return False


@contextmanager
def exclusive(lock: Path, waiting: str | None) -> Iterator[bool]:
    """Hold a file lock, on any node of a shared file system; the kernel releases it when we end.

    Args:
        lock: the lock file. It says who holds it: host, process and time. Its modification time is the time
            at which it was last taken.
        waiting: what to print before waiting for another holder; None: do not wait.

    Yields:
        Whether we hold it: always, unless we do not wait.

    Raises:
        UserError: the file system has no locks.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        while True:
            file = stack.enter_context(lock.open("a+"))
            if not _take(file, lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if waiting is None:
                    yield False
                    return
                file.seek(0)
                print(f"{waiting} (held by {file.read().strip() or 'unknown'})", flush=True)
                _take(file, lock, fcntl.LOCK_EX)
            # the last holder may have removed the lock file that we opened
            with suppress(FileNotFoundError):
                if os.path.samestat(lock.stat(), os.fstat(file.fileno())):
                    break
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now(UTC).isoformat()}
        file.truncate(0)
        file.write(json.dumps(holder) + "\n")
        file.flush()
        yield True


@contextmanager
def joined(lock: Path) -> Iterator[None]:
    """Hold a file lock together with others who join it; while `exclusive` has it, wait."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with lock.open("a+") as file:
            _take(file, lock, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):  # removed, as in `exclusive`
                if os.path.samestat(lock.stat(), os.fstat(file.fileno())):
                    os.utime(lock)
                    yield
                    return


def is_held(lock: Path) -> bool:
    """Whether somebody holds a lock now, alone or with others."""
    try:
        with lock.open("r+") as file:  # NFS locks only what may be written
            return not _take(file, lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False


def _take(file: IO[Any], lock: Path, how: int) -> bool:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise UserError(
            f"the file system of {lock.parent} has no file locks ({error.strerror}), without which two runs "
            "could write the same folder. Mount it with locks: NFS as version 4, or as version 3 with a lock "
            "service, or with local_lock=flock where one node alone uses it. `b1k doctor` checks it"
        ) from error
    return True


def publish(
    partial: Path,
    final: Path,
    statement: Callable[[str], dict[str, Any]],
    signer: "CryptoSigner | None" = None,
    known: Mapping[str, str] | None = None,
) -> None:
    """Make a finished partial folder the artifact.

    Killed at any moment, it leaves the artifact or a partial folder from which it can be called again.

    Args:
        partial: the content; what unfinished writers left in it is removed.
        final: the artifact's folder; the caller holds its lock.
        statement: makes the lineage statement from the hex tree digest of the content.
        signer: what signs the statement, if anything.
        known: hex SHA-256 of files that were read already, by their path in the folder.
    """
    remove_leftovers(partial)
    for name in (LINEAGE, ENVELOPE):  # of an attempt that was killed here
        (partial / name).unlink(missing_ok=True)
    sums = hash_files(partial, known)
    text = json.dumps(statement(tree_digest(sums)), indent=2) + "\n"
    write_atomic(partial / LINEAGE, text)
    if signer is not None:
        sign(partial, signer)
    sums[LINEAGE] = sha256_file(partial / LINEAGE)
    write_atomic(partial / SUMS, format_sums(sums))
    sync_tree(partial)
    partial.rename(final)
    sync(final.parent)
