"""Turn a FairFace download into examples tables with their data card.

    python data_prep/fairface.py SOURCE --out DIR [--task age] [--task gender] [--repair-ages]

SOURCE is the folder with fairface_label_train.csv and fairface_label_val.csv (either alone will do)
and the images, as folders train/ and val/ or in zip files as downloaded; or one zip file that holds
the images, with the label files in it or beside it. Writes DIR/fairface_age.csv (age 20-39 against
40+, younger people left out), DIR/fairface_gender.csv (everybody), a data card beside each, and the
images under DIR/images/. The official train split becomes "train", the official val split "test".

All labels are perceived: annotators gave them to photographs, nobody was asked.
"""

import argparse
import csv
import hashlib
import io
import re
import shutil
import sys
import zipfile
from collections import Counter
from pathlib import Path

from fvlfp.data.card import Attribute, Card
from fvlfp.data.checks import undo_spreadsheet
from fvlfp.errors import InputError

SPLITS = {"train": "train", "val": "test"}  # official name -> ours
AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
AGE_40 = {a: "20-39" if a in ("20-29", "30-39") else "40+" for a in AGES[3:]}
GENDERS = ("Female", "Male")
RACES = (
    *("White", "Black", "Latino_Hispanic", "East Asian"),
    *("Southeast Asian", "Indian", "Middle Eastern"),
)
COLUMNS = {
    "age": ("path", "age_40", "age", "gender", "race", "split"),
    "gender": ("path", "gender", "age", "race", "split"),
}
MAX_IMAGE = 20_000_000  # bytes; a zip member that claims more is no FairFace image

_RACE_WORDS = {r: [r.lower()] for r in RACES} | {"Latino_Hispanic": ["latino", "latino hispanic"]}
# The age phrases were chosen on the train split: the best balanced accuracy of FaceCLIP-64 there.
CARD = Card(
    name="FairFace",
    source="K. Karkkainen and J. Joo, FairFace, WACV 2021; https://github.com/joojs/fairface",
    licence="CC BY 4.0",
    label_origin="perceived age, gender and race, given by annotators to photographs",
    templates=["a photo of a {}", "a face of a {}", "a picture of a {}"],
    classes={
        "age_40": {"20-39": "young person", "40+": "middle-aged person"},
        "gender": {"Female": "woman", "Male": "man"},
        "race": {r: f"{words[0]} person" for r, words in _RACE_WORDS.items()},
    },
    groups={
        "gender": Attribute(
            words={"Female": ["woman", "female"], "Male": ["man", "male"]},
            phrase="{word}",
            with_label="{word}, a {label}",
        ),
        "race": Attribute(words=_RACE_WORDS, phrase="{word} person", with_label="{word} {label}"),
    },
)


class Download:
    """The user's files: label files and images, in a folder, in zip files, or both."""

    def __init__(self, source: Path) -> None:
        if not source.exists():
            raise InputError(f"no FairFace download at {source}")
        self.folder = source if source.is_dir() else source.parent
        zips = sorted(source.glob("*.zip")) if source.is_dir() else [source]
        self._members: dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo]] = {}
        for file in zips:
            try:
                archive = zipfile.ZipFile(file)
            except (zipfile.BadZipFile, OSError) as e:
                raise InputError(f"{file} is no readable zip file ({e}): download it again") from None
            for info in archive.infolist():
                # "fairface/val/1.jpg" and "val/1.jpg" are the same image
                if found := re.search(
                    r"(?:^|/)((?:train|val)/\d+\.jpg|fairface_label_\w+\.csv)$", info.filename
                ):
                    self._members.setdefault(found[1], (archive, info))

    def labels(self, split: str) -> bytes | None:
        """The label file of one official split, or None."""
        name = f"fairface_label_{split}.csv"
        file = self.folder / name
        return file.read_bytes() if file.is_file() else self._unzip(name)

    def copy(self, name: str, target: Path) -> bool:
        """Put the image "val/1.jpg" at target; False where the download lacks or damages it."""
        if target.is_file() and target.stat().st_size:
            return True
        target.parent.mkdir(parents=True, exist_ok=True)
        if (self.folder / name).is_file():
            shutil.copyfile(self.folder / name, target)
            return True
        content = self._unzip(name)
        if content is None or not content.startswith(b"\xff\xd8"):  # how a JPEG begins
            return False
        target.write_bytes(content)
        return True

    def _unzip(self, name: str) -> bytes | None:
        archive, info = self._members.get(name, (None, None))
        if archive is None or info is None or info.file_size > MAX_IMAGE:
            return None
        try:
            return archive.read(info)
        except (zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError):
            return None  # a damaged or encrypted member is told as missing


