"""Turn a CelebA download into an examples table with its data card.

    python -m data_prep.celeba SOURCE --out DIR --accept-licence

SOURCE is the folder with Anno/list_attr_celeba.txt, Eval/list_eval_partition.txt and
Img/img_align_celeba.zip (or the unpacked folder img_align_celeba), in these folders or flat, as got from
https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html. The attribute file has the number of images in line 1,
the names of 40 attributes in line 2, then "000001.jpg -1 1 ..."; the partition file "000001.jpg 0", where
0, 1 and 2 are train, val and test (torchvision.datasets.CelebA reads the same files so).

Writes DIR/celeba.csv: labels `smiling` and `blond_hair`, groups `gender` (attribute Male) and `age`
(attribute Young), the official partition as `split`.

All labels are perceived: annotators looked at photographs of celebrities, nobody was asked.
"""

import re
import sys
from pathlib import Path

from data_prep.reader import Download, Row, copy_images, known, main, once, write_table
from fvlfp.data.card import Attribute, Card
from fvlfp.errors import InputError

TERMS = "CelebA is for non-commercial research only"
ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
PATTERN = rf"(img_align_celeba/\d+\.jpg|{re.escape(ATTRIBUTES)}|{re.escape(PARTITION)})"
SPLITS = {"0": "train", "1": "val", "2": "test"}
#: Our column -> the attribute, and our words for -1 and 1.
USED = {
    "smiling": ("Smiling", "no", "yes"),
    "blond_hair": ("Blond_Hair", "no", "yes"),
    "gender": ("Male", "Female", "Male"),
    "age": ("Young", "Not young", "Young"),
}
CARD = Card(
    name="CelebA",
    source="Z. Liu, P. Luo, X. Wang and X. Tang, ICCV 2015; https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    licence="non-commercial research only; the images are not the property of the authors",
    label_origin="perceived attributes, given by annotators to photographs of celebrities",
    templates=["a photo of a {}", "a face of a {}", "a picture of a {}"],
    classes={
        "smiling": {"no": "serious person", "yes": "smiling person"},
        "blond_hair": {"no": "person with dark hair", "yes": "person with blond hair"},
    },
    groups={
        "gender": Attribute(
            words={"Female": ["woman", "female"], "Male": ["man", "male"]},
            phrase="{word}",
            with_label="{word}, a {label}",
        ),
        "age": Attribute(
            words={"Young": ["young"], "Not young": ["older", "middle-aged"]},
            phrase="{word} person",
            with_label="{word} {label}",
        ),
    },
)


def read_attributes(content: bytes, name: str = ATTRIBUTES) -> dict[str, Row]:
    """Image -> our columns. Raises InputError naming the line."""
    lines = _lines(content, name)
    if len(lines) < 3 or not lines[0][0].isdigit():
        raise InputError(f"{name}: line 1 must be the number of images, line 2 the attributes' names")
    header = lines[1]
    found: dict[str, Row] = {}
    seen: dict[str, int] = {}
    for attribute, _, _ in USED.values():
        if attribute not in header:
            raise InputError(f"{name}, row 2: no attribute {attribute!r}; it has: {', '.join(header)}")
    for number, line in enumerate(lines[2:], 3):
        if len(line) != len(header) + 1:
            raise InputError(f"{name}, row {number}: {len(line) - 1} values for {len(header)} attributes")
        _check_image(line[0], name, number)
        once(seen, line[0], number, name)
        values = dict(zip(header, line[1:], strict=True))
        found[line[0]] = {
            column: known(values[attribute], {"-1": no, "1": yes}, f"{name}, row {number}: {attribute}")
            for column, (attribute, no, yes) in USED.items()
        }
    if len(found) != int(lines[0][0]):
        raise InputError(f"{name}: line 1 says {lines[0][0]} images, {len(found)} follow: download it again")
    return found


def read_partition(content: bytes, name: str = PARTITION) -> dict[str, str]:
    """Image -> split. Raises InputError naming the line."""
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(content, name), 1):
        if len(line) != 2:
            raise InputError(f"{name}, row {number}: {' '.join(line)!r} is not an image and its part")
        _check_image(line[0], name, number)
        once(seen, line[0], number, name)
        found[line[0]] = known(line[1], SPLITS, f"{name}, row {number}: part")
    return found


def convert(source: Path, out: Path, *, allow_missing: bool = False) -> Path:
    """Write table, card and images; returns the table. Raises InputError."""
    download = Download(source, PATTERN, what="CelebA")
    read = {name: download.text(name) for name in (ATTRIBUTES, PARTITION)}
    attributes, parts = read_attributes(read[ATTRIBUTES]), read_partition(read[PARTITION])
    if alone := sorted(attributes.keys() ^ parts.keys()):
        where = PARTITION if alone[0] in attributes else ATTRIBUTES
        raise InputError(f"{where} does not name {alone[0]} ({len(alone)} such images): download it again")
    rows = [
        {"file": f"img_align_celeba/{image}", "split": parts[image], **row}
        for image, row in attributes.items()
    ]
    rows = copy_images(download, rows, out, allow_missing=allow_missing)
    return write_table(rows, out, table="celeba", columns=("path", *USED, "split"), card=CARD, read=read)


def _lines(content: bytes, name: str) -> list[list[str]]:
    try:
        lines = [line.split() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as e:
        raise InputError(f"{name} is no text file ({e})") from None
    while lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line:
            raise InputError(f"{name}, row {number}: the line is empty")
    if not lines:
        raise InputError(f"{name} has no rows")
    return lines


def _check_image(image: str, name: str, number: int) -> None:
    if not re.fullmatch(r"\d+\.jpg", image):
        raise InputError(f"{name}, row {number}: {image!r} is no CelebA image name")


if __name__ == "__main__":
    sys.exit(main(convert, None, doc=__doc__, terms=TERMS))
