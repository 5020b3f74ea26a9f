"""Turn a PAD-UFES-20 download (skin lesions) into an examples table with its data card.

    python -m data_prep.pad_ufes_20 SOURCE --out DIR

SOURCE is the folder with metadata.csv and the images, as the three folders or zip files imgs_part_1,
imgs_part_2 and imgs_part_3 of https://data.mendeley.com/datasets/zr7vgbcyr2 (unpack the outer zip file
first). The columns that are read: img_id, patient_id, diagnostic (BCC, MEL, SCC are cancers; ACK, NEV, SEK
are not), fitspatrick (spelt so; 1.0 to 6.0 or empty), gender (FEMALE, MALE or empty) and age; described in
A. Pacheco et al., Data in Brief 32 (2020) 106221.

Writes DIR/pad_ufes_20.csv: label `cancer`, groups `skin_type` (Fitzpatrick I-II, III-IV, V-VI), `gender` and
`age` (under 60, 60 and over). Rows without skin type or gender are left out and counted: these are not given
for many lesions that were never biopsied, so the table holds relatively more cancers than the clinic saw.
There is no official split: about a third of the patients, drawn by the sha256 of their id, is "test".
"""

import re
import sys
from collections import Counter
from pathlib import Path

from data_prep.reader import Download, Row, copy_images, known, main, once, read_csv, split_by, write_table
from fvlfp.data.card import Attribute, Card
from fvlfp.errors import InputError

METADATA = "metadata.csv"
PATTERN = r"(metadata\.csv|PAT_[\w]+\.png)"
READ = ("img_id", "patient_id", "diagnostic", "fitspatrick", "gender", "age")
CANCER = {"BCC": "yes", "MEL": "yes", "SCC": "yes", "ACK": "no", "NEV": "no", "SEK": "no"}
SKIN = {"": ""} | {
    f"{kind}{zero}": group
    for group, kinds in {"I-II": "12", "III-IV": "34", "V-VI": "56"}.items()
    for kind in kinds
    for zero in ("", ".0")
}
GENDERS = {"": "", "FEMALE": "Female", "MALE": "Male"}
COLUMNS = ("path", "cancer", "diagnostic", "skin_type", "gender", "age", "split")
CARD = Card(
    name="PAD-UFES-20",
    source="A. Pacheco et al., Data in Brief 32 (2020) 106221; https://data.mendeley.com/datasets/zr7vgbcyr2",
    licence="CC BY 4.0",
    label_origin=(
        "cancer: biopsy; other lesions: biopsy or consensus of dermatologists. Skin type, gender and age: "
        "recorded during the appointment; the skin type is how somebody judged it"
    ),
    templates=["a photo of a {}", "a clinical photo of a {}", "a close-up of a {}"],
    classes={"cancer": {"no": "benign skin lesion", "yes": "malignant skin lesion"}},
    groups={
        "skin_type": Attribute(
            words={"I-II": ["light skin"], "III-IV": ["medium skin", "olive skin"], "V-VI": ["dark skin"]},
            phrase="{word}",
            with_label="{label} on {word}",
        ),
        "gender": Attribute(
            words={"Female": ["woman"], "Male": ["man"]}, phrase="{word}", with_label="{label} of a {word}"
        ),
        "age": Attribute(
            words={"under 60": ["younger"], "60 and over": ["older"]},
            phrase="{word} person",
            with_label="{label} of a {word} person",
        ),
    },
)


def read_metadata(content: bytes, name: str = METADATA) -> list[Row]:
    """All rows, "" where skin type or gender is not given. Raises InputError naming the row."""
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, row in read_csv(content, name, READ):
        where = f"{name}, row {number}"
        if not re.fullmatch(r"PAT_\w+\.png", row["img_id"]):
            raise InputError(f"{where}: {row['img_id']!r} is no PAD-UFES-20 image name")
        once(seen, row["img_id"], number, name)
        if not re.fullmatch(r"PAT_\d+", row["patient_id"]):
            raise InputError(f"{where}: patient_id {row['patient_id']!r} is not of the form PAT_1234")
        if not re.fullmatch(r"\d{1,3}(\.0)?", row["age"]):
            raise InputError(f"{where}: age {row['age']!r} is no whole number of years")
        rows.append(
            {
                "file": row["img_id"],
                "diagnostic": row["diagnostic"],
                "cancer": known(row["diagnostic"], CANCER, f"{where}: diagnostic"),
                "skin_type": known(row["fitspatrick"], SKIN, f"{where}: fitspatrick"),
                "gender": known(row["gender"], GENDERS, f"{where}: gender"),
                "age": "under 60" if float(row["age"]) < 60 else "60 and over",
                "split": split_by(row["patient_id"]),
            }
        )
    return rows


def convert(source: Path, out: Path, *, allow_missing: bool = False) -> Path:
    """Write table, card and images; returns the table. Raises InputError."""
    download = Download(source, PATTERN, what="PAD-UFES-20")
    content = download.text(METADATA)
    rows = read_metadata(content)
    given = [row for row in rows if row["skin_type"] and row["gender"]]
    silent = Counter(row["cancer"] for row in rows if not (row["skin_type"] and row["gender"]))
    note = (
        f"left out, without skin type or gender: {silent.total()} of {len(rows)} rows "
        f"({silent['yes']} cancers); no official split, patients stay together"
    )
    print(note, file=sys.stderr)
    given = copy_images(download, given, out, allow_missing=allow_missing)
    card = Card(**(vars(CARD) | {"notes": note}))
    return write_table(given, out, table="pad_ufes_20", columns=COLUMNS, card=card, read={METADATA: content})


if __name__ == "__main__":
    sys.exit(main(convert, None, doc=__doc__))
