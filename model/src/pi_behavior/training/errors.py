"""How a training ends before its last step."""


class NonFiniteError(RuntimeError):
    """Loss, gradient or state are not finite."""


class PreemptedError(RuntimeError):
    """The training was told to end (SIGTERM), and its state is saved."""
