"""Random tables: numbers equal to an independent count, or one message; never a traceback, never a hang.

The cases are the same in every run. The count is made by Python's csv module and plain loops. A table that is
plainly good must be read; one that is plainly bad must be refused; whatever lies between may be refused, but
if it is read, its numbers must be right.
"""

import csv
import datetime
import gzip
import io
import json
import math
import zlib
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from click.testing import CliRunner
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fvlfp import metrics
from fvlfp.audit.audit_options import AuditOptions
from fvlfp.audit.from_arrays import table_of_arrays
from fvlfp.audit.report import write
from fvlfp.audit.stats.columns import encode
from fvlfp.audit.stats.scores import auc
from fvlfp.cli import app
from fvlfp.data.predictions import read_predictions
from fvlfp.errors import InputError
from tests.fuzzing import FIXED, often, told

NAMED = AuditOptions(label="y", prediction="p", groups=["g"])
#: Cells that every reader takes alike, a class or group each.
GOOD = [
    ("0", "1"),
    ("no", "yes"),
    ("1", "1.0", "0", "0.0"),
    ("true", "True", "FALSE", "false"),
    ("01", "1", "10"),
    ("a b", "c", "-d"),
    ("a,b", "c;d", "e\tf", "g|h"),
    ('say "hi"', "b"),
    ("é", "ü", "名", "😀"),
    ("NA", "None", "x"),
]
#: Cells that somebody once wrote.
ODD = [
    *[("yes ", "yes", "no"), ("Yes", "yes", "no"), ("nan", "yes", "no"), ("", "yes", "no"), (" ", "a", "b")],
    *[("0.3", "0.7", "1"), ("[1]", "[0]"), ("['a']", "b"), ("[1, 2]", "[3, 4]"), ("tensor(1)", "tensor(0)")],
    *[("-0.0", "0", "1"), ("1e0", "1", "0"), ("inf", "-inf"), ("9" * 5000, "1"), ("x" * 70_000, "y")],
    *[("a\0", "a"), ("a\x0b", "a"), ("é", "e\u0301"), ("ｙes", "yes"), ("\u200byes", "yes", "no")],
    *[("a\u2028b", "a"), ("١", "1"), ("03-Sep", "4-6"), ("a\nb", "c"), ("a\rb", "c"), ("=1+1", "@x")],
    *[("y", "p"), ("-", "?"), ("\t", "a", "b"), ("1_000", "1000"), ("\ufeffa", "a"), ("yes.", "yes", "no")],
    *[("#N/A", "b", "c"), ("2", "2.50", "2.5"), ("İ", "i"), ("a  b", "a b"), ("0x1", "1"), ("1,5", "2,5")],
]
NUMBERS = ("0.5", "1", "0", "0.25", "2e-1")
ODD_NUMBERS = (
    *("-1", "inf", "nan", "", "1e400", "0,5", " 0.3", "1_000", "0x10", "abc", "1e-300", "-0.0", "1.000"),
    *("1,000", "１", "1e200", "[0.5]", "True", "0.1.2", "--1", "9" * 400),
)
SHAPES = ("as it is", "blank tail")
EDITS = (
    *("extra cell", "missing cell", "blank line", "spaces line", "comma at every end", "header twice"),
    *("header again", "name twice", "no name", "no rows", "no header", "stray quote", "byte", "cut", "empty"),
)


class Style(NamedTuple):
    """How a table is written. marked: with Excel's first line."""

    separator: str
    coding: str
    end: str
    quoting: int
    marked: bool


