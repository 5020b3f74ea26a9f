"""How a command ends when it does not end well: one line and an exit code.

2: bad usage or bad input; 1: a run that had to stop; 130: Ctrl-C. What this module does not do: it catches
no other error; a bug shows its traceback.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from fvlfp.errors import InputError, RunStopped

F = TypeVar("F", bound=Callable[..., Any])

#: What to do after Ctrl-C, by command.
GO_ON = {
    "tour": "the same command goes on from the stages that the lessons saved",
    "train": "the same command with --resume goes on after the last saved round",
    "sweep": "the same command goes on with the cells that are not finished",
}


def says_what_is_wrong(command: F) -> F:
    """InputError becomes one message and exit code 2; Ctrl-C one line and exit code 130."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except InputError as error:
            typer.echo(f"fvlfp: {error}", err=True)
            raise typer.Exit(2) from None
        except RunStopped as error:
            typer.echo(f"fvlfp: {error}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            again = GO_ON.get(command.__name__, "nothing was written; the same command starts again")
            typer.echo(f"fvlfp: stopped; {again}", err=True)
            raise typer.Exit(130) from None

    return wrapped  # type: ignore[return-value]
