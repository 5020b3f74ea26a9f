"""Pictures as the image tower takes them, kept once on this machine, for towers that are prompted.

A prompted tower makes new embeddings in every step, so embeddings cannot be cached (`fvlfp.clip.encoder` does
that for the frozen one); what comes before the tower can: decoding, resizing, cropping.

What this module does not do: it keeps no compressed form. A picture takes 3 H W bytes, 147 KiB at 224 x 224.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fvlfp.arrays import log, read_array, write_array
from fvlfp.clip.cache import picture_digests
from fvlfp.clip.decode import Pictures, batches_of
from fvlfp.clip.encoder import BATCH, Encoder


@dataclass(frozen=True)
class Pixels:
    """n pictures of a store that all clients of a machine share.

    store: (N, 3, H, W) uint8, mapped from a file where there is a cache. rows: (n,) places in it.
    """

    store: np.ndarray
    rows: np.ndarray

    def take(self, rows: np.ndarray) -> Pixels:
        """The pictures at these positions; nothing is copied but the positions."""
        return Pixels(self.store, self.rows[rows])

    def __getitem__(self, rows: Tensor) -> Tensor:
        """A copy (m, 3, H, W) uint8 on the CPU of the pictures at positions (m,)."""
        return torch.from_numpy(self.store[self.rows[rows.cpu().numpy()]])

    @staticmethod
    def join(parts: list[Pixels]) -> Pixels:
        """The pictures of all `parts`, which share one store, behind each other."""
        return Pixels(parts[0].store, np.concatenate([part.rows for part in parts]))


def read_pixels(encoder: Encoder, images: Sequence[Any], *, cache: str | Path | None = None) -> Pixels:
    """All of `images` after the model's transform, but for its last step, the normalisation.

    cache: a folder; the file's name changes with the transform and with every picture. A damaged file is read
    anew, and where the folder cannot be written the pictures are held in memory; a warning says so.
    """
    pictures, rows = Pictures(images, encoder.transform), np.arange(len(images))
    if not cache:
        return Pixels(_filled(pictures, rows, np.empty), rows)
    path = _file(encoder, images, Path(cache))
    found = read_array(path, len(images), np.uint8)
    if found is None:
        try:
            write_array(path, lambda part: _filled(pictures, rows, partial(_mapped, part)).flush())
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            log.warning("pixels are not kept for the next time: %s: %s", path.parent, error.strerror)
            found = _filled(pictures, rows, np.empty)
    return Pixels(found, rows)


def _filled(pictures: Pictures, rows: np.ndarray, empty: Callable[..., Any]) -> Any:
    """Every picture in an array (n, 3, H, W) uint8 that `empty` makes."""
    store = empty((len(rows), *pictures[0].shape), np.uint8)
    start = 0
    cuts = [rows[i : i + BATCH].tolist() for i in range(0, len(rows), BATCH)]
    for batch in batches_of(pictures, cuts, workers=0):
        store[start : start + len(batch)] = batch.numpy()
        start += len(batch)
    return store


def _mapped(path: Path, shape: tuple[int, ...], dtype: Any) -> Any:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _file(encoder: Encoder, images: Sequence[Any], cache: Path) -> Path:
    key = hashlib.sha256(encoder.provenance["transform"].encode() + b"".join(picture_digests(images)))
    return cache / f"pixels-{key.hexdigest()}.npy"
