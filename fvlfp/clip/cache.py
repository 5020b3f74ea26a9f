"""Image features of a frozen model, kept on disk: a cache that survives a kill.

What this module does not do: it opens no model, see `fvlfp.clip.encoder`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from fvlfp.arrays import log, read_array, write_array
from fvlfp.clip.encoder import Encoder
from fvlfp.errors import InputError


def features(
    encoder: Encoder,
    images: Sequence[Any],
    *,
    cache: str | Path | None = None,
    quiet: bool = True,
    digests: Sequence[bytes] | None = None,
) -> np.ndarray:
    """Image features (n, d) float32, read from `cache` where they are there already.

    Images are taken in blocks of 2048. The key of a block is the sha256 of what makes a feature (`made_by`)
    and of every image in it, so neither a new model nor a changed picture can meet an old feature. A killed
    run leaves no half file, and the next one goes on where it stopped. A damaged file is encoded again, and a
    folder that cannot be written is left alone; a warning says so.

    Args:
        digests: the pictures' own (`picture_digests`), if they are known already.

    Raises:
        InputError: an image cannot be read, or the model makes no finite feature of it.
    """
    parts = blocks_of(len(images))
    paths: list[Path | None] = [None for _ in parts]
    if cache:
        known = picture_digests(images) if digests is None else digests
        paths = [Path(cache) / block_name(encoder, [known[i] for i in part]) for part in parts]
    found = [
        read_array(path, len(part), np.float32) if path else None
        for path, part in zip(paths, parts, strict=True)
    ]
    missing = [part for part, z in zip(parts, found, strict=True) if z is None]
    blocks, keep = [], True
    with closing(encoder.encode_batches(images, missing)) as encoded, _bar(len(images), quiet) as tick:
        for part, path, z in zip(parts, paths, found, strict=True):
            if z is None:
                z = _collect(encoded, part, tick)
                keep = keep and path is not None and _write(path, z)
            else:
                tick(len(part))
            blocks.append(z)
    return np.concatenate(blocks)


#: Images in one cache file.
_BLOCK = 2048


def blocks_of(n: int) -> list[range]:
    """The rows of n images, block by block."""
    return [range(i, min(i + _BLOCK, n)) for i in range(0, n, _BLOCK)]


def block_name(encoder: Encoder, digests: Sequence[bytes]) -> str:
    """The name of the file that holds the features of pictures with these digests by this encoder."""
    key = hashlib.sha256(made_by(encoder).encode() + b"".join(digests))
    return f"{key.hexdigest()}.npy"


def made_by(encoder: Encoder) -> str:
    """What a feature depends on beside its picture: weights, transform, architecture, number format, device.

    The same weights fit towers with another activation or other heads, so every module's settings are in it.
    """
    facts, tower = encoder.provenance, encoder.model.visual
    said = [facts["weights_sha256"], facts["transform"], encoder.dtype, encoder.device.type]
    return "\n".join([*map(str, said), *(_settings(name, m) for name, m in tower.named_modules())])


def _settings(name: str, module: nn.Module) -> str:
    plain = {k: v for k, v in vars(module).items() if isinstance(v, (int, float, str, tuple)) and k[0] != "_"}
    plain.pop("training", None)
    return f"{name} {type(module).__name__} {sorted(plain.items())}"


def picture_digests(images: Sequence[Any]) -> list[bytes]:
    """A sha256 of each picture: as it is stored, or of its pixels."""
    if hasattr(images, "digest"):
        return [images.digest(i) for i in range(len(images))]
    return [hashlib.sha256(images[i].tobytes()).digest() for i in range(len(images))]


def _collect(encoded: Iterator[np.ndarray], part: range, tick: Callable[[int], object]) -> np.ndarray:
    """The features of one block, from as many batches as it takes."""
    rows: list[np.ndarray] = []
    while sum(map(len, rows)) < len(part):
        rows.append(next(encoded))
        tick(len(rows[-1]))
    z = np.concatenate(rows)
    if not (finite := np.isfinite(z).all(1)).all():
        at = part[int(np.argmin(finite))]
        raise InputError(f"image {at + 1}: the model's feature is not finite; try precision = 'float32'")
    return z


def _write(path: Path, z: np.ndarray) -> bool:
    """Keep a block; whether that was possible."""
    try:
        write_array(path, lambda part: np.save(part, z, allow_pickle=False))
    except OSError as error:
        log.warning("features are not kept for the next time: %s: %s", path.parent, error.strerror)
        return False
    return True


@contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[int], object]]:
    """A progress bar where somebody can see it; nothing where nobody does."""
    with tqdm(total=total, desc="encoding", unit=" images", disable=quiet or None) as bar:
        yield bar.update
