"""What the readers of this folder share: a download's files, checked rows, and everything they write.

A reader turns the official download of one data set into `NAME.csv`, its data card, the images and
`SHA256SUMS` (`sha256sum -c` checks all of them). Every file is written whole or not at all and the table
comes after the images, so that a reader that was killed goes on where it was. What this module does not
do: it downloads nothing, and knows no data set.
"""

import argparse
import csv
import hashlib
import io
import re
import shutil
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from fvlfp.data.card import Card
from fvlfp.errors import InputError

Row = dict[str, str]
MAX_IMAGE = 50_000_000  # bytes; an archive's member that claims more is no image of these data sets
#: How the images of these data sets begin: JPEG, PNG.
_MAGIC = (b"\xff\xd8", b"\x89PNG")


class Download:
    """The user's files: in a folder, in zip or tar.gz archives in it, or in one archive.

    pattern: finds the files that matter; its group 1 is the name by which they are known, so that
    "CelebA/Img/img_align_celeba/1.jpg" and "img_align_celeba/1.jpg" are the same image. Where a file is
    there twice, the unpacked one is taken, then that of the first archive by name. Label files may lie
    beside a single archive.
    """

    def __init__(self, source: Path, pattern: str, *, what: str) -> None:
        if not source.exists():
            raise InputError(f"no {what} download at {source}")
        self.source, self.pattern = source, re.compile(rf"(?:^|/){pattern}$")
        folder = source if source.is_dir() else source.parent
        files = sorted(p for p in (source.rglob("*") if source.is_dir() else folder.iterdir()) if p.is_file())
        self._archives = [p for p in files if _is_archive(p)] if source.is_dir() else [source]
        self._files: dict[str, Path] = {}
        for path in files:
            if name := self._known(path.relative_to(folder).as_posix()):
                self._files.setdefault(name, path)
        self._members: dict[str, Path] = {}  # name -> archive
        for archive in self._archives:
            for name, _ in _members(archive, self._known):
                self._members.setdefault(name, archive)

    def names(self) -> list[str]:
        """Every file that matters, sorted."""
        return sorted({*self._files, *self._members})

    def text(self, name: str) -> bytes:
        """A label file. Raises InputError where there is none."""
        if name in self._files:
            return self._files[name].read_bytes()
        if name in self._members:
            for found, content in _members(self._members[name], self._known, {name}):
                if found == name and (body := content()) is not None:
                    return body
        raise InputError(f"no {name} in {self.source}: it comes with the download")

    def copy(self, wanted: dict[str, Path]) -> list[str]:
        """Put images at their places (name -> file); returns the names that are missing or damaged.

        What is there already stays. An archive is read once, from its beginning to its end.
        """
        left = {name: target for name, target in wanted.items() if not _is_there(target)}
        for name in [name for name in left if name in self._files]:
            target = left.pop(name)
            if _is_image(self._files[name]):
                _put(target, partial(shutil.copyfile, self._files[name]))
        for archive in self._archives:
            here = {name for name in left if self._members.get(name) == archive}
            for name, content in _members(archive, self._known, here) if here else ():
                body = content() if name in left else None
                if body is not None and body.startswith(_MAGIC):
                    _put(left.pop(name), partial(_write, body))
        return [name for name, target in wanted.items() if not _is_there(target)]

    def _known(self, path: str) -> str | None:
        found = self.pattern.search(path)
        return found[1] if found else None


def read_csv(content: bytes, name: str, columns: Iterable[str]) -> Iterator[tuple[int, Row]]:
    """Row number (as a spreadsheet counts) and cells of a CSV with a header line.

    Raises:
        InputError: not UTF-8, a column that is missing, a row with too few or too many cells, no rows.
    """
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{name} is no UTF-8 CSV file ({e})") from None
    if len(lines) < 2:
        raise InputError(f"{name} has no rows")
    header = lines[0]
    if missing := [c for c in columns if c not in header]:
        raise InputError(
            f"{name}, row 1: no column {missing[0]!r}; it has: {', '.join(filter(None, header))}"
        )
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise InputError(f"{name}, row {number}: {len(line)} cells, the header has {len(header)}")
        yield number, dict(zip(header, line, strict=True))


def known(value: str, values: dict[str, str], where: str) -> str:
    """Our word for one of the data set's values. Raises InputError naming `where`."""
    if value not in values:
        raise InputError(f"{where} {value!r} is not one of {', '.join(filter(None, values))}")
    return values[value]


def once(seen: dict[str, int], name: str, number: int, file: str) -> None:
    """Remember that row `number` names this image. Raises InputError when an earlier row did."""
    if (earlier := seen.setdefault(name, number)) != number:
        raise InputError(f"{file}, row {number}: {name!r} was named in row {earlier} already")


def split_by(key: str) -> str:
    """ "test" for about a third of all keys, else "train": for data sets without an official split.

    It depends on the key alone (the first byte of its sha256), so all rows with one key stay together.
    """
    return "test" if hashlib.sha256(key.encode()).digest()[0] < 85 else "train"


