"""Pictures that Python already holds: a Hugging Face `Dataset`, a torch `Dataset` of (image, label, group).

Neither library is imported; their objects are known by what they offer. What this module does not do: it
takes no tensor that a transform has made, for the model brings its own transform.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from fvlfp.data.card import Card
from fvlfp.data.cells import read_values, rows_of
from fvlfp.data.images import as_rgb, refuse_odd
from fvlfp.data.table import Dataset
from fvlfp.errors import InputError


class Pictures(Sequence[Image.Image]):
    """n pictures, each asked for when it is needed: upright, on white, in mode RGB, as files are read."""

    def __init__(self, picture: Callable[[int], Any], rows: Sequence[int]) -> None:
        self._picture, self._rows = picture, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Pictures(self._picture, self._rows[i])
        return _rgb(self._picture(self._rows[i]), self._rows[i])

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[i] for i in range(len(self)))

    def take(self, rows: Any) -> Pictures:
        """The pictures at these positions."""
        return Pictures(self._picture, [self._rows[i] for i in rows])


def as_dataset(data: Any, card: Card | None, *, label: str, groups: Sequence[str]) -> Dataset:
    """A `Dataset` from our own kind, from Hugging Face's, or from a torch data set.

    data: a `Dataset`; one split of Hugging Face's with an image column and the named columns, class labels by
        name; or anything with a length whose item is (image, label, group). There, `group` is one value, a
        tuple in the order of `groups`, or a dict; an integer label counts in `data.classes`, as torchvision
        has it. Images are PIL images or uint8 arrays (H, W, 3).
    card: the words; needed unless `data` is a `Dataset`, which has its own.

    Raises:
        InputError: another kind of object, no or several image columns, a column or value that the card does
            not know, naming the item.
    """
    if isinstance(data, Dataset):
        if card is not None:
            raise InputError("this data set has a data card of its own: leave card out")
        return data
    if card is None:
        raise InputError("words are missing: give a data card (Card.read) as card=")
    if hasattr(data, "column_names") and hasattr(data, "features"):
        frame, picture = _of_hugging_face(data, label, groups)
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, Mapping):
        frame, picture = _of_torch(data, label, groups)
    else:
        raise InputError(
            f"a {type(data).__name__} is no data set: give one split of a Hugging Face data set, or a torch "
            "data set of (image, label, group)"
        )
    if frame.empty:
        raise InputError("the data set has no items")
    notes = _read(frame)
    _check(frame, card, label, groups)
    facts = {"read": f"{rows_of(len(frame))} (a data set in memory)", **({"merged": notes} if notes else {})}
    return Dataset(frame, Pictures(picture, range(len(frame))), card, read=facts)


def _read(frame: pd.DataFrame) -> list[str]:
    """Read every column by the rules of tables, in place; what was merged or read as missing, in words."""
    notes = []
    for name in frame:
        values = read_values(frame[name])
        for i, text in values.mistakes[:1]:
            raise InputError(f"item {i}: {name}: {text}")
        frame[name] = values.texts()
        notes += [f"{name}: {note}" for note in values.notes]
    return notes


def _of_hugging_face(
    data: Any, label: str, groups: Sequence[str]
) -> tuple[pd.DataFrame, Callable[[int], Any]]:
    if isinstance(data, Mapping):
        raise InputError(f"a DatasetDict has several splits: give one, such as data[{next(iter(data))!r}]")
    held = [name for name, kind in data.features.items() if type(kind).__name__ == "Image"]
    if len(held) != 1:
        raise InputError(f"the data set needs one column of images, but has {', '.join(held) or 'none'}")
    missing = [name for name in (label, *groups) if name not in data.column_names]
    if missing:
        raise InputError(f"no column {missing[0]!r}; there are: {', '.join(data.column_names)}")
    frame = {}
    for name in (label, *groups):
        names = getattr(data.features[name], "names", None)
        values = list(data[name])
        if names:  # a ClassLabel is stored as a number; -1 is missing there
            values = [None if v is None or v < 0 else names[v] for v in values]
        frame[name] = [_text(v) for v in values]
    return pd.DataFrame(frame, dtype=object), lambda i: data[i][held[0]]


def _of_torch(data: Any, label: str, groups: Sequence[str]) -> tuple[pd.DataFrame, Callable[[int], Any]]:
    names = getattr(data, "classes", None)
    rows = []
    for i in range(len(data)):
        item = data[i]
        if not isinstance(item, tuple | list) or len(item) != 3:
            raise InputError(f"item {i} is not (image, label, group)")
        y = item[1].item() if hasattr(item[1], "item") else item[1]
        if names is not None and isinstance(y, int) and not isinstance(y, bool):
            if not 0 <= y < len(names):
                raise InputError(f"item {i}: label {y}, but data.classes has {len(names)} names")
            y = names[y]
        rows.append([_text(y), *_groups_of(item[2], groups, i)])
    return pd.DataFrame(rows, columns=[label, *groups], dtype=object), lambda i: data[i][0]


def _groups_of(value: Any, groups: Sequence[str], i: int) -> list[str]:
    if isinstance(value, Mapping):
        missing = [name for name in groups if name not in value]
        if missing:
            raise InputError(f"item {i} has no group {missing[0]!r}")
        return [_text(value[name]) for name in groups]
    parts = list(value) if isinstance(value, tuple | list) else [value]
    if len(parts) != len(groups):
        raise InputError(f"item {i} has {len(parts)} groups, but groups names {len(groups)}")
    return [_text(part) for part in parts]


def _text(value: Any) -> str:
    """A value as tables hold it before it is read; None and nan are missing, ""."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or value != value:  # nan
        return ""
    return str(value)


def _check(frame: pd.DataFrame, card: Card, label: str, groups: Sequence[str]) -> None:
    known = {label: card.class_values(label)}  # raises where the card has no words for it
    known |= {name: list(card.groups[name].words) for name in groups if name in card.groups}
    for name in (label, *groups):
        for i, value in enumerate(frame[name]):
            if value == "" and name == label:
                raise InputError(f"item {i} has no {name}")
            if value != "" and name in known and value not in known[name]:
                raise InputError(
                    f"item {i}: {name} {value!r} is not on the data card, which has {', '.join(known[name])}"
                )


def _rgb(picture: Any, i: int) -> Image.Image:
    if not isinstance(picture, Image.Image):
        array = picture.numpy() if hasattr(picture, "numpy") else picture
        if (
            not isinstance(array, np.ndarray)
            or array.dtype != np.uint8
            or array.ndim != 3
            or array.shape[2] != 3
        ):
            raise InputError(
                f"item {i}: give a PIL image or a uint8 array (H, W, 3), not what a transform has made: the "
                "model's own transform is applied"
            )
        return Image.fromarray(array)
    refuse_odd(picture, f"item {i}")
    return as_rgb(ImageOps.exif_transpose(picture))
