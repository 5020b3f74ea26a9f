"""Turn a FairFace download into examples tables with their data card.

    python -m data_prep.fairface SOURCE --out DIR [--task age] [--task gender] [--repair-ages]

SOURCE is the folder with fairface_label_train.csv and fairface_label_val.csv (either alone will do)
and the images, as folders train/ and val/ or in zip files as downloaded; or one zip file that holds
the images, with the label files in it or beside it. Writes DIR/fairface_age.csv (age 20-39 against
40+, younger people left out), DIR/fairface_gender.csv (everybody), a data card beside each, and the
images under DIR/images/. The official train split becomes "train", the official val split "test".

All labels are perceived: annotators gave them to photographs, nobody was asked.
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

from data_prep.reader import Download, copy_images, once, read_csv, write_table
from fvlfp.data.card import Attribute, Card
from fvlfp.data.cells import undo_spreadsheet
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
PATTERN = r"((?:train|val)/\d+\.jpg|fairface_label_(?:train|val)\.csv)"

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


def read_labels(content: bytes, name: str, *, repair_ages: bool) -> list[dict[str, str]]:
    """The rows of one official label file, values checked.

    Ages that a spreadsheet turned into dates ("03-Sep", "Oct-19") raise InputError, or are
    repaired with a warning on stderr. Any other unknown value raises InputError with its row.
    """
    rows: list[dict[str, str]] = []
    seen: dict[str, int] = {}
    damaged: Counter[tuple[str, str]] = Counter()
    known = {"age": AGES, "gender": GENDERS, "race": RACES}
    for number, row in read_csv(content, name, ("file", *known)):
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
        once(seen, row["file"], number, name)
        rows.append(row)
    if damaged:
        what = ", ".join(f"{k} ages {now!r} (was {was!r})" for (now, was), k in damaged.items())
        if not repair_ages:
            raise InputError(
                f"{name}: a spreadsheet took ages for dates: {what}. "
                "Get the original file again, or repair them with --repair-ages"
            )
        print(f"warning: {name}: repaired {what}", file=sys.stderr)
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
    download = Download(source, PATTERN, what="FairFace")
    rows, read = [], {}
    for split, ours in SPLITS.items():
        name = f"fairface_label_{split}.csv"
        if name not in download.names():
            continue
        read[name] = download.text(name)
        for row in read_labels(read[name], name, repair_ages=repair_ages):
            rows.append(row | {"split": ours, "age_40": AGE_40.get(row["age"], "")})
    if not rows:
        raise InputError(
            f"no fairface_label_train.csv or fairface_label_val.csv in {source}: "
            "they come with the FairFace download"
        )
    if "gender" not in tasks:
        rows = [r for r in rows if r["age_40"]]
    rows = copy_images(download, rows, out, allow_missing=allow_missing)
    tables = {}
    for task in tasks:
        kept = [r for r in rows if task != "age" or r["age_40"]]
        tables[task] = write_table(
            kept, out, table=f"fairface_{task}", columns=COLUMNS[task], card=CARD, read=read
        )
    return tables


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
