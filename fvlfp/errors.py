"""The two exceptions that the command line tells in one line: bad input, and a run that cannot go on."""


class InputError(ValueError):
    """Bad usage or bad input. Its message alone tells what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


class RunStopped(RuntimeError):
    """A run that cannot go on, for a reason outside the code: one message, exit code 1. It can be resumed."""
