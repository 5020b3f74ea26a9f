"""The examples table: one row an example, a column a label or perceived-group attribute."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fvlfp.data.card import Card


@dataclass(frozen=True)
class Dataset:
    """A table of n examples, their images and the data card.

    frame: row i is example i (index 0..n-1); label and attribute columns hold str; optional
    columns `split` ("train", "val", "test") and `client`; a table read from a file has `path`.
    images: a sequence of length n; `images[i]` is a PIL image in mode RGB.
    """

    frame: pd.DataFrame
    images: Sequence[Image.Image]
    card: Card
    root: Path | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, rows: Any) -> "Dataset":
        """The examples at `rows` (integer positions, or a boolean mask of length n), in order."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(int)
        images = self.images
        picked = images.take(rows) if hasattr(images, "take") else [images[i] for i in rows]
        return Dataset(self.frame.iloc[rows].reset_index(drop=True), picked, self.card, self.root)
