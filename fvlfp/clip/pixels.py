"""Pictures as the image tower takes them, kept once on this machine, for towers that are prompted.

A prompted tower makes new embeddings in every step, so embeddings cannot be cached (`fvlfp.clip.encoder` does
that for the frozen one); what comes before the tower can: decoding, resizing, cropping.

What this module does not do: it keeps no compressed form. A picture takes 3 H W bytes, 147 KiB at 224 x 224.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fvlfp.clip.cache import picture_digest
from fvlfp.clip.encoder import Encoder


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

    What comes before that step ends in eighth-bit fractions k / 255, so uint8 loses nothing. cache: a folder;
    the file's name changes with the transform and with every picture, and it is renamed into place when it is
    whole.
    """
    *steps, _ = encoder.transform.transforms  # type: ignore[attr-defined]
    path = _file(encoder, images, Path(cache)) if cache else None
    found = _mapped(path, len(images))
    if found is None:
        found = _read(steps, images, path)
    return Pixels(found, np.arange(len(images)))


def _read(steps: list[Any], images: Sequence[Any], path: Path | None) -> np.ndarray:
    def pixels(i: int) -> np.ndarray:
        x = images[i]
        for step in steps:
            x = step(x)
        return (x * 255).round().to(torch.uint8).numpy()

    shape = (len(images), *pixels(0).shape)
    if path is None:
        store: np.ndarray = np.empty(shape, np.uint8)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        store = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)

    def put(i: int) -> None:
        store[i] = pixels(i)

    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes outside Python's lock
        for _ in pool.map(put, range(len(images))):
            pass
    if path is None:
        return store
    store.flush()  # type: ignore[attr-defined]
    part.replace(path)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _file(encoder: Encoder, images: Sequence[Any], cache: Path) -> Path:
    key = hashlib.sha256(encoder.provenance["transform"].encode())
    for i in range(len(images)):
        key.update(picture_digest(images, i))
    return cache / f"pixels-{key.hexdigest()}.npy"


def _mapped(path: Path | None, n: int) -> np.ndarray | None:
    """The store in `path`, mapped into memory, or None where it is absent or damaged."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False) if path else None
        return found if found is not None and len(found) == n else None
    except (OSError, ValueError, EOFError):
        return None
