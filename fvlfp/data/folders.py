"""Folders of pictures: `metadata.csv` beside them, or a folder for each class.

    faces/metadata.csv                          its column `file_name` (or `path`) names the pictures
    faces/train/metadata.csv, faces/test/...    the same, a folder for each split
    faces/cat/1.png, faces/dog/...              the folder is the column `label`
    faces/train/cat/1.png, ...                  the same, a folder for each split
    faces/cat/old/1.png, ...                    the second folder is the column `group`

What this module does not do: it opens no picture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from fvlfp.data.arrow import SPLITS
from fvlfp.data.images import check_name
from fvlfp.errors import InputError

_METADATA = ("metadata.csv", "metadata.parquet")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


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
    files = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if _counts(p.relative_to(folder))]
    pictures = [p for p in files if p.suffix.lower() in SUFFIXES]
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
    other = sum(not (folder / p).is_dir() for p in files) - len(pictures)
    how = "a folder for each class" + (f"; {other} files that are no pictures left out" if other else "")
    return frame, how


def _counts(path: Path) -> bool:
    return not any(part.startswith((".", "__MACOSX")) for part in path.parts)
