"""What a reply may hold: possible records, arrays and numbers. Each check says what is wrong, or None.

What this module does not do: it decides nothing about a round (`fvlfp.federation.trust`), and it cannot see a
plausible lie.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from flwr.app import Array, RecordDict
from numpy.lib import format as npy

from fvlfp.federation.protocol import ClientReport, Shapes, client_number

#: Says what is wrong with one reply's content, or None.
Check = Callable[[RecordDict], str | None]

#: No count of examples is larger than this; no loss, no number in an array.
MOST_EXAMPLES, MOST_NUMBER = 10**9, 1e9

#: A cross-entropy at CLIP's largest scale stays far below; q-FedAvg takes powers of it.
MOST_START_LOSS = 1e4

#: Bytes that an array's header may take.
MOST_HEADER = 1_000


def bad_records(content: RecordDict) -> str | None:
    """Anything but one record of arrays and one of numbers, with a client number among them."""
    if set(content) != {"arrays", "metrics"} or "arrays" not in content.array_records:
        return f"the records are {_some(content)}, not arrays and metrics"
    if "metrics" not in content.metric_records:
        return "metrics is no record of numbers"
    client = client_number(content)
    if isinstance(client, bool) or not isinstance(client, int) or not 0 <= client <= MOST_EXAMPLES:
        return f"client = {_short(client)} is no client number"
    return None


def _some(names: Iterable[str]) -> str:
    """A few names, for a message: a client may have sent a million."""
    names = list(names)
    return str(sorted(str(name)[:60] for name in names[:8])) + (
        f" and {len(names) - 8} more" if names[8:] else ""
    )


def _short(value: object) -> str:
    """A client's value, for a message. Not `repr` of all of it: 10^100000 takes minutes to write."""
    if isinstance(value, int) and abs(value) > 2**64:
        return "a number past 2^64"
    return repr(value[:3] if isinstance(value, (str, bytes, list)) else value)[:60]


def expects(shapes: Shapes) -> Check:
    """A check for arrays of these shapes and dtypes, all finite. shapes: name -> (shape, dtype)."""

    def check(content: RecordDict) -> str | None:
        arrays = content.array_records["arrays"]
        if set(arrays) != set(shapes):
            return f"the arrays are {_some(arrays)}, not {_some(shapes)}"
        for name, (shape, dtype) in shapes.items():
            reason = _bad_array(arrays[name], tuple(shape), dtype)
            if reason:
                return f"{name} {reason}"
        return None

    return check


def _bad_array(array: Array, shape: tuple[int, ...], dtype: str) -> str | None:
    """What is wrong with one array, or None. Its own header is read first: what it says is what is loaded."""
    if tuple(array.shape) != shape or array.dtype != dtype:
        return f"is {tuple(array.shape)} {array.dtype}, not {shape} {dtype}"
    try:
        held = _header(array.data)
        if held != (shape, dtype):
            return f"holds {held[0]} {held[1]}, not {shape} {dtype}"
        if len(array.data) > math.prod(shape) * np.dtype(dtype).itemsize + MOST_HEADER:
            return f"takes {len(array.data)} bytes, too many for {shape} {dtype}"
        values = array.numpy()
    except Exception as error:
        return f"cannot be read: {type(error).__name__}"
    if not np.isfinite(values).all():
        return "holds NaN or infinity"
    if values.size and max(-float(values.min()), float(values.max())) > MOST_NUMBER:
        return f"holds a number past {MOST_NUMBER:g}"
    return None


def _header(data: bytes) -> tuple[tuple[int, ...], str]:
    """Shape and dtype that an .npy file states itself; nothing is loaded."""
    stream = io.BytesIO(data)
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream, max_header_size=MOST_HEADER)
    return tuple(shape), str(dtype)


def check_report(shapes: Shapes, *, most: int = 0, more: Mapping[str, int] = MappingProxyType({})) -> Check:
    """A check for a trained model and the numbers that come with it: present, finite, possible.

    shapes: of the model. most: the largest number of examples a client can have; 0: only what no client has.
    more: name -> how many numbers, of what a fusion rule asks for besides (0: one number, no list); none may
    be negative.
    """

    def check(content: RecordDict) -> str | None:
        report = dict(content.metric_records["metrics"])
        return expects(shapes)(content) or _bad_names(report, more) or _bad_report(report, most)

    return check


def _bad_names(report: Mapping[str, Any], more: Mapping[str, int]) -> str | None:
    """What is wrong with the names and types of a report, or None."""
    names = ClientReport.ALWAYS
    if set(report) != {*names, *more}:
        return f"the report holds {_some(report)}, not {_some([*names, *more])}"
    for key, length in more.items():
        if reason := _bad_numbers(report[key], length):
            return f"{key} {reason}"
    for key in names:
        if isinstance(report[key], bool) or not isinstance(report[key], (int, float)):
            return f"{key} = {_short(report[key])} is no number"
    return None


