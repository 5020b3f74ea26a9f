"""The examples table: one row an example, a column a label or perceived-group attribute."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from fvlfp.data.card import Card
from fvlfp.data.checks import Problem, find_problems, first_row, inside, open_image, read_frame
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


class Files(Sequence[Image.Image]):
    """Image files, each opened when it is asked for: upright (EXIF) and in mode RGB."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Files(self.paths[i])
        image = ImageOps.exif_transpose(open_image(self.paths[i]))
        # Pillow drops a palette's transparency with a warning unless it goes through RGBA
        return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[i] for i in range(len(self)))

    def digest(self, i: int) -> bytes:
        """The sha256 of file i, without decoding it."""
        return hashlib.sha256(self.paths[i].read_bytes()).digest()

    def take(self, rows: Any) -> "Files":
        """The images at these positions."""
        return Files([self.paths[i] for i in rows])


def read_table(
    path: str | Path,
    *,
    label: str | None = None,
    groups: Sequence[str] = (),
    prompts: str | Path | None = None,
    images: str | Path | None = None,
    skip_bad: bool = False,
) -> Dataset:
    """Read a CSV or Parquet table of images with its data card, wholly checked.

    label, groups: columns that must be there; default: the card's columns that the table has.
    prompts: the data card; default: `NAME.card.toml` beside the table `NAME.csv`.
    images: the folder that paths start from and may not leave; default: the table's own.
    skip_bad: leave out rows whose image cannot be read; they are listed in `Dataset.skipped`.

    Raises InputError that tells every problem (the first 20 in words) with its row.
    """
    path, frame, card, root, problems = _look(path, label, groups, prompts, images)
    if card is None:
        card = Card.read(_card_path(path, prompts))  # raises, telling where it should be
    if "path" not in frame.columns:
        problems.insert(0, Problem("no column 'path' with the images' files"))
    bad = [p for p in problems if p.bad_image]
    if skip_bad:
        problems = [p for p in problems if not p.bad_image]
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError(f"{path}: " + "\n".join(map(str, problems[:_SHOWN])) + more)
    if bad:
        left_out = {p.row for p in bad}
        keep = [first_row(path) + i not in left_out for i in range(len(frame))]
        if not any(keep):
            raise InputError(f"{path}: no image can be read; the first: {bad[0]}")
        frame = frame[keep].reset_index(drop=True)
    texts = {"path", "split", "client", *card.classes, *card.groups, *groups, label}
    frame = frame.apply(lambda column: column if column.name in texts else _number(column))
    files = Files([inside(root, p) for p in frame["path"]])
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
    path, frame, card, _, problems = _look(path, label, groups, prompts, images)
    if card is None and "path" in frame.columns:
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
) -> tuple[Path, pd.DataFrame, Card | None, Path, list[Problem]]:
    path = Path(path)
    frame = read_frame(path)
    root = Path(images) if images is not None else path.parent
    if not root.is_dir():
        raise InputError(f"no folder {root} to take the images from")
    words = _card_path(path, prompts)
    card = Card.read(words) if prompts is not None or words.is_file() else None
    problems = find_problems(frame, start=first_row(path), card=card, label=label, groups=groups, root=root)
    return path, frame, card, root, problems


def _card_path(path: Path, prompts: str | Path | None) -> Path:
    return Path(prompts) if prompts is not None else path.with_suffix(".card.toml")


def _number(column: pd.Series) -> pd.Series:
    try:
        return pd.to_numeric(column.replace("", None))
    except (ValueError, TypeError):
        return column
