"""The examples table: one row an example, a column a label or perceived-group attribute."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fvlfp.data.card import Card
from fvlfp.data.checks import Problem, find_problems
from fvlfp.data.images import Files, inside
from fvlfp.data.source import Source, read_source
from fvlfp.errors import InputError

__all__ = ["Dataset", "Files", "Problem", "check_table", "read_table"]

_SHOWN = 20  # problems told in one message


@dataclass(frozen=True)
class Dataset:
    """A table of n examples, their images and the data card.

    frame: row i is example i (index 0..n-1); label and attribute columns hold str; optional
    columns `split` ("train", "val", "test") and `client`; a table read from a file has `path`.
    images: a sequence of length n; `images[i]` is a PIL image in mode RGB.
    skipped: the rows left out because their image cannot be read (skip_bad).
    """

    frame: pd.DataFrame
    images: Sequence[Image.Image]
    card: Card
    root: Path | None = None
    skipped: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def facts(self) -> dict[str, Any]:
        """What a report's data sheet says: name, source, licence, label origin, notes, skipped rows."""
        card = self.card
        return {
            "data": card.name,
            "source": card.source,
            "licence": card.licence,
            "label_origin": card.label_origin,
            "notes": card.notes,
            "skipped": f"{len(self.skipped)} unreadable images left out" if self.skipped else "none",
        }

    def take(self, rows: Any) -> "Dataset":
        """The examples at `rows` (integer positions, or a boolean mask of length n), in order."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(int)
        images = self.images
        picked = images.take(rows) if hasattr(images, "take") else [images[i] for i in rows]
        return Dataset(
            self.frame.iloc[rows].reset_index(drop=True), picked, self.card, self.root, self.skipped
        )


def read_table(
    path: str | Path,
    *,
    label: str | None = None,
    groups: Sequence[str] = (),
    prompts: str | Path | None = None,
    images: str | Path | None = None,
    skip_bad: bool = False,
    judged: bool = True,
) -> Dataset:
    """Read a table of images with its data card, wholly checked.

    path: a CSV or Parquet file with a column `path`; or a Parquet file, or a folder that `save_to_disk` of
    the Hugging Face datasets library wrote, with the pictures inside.
    label, groups: columns that must be there; default: the card's columns that the table has.
    prompts: the data card; default: `NAME.card.toml` beside the table `NAME.csv` or the folder `NAME`.
    images: the folder that paths start from and may not leave; default: the table's own.
    skip_bad: leave out rows whose image cannot be read; they are listed in `Dataset.skipped`.
    judged: False for the table of one client, or of pictures to be predicted: a column may then have one
    value, a value one row, and a label is needed only if it is named.

    Raises InputError that tells every problem (the first 20 in words) with its row.
    """
    path, source, card, root, problems = _look(path, label, groups, prompts, images)
    frame, stored = source.frame, source.stored
    if card is None:
        card = Card.read(_card_path(path, prompts))  # raises, telling where it should be
    if stored is None and "path" not in frame.columns:
        problems.insert(0, Problem("no column 'path' with the images' files, and no pictures inside"))
    problems = problems if judged else [p for p in problems if not p.judging]
    bad = [p for p in problems if p.bad_image]
    if skip_bad:
        problems = [p for p in problems if not p.bad_image]
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError(f"{path}: " + "\n".join(map(str, problems[:_SHOWN])) + more)
    if bad:
        left_out = {p.row for p in bad}
        keep = [row not in left_out for row in source.rows]
        if not any(keep):
            raise InputError(f"{path}: no image can be read; the first: {bad[0]}")
        frame = frame[keep].reset_index(drop=True)
        stored = [one for one, kept in zip(stored, keep, strict=True) if kept] if stored else stored
    texts = {"path", "split", "client", *card.classes, *card.groups, *groups, label}
    frame = frame.apply(lambda column: column if column.name in texts else _number(column))
    files = Files(stored if stored is not None else [inside(root, p) for p in frame["path"]])
    return Dataset(frame, files, card, root, tuple(bad))


def check_table(
    path: str | Path,
    *,
    label: str | None = None,
    groups: Sequence[str] = (),
    prompts: str | Path | None = None,
    images: str | Path | None = None,
) -> list[Problem]:
    """Every problem of a table in one pass; an empty list means that it keeps the contract.

    Arguments as for `read_table`. A table of predictions (no column `path`) needs no data card.
    Raises InputError only when the file is no table at all.
    """
    path, source, card, _, problems = _look(path, label, groups, prompts, images)
    if card is None and (source.stored is not None or "path" in source.frame.columns):
        try:
            Card.read(_card_path(path, prompts))
        except InputError as e:
            problems.insert(0, Problem(str(e)))
    return problems


def _look(
    path: str | Path,
    label: str | None,
    groups: Sequence[str],
    prompts: str | Path | None,
    images: str | Path | None,
) -> tuple[Path, Source, Card | None, Path, list[Problem]]:
    path = Path(path)
    source = read_source(path)
    folder = path if path.is_dir() else path.parent
    root = Path(images) if images is not None else folder
    if not root.is_dir():
        raise InputError(f"no folder {root} to take the images from")
    words = _card_path(path, prompts)
    card = Card.read(words) if prompts is not None or words.is_file() else None
    problems = find_problems(source, card=card, label=label, groups=groups, root=root)
    return path, source, card, root, problems


def _card_path(path: Path, prompts: str | Path | None) -> Path:
    if prompts is not None:
        return Path(prompts)
    if path.is_dir():  # beside the folder, which save_to_disk may write again
        return path.resolve().with_name(path.resolve().name + ".card.toml")
    return path.with_suffix(".card.toml")


def _number(column: pd.Series) -> pd.Series:
    try:
        return pd.to_numeric(column.replace("", None))
    except (ValueError, TypeError):
        return column
