"""The trial's data: one folder a node, one for whoever audits, one with the words for the server.

What this module does not do: real data are not made here. A node's operator puts a table, its data card
and its images into a folder (`fvlfp check TABLE.csv` says what is wrong with them) and names the table in
the node config.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fvlfp.config import Config
from fvlfp.data import toyfaces
from fvlfp.data.table import Dataset
from fvlfp.training.examples import owners


def make_data(folder: Path, cfg: Config) -> list[Path]:
    """Draw toy faces into `folder/node-K`, `folder/audit` and `folder/server`; returns the nodes' tables.

    The rows of a client are those it has in a run in one process (`fvlfp train` with the same config).
    """
    faces = toyfaces.make(cfg.n, seed=cfg.seed, label=cfg.label)
    is_test = (faces.frame["split"] == "test").to_numpy()
    rows = np.flatnonzero(~is_test)
    owner = owners(faces.frame.iloc[rows], cfg)
    tables = [_write(folder / f"node-{k}", faces.take(rows[owner == k])) for k in range(cfg.clients)]
    _write(folder / "audit", faces.take(np.flatnonzero(is_test)))
    server = folder / "server"
    server.mkdir(parents=True, exist_ok=True)
    (server / "words.toml").write_text(faces.card.to_toml(), encoding="utf-8")
    return tables


def _write(folder: Path, faces: Dataset) -> Path:
    (folder / "images").mkdir(parents=True)
    frame = faces.frame.drop(columns="split")
    frame.insert(0, "path", [f"images/{i:05d}.png" for i in range(len(faces))])
    for path, image in zip(frame["path"], faces.images, strict=True):
        image.save(folder / path)
    table = folder / "faces.csv"
    frame.to_csv(table, index=False)
    table.with_suffix(".card.toml").write_text(faces.card.to_toml(), encoding="utf-8")
    return table
