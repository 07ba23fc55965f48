"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """Wrong input: scripts print it as one line, without a traceback, and exit with code 2.

    The message says what was found, where, what was wanted and what to do.

    Args:
        message: The whole sentence, without a trailing newline.
        code: Machine-readable fault code such as ``E_TRUNCATED``; empty if the fault has none.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code
