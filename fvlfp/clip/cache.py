"""Image features of a frozen model, kept on disk: a cache that survives a kill.

What this module does not do: it opens no model, see `fvlfp.clip.encoder`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fvlfp.clip.encoder import Encoder


def features(
    encoder: Encoder, images: Sequence[Any], *, cache: str | Path | None = None, quiet: bool = True
) -> np.ndarray:
    """Image features (n, d) float32, read from `cache` where they are there already.

    Images are taken in blocks of 2048. The key of a block is the sha256 of weights, config, image
    transform and of every image in it, so neither a new model nor a changed picture can meet an old
    feature. A block's file is written beside its place and then renamed: a killed run leaves no half
    file, and the next one goes on where it stopped. Blocks found are mapped, not read, until they are put
    together.
    """
    parts = [range(i, min(i + _BLOCK, len(images))) for i in range(0, len(images), _BLOCK)]
    paths = [_cache_file(encoder, images, part, Path(cache)) if cache else None for part in parts]
    found = [_read(path, len(part)) for path, part in zip(paths, parts, strict=True)]
    missing = [part for part, z in zip(parts, found, strict=True) if z is None]
    encoded = encoder.encode_batches(images, missing)
    blocks = []
    with _bar(len(images), quiet) as tick:
        for part, path, z in zip(parts, paths, found, strict=True):
            if z is None:
                rows: list[np.ndarray] = []
                while sum(map(len, rows)) < len(part):
                    rows.append(next(encoded))
                    tick(len(rows[-1]))
                z = np.concatenate(rows)
                if path:
                    _write(path, z)
            else:
                tick(len(part))
            blocks.append(z)
    return np.concatenate(blocks)


#: Images in one cache file.
_BLOCK = 2048


def _cache_file(encoder: Encoder, images: Sequence[Any], part: range, cache: Path) -> Path:
    made_of = encoder.provenance
    model = [made_of.get(key) for key in ("weights_sha256", "config_sha256", "transform")]
    key = hashlib.sha256(f"{model} {encoder.device.type}".encode())
    for i in part:
        key.update(picture_digest(images, i))
    return cache / f"{key.hexdigest()}.npy"


def picture_digest(images: Sequence[Any], i: int) -> bytes:
    """Changes with picture i: a sha256 of it as it is stored, or its pixels."""
    return images.digest(i) if hasattr(images, "digest") else images[i].tobytes()


def _read(path: Path | None, n: int) -> np.ndarray | None:
    """The block in `path`, mapped into memory, or None where it is absent or damaged."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False) if path else None
        return found if found is not None and len(found) == n else None
    except (OSError, ValueError, EOFError):
        return None


def _write(path: Path, z: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.save(file, z, allow_pickle=False)
    part.replace(path)


def default_cache() -> Path:
    """Where features are kept between runs: `FVLFP_CACHE`, or `~/.cache/fvlfp`."""
    return Path(os.environ.get("FVLFP_CACHE") or Path.home() / ".cache" / "fvlfp")


@contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[int], object]]:
    """A progress bar where somebody can see it; nothing where nobody does."""
    with tqdm(total=total, desc="encoding images", unit="image", disable=quiet or None) as bar:
        yield bar.update
