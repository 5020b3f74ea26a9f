"""Pictures of a table: files in its folder, or bytes stored in an Arrow table; opened when asked for."""

import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageOps

from fvlfp.errors import InputError

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


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
    """Pictures, each opened when it is asked for: upright (EXIF) and in mode RGB."""

    def __init__(self, paths: Sequence[Path | Stored]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Files(self.paths[i])
        image = ImageOps.exif_transpose(open_image(self.paths[i]))
        # Pillow drops a palette's transparency with a warning unless it goes through RGBA
        return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[i] for i in range(len(self)))

    def digest(self, i: int) -> bytes:
        """The sha256 of picture i as it is stored, without decoding it."""
        return hashlib.sha256(self.paths[i].read_bytes()).digest()

    def take(self, rows: Any) -> "Files":
        """The images at these positions."""
        return Files([self.paths[i] for i in rows])


def inside(root: Path, path: str) -> Path:
    """The file `path` under the folder root, links followed. Raises InputError if it lies outside."""
    try:
        full = (root / path).resolve()
    except (ValueError, OSError, RuntimeError):  # a null byte, a name too long, a loop of links
        raise InputError(f"{path!r} is no file name") from None
    if not full.is_relative_to(root.resolve()):
        raise InputError(f"{path!r} leaves the folder {root}: put table and images into one folder")
    return full


def open_image(path: Path | Stored, *, small: bool = False) -> Image.Image:
    """Read a picture wholly. Raises InputError. small: a JPEG may be read at reduced size."""
    name = f"image {path}" if isinstance(path, Path) else "the picture stored here"
    try:
        source = path if isinstance(path, Path) else io.BytesIO(path.read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # damaged EXIF data does no harm here
            image = Image.open(source, formats=_FORMATS)
            if small:
                image.draft("RGB", (1, 1))
            image.load()
    except FileNotFoundError:
        raise InputError(f"no image at {path}") from None
    except InputError:
        raise
    except Exception as e:  # Pillow's readers raise many kinds on damaged files
        raise InputError(f"{name} cannot be read ({type(e).__name__})") from None
    return image