class Table(NamedTuple):
    """A table: classes, groups, a byte a row that chooses of them; an edit at the place `at`."""

    y: tuple[str, ...]
    g: tuple[str, ...]
    rows: bytes
    numbers: tuple[str, ...]
    style: Style
    edit: str
    at: int

    @property
    def plainly_good(self) -> bool:
        good = self.y in GOOD and self.g in GOOD and self.edit in SHAPES
        return good and self.style.coding != "latin-1"

    def cells(self) -> list[list[str]]:
        rows = [["id", "y", "p", "g", "s"]]
        for i, chosen in enumerate(self.rows):
            (rest, y), parts = divmod(chosen, 4), (self.y, self.g, self.numbers)
            places = (rest % 4, rest // 4, i)
            p, g, number = (part[k % len(part)] for part, k in zip(parts, places, strict=True))
            rows.append([str(i), self.y[y % len(self.y)], p, g, number])
        return rows

    def written(self) -> bytes:
        """The file."""
        rows, row = self.cells(), 1 + self.at % len(self.rows)
        if self.edit == "extra cell":
            rows[row].insert(self.at % 5, "extra")
        elif self.edit == "missing cell":
            rows[row].pop(self.at % 5)
        elif self.edit == "blank line":
            rows.insert(row, [])
        elif self.edit == "spaces line":
            rows.insert(row, ["  "])
        elif self.edit == "comma at every end":
            rows[1:] = [[*cells, ""] for cells in rows[1:]]
        elif self.edit == "header twice":
            rows.insert(row, rows[0])
        elif self.edit == "header again":
            rows += rows
        elif self.edit == "name twice":
            rows[0][self.at % 5] = rows[0][(self.at + 1) % 5] + " " * (self.at % 2)
        elif self.edit == "no name":
            rows[0][self.at % 5] = ""
        elif self.edit in ("no rows", "no header"):
            rows = rows[:1] if self.edit == "no rows" else rows[1:]
        out, style = io.StringIO(newline=""), self.style
        out.write(f"sep={style.separator}\r\n" if style.marked else "")
        writer = csv.writer(out, delimiter=style.separator, lineterminator=style.end, quoting=style.quoting)
        writer.writerows(rows)
        return self._spoiled(out.getvalue())

    def _spoiled(self, text: str) -> bytes:
        if self.edit == "blank tail":
            text += self.style.end * (1 + self.at % 3)
        elif self.edit == "stray quote":
            place = self.at % len(text)
            text = text[:place] + '"' + text[place:]
        elif self.edit == "empty":
            text = self.style.end * (self.at % 3)
        coding, _, packed = self.style.coding.partition("+")
        content = text.encode(coding, errors="replace")
        if self.edit == "byte":
            place = self.at % len(content)
            content = content[:place] + bytes([self.at % 256]) + content[place + 1 :]
        elif self.edit == "cut":
            content = content[: self.at % len(content)]
        return gzip.compress(content) if packed else content


STYLES = [
    Style(*parts)
    for parts in product(
        ",;\t|",
        ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-8+gzip", "latin-1"),
        ("\n", "\r\n", "\r"),
        (csv.QUOTE_MINIMAL, csv.QUOTE_ALL),
        (False, True),
    )
]


TABLES = st.builds(
    Table,
    y=often(GOOD, ODD),
    g=often(GOOD, ODD),
    rows=st.binary(min_size=1, max_size=14),
    numbers=st.just(NUMBERS),
    style=st.sampled_from(STYLES),
    edit=often(SHAPES, EDITS),
    at=st.integers(0, 10_000),
)


def meaning(cell: str) -> str:
    """What a cell means: spaces go, 1.0 is 1, true is True; "" is missing."""
    text = cell.strip(" \u00a0\u202f\u3000")
    if not text.strip() or text in ("nan", "NaN", "NAN", "<NA>", "#N/A", "NaT"):
        return ""
    if text.lower() in ("true", "false"):
        return text.title()
    whole, _, rest = text.partition(".")
    plain = whole.removeprefix("-")
    if not rest.strip("0") and plain.isdecimal() and (plain == "0" or plain[0] != "0"):
        return "0" if plain == "0" else whole
    return text


class Bad(Exception):
    """The table must be refused."""


def table_of(content: bytes, table: Table) -> list[dict[str, str]]:
    """The rows by name, read as strictly as the csv module can."""
    coding, _, packed = table.style.coding.partition("+")
    try:
        coding = {"utf-8": "utf-8-sig", "latin-1": "utf-8-sig"}.get(coding, coding)
        content = gzip.decompress(content) if packed else content
        text = content.decode(coding, errors="surrogateescape" if coding == "utf-8-sig" else "strict")
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=table.style.separator, strict=True))
    except (UnicodeDecodeError, csv.Error, EOFError, OSError, zlib.error) as error:
        raise Bad(str(error)) from None
    rows = rows[1:] if table.style.marked else rows
    while rows and not rows[-1]:
        rows.pop()
    if len(rows) < 2:
        raise Bad("no rows")
    header = [name.strip() for name in rows[0]]
    if any(len(row) != len(header) for row in rows):
        raise Bad("rows of different lengths")
    if not {"y", "p", "g"} <= set(header) or len(set(header)) < len(header):
        raise Bad("names")
    return [dict(zip(header, row, strict=True)) for row in rows[1:]]


