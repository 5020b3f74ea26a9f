"""Folders of pictures: `metadata.csv` beside them, or a folder for each class.

    faces/metadata.csv                          its column `file_name` (or `path`) names the pictures
    faces/train/metadata.csv, faces/test/...    the same, a folder for each split
    faces/cat/1.png, faces/dog/...              the folder is the column `label`
    faces/train/cat/1.png, ...                  the same, a folder for each split
    faces/cat/old/1.png, ...                    the second folder is the column `group`

What this module does not do: it opens no picture.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pandas as pd

from fvlfp.data.arrow import SPLITS
from fvlfp.data.images import check_name
from fvlfp.errors import InputError
from fvlfp.files import is_hidden

_METADATA = ("metadata.csv", "metadata.parquet")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_LEFT_OUT = {
    "hidden": "hidden by the system",
    "files": "that are no pictures by their names ({shown})",
    "links": "links to folders, which are not followed",
}


def pictures_in(folder: Path, suffixes: Collection[str] = SUFFIXES) -> tuple[list[Path], str]:
    """The files below a folder that are pictures by their names, sorted; and what was left out, in words.

    Left out are what systems hide, other files, and links to folders, which are not followed.

    Returns:
        paths from `folder` on; "" where nothing was left out.

    Raises:
        InputError: a folder that cannot be read.
    """
    found: list[Path] = []
    left_out: Counter[str] = Counter()
    other: set[str] = set()
    for kind, path in _walk(folder):
        if kind == "files" and path.suffix.lower() in suffixes:
            found.append(path)
            continue
        if kind == "files":
            other.add(path.suffix.lower() or path.name)
        left_out[kind] += 1
    told = [f"{left_out[kind]} {what}" for kind, what in _LEFT_OUT.items() if left_out[kind]]
    shown = ", ".join(sorted(other)[:5]) + (", ..." if len(other) > 5 else "")
    return sorted(found), ", ".join(told).format(shown=shown)


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """(kind, path from `folder` on) of all that is not an ordinary folder; kinds as in `_LEFT_OUT`."""
    for home, folders, files in os.walk(folder, onerror=_refuse):
        here = Path(home).relative_to(folder)
        yield from (("hidden", here / name) for name in [*folders, *files] if is_hidden(name))
        yield from (("files", here / name) for name in files if not is_hidden(name))
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (("links", here / name) for name in folders if (Path(home) / name).is_symlink())


def _refuse(error: OSError) -> None:
    raise InputError(f"the folder {error.filename} cannot be read: {error.strerror}") from None


def metadata_parts(folder: Path) -> list[tuple[str, Path]] | None:
    """(split, metadata file) of a folder, the split "" where there is none; None where no such file is."""
    parts = [("", folder), *((p.name, p) for p in sorted(folder.iterdir()) if p.name in SPLITS)]
    found = [(split, part / name) for split, part in parts for name in _METADATA if (part / name).is_file()]
    for split, file in found:
        if sum(split == other for other, _ in found) > 1 or (not split and len(found) > 1):
            raise InputError(f"{folder} holds {len(found)} metadata files: keep one, or one for each split")
        if (file.parent / "metadata.jsonl").is_file():
            raise InputError(f"{file.parent} holds metadata.jsonl as well: keep one")
    return found or None


def class_folders(folder: Path) -> tuple[pd.DataFrame, str] | None:
    """A row for each picture: `path`, `label`, and `group`, `split` where folders say so; and what was read.

    None when no folder in it holds pictures.

    Raises:
        InputError: pictures lie at different depths.
    """
    pictures, left_out = pictures_in(folder)
    if not any(len(p.parts) > 1 for p in pictures):
        return None
    for picture in pictures:
        check_name(picture.as_posix())
    by_split = all(p.parts[0] in SPLITS for p in pictures)
    depths = {len(p.parts) - by_split: p for p in reversed(pictures)}
    if len(depths) > 1 or not set(depths) <= {2, 3}:
        shown = " and ".join(str(p) for p in list(depths.values())[:2])
        raise InputError(
            f"{folder}: pictures must lie in CLASS/ or CLASS/GROUP/, below a split's folder or not, "
            f"all at the same depth; here lie {shown}"
        )
    column: dict[str, Callable[[Path], str]] = {
        "path": lambda p: p.as_posix(),
        "label": lambda p: p.parts[by_split],
    }
    if 3 in depths:
        column["group"] = lambda p: p.parts[by_split + 1]
    if by_split and len({p.parts[0] for p in pictures}) > 1:
        column["split"] = lambda p: SPLITS[p.parts[0]]
    frame = pd.DataFrame({name: [of(p) for p in pictures] for name, of in column.items()}, dtype=object)
    return frame, "a folder for each class" + (f"; left out: {left_out}" if left_out else "")
