"""The examples table: one row an example, a column a label or perceived-group attribute."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fvlfp.data.card import Card
from fvlfp.data.cells import read_values, rows_of
from fvlfp.data.checks import Problem, checked_columns, find_problems
from fvlfp.data.images import Files, inside
from fvlfp.data.source import Source, read_source
from fvlfp.errors import InputError
from fvlfp.files import as_utf8

__all__ = ["Dataset", "Files", "Problem", "check_table", "read_table"]

_SHOWN = 20  # problems told in one message


@dataclass(frozen=True)
class Dataset:
    """A table of n examples, their images and the data card.

    frame: row i is example i (index 0..n-1); label and attribute columns hold str; optional
    columns `split` ("train", "val", "test") and `client`; a table read from a file has `path`.
    images: a sequence of length n; `images[i]` is a PIL image in mode RGB.
    skipped: the rows left out because their image cannot be read (skip_bad).
    read: what was read, how pictures were read, and what was merged or read as missing, for reports.
    remarks: what belongs on a report's first page.
    rows: what messages call each of the n rows, where they come from a file (see `Source`).
    """

    frame: pd.DataFrame
    images: Sequence[Image.Image]
    card: Card
    root: Path | None = None
    skipped: tuple[Problem, ...] = ()
    read: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    rows: Sequence[int | str] = ()

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
            **({"table": dict(self.read)} if self.read else {}),
            **({"remarks": list(self.remarks)} if self.remarks else {}),
        }

    def take(self, rows: Any) -> "Dataset":
        """The examples at `rows` (integer positions, or a boolean mask of length n), in order."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(int)
        images = self.images
        picked = images.take(rows) if hasattr(images, "take") else [images[i] for i in rows]
        called = [self.rows[i] for i in rows] if self.rows else ()
        return replace(self, frame=self.frame.iloc[rows].reset_index(drop=True), images=picked, rows=called)


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
    looked = look(path, label=label, groups=groups, prompts=prompts, images=images)
    path, source, root, problems = looked.path, looked.source, looked.root, list(looked.problems)
    frame, stored = source.frame, source.stored
    card = looked.card or Card.read(card_path(path, prompts))  # raises, telling where it should be
    if stored is None and "path" not in frame.columns:
        problems.insert(0, Problem("no column 'path' with the images' files, and no pictures inside"))
    problems = problems if judged else [p for p in problems if not p.judging]
    doubts = tuple(str(p) for p in problems if p.doubt)
    problems = [p for p in problems if not p.doubt]
    bad, rows = [p for p in problems if p.bad_image], list(source.rows)
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
        frame, rows = frame[keep].reset_index(drop=True), [row for row in rows if row not in left_out]
        stored = [one for one, kept in zip(stored, keep, strict=True) if kept] if stored else stored
    texts = {"path", "split", "client", *card.classes, *card.groups, *groups, label}
    frame = frame.apply(lambda column: column if column.name in texts else _number(column))
    for name in looked.columns:
        frame[name] = read_values(frame[name]).texts()
    files = Files(stored if stored is not None else [inside(root, p) for p in frame["path"]])
    remarks = (*doubts[:_SHOWN], *([f"and {len(doubts) - _SHOWN} more"] if len(doubts) > _SHOWN else ()))
    return Dataset(frame, files, card, root, tuple(bad), looked.facts, remarks, rows)


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
    return look(path, label=label, groups=groups, prompts=prompts, images=images).problems


@dataclass(frozen=True)
class Looked:
    """A table, its card if there is one, every problem, the columns checked, and how pictures were read."""

    path: Path
    source: Source
    card: Card | None
    root: Path
    problems: list[Problem]
    columns: list[str]
    seen: Counter[str]

    @property
    def facts(self) -> dict[str, Any]:
        """What was read, for reports: no path of this machine."""
        notes = [f"{c}: {note}" for c in self.columns for note in read_values(self.source.frame[c]).notes]
        shown = ", ".join(f"{count:,} {what}" for what, count in self.seen.items())
        return {
            "file": as_utf8(self.path.resolve().name),
            "read": f"{rows_of(len(self.source.frame))} ({self.source.how})",
            **({"pictures": shown} if shown else {}),
            **({"merged": notes} if notes else {}),
        }

    def describe(self) -> Iterator[str]:
        """What was checked, a line each."""
        frame = self.source.frame
        yield f"read: {self.facts['file']}, {self.facts['read']}"
        for name in [*self.columns, *(c for c in ("split", "client") if c in frame)]:
            counts = frame[name].value_counts()
            few = ", ".join(f"{value} {count:,}" for value, count in counts.head(8).items())
            yield f"checked: {name} ({few}{', ...' if len(counts) > 8 else ''})"
        if "pictures" in self.facts:
            yield f"pictures: {self.facts['pictures']}"
        elif "path" not in frame:
            yield "pictures: none looked at, as no column is called 'path' (or 'file_name')"
        yield from (f"note: {line}" for line in self.facts.get("merged", ()))


def look(
    path: str | Path,
    *,
    label: str | None = None,
    groups: Sequence[str] = (),
    prompts: str | Path | None = None,
    images: str | Path | None = None,
) -> Looked:
    """Look at everything in a table once. Arguments as for `read_table`.

    Raises:
        InputError: the file is no table at all, a column is named twice, or `images` beside stored pictures.
    """
    path = Path(path)
    named = [*([label] if label else []), *groups]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise InputError(f"column {twice[0]!r} is named twice as label or group: name it once")
    source = read_source(path)
    if images is not None and source.stored is not None:
        raise InputError(f"images = {str(images)!r} would not be used: {path} holds its pictures itself")
    folder = path if path.is_dir() else path.parent
    root = Path(images) if images is not None else folder
    if not root.is_dir():
        raise InputError(f"no folder {root} to take the images from")
    words = card_path(path, prompts)
    card = Card.read(words) if prompts is not None or words.is_file() else None
    seen: Counter[str] = Counter()
    problems = find_problems(source, card=card, label=label, groups=groups, root=root, seen=seen)
    if card is None and (source.stored is not None or "path" in source.frame.columns):
        problems.insert(0, Problem(f"no data card at {words}: write one there or name one with --prompts"))
    return Looked(path, source, card, root, problems, checked_columns(source, card, label, groups), seen)


def card_path(path: Path, prompts: str | Path | None = None) -> Path:
    """Where the data card of a table is looked for, unless `prompts` names it."""
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