class Counted(NamedTuple):
    """cells: rows by (group, label, prediction); every row's label, prediction, group."""

    cells: Counter[tuple[str, str, str]]
    rows: list[tuple[str, str, str]]


def counted(rows: list[dict[str, str]]) -> Counted:
    """The independent count, or why there is none."""
    read = [tuple(meaning(row[name]) for name in ("y", "p", "g")) for row in rows]
    if any(0xDC80 <= ord(c) <= 0xDCFF for row in read for name in row for c in name):
        raise Bad("no UTF-8")
    if not all(y and p for y, p, _ in read):
        raise Bad("a label or prediction is missing")
    labels, predictions = ({row[k] for row in read} for k in (0, 1))
    if len(labels | predictions) < 2 or (len(labels) > 1 and not labels & predictions):
        raise Bad("one class, or none in common")
    for names in (labels | predictions, {row[2] for row in read}):
        if len({name.casefold() for name in names}) < len(names):
            raise Bad("two names differ in capitals only")
    if not any(g for _, _, g in read):
        raise Bad("no group")
    if any((name.startswith("[") and "," not in name) or "tensor(" in name for row in read for name in row):
        raise Bad("a list")
    return Counted(Counter((g, y, p) for y, p, g in read if g), read)


def gaps(cells: Counter[tuple[str, str, str]], positive: str) -> dict[str, Fraction | None]:
    """Three gaps of one class against the rest, by plain counting."""
    groups = sorted({g for g, _, _ in cells})

    def rate(g: str, inside, within) -> Fraction | None:
        whole = sum(n for (h, y, p), n in cells.items() if h == g and within(y, p))
        part = sum(n for (h, y, p), n in cells.items() if h == g and within(y, p) and inside(y, p))
        return Fraction(part, whole) if whole else None

    def gap(inside, within=lambda y, p: True) -> Fraction | None:
        rates = [r for r in (rate(g, inside, within) for g in groups) if r is not None]
        return max(rates) - min(rates) if len(rates) > 1 else None

    return {
        "demographic_parity_difference": gap(lambda y, p: p == positive),
        "equal_opportunity_difference": gap(lambda y, p: p == positive, lambda y, p: y == positive),
        "accuracy_gap": gap(lambda y, p: y == p),
    }


def same(number: float | None, wanted: Fraction | None) -> bool:
    if wanted is None:
        return number is None or math.isnan(number)
    return number is not None and math.isclose(number, wanted, abs_tol=1e-12)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "t.csv"


def expected(table: Table, content: bytes) -> Counted | None:
    """The count, or None where the table must be refused."""
    try:
        return counted(table_of(content, table))
    except Bad as why:
        assert not table.plainly_good or "one class" in str(why), why
        return None


@settings(max_examples=1900, **FIXED)
@given(table=TABLES)
def test_tables_are_counted_right_or_refused(file, table):
    content = table.written()
    file.write_bytes(content)
    wanted = expected(table, content)
    try:
        frame = read_predictions(file, ["y", "p", "g"], alike=("y", "p"))
        columns = encode(frame, NAMED)
    except InputError as error:
        told(error)
        assert wanted is None or not table.plainly_good, str(error)
        return
    assert wanted is not None
    counts = columns.count("g")
    places = product(*map(enumerate, (counts.groups, counts.classes, counts.classes)))
    found = {(g, y, p): counts.table[a, b, c] for (a, g), (b, y), (c, p) in places if counts.table[a, b, c]}
    assert found == wanted.cells
    assert counts.missing == sum(not g for _, _, g in wanted.rows)
    for k in counts.judged:
        mine, theirs = metrics.gaps(counts.binary(k), 1), gaps(wanted.cells, counts.classes[k])
        for name, value in theirs.items():
            if len(counts.classes) == 2 or name != "accuracy_gap":  # of many classes, one against the rest
                assert same(float(mine[name]), value), name


