"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """Bad input of a stage or command. The message says what was given, what was expected, what to do.

    A command that ends with it prints the message alone and exits with code 2; any other exception is a
    defect of ours, shows its traceback and exits with code 1.
    """
