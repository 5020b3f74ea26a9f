"""How a table is spread over clients: the non-IID settings of federated learning.

What this module does not do: it never looks at test rows; hand it the training rows only.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fvlfp.errors import InputError


def split_clients(
    frame: pd.DataFrame,
    *,
    clients: int,
    scheme: str,
    label: str,
    groups: list[str],
    concentration: float = 0.3,
    seed: int = 0,
    smallest: int = 10,
) -> np.ndarray:
    """The client of every row, (n,) int64 in [0, clients).

    scheme: what differs between clients.
        `iid`: nothing. `class`, `group`, `class-group`: each cell (of the label, of all `groups` crossed, or
        of both) is dealt to the clients by shares drawn from Dirichlet(concentration), as in Hsu et al.
        2019. `quantity`: only the clients' sizes, by one such draw. `column`: the table's own `client`.
        `opposed`: even sizes; nine of ten rows of a cell (class i, group j of the first attribute) with i + j
        even lie with the first half of the clients, and nine of ten of the others with the second: the halves
        learn opposite correlations, and all clients together none that was not there before.
    smallest: clients that end with fewer rows get rows, one at a time, from the largest client, so that each
        has something to train and to validate on.

    Raises:
        InputError: fewer rows than `clients * smallest`, or no `client` column for `column`.
    """
    n = len(frame)
    if scheme == "column":
        if "client" not in frame:
            raise InputError("partition = 'column' needs a column named 'client' in the table")
        return pd.factorize(frame["client"], sort=True)[0].astype(np.int64)
    if n < clients * smallest:
        raise InputError(
            f"{n} training rows cannot give {clients} clients {smallest} rows each: use fewer clients"
        )
    rng = np.random.default_rng(seed)
    if scheme == "iid":
        return rng.permutation(np.arange(n) % clients).astype(np.int64)
    if scheme == "opposed":
        return _opposed(frame, clients, label, groups[0], rng)
    columns = {
        "class": [label],
        "group": list(groups),
        "class-group": [label, *groups],
        "quantity": [],
    }[scheme]
    cell = frame.groupby(columns, sort=True).ngroup().to_numpy() if columns else np.zeros(n, int)
    owner = np.empty(n, np.int64)
    for value in np.unique(cell):
        rows = rng.permutation(np.flatnonzero(cell == value))
        shares = rng.dirichlet(np.full(clients, concentration))
        cuts = np.floor(np.cumsum(shares)[:-1] * len(rows)).astype(int)
        for k, part in enumerate(np.split(rows, cuts)):
            owner[part] = k
    return _top_up(owner, clients, smallest, rng)


def _opposed(
    frame: pd.DataFrame, clients: int, label: str, group: str, rng: np.random.Generator
) -> np.ndarray:
    even = sum(pd.factorize(frame[column], sort=True)[0] for column in (label, group)) % 2 == 0
    first = even ^ (rng.random(len(frame)) < 0.1)
    half = (clients + 1) // 2
    owner = np.empty(len(frame), np.int64)
    for rows, low, high in ((first, 0, half), (~first, half, clients)):
        where = rng.permutation(np.flatnonzero(rows))
        owner[where] = low + np.arange(len(where)) % max(1, high - low)
    return owner


def _top_up(owner: np.ndarray, clients: int, smallest: int, rng: np.random.Generator) -> np.ndarray:
    sizes = np.bincount(owner, minlength=clients)
    for k in np.flatnonzero(sizes < smallest):
        while sizes[k] < smallest:
            giver = int(sizes.argmax())
            row = rng.choice(np.flatnonzero(owner == giver))
            owner[row] = k
            sizes[k] += 1
            sizes[giver] -= 1
    return owner
