"""Errors that are no defects of ours: the user can fix them, or they pass."""

import errno
import socket
import sys
from collections.abc import Iterator

_PASSING = {
    *(errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH),
    # clients of object stores raise their own kinds of OSError with these
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT),
}


class UserError(Exception):
    """Bad input of a stage or command. The message says what was given, what was expected, what to do.

    A command that ends with it prints the message alone and exits with code 2. A stage exits with 75 where
    the cause passes (`is_passing`). Any other exception that does not pass is a defect of ours, shows its
    traceback and exits with code 1.
    """


class PassingError(UserError):
    """A failure that may be over in a while, such as of the network or of remote storage.

    A stage that ends with it exits with code 75 and is started again on a cluster.
    """


def is_passing(error: BaseException) -> bool:
    """Whether an error, or one that caused it, may be over in a while: of network or storage by its kind."""
    return any(map(_passes, causes(error)))


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _passes(error: BaseException) -> bool:
    if isinstance(error, PassingError | ConnectionError | TimeoutError):
        return True
    if isinstance(error, socket.gaierror):  # its numbers are not those of errno
        return error.errno == socket.EAI_AGAIN
    # what S3's client raises where it does not reach the server is no OSError
    s3 = sys.modules.get("botocore.exceptions")
    if s3 is not None and isinstance(error, s3.HTTPClientError | s3.ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING
