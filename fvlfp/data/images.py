"""Pictures of a table: files in its folder, or bytes stored in an Arrow table; opened when asked for.

A picture comes upright (EXIF), as RGB with 8 bits: 16 bits are scaled, what is transparent is put on white,
of an animation the first frame is taken. What this module does not do: guess the range of numbers that have
none; such pictures are refused.
"""

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

from fvlfp.errors import InputError
from fvlfp.files import as_utf8

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
#: Of its longer to its shorter side: a model scales the shorter one up, and memory grows with the longer one.
_LONGEST = 100
#: Changes when the same bytes come out as another picture than before: caches of features go by it.
_READ_AS = b"upright, 8 of 16 bits, on white"


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture inside an Arrow table. Like a `Path` it has `read_bytes`.

    column: encoded pictures (binary), which may lie in a memory-mapped file; row: position in it.
    """

    column: pa.ChunkedArray
    row: int

    def read_bytes(self) -> bytes:
        """The encoded picture. Raises InputError when the table has none in this row."""
        content = self.column[self.row].as_py()
        if content is None:
            raise InputError("the table holds no picture here: save the data set with its pictures inside")
        return content


class Files(Sequence[Image.Image]):
    """Pictures, each opened when it is asked for: upright, on white, in mode RGB."""

    def __init__(self, paths: Sequence[Path | Stored]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Files(self.paths[i])
        return open_image(self.paths[i])

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[i] for i in range(len(self)))

    def digest(self, i: int) -> bytes:
        """Changes with picture i as it is stored, and with how it is read; without decoding it."""
        return hashlib.sha256(self.paths[i].read_bytes() + _READ_AS).digest()

    def take(self, rows: Any) -> "Files":
        """The images at these positions."""
        return Files([self.paths[i] for i in rows])


def inside(root: Path, path: str) -> Path:
    """The file `path` under the folder root, links followed. Raises InputError if it lies outside."""
    if "://" in path:
        raise InputError(f"{path!r} is an address: only files are read, so download it first")
    try:
        full = (root / path).resolve()
    except (ValueError, OSError, RuntimeError):  # a null byte, a name too long, a loop of links
        raise InputError(f"{path!r} is no file name") from None
    if not full.is_relative_to(root.resolve()):
        raise InputError(f"{path!r} leaves the folder {root}: put table and images into one folder")
    return full


def check_name(name: str) -> None:
    """Raise InputError for a file name that no table can hold: no UTF-8, or more than one line."""
    if as_utf8(name) != name or "\r" in name or "\n" in name:
        raise InputError(f"the file name {name!a} is no single line of UTF-8 text: rename the file")


def open_image(path: Path | Stored, *, small: bool = False, seen: Counter[str] | None = None) -> Image.Image:
    """Read a picture wholly: upright, on white, in mode RGB.

    small: a JPEG may be read at reduced size. seen: counts what was done to a picture, in words.

    Raises:
        InputError: no such file, no picture, too large or too long, or numbers of 32 bits, whose range nobody
            knows.
    """
    name = f"image {path}" if isinstance(path, Path) else "the picture stored here"
    if isinstance(path, Path):
        if not os.path.exists(path):  # a Path raises where a name is too long
            hint = "; folders are separated by /, not by \\" if "\\" in path.name else ""
            raise InputError(f"no image at {path}{hint}")
        if not path.is_file():  # a folder, or a pipe that would be waited for
            raise InputError(f"{name} cannot be read (not a regular file)")
    try:
        source = path if isinstance(path, Path) else io.BytesIO(path.read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # damaged EXIF data does no harm here
            with Image.open(source, formats=_FORMATS) as opened:
                done = _done_to(opened)
                refuse_odd(opened, name)
                if small:
                    opened.draft("RGB", (1, 1))
                opened.load()
                ImageOps.exif_transpose(opened, in_place=True)
                image = as_rgb(opened)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{name} cannot be read as a picture: save it as JPEG or PNG") from None
    except Exception as e:  # Pillow's readers raise many kinds on damaged files
        raise InputError(f"{name} cannot be read ({type(e).__name__})") from None
    if seen is not None:
        seen.update(done or ["taken as they are"])
    return image


def refuse_odd(image: Image.Image, name: str) -> None:
    """Raise InputError for numbers whose range nobody knows, and for strips. name: for the message."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise InputError(f"{name} holds {kind} numbers, whose range is unknown: save it with 8 or 16 bits")
    if max(image.size) > _LONGEST * min(image.size):
        raise InputError(f"{name} is {image.width} x {image.height}, a strip and no picture: cut it up")


def _done_to(image: Image.Image) -> list[str]:
    """What reading this picture means beside taking it as it is."""
    done = []
    if image.mode.startswith("I"):
        done.append("scaled from 16 to 8 bits")
    if _is_transparent(image):
        done.append("put on white, as parts are transparent")
    if image.mode in ("CMYK", "LAB"):
        done.append(f"converted from {image.mode} without a colour profile")
    if _is_wide(image.info.get("icc_profile")):
        done.append("with a colour profile other than sRGB, which is not applied (nor is it in open_clip)")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        done.append("the first frame of several")
    if image.getexif().get(0x0112, 1) not in (0, 1):
        done.append("turned upright by their EXIF data")
    return done


def _is_wide(profile: bytes | None) -> bool:
    """Whether a colour profile is another one than sRGB, by its name."""
    return profile is not None and not any("sRGB".encode(code) in profile for code in ("ascii", "utf-16-be"))


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture with 8 bits, on white where it is transparent, in mode RGB."""
    if image.mode.startswith("I"):  # 16 bits: 65535 is white
        image = image.convert("I").point(lambda v: v * (1 / 257)).convert("L")
    elif _is_transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
