"""Turn a Waterbirds download into an examples table with its data card: a control without any people.

    python -m data_prep.waterbirds SOURCE --out DIR --accept-licence

SOURCE is waterbird_complete95_forest2water2.tar.gz or the folder that it holds, with metadata.csv (columns
img_id, img_filename, y, split, place, place_filename) and a folder of images for each species, as made by
S. Sagawa et al. (https://github.com/kohpangwei/group_DRO, dataset_scripts/generate_waterbirds.py: y 1 is a
waterbird, place 1 is water, split 0, 1, 2 are train, val, test).

Writes DIR/waterbirds.csv: label `bird`, group `background`. A bird was cut out of its photograph and put on
a background; in train 95 % of the birds have the one that fits, in val and test half of them. Here the gap
between groups is made, and its cause is known.
"""

import re
import sys
from pathlib import Path

from data_prep.reader import Download, Row, copy_images, known, main, once, read_csv, write_table
from fvlfp.data.card import Attribute, Card
from fvlfp.errors import InputError

TERMS = "Waterbirds is made of other people's photographs: take it as for non-commercial research only"
METADATA = "metadata.csv"
IMAGE = r"\d{3}\.[\w.-]+/[\w.-]+\.jpg"
PATTERN = rf"(metadata\.csv|{IMAGE})"
READ = ("img_filename", "y", "split", "place")
BIRDS = {"0": "landbird", "1": "waterbird"}
PLACES = {"0": "land", "1": "water"}
SPLITS = {"0": "train", "1": "val", "2": "test"}
COLUMNS = ("path", "bird", "background", "split")
CARD = Card(
    name="Waterbirds",
    source="S. Sagawa et al., ICLR 2020; https://github.com/kohpangwei/group_DRO",
    licence="none stated; birds from CUB-200-2011 (Flickr), backgrounds from Places: non-commercial research",
    label_origin="bird: species of CUB-200-2011, given by annotators; background: chosen when it was pasted",
    templates=["a photo of a {}", "a picture of a {}"],
    classes={"bird": {"landbird": "landbird", "waterbird": "waterbird"}},
    groups={
        "background": Attribute(
            words={"land": ["forest", "bamboo forest"], "water": ["ocean", "lake"]},
            phrase="{word}",
            with_label="{label} in front of a {word}",
        )
    },
)


def read_metadata(content: bytes, name: str = METADATA) -> list[Row]:
    """All rows. Raises InputError naming the row."""
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, row in read_csv(content, name, READ):
        where = f"{name}, row {number}"
        if not re.fullmatch(IMAGE, row["img_filename"]):
            raise InputError(f"{where}: {row['img_filename']!r} is no Waterbirds image name")
        once(seen, row["img_filename"], number, name)
        rows.append(
            {
                "file": row["img_filename"],
                "bird": known(row["y"], BIRDS, f"{where}: y"),
                "background": known(row["place"], PLACES, f"{where}: place"),
                "split": known(row["split"], SPLITS, f"{where}: split"),
            }
        )
    return rows


def convert(source: Path, out: Path, *, allow_missing: bool = False) -> Path:
    """Write table, card and images; returns the table. Raises InputError."""
    download = Download(source, PATTERN, what="Waterbirds")
    content = download.text(METADATA)
    rows = copy_images(download, read_metadata(content), out, allow_missing=allow_missing)
    return write_table(rows, out, table="waterbirds", columns=COLUMNS, card=CARD, read={METADATA: content})


if __name__ == "__main__":
    sys.exit(main(convert, None, doc=__doc__, terms=TERMS))
