"""From the rows of a table to clients: which are test rows, who owns the others, what a client trains on.

What this module does not do: it reads no table, see `fvlfp.data.table`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fvlfp.clip.cache import features, picture_digests
from fvlfp.clip.encoder import Encoder
from fvlfp.clip.pixels import Pixels, read_pixels
from fvlfp.config import Config
from fvlfp.data.partition import split_clients
from fvlfp.data.table import Dataset
from fvlfp.dsop import Projection
from fvlfp.errors import InputError, did_you_mean
from fvlfp.options import DataOptions
from fvlfp.training.task import Task


@dataclass(frozen=True)
class Split:
    """Encoded examples: z (n, d) unit rows, y (n,) class indices, g: attribute -> (n,) group indices.

    pixels: the n pictures, where the image tower is prompted and embeds them anew. digests: (n,) of 32 bytes,
    of each picture as it is stored, where it is known: z differs from device to device, a digest does not.
    """

    z: Tensor
    y: Tensor
    g: dict[str, Tensor]
    pixels: Pixels | None = None
    digests: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray) -> Split:
        """The examples at `rows`."""
        index = torch.as_tensor(rows, device=self.z.device)
        pixels = self.pixels and self.pixels.take(rows)
        digests = None if self.digests is None else self.digests[rows]
        g = {name: column[index] for name, column in self.g.items()}
        return Split(self.z[index], self.y[index], g, pixels, digests)

    def project(self, projection: Projection) -> Split:
        """The same examples after DSOP."""
        return dataclasses.replace(self, z=projection(self.z))


@dataclass(frozen=True)
class ClientData:
    """One client's own examples; there is no test split here. name: what its owner calls it."""

    client: int
    train: Split
    val: Split
    name: str = ""

    @property
    def called(self) -> str:
        """The name, or the number of a client that has none."""
        return self.name or str(self.client)


def codes(frame: pd.DataFrame, column: str, values: list[str]) -> np.ndarray:
    """(n,) int64: where each entry of the column stands in `values`.

    Raises:
        InputError: an entry is none of them.
    """
    codes = pd.Index(values).get_indexer(pd.Index(frame[column])).astype(np.int64)
    bad = np.flatnonzero(codes < 0)
    if len(bad):
        value = frame[column].iloc[bad[0]]
        raise InputError(
            f"row {bad[0] + 2}: {column} = {value!r} has no words on the data card "
            f"(it knows {', '.join(map(repr, values))}); {len(bad)} such rows"
        )
    return codes


def encode_table(
    dataset: Dataset,
    encoder: Encoder,
    task: Task,
    cfg: Config,
    *,
    cache: str | Path | None = None,
    quiet: bool = True,
) -> Split:
    """All rows of a table as examples, on the encoder's device; pictures are kept for vision prompts.

    cache: a folder for the features; None keeps none.

    Raises:
        InputError: a column is missing, or a value has no words on the data card.
    """
    frame, device = dataset.frame.reset_index(drop=True), encoder.device
    check_columns(frame, cfg)
    y = codes(frame, cfg.label, task.classes)
    g = {name: codes(frame, name, groups) for name, groups in task.groups.items()}
    digests = picture_digests(dataset.images)
    z = features(encoder, dataset.images, cache=cache, quiet=quiet, digests=digests)
    return Split(
        torch.from_numpy(z).to(device),
        torch.from_numpy(y).to(device),
        {name: torch.from_numpy(column).to(device) for name, column in g.items()},
        read_pixels(encoder, dataset.images, cache=cache) if cfg.vision_ctx else None,
        np.frombuffer(b"".join(digests), "V32"),
    )


def check_columns(frame: pd.DataFrame, options: DataOptions) -> None:
    """Label and group columns are there.

    Raises:
        InputError: one is not, with the nearest name.
    """
    for column in (options.label, *options.groups):
        if column not in frame:
            raise InputError(f"the table has no column {column!r}{did_you_mean(column, frame.columns)}")


def which_test(frame: pd.DataFrame, cfg: Config) -> np.ndarray:
    """(n,) bool: the table's own test rows; without a `split` column a third, drawn by a named seed."""
    if "split" in frame:
        return (frame["split"] == "test").to_numpy()
    rng = np.random.default_rng(cfg.seed_for("split"))
    return rng.permutation(np.arange(len(frame)) % 3 == 0)


def owners(frame: pd.DataFrame, cfg: Config) -> np.ndarray:
    """(n,) which client each row of the clients' table belongs to, as `cfg` spreads them.

    Raises:
        InputError: too few rows, or with `partition = "column"` another number of clients than `cfg.clients`.
    """
    owner = split_clients(
        frame,
        clients=cfg.clients,
        scheme=cfg.partition,
        label=cfg.label,
        groups=list(cfg.groups),
        concentration=cfg.concentration,
        seed=cfg.seed_for("partition"),
        smallest=cfg.min_rows,
    )
    found = int(owner.max()) + 1
    if cfg.partition == "column" and found != cfg.clients:
        raise InputError(f"the table's column 'client' names {found} clients: set clients = {found}")
    return owner


def own_rows(everything: Split, rows: np.ndarray, k: int, frame: pd.DataFrame, cfg: Config) -> ClientData:
    """Client k: split its rows into train and val: the table's own, or a stratified-by-class draw."""
    if "split" in frame and (frame["split"] == "val").any():
        is_val = (frame["split"].iloc[rows] == "val").to_numpy()
    else:
        rng = np.random.default_rng(cfg.seed_for(f"client/{k}/val"))
        is_val = np.zeros(len(rows), bool)
        is_val[rng.permutation(len(rows))[: max(1, round(cfg.val_fraction * len(rows)))]] = True
    train = rows[~is_val]
    if cfg.shots:
        train = _few(train, everything.y.cpu().numpy(), cfg.shots, cfg.seed_for(f"client/{k}/shots"))
    name = str(frame["client"].iloc[rows[0]]) if cfg.partition == "column" and "client" in frame else str(k)
    if not len(train):
        raise InputError(
            f"client {name!r} has no training row: give it more rows, or leave it out of the table"
        )
    return ClientData(k, everything.take(train), everything.take(rows[is_val]), name)


def _few(rows: np.ndarray, y: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """At most `shots` rows of each class, in their order."""
    drawn = np.random.default_rng(seed).permutation(rows)
    kept = [drawn[y[drawn] == value][:shots] for value in np.unique(y[rows])]
    return np.sort(np.concatenate(kept)) if kept else rows


def with_groups(client: ClientData, task: Task, cfg: Config) -> ClientData:
    """The client with the group of every example as `cfg.groups_from` says: as labelled, or as read.

    `"model"` is the zero-shot guess of the frozen model, `argmax_g z E^T`, of train and validation rows
    alike: whatever uses groups then runs without a label. A guess may be wrong, and wrong more often for
    some groups than for others; audits always go by labels.
    """

    def read(split: Split) -> Split:
        return dataclasses.replace(split, g=task.read_groups(split.z))

    if cfg.groups_from == "labels":
        return client
    return dataclasses.replace(client, train=read(client.train), val=read(client.val))