def copy_images(download: Download, rows: list[Row], out: Path, *, allow_missing: bool) -> list[Row]:
    """Put the images of the rows (`file`: a name that the download knows) under `out/images`.

    Returns the rows whose image is there, each with its `path`.

    Raises:
        InputError: no rows, or images are missing and not allowed to be.
    """
    if not rows:
        raise InputError(f"{download.source} leaves no rows")
    places = {row["file"]: f"images/{row['file']}" for row in rows}
    missing = download.copy({name: out / path for name, path in places.items()})
    if missing and not (allow_missing and len(missing) < len(rows)):
        raise InputError(
            f"{len(missing):,} of {len(rows):,} images are missing or damaged in {download.source}, the "
            f"first: {missing[0]}. Finish the download, or leave such rows out with --allow-missing"
        )
    if missing:
        print(f"warning: left out {len(missing):,} rows without a good image", file=sys.stderr)
    lost = set(missing)
    return [row | {"path": places[row["file"]]} for row in rows if row["file"] not in lost]


def write_table(
    rows: list[Row],
    out: Path,
    *,
    table: str,
    columns: tuple[str, ...],
    card: Card,
    read: dict[str, bytes] | None = None,
) -> Path:
    """Write `table`.csv with these columns, its card, and SHA256SUMS of all in `out`; returns the table.

    read: label files by name; their sha256 goes into the card's notes.
    """
    sums = [f"{name} sha256 {hashlib.sha256(body).hexdigest()}" for name, body in (read or {}).items()]
    notes = "; ".join([*([card.notes] if card.notes else []), *sums])
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    file = out / f"{table}.csv"
    words = replace(card, notes=notes).to_toml()
    _put(file.with_suffix(".card.toml"), lambda part: part.write_text(words, encoding="utf-8"))
    _put(file, lambda part: part.write_text(text.getvalue(), encoding="utf-8", newline=""))
    _write_sums(out)
    counts = Counter(row["split"] for row in rows)
    print(f"{file}: {', '.join(f'{k:,} {s}' for s, k in counts.items())}")
    return file


def main(
    convert: Callable[..., object], arguments: list[str] | None, *, doc: str, terms: str | None = None
) -> int:
    """The command line of a reader; returns the exit status: 0, or 2 for bad input.

    terms: what a set that is not free for every use asks for; the user has to say --accept-licence.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("source", type=Path, help="the download: a folder or an archive")
    parser.add_argument("--out", type=Path, required=True, help="folder for table, card and images")
    parser.add_argument("--allow-missing", action="store_true", help="leave out rows without image")
    if terms:
        parser.add_argument("--accept-licence", action="store_true", help=terms)
    args = parser.parse_args(arguments)
    try:
        if terms and not args.accept_licence:
            raise InputError(
                f"{terms}. Read the terms where you got the files; say --accept-licence if you do"
            )
        convert(args.source, args.out, allow_missing=args.allow_missing)
    except InputError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


def _members(
    archive: Path, known: Callable[[str], str | None], wanted: set[str] | None = None
) -> Iterator[tuple[str, Callable[[], bytes | None]]]:
    """The archive's files that matter, in their order, each with a function that reads it.

    wanted: tell these only. A damaged or encrypted member reads as None.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for info in opened.infolist():
                    name = known(info.filename)
                    if name and (wanted is None or name in wanted) and info.file_size <= MAX_IMAGE:
                        yield name, partial(_unzip, opened, info)
        else:
            with tarfile.open(archive) as packed:
                for member in packed:
                    name = known(member.name) if member.isfile() else None
                    if name and (wanted is None or name in wanted) and member.size <= MAX_IMAGE:
                        yield name, partial(_untar, packed, member)
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError) as e:
        raise InputError(f"{archive} is no readable archive ({e}): download it again") from None


def _write(content: bytes, file: Path) -> None:
    file.write_bytes(content)


def _untar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    opened = archive.extractfile(member)
    return opened.read() if opened else None


def _unzip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | None:
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError):
        return None


def _is_archive(path: Path) -> bool:
    return path.name.endswith((".zip", ".tar.gz", ".tgz", ".tar"))


def _is_image(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith(_MAGIC)


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _put(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is there wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)


def _write_sums(out: Path) -> None:
    """SHA256SUMS of every table, card and image in `out`, as the sha256sum command writes and checks it."""
    files = [*out.glob("*.csv"), *out.glob("*.card.toml"), *(out / "images").rglob("*.*")]
    lines = []
    for file in sorted(f for f in files if f.is_file() and not f.name.endswith(".part")):
        with file.open("rb") as opened:
            lines.append(f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {file.relative_to(out)}\n")
    _put(out / "SHA256SUMS", lambda part: part.write_text("".join(lines), encoding="utf-8", newline=""))
