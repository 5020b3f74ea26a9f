"""Turn a UTKFace download into an examples table with its data card.

    python -m data_prep.utkface SOURCE --out DIR --accept-licence

SOURCE is UTKFace.tar.gz ("Aligned & Cropped Faces") or a folder that holds it or its files. The labels are
in the file names, `age_gender_race_date.jpg.chip.jpg`: age 0 to 116, gender 0 male or 1 female, race 0 to 4
(White, Black, Asian, Indian, others), date with 16 to 18 digits; https://susanqq.github.io/UTKFace/. Three
names of the official archive lack a label; these images are left out and named. Two others have a slip (a
space, a missing dot) that loses nothing, and are read. Any other name stops the reader, which names all such.

Writes DIR/utkface.csv: label `age_40` (20-39 against 40+, younger people left out), groups `gender` and
`race`. There is no official split: about a third of the pictures, drawn by their sha256, is "test". A
picture that is there under two names is taken once.

All labels are perceived: an algorithm guessed and annotators checked, nobody was asked.
"""

import hashlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from data_prep.reader import Download, Row, copy_images, known, main, split_by, write_table
from fvlfp.data.card import Attribute, Card
from fvlfp.errors import InputError

TERMS = "UTKFace is for non-commercial research only"
PATTERN = r"([^/]+jpg)"
#: In the official archive; the race, or the gender, is missing.
BROKEN = {
    "39_1_20170116174525125.jpg.chip.jpg",
    "61_1_20170109142408075.jpg.chip.jpg",
    "61_1_20170109150557335.jpg.chip.jpg",
}
GENDERS = {"0": "Male", "1": "Female"}
RACES = {"0": "White", "1": "Black", "2": "Asian", "3": "Indian", "4": "Others"}
COLUMNS = ("path", "age_40", "age", "gender", "race", "split")
CARD = Card(
    name="UTKFace",
    source="Z. Zhang, Y. Song and H. Qi, CVPR 2017; https://susanqq.github.io/UTKFace/",
    licence="non-commercial research only; the images belong to their owners",
    label_origin="perceived age, gender and race, guessed by an algorithm and checked by annotators",
    templates=["a photo of a {}", "a face of a {}", "a picture of a {}"],
    classes={
        "age_40": {"20-39": "young person", "40+": "middle-aged person"},
        "gender": {"Female": "woman", "Male": "man"},
    },
    groups={
        "gender": Attribute(
            words={"Female": ["woman", "female"], "Male": ["man", "male"]},
            phrase="{word}",
            with_label="{word}, a {label}",
        ),
        "race": Attribute(
            words={
                "White": ["white"],
                "Black": ["black"],
                "Asian": ["asian"],
                "Indian": ["indian"],
                "Others": ["latino", "middle eastern"],
            },
            phrase="{word} person",
            with_label="{word} {label}",
        ),
    },
)


def read_name(name: str) -> Row:
    """The labels in one file name. Raises InputError naming it."""
    # "24_0_1_20170116220224657 .jpg.chip.jpg" and "55_0_0_20170116232725357jpg.chip.jpg" are official names
    found = re.fullmatch(r"(\d{1,3})_(\d+)_(\d+)_\d{16,18} ?\.?jpg(?:\.chip\.jpg)?", name)
    if not found:
        raise InputError(f"{name!r} is no UTKFace name (age_gender_race_date.jpg): restore or remove it")
    age = int(found[1])
    if age > 116:
        raise InputError(f"{name!r}: age {age} is outside 0 to 116")
    return {
        "file": name,
        "age": str(age),
        "age_40": "" if age < 20 else "20-39" if age < 40 else "40+",
        "gender": known(found[2], GENDERS, f"{name!r}: gender"),
        "race": known(found[3], RACES, f"{name!r}: race"),
    }


def _read_names(names: Iterable[str]) -> list[Row]:
    """The labels in all names. Raises one InputError for all names that hold none."""
    rows, odd = [], []
    for name in names:
        try:
            rows.append(read_name(name))
        except InputError as error:
            odd.append(str(error))
    if odd:
        more = f"\n... and {len(odd) - 20} more" if len(odd) > 20 else ""
        raise InputError("\n".join(odd[:20]) + more)
    return rows


def convert(source: Path, out: Path, *, allow_missing: bool = False) -> Path:
    """Write table, card and images; returns the table. Raises InputError."""
    download = Download(source, PATTERN, what="UTKFace")
    names = download.names()
    rows = [row for row in _read_names(name for name in names if name not in BROKEN) if row["age_40"]]
    rows = copy_images(download, rows, out, allow_missing=allow_missing)
    rows, repeated = _once(rows, out)
    notes = [f"left out, a label is missing in the name: {name}" for name in names if name in BROKEN]
    notes += [f"left out, the same picture as another: {len(repeated)}"] if repeated else []
    for line in [*notes, *repeated]:
        print(line, file=sys.stderr)
    card = Card(**(vars(CARD) | {"notes": "; ".join(["no official split", *notes])}))
    return write_table(rows, out, table="utkface", columns=COLUMNS, card=card)


def _once(rows: list[Row], out: Path) -> tuple[list[Row], list[str]]:
    """Rows with pictures of their own, each with its split; and a line for every other one."""
    first: dict[str, str] = {}
    kept, repeated = [], []
    for row in rows:
        digest = hashlib.sha256((out / row["path"]).read_bytes()).hexdigest()
        if first.setdefault(digest, row["file"]) == row["file"]:
            kept.append(row | {"split": split_by(digest)})
        else:
            repeated.append(f"{row['file']} is the same picture as {first[digest]}")
    return kept, repeated


if __name__ == "__main__":
    sys.exit(main(convert, None, doc=__doc__, terms=TERMS))