def number(cell: str, separator: str) -> float:
    """A number as Python reads it; nan where it reads none."""
    try:
        return float(cell.replace(",", ".") if separator == ";" else cell)
    except ValueError:
        return math.nan


NUMBERED = st.builds(
    lambda table, numbers: table._replace(y=("0", "1"), g=("a", "b"), edit="as it is", numbers=numbers),
    TABLES,
    st.lists(often(NUMBERS, ODD_NUMBERS), min_size=1, max_size=4).map(tuple),
)


@settings(max_examples=500, **FIXED)
@given(table=NUMBERED, use=st.sampled_from(["score", "weight", "threshold"]))
def test_scores_and_weights_are_read_right_or_refused(file, table, use):
    content = table.written()
    file.write_bytes(content)
    rows = expected(table, content)
    values = [number(cells[4], table.style.separator) for cells in table.cells()[1:]]
    given_ = {
        "score": {"score": "s"},
        "weight": {"weight": "s"},
        "threshold": {"score": "s", "threshold": 0.5},
    }
    options = {"label": "y", "groups": ["g"], "positive": "1", **given_[use]}
    options |= {} if use == "threshold" else {"prediction": "p"}
    try:
        named = ["y", "g", *([] if use == "threshold" else ["p"])]
        columns = encode(read_predictions(file, named, numbers=["s"]), AuditOptions(**options))
    except InputError as error:
        told(error)
        plain = set(table.numbers) <= set(NUMBERS) - {"0"} and use != "threshold"
        assert not plain or rows is None, str(error)
        return
    assert all(map(math.isfinite, values))
    truth = [row[1] == "1" for row in table.cells()[1:]]
    if use == "score":
        assert columns.score.tolist() == values
        pairs = [(a > b) + (a == b) / 2 for a, t in zip(values, truth, strict=True) if t
                 for b, f in zip(values, truth, strict=True) if not f]  # fmt: skip
        mine = auc(columns.score, columns.label)[0]
        assert math.isnan(mine) if not pairs else math.isclose(mine, sum(pairs) / len(pairs), abs_tol=1e-12)
    elif use == "threshold":
        assert [columns.classes[k] == "1" for k in columns.prediction] == [v >= 0.5 for v in values]
    else:
        assert min(values) >= 0
        everyone = columns.everyone().table[0]
        right = sum(v for v, row in zip(values, table.cells()[1:], strict=True) if row[1] == row[2])
        assert math.isclose(np.trace(everyone) / everyone.sum(), right / sum(values), rel_tol=1e-9)


ONE = [0, 1, 0.0, 1.0, "0", "1", True, False, "yes", "no", np.int8(1), np.float32(0)]
NOT_ONE = [None, math.nan, pd.NA, pd.NaT, "nan", "", b"1", 10**400, 1j, math.inf]
NOT_ONE += [[1], (0,), {"a": 1}, [], np.array(1), np.array([1])]
FORMS = {
    "list": list,
    "array": np.array,
    "series": pd.Series,
    "objects": lambda values: pd.Series(values, dtype=object, index=[7] * len(values)),
    "column": lambda values: [[value] for value in values],
}


@settings(max_examples=300, **FIXED)
@given(
    rows=st.lists(st.tuples(*[often(ONE, NOT_ONE)] * 3), min_size=1, max_size=8),
    form=st.sampled_from([*FORMS]),
)
def test_arrays_are_counted_right_or_refused(rows, form):
    columns = [list(column) for column in zip(*rows, strict=True)]
    try:
        y, p, g = map(FORMS[form], columns)
    except (ValueError, TypeError, OverflowError):  # numpy cannot hold them in one array
        return
    try:
        frame, named = table_of_arrays(
            y_true=y, y_pred=p, sensitive_features=g, y_score=None, sample_weight=None
        )
        chosen = {name: named[name] for name in ("label", "prediction", "groups")}
        found = encode(frame, AuditOptions(**chosen)).everyone()
    except InputError as error:
        told(error)
        return
    names = [[meaning(str(value)) for value in np.ravel(np.asarray(c, dtype=object))] for c in (y, p)]
    assert found.hits.sum() == sum(a == b for a, b in zip(*names, strict=True))
    assert found.n.sum() == len(rows)


