"""One array in one file, with its checksum behind it: what the caches of features and pictures are made of.

A file is NumPy's `.npy`, which `np.load` reads, and 32 bytes more: the sha256 of all bytes before them.

What this module does not do: it repairs nothing. A damaged file counts as absent, and a warning says so.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

log = logging.getLogger("fvlfp")

_DIGEST = 32


def default_cache() -> Path:
    """Where they are kept between runs: `FVLFP_CACHE`, or `~/.cache/fvlfp`."""
    return Path(os.environ.get("FVLFP_CACHE") or Path.home() / ".cache" / "fvlfp")


def read_array(path: Path, n: int, dtype: type) -> np.ndarray | None:
    """The array in `path`, mapped into memory; None where it is absent, damaged, or not n rows of `dtype`."""
    try:
        if not path.exists():
            return None
        if _is_whole(path):  # before NumPy reads it: a broken header raises whatever it likes
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if len(found) == n and found.dtype == dtype:
                return found
    except (OSError, ValueError):
        pass
    log.warning("%s in the cache is damaged: its images are read again", path.name)
    return None


def _is_whole(path: Path) -> bool:
    with path.open("rb") as file:
        digest, left = hashlib.sha256(), path.stat().st_size - _DIGEST
        while left > 0 and (block := file.read(min(left, 2**20))):
            digest.update(block)
            left -= len(block)
        return digest.digest() == file.read()


def write_array(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write an .npy file, add the checksum, put it into its place: no half file is ever there.

    Raises:
        OSError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part.npy")
    try:
        fill(part)
        with part.open("rb+") as file:
            file.write(hashlib.file_digest(file, "sha256").digest())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
