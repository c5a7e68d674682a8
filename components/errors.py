"""Errors that are no defects of ours: the user can fix them, or they pass."""

import errno

_PASSING = {errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH}


class UserError(Exception):
    """Bad input of a stage or command. The message says what was given, what was expected, what to do.

    A command that ends with it prints the message alone and exits with code 2; any other exception is a
    defect of ours, shows its traceback and exits with code 1.
    """


class PassingError(Exception):
    """A failure that may be over in a while, such as of the network or of remote storage.

    A stage that ends with it exits with code 75 and is started again on a cluster.
    """


def is_passing(error: Exception) -> bool:
    """Whether an error may be over in a while: a `PassingError`, or of network or storage by its kind."""
    known = isinstance(error, PassingError | ConnectionError | TimeoutError)
    return known or (isinstance(error, OSError) and error.errno in _PASSING)