DAY = datetime.date(2026, 1, 1)
KINDS = [  # of a column, and two values of it
    *[(pa.int8(), 0, 1), (pa.uint64(), 0, 2**63), (pa.float16(), np.float16(0), np.float16(1))],
    *[
        (pa.float32(), 0.0, 1.0),
        (pa.float64(), 0.0, 1e15),
        (pa.bool_(), False, True),
        (pa.string(), "a", "b"),
    ],
    *[(pa.large_string(), "0", "1"), (pa.binary(), b"a", b"b"), (pa.date32(), DAY, DAY.replace(day=2))],
    *[(pa.decimal128(9, 2), Decimal("0.00"), Decimal("1.00")), (pa.timestamp("ns", "UTC"), 0, 10**15)],
    *[(pa.dictionary(pa.int8(), pa.string()), "a", "b"), (pa.time32("s"), 0, 1), (pa.duration("s"), 0, 1)],
]
NO_COLUMNS = [(pa.null(), None, None), (pa.list_(pa.int8()), [0], [1])]
NO_COLUMNS += [(pa.struct([("a", pa.int8())]), {"a": 0}, {"a": 1}), (pa.binary(), b"\xff", b"\xfe")]


@settings(max_examples=350, **FIXED)
@given(
    classes=often(KINDS, NO_COLUMNS),
    groups=often(KINDS, NO_COLUMNS),
    rows=st.lists(
        st.tuples(*[st.sampled_from([*[0, 1] * 9, None])] * 2, st.sampled_from([0, 1, None])),
        min_size=1,
        max_size=9,
    ),
    damage=st.integers(-400, 100),
)
def test_parquet_is_counted_right_or_refused(file, classes, groups, rows, damage):
    kinds = zip("ypg", (classes, classes, groups), zip(*rows, strict=True), strict=True)
    path = file.with_suffix(".parquet")
    columns = {
        name: pa.array([None if v is None else kind[1 + v] for v in values], kind[0])
        for name, kind, values in kinds
    }
    pq.write_table(pa.table(columns), path)
    if damage > 0:
        whole = path.read_bytes()
        path.write_bytes(whole[: 4 + damage] + b"\0" * 40 + whole[44 + damage :])
    try:
        frame = read_predictions(path, ["y", "p", "g"], alike=("y", "p"))
        coded = encode(frame, NAMED)
    except InputError as error:
        told(error)
        y, p, g = (set(values) for values in zip(*rows, strict=True))
        good = None not in y | p and len(y | p) == 2 and (len(y) == 1 or y & p) and g != {None}
        assert damage > 0 or not good or classes in NO_COLUMNS or groups in NO_COLUMNS, str(error)
        return
    if damage <= 0:
        assert coded.everyone().hits.sum() == sum(y == p for y, p, _ in rows)
        assert coded.count("g").missing == sum(g is None for *_, g in rows)


RUNNER, COMMANDS = CliRunner(), typer.main.get_command(app)


def command(*words) -> str:
    """What the command said; an error of ours ends with 2, and nothing else ends otherwise than with 0."""
    result = RUNNER.invoke(COMMANDS, [str(word) for word in words])
    assert result.exit_code in (0, 2), (result.exit_code, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output and result.output.strip()
    return result.output if result.exit_code else ""


@settings(max_examples=240, phases=[Phase.generate], **FIXED)  # shrinking would take minutes
@given(table=TABLES, which=st.sampled_from(["predictions", "compare", "check"]))
def test_commands_end_with_0_or_2(file, table, which):
    content = table.written()
    file.write_bytes(content)
    wanted, out = expected(table, content), file.parent / which
    words = ["--label", "y", "--group", "g"]
    if which == "check":
        command("check", file, *words)
        return
    words += ["--prediction", "p", "--draws", 100, "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "execute", lambda document, title: "")  # the page is another test's
        refused = command(
            *(["audit", which, file] if which == "predictions" else [which, file, file]), *words
        )
    assert not refused or wanted is None or not table.plainly_good, refused
    if not refused:
        found = json.loads((out / "audit.json").read_text())["overall"]["rates"]["accuracy"]
        right = Fraction(sum(y == p for y, p, _ in wanted.rows), len(wanted.rows))
        assert same(found["value"] if which == "predictions" else found["a"], right)
