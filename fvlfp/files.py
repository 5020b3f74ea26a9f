"""Files that are whole or not there, their names and fingerprints.

What this module does not do: it knows no format.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

#: What macOS, Windows and network drives put into folders of pictures.
_OF_SYSTEMS = frozenset(
    ("__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "@eaDir", "@__thumb", "#recycle")
)


def write_atomically(path: Path, body: bytes) -> None:
    """Write beside `path`, flush to disk, rename: readers see the old file or the new one, never a half."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def as_utf8(name: str) -> str:
    r"""A file's name as text that can be written; bytes in it that are no UTF-8 become question marks.

    >>> as_utf8("caf\udce9.csv")
    'caf?.csv'
    """
    return name.encode("utf-8", "replace").decode()


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that systems keep for themselves, such as `._x.png` of macOS.

    >>> [is_hidden(name) for name in ("._x.png", "Thumbs.db", "@eaDir", "x.png")]
    [True, True, True, False]
    """
    return name.startswith(".") or name in _OF_SYSTEMS


def file_sha256(path: str | Path) -> str:
    """The fingerprint of a file, 64 hex digits, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256(body: bytes) -> str:
    """The fingerprint of some bytes, 64 hex digits."""
    return hashlib.sha256(body).hexdigest()
