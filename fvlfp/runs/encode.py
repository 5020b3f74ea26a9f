"""`fvlfp encode`: the features of a large table, a share on each of several machines.

Shard i of n encodes every n-th block of 2048 images into a folder. Folders of all shards are merged by
copying their files into one, which later runs use as their cache (`FVLFP_CACHE`). A file's name is the hash
of what its features are made of, and its last bytes are the hash of its content, so a file of another model
or picture, or a broken copy, is never taken.

What this module does not do: it copies nothing between machines.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fvlfp.arrays import read_array
from fvlfp.clip.cache import block_name, blocks_of, features, picture_digests
from fvlfp.clip.encoder import Encoder
from fvlfp.data.table import Dataset
from fvlfp.errors import InputError


def read_shard(text: str) -> tuple[int, int]:
    """Read "2/4" as (2, 4): the second of four.

    Raises:
        InputError: it is not i/n with 1 <= i <= n.
    """
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise InputError(f"shard = {text!r}: write i/n with 1 <= i <= n, for instance 2/4")
    return int(first), int(last)


def encode_shard(encoder: Encoder, dataset: Dataset, out: Path, *, shard: tuple[int, int]) -> str:
    """Encode one shard into `out`, leaving what is there already; one line about it.

    Raises:
        InputError: an image cannot be read, or `out` cannot be written.
    """
    (number, of), parts = shard, blocks_of(len(dataset))
    mine = parts[number - 1 :: of]
    if not mine:
        raise InputError(f"shard {number}/{of}: {len(dataset)} images make {len(parts)} shards at most")
    images = dataset.take(np.concatenate(mine)).images
    digests = picture_digests(images)
    features(encoder, images, cache=out, quiet=False, digests=digests)
    for part in blocks_of(len(images)):
        name = block_name(encoder, [digests[i] for i in part])
        if read_array(out / name, len(part), np.float32) is None:
            raise InputError(f"{out} cannot be written")
    how = f"{encoder.provenance['dtype']} on {encoder.device.type}"
    return f"{sum(map(len, mine))} of {len(dataset)} images, {how}: use with FVLFP_CACHE={out.name}"
