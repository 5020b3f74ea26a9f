"""CelebA and HAM10000 of the shared folder as tables: pretraining rows apart from clients and test rows.

    FVLFP_SHARED=DIR python -m benchmarks.sets --out runs/benchmarks

DIR holds `data/celeba` and `data/ham10000`, each a `labels.csv` and a zip of its images. For each set two
tables are written: NAME_pretrain.csv for `data_prep.table_clip`, and NAME.csv with the clients' rows
("train") and the test rows. A person or a lesion is in one of the three only, by the sha256 of its id.

What this module does not do: it downloads nothing, and no image of these sets may enter the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.shared import command, shared_folder
from data_prep import celeba
from data_prep.reader import Download, copy_images, read_csv, write_table
from fvlfp.data.card import Attribute, Card
from fvlfp.errors import InputError

Line = tuple[int, Mapping[str, str]]  # row number, as a spreadsheet counts, and cells
CELEBA_USED = celeba.USED | {
    "eyeglasses": ("Eyeglasses", "no", "yes"),
    "hat": ("Wearing_Hat", "no", "yes"),
}
CELEBA = replace(
    celeba.CARD,
    classes=celeba.CARD.classes
    | {
        "eyeglasses": {"no": "person without eyeglasses", "yes": "person with eyeglasses"},
        "hat": {"no": "person without a hat", "yes": "person with a hat"},
    },
)
DIAGNOSES = {
    "nv": "mole",
    "bkl": "benign keratosis",
    "mel": "melanoma",
    "bcc": "basal cell carcinoma",
    "akiec": "actinic keratosis",
    "vasc": "vascular lesion",
    "df": "dermatofibroma",
}
SITES = {
    site: site
    for site in (
        "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand", "lower extremity",
        "neck", "scalp", "trunk", "upper extremity",
    )
}  # fmt: skip
AGES = {"<40": "under 40", "40-59": "40 to 59", "60+": "60 and over"}
HAM10000 = Card(
    name="HAM10000",
    source="P. Tschandl, C. Rosendahl and H. Kittler, Scientific Data 5 (2018) 180161",
    licence="CC BY-NC 4.0",
    label_origin=(
        "diagnosis: histopathology, follow-up, consensus or confocal microscopy; age and sex as recorded. "
        "No skin type is recorded; nearly all pictures show light skin"
    ),
    templates=["a photo of a {}", "a dermoscopic picture of a {}", "a close-up of a {}"],
    classes={
        "malignant": {"no": "benign lesion", "yes": "malignant lesion"},
        "diagnosis": {name: name for name in DIAGNOSES.values()},
        "site": {site: f"lesion on the {site}" for site in SITES},
    },
    groups={
        "sex": Attribute(
            words={"female": ["woman"], "male": ["man"]},
            phrase="lesion of a {word}",
            with_label="{label} of a {word}",
        ),
        "age_group": Attribute(
            words={"under 40": ["young"], "40 to 59": ["middle-aged"], "60 and over": ["older", "elderly"]},
            phrase="lesion of a {word} person",
            with_label="{label} of a {word} person",
        ),
    },
)


def part_of(key: str, pretrain: int, train: int) -> str:
    """ "pretrain", "train" or "test": is the first byte of the id's sha256 below `pretrain`, `train`?"""
    byte = hashlib.sha256(key.encode()).digest()[0]
    return "pretrain" if byte < pretrain else "train" if byte < train else "test"


def celeba_rows(lines: Iterable[Line]) -> list[dict[str, str]]:
    """Rows with our columns; half of the people for pretraining, 30 % for clients, 20 % for the test."""
    rows = []
    for number, raw in lines:
        values = {
            column: _of(raw, number, a, {"0": no, "1": yes}) for column, (a, no, yes) in CELEBA_USED.items()
        }
        rows.append({"file": raw["file"], **values, "split": part_of(raw["identity"], 128, 205)})
    return rows


def ham_rows(lines: Iterable[Line]) -> list[dict[str, str]]:
    """Rows with our columns; 40 % of the lesions for pretraining, a third for clients, the rest for the test.

    Left out, and counted on the data card: rows without sex, site or age (an age of 0 means not recorded).
    """
    rows = []
    for number, raw in lines:
        if raw["sex"] == "" or raw["localization"] == "unknown" or raw["age"] in ("", "0", "0.0"):
            continue
        rows.append(
            {
                "file": raw["file"],
                "malignant": _of(raw, number, "malignant", {"0": "no", "1": "yes"}),
                "diagnosis": _of(raw, number, "dx", DIAGNOSES),
                "site": _of(raw, number, "localization", SITES),
                "sex": _of(raw, number, "sex", {"female": "female", "male": "male"}),
                "age_group": _of(raw, number, "age_group", AGES),
                "split": part_of(raw["lesion_id"], 103, 188),
            }
        )
    return rows


def _of(raw: Mapping[str, str], number: int, column: str, values: Mapping[str, str]) -> str:
    if raw[column] not in values:
        raise InputError(
            f"labels.csv, row {number}: {column} = {raw[column]!r} is not one of {', '.join(values)}"
        )
    return values[raw[column]]


#: columns of labels.csv
READ = {
    "celeba": ("file", "identity", *(attribute for attribute, _, _ in CELEBA_USED.values())),
    "ham10000": ("file", "lesion_id", "dx", "malignant", "age", "age_group", "sex", "localization"),
}
#: name -> data card, rows of labels.csv, what images are called, columns
SETS: dict[str, tuple[Card, Callable[[Iterable[Line]], list[dict[str, str]]], str, tuple[str, ...]]] = {
    "celeba": (CELEBA, celeba_rows, r"(\d{6}\.jpg)", ("path", *CELEBA_USED, "split")),
    "ham10000": (
        HAM10000,
        ham_rows,
        r"(ISIC_\d+\.jpg)",
        ("path", "malignant", "diagnosis", "site", "sex", "age_group", "split"),
    ),
}


def convert(name: str, out: Path, shared: Path | None = None) -> tuple[Path, Path]:
    """Write both tables of "celeba" or "ham10000" with images; returns (pretraining, clients and test)."""
    card, rows_of, pattern, columns = SETS[name]
    folder = (shared or shared_folder()) / "data" / name
    labels = (folder / "labels.csv").read_bytes()
    lines = list(read_csv(labels, "labels.csv", READ[name]))
    wanted = rows_of(lines)
    note = f"left out for lack of a value: {len(lines) - len(wanted)} of {len(lines)} rows"
    card = replace(card, notes=note)
    rows = copy_images(Download(folder, pattern, what=name), wanted, out / name, allow_missing=False)
    left, used = [r for r in rows if r["split"] == "pretrain"], [r for r in rows if r["split"] != "pretrain"]
    first = [row | {"split": "train"} for row in left]
    read = {"labels.csv": labels}
    return tuple(  # type: ignore[return-value]
        write_table(part, out / name, table=table, columns=columns, card=card, read=read)
        for part, table in ((first, f"{name}_pretrain"), (used, name))
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    for name in SETS:
        convert(name, args.out)


if __name__ == "__main__":
    sys.exit(command(main))
