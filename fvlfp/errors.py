"""The one exception that means "the caller gave something wrong"."""


class InputError(ValueError):
    """Bad usage or bad input. Its message alone tells what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """
