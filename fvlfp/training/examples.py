"""From the rows of a table to clients: which are test rows, who owns the others, what a client trains on.

What this module does not do: it opens no image and encodes nothing; examples come in encoded.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from fvlfp.config import Config
from fvlfp.data.partition import split_clients
from fvlfp.errors import InputError
from fvlfp.training.local import ClientData
from fvlfp.training.loss import Split
from fvlfp.training.task import Task


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


def which_test(frame: pd.DataFrame, cfg: Config) -> np.ndarray:
    """(n,) bool: the table's own test rows; without a `split` column a third, drawn by a named seed."""
    if "split" in frame:
        return (frame["split"] == "test").to_numpy()
    rng = np.random.default_rng(cfg.seed_for("split"))
    return rng.permutation(np.arange(len(frame)) % 3 == 0)


def owners(frame: pd.DataFrame, cfg: Config) -> np.ndarray:
    """(n,) which client each row of the clients' table belongs to, as `cfg` spreads them."""
    return split_clients(
        frame,
        clients=cfg.clients,
        scheme=cfg.partition,
        label=cfg.label,
        groups=list(cfg.groups),
        concentration=cfg.concentration,
        seed=cfg.seed_for("partition"),
    )


def own_rows(everything: Split, rows: np.ndarray, k: int, frame: pd.DataFrame, cfg: Config) -> ClientData:
    """Client k: split its rows into train and val: the table's own, or a stratified-by-class draw."""
    if "split" in frame and (frame["split"] == "val").any():
        is_val = (frame["split"].iloc[rows] == "val").to_numpy()
    else:
        rng = np.random.default_rng(cfg.seed_for(f"client/{k}/val"))
        is_val = np.zeros(len(rows), bool)
        is_val[rng.permutation(len(rows))[: max(1, round(cfg.val_fraction * len(rows)))]] = True
    return ClientData(k, everything.take(rows[~is_val]), everything.take(rows[is_val]))


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
    return ClientData(client.client, read(client.train), read(client.val))
