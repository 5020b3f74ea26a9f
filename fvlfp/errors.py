"""The two exceptions that the command line prints in one line, and the hint that goes with a wrong name."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


class InputError(ValueError):
    """Bad usage or bad input. Its message alone says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


class RunStopped(RuntimeError):
    """A run that cannot go on, for a reason outside the code: one message, exit code 1. It can be resumed."""


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known name nearest to `value`, or an empty string."""
    names = list(known)
    composed = unicodedata.normalize("NFC", str(value))
    for name in names:
        if name != value and unicodedata.normalize("NFC", name) == composed:
            return f"; did you mean {name!a}, which looks the same?"
    near = difflib.get_close_matches(str(value), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