def read_labels(content: bytes, name: str, *, repair_ages: bool) -> list[dict[str, str]]:
    """The rows of one official label file, values checked.

    Ages that a spreadsheet turned into dates ("03-Sep", "Oct-19") raise InputError, or are
    repaired with a warning on stderr. Any other unknown value raises InputError with its row.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{name} is no UTF-8 CSV file ({e})") from None
    damaged: Counter[tuple[str, str]] = Counter()
    known = {"age": AGES, "gender": GENDERS, "race": RACES}
    for number, row in enumerate(rows, 2):
        if missing := [c for c in ("file", *known) if row.get(c) is None]:
            columns = ", ".join(c for c in rows[0] if c)
            raise InputError(f"{name}, row {number}: no column {missing[0]!r}; it has: {columns}")
        was = undo_spreadsheet(row["age"])
        if was in AGES:
            damaged[row["age"], was] += 1
            row["age"] = was
        for column, values in known.items():
            if row[column] not in values:
                raise InputError(
                    f"{name}, row {number}: {column} {row[column]!r} is not one of FairFace's: "
                    f"{', '.join(values)}"
                )
        if not re.fullmatch(r"(train|val)/\d+\.jpg", row["file"]):
            raise InputError(f"{name}, row {number}: {row['file']!r} is no FairFace image name")
    if damaged:
        what = ", ".join(f"{k} ages {now!r} (was {was!r})" for (now, was), k in damaged.items())
        if not repair_ages:
            raise InputError(
                f"{name}: a spreadsheet took ages for dates: {what}. "
                "Get the original file again, or repair them with --repair-ages"
            )
        print(f"warning: {name}: repaired {what}", file=sys.stderr)
    if not rows:
        raise InputError(f"{name} has no rows")
    return rows


def convert(
    source: Path,
    out: Path,
    *,
    tasks: tuple[str, ...] = ("age", "gender"),
    repair_ages: bool = False,
    allow_missing: bool = False,
) -> dict[str, Path]:
    """Write the tables, cards and images; returns task -> table. Raises InputError."""
    download = Download(source)
    rows, sums = [], []
    for split, ours in SPLITS.items():
        content = download.labels(split)
        if content is not None:
            name = f"fairface_label_{split}.csv"
            sums.append(f"{name} sha256 {hashlib.sha256(content).hexdigest()}")
            for row in read_labels(content, name, repair_ages=repair_ages):
                age_40 = AGE_40.get(row["age"], "")
                rows.append(row | {"path": f"images/{row['file']}", "split": ours, "age_40": age_40})
    if not rows:
        raise InputError(
            f"no fairface_label_train.csv or fairface_label_val.csv in {download.folder}: "
            "they come with the FairFace download"
        )
    if "gender" not in tasks:
        rows = [r for r in rows if r["age_40"]]
    missing = [r["file"] for r in rows if not download.copy(r["file"], out / r["path"])]
    if missing and not (allow_missing and len(missing) < len(rows)):
        raise InputError(
            f"{len(missing):,} of {len(rows):,} images are missing or damaged in {source}, the first: "
            f"{missing[0]}. Finish the download, or leave such rows out with --allow-missing"
        )
    lost = set(missing)
    rows = [r for r in rows if r["file"] not in lost]
    card = Card(**(vars(CARD) | {"notes": "; ".join(sums)}))
    tables = {}
    for task in tasks:
        kept = [r for r in rows if task != "age" or r["age_40"]]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS[task], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        tables[task] = out / f"fairface_{task}.csv"
        _write_whole(tables[task].with_suffix(".card.toml"), card.to_toml())
        _write_whole(tables[task], text.getvalue())
        counts = Counter(r["split"] for r in kept)
        print(f"{tables[task]}: {', '.join(f'{k:,} {s}' for s, k in counts.items())}")
    if lost:
        print(f"warning: left out {len(lost):,} rows without a good image", file=sys.stderr)
    return tables


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there wholly or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="")
    part.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the download: a folder or a zip file")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and images")
    parser.add_argument("--task", choices=sorted(COLUMNS), action="append", help="default: both")
    parser.add_argument("--repair-ages", action="store_true", help="undo dates made of ages")
    parser.add_argument("--allow-missing", action="store_true", help="leave out rows without image")
    args = parser.parse_args(arguments)
    tasks = tuple(dict.fromkeys(args.task or ("age", "gender")))
    options = {"repair_ages": args.repair_ages, "allow_missing": args.allow_missing}
    try:
        convert(args.source, args.out, tasks=tasks, **options)
    except InputError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