def _bad_report(report: Mapping[str, Any], most: int) -> str | None:
    """What is wrong with the values of a report, or None."""
    n = report["num-examples"]
    if not isinstance(n, int) or not 1 <= n <= MOST_EXAMPLES:
        return f"num-examples = {_short(n)} is no count of examples"
    if most and n > most:
        return f"num-examples = {n:g} is past max_examples = {most}"
    perf, disp, loss = (float(report[key]) for key in ("perf", "disp", "loss"))
    for key, value in (("perf", perf), ("disp", disp)):
        if not (math.isnan(value) or 0.0 <= value <= 1.0):
            return f"{key} = {value:g} is outside [0, 1]"
    if not math.isfinite(loss):
        return f"loss = {loss} is not finite"
    if abs(loss) > MOST_NUMBER:
        return f"loss = {loss:g} is past {MOST_NUMBER:g}"
    return None


def _bad_numbers(value: object, length: int) -> str | None:
    """What is wrong with one number (length 0) or a list of `length` numbers, or None."""
    numbers = value if length else [value]
    limit = MOST_EXAMPLES if length else MOST_START_LOSS
    if not isinstance(numbers, list) or len(numbers) != max(length, 1):
        return f"is not {length or 'one'} number{'s' if length > 1 else ''}"
    for x in numbers:
        if isinstance(x, bool) or not isinstance(x, (int, float)) or not 0 <= x <= limit:
            return f"= {_short(x)} holds an impossible number"
    return None


def check_moments(shapes: Shapes, *, min_cell: int, most: int = 0) -> Check:
    """A check for sums of unit features and their counts, class by group, of one or several attributes.

    No count below 0, none between 0 and `min_cell`, none past `most` (0: off); no sum longer than its count;
    and every attribute counts the same examples of each class.
    """

    def check(content: RecordDict) -> str | None:
        if reason := expects(shapes)(content):
            return reason
        arrays = {
            name: array.numpy().astype(float) for name, array in content.array_records["arrays"].items()
        }
        counts = {name: values for name, values in arrays.items() if name.startswith("counts/")}
        for name, n in counts.items():
            sums = arrays[name.replace("counts/", "sums/", 1)]
            if reason := _bad_counts(n, min_cell=min_cell, most=most):
                return f"{name} {reason}"
            if (np.linalg.norm(sums, axis=-1) > n * (1 + 1e-3) + 1e-3).any():
                return f"the sums to {name} are longer than so many unit features can be"
        return _unlike({name: n.sum(-1) for name, n in counts.items()}, "examples of a class")

    return check


def check_counts(shapes: Shapes, *, min_cell: int, most: int = 0) -> Check:
    """A check for validation counts `<candidate>/<attribute>` (G, C, C): group, class, prediction.

    No count below 0, no cell (class, group) between 0 and `min_cell`, none past `most` (0: off); and a client
    holds the same rows whichever candidate predicts them.
    """

    def check(content: RecordDict) -> str | None:
        if reason := expects(shapes)(content):
            return reason
        cells: dict[str, dict[str, np.ndarray]] = {}
        for name, array in content.array_records["arrays"].items():
            values = array.numpy().astype(float)
            if (values < 0).any():
                return f"{name} holds a negative count"
            n = values.sum(-1)
            if reason := _bad_counts(n, min_cell=min_cell, most=most):
                return f"{name} {reason}"
            cells.setdefault(name.partition("/")[2], {})[name] = n
        return next(filter(None, (_unlike(found, "rows of a cell") for found in cells.values())), None)

    return check


def check_judgement(shapes: Shapes, *, min_cell: int, most: int = 0) -> Check:
    """A check for a judge's reply: `total/<attribute>` (C, G) rows, `right/<attribute>` (A, C, G) right ones.

    No cell between 0 and `min_cell`, no more right than there are, none past `most` (0: off), and every
    attribute counts the same rows of each class.
    """

    def check(content: RecordDict) -> str | None:
        if reason := expects(shapes)(content):
            return reason
        arrays = {name: array.numpy() for name, array in content.array_records["arrays"].items()}
        totals = {name: n.astype(float) for name, n in arrays.items() if name.startswith("total/")}
        for name, n in totals.items():
            right = arrays[name.replace("total/", "right/", 1)]
            if reason := _bad_counts(n, min_cell=min_cell, most=most):
                return f"{name} {reason}"
            if (right < 0).any() or (right > n).any():
                return f"the right answers to {name} are more than its rows, or fewer than none"
        return _unlike({name: n.sum(-1) for name, n in totals.items()}, "rows of a class")

    return check


def _bad_counts(n: np.ndarray, *, min_cell: int, most: int) -> str | None:
    """What is wrong with the examples of cells (...), or None. Soft counts are sums of float32 numbers."""
    if (n < 0).any():
        return "holds a negative count"
    if ((n > 1e-3) & (n < min_cell - 1e-3)).any():
        return f"holds a cell with fewer than min_cell = {min_cell} examples"
    if n.sum() > (most or MOST_EXAMPLES) * (1 + 1e-3):
        return f"counts more than {most or MOST_EXAMPLES} examples"
    return None


def _unlike(totals: Mapping[str, np.ndarray], what: str) -> str | None:
    """A message where two tables of one client count different numbers of the same rows, or None."""
    first = next(iter(totals), "")
    for name, n in totals.items():
        if not np.allclose(n, totals[first], rtol=1e-3, atol=1e-2):
            return f"{first} and {name} disagree about the number of {what}"
    return None
