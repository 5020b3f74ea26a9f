"""Where output goes: on this machine, nobody else's work inside, one writer at a time, no formulas in names.

What this module does not do: it writes no result and removes none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from fvlfp.errors import InputError

#: How a cell begins that a spreadsheet would run as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
#: A number is harmless as it is, and a key that other tables are joined by.
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
#: The files of an audit or a comparison.
WRITTEN = ("audit.json", "groups.csv", "gaps.csv", "predictions.csv", "templates.csv", "report.html")
LOCK = ".fvlfp.lock"


def no_formula(text: str) -> str:
    """A name for a CSV, with a leading ' where a spreadsheet would run it.

    >>> no_formula("=A1"), no_formula("-1")
    ("'=A1", '-1')
    """
    return f"'{text}" if text.startswith(FORMULA) and not NUMBER.fullmatch(text) else text


def check_local(path: Path) -> Path:
    """`path` itself, if it can name a file or folder of this machine.

    Raises:
        InputError: it is an address such as `s3://bucket/run`, which would become a local folder `s3:`.
    """
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(path)):  # one letter is a drive of Windows
        raise InputError(
            f"{path} is an address ({scheme[1]}), not a folder of this machine: write to a local folder and "
            "copy it"
        )
    return path


def check_folder(folder: Path) -> Path:
    """`folder` itself, if it is or can become a local folder.

    Raises:
        InputError: an address, a file, a path through a file, or one that the file system cannot have.
    """
    check_local(folder)
    for part in (folder, *folder.parents):
        try:
            there = part.exists()
        except OSError as error:  # such as a name that is too long
            raise InputError(f"{str(part)[:60]} ... cannot be a folder: {error.strerror}") from None
        if there:
            if not part.is_dir():
                raise InputError(f"{part} is a file, not a folder: choose another --out")
            break
    return folder


def check_own(folder: Path, *, marker: str, what: str) -> None:
    """Refuse a folder with somebody else's files.

    Args:
        marker: name of a file that every folder of this kind holds.
        what: the kind, as a message names it, such as "run".

    Raises:
        InputError: `folder` is no local folder, or holds files and no `marker`.
    """
    check_folder(folder)
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if inside - {LOCK} and marker not in inside:
        raise InputError(f"{folder} holds something that is no {what}: choose another --out")


def check_not_input(out: Path, *inputs: Path) -> None:
    """Refuse to write over what a command reads.

    Raises:
        InputError: `out` is one of the inputs, or the folder in which one of them lies under a name of ours.
    """
    for path in inputs:
        if out.resolve() == path.resolve() or (
            path.name in WRITTEN and out.resolve() == path.resolve().parent
        ):
            raise InputError(f"--out {out} would be written over {path}, which is read: choose another --out")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it for one command: nobody else writes to it meanwhile.

    A folder that this made and into which nothing was written is removed again.

    Raises:
        InputError: `folder` cannot be made, or another command is at work in it.
    """
    check_folder(folder)
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = lock_on(folder)
    if lock is None:
        raise InputError(
            f"another command writes to {folder} at this moment: wait for it, or choose another --out"
        )
    try:
        yield
    finally:
        release(lock)
        with suppress(OSError):  # something was written, perhaps by another command that begins just now
            for path in new:
                path.rmdir()


def lock_on(folder: Path) -> BaseFileLock | None:
    """Make `folder` and lock it; None while another process, of this machine or another, holds it.

    The lock ends with the process that holds it, however that ends.

    Raises:
        InputError: the folder cannot be made, or its file system has no locks.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from None
    return lock


def release(lock: BaseFileLock) -> None:
    """Give a lock back and leave no file of it."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
