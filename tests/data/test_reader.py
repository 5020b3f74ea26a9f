"""One reader for every command: each kind of table, and each way in which a table can be wrong."""

import gzip
import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from fvlfp.cli import app
from fvlfp.data.delimited import open_delimited
from fvlfp.data.opened import read_columns
from fvlfp.data.predictions import read_predictions
from fvlfp.data.source import read_source
from fvlfp.errors import InputError

ROWS = [
    ("1", "F", "0", "0", "0.1"),
    ("2", "M", "1", "1", "0.9"),
    ("3", "F", "1", "0", "0.4"),
    ("4", "M", "0", "1", "0.6"),
]
HEADER = ("id", "sex", "y", "p", "s")
TEXT = "\n".join(",".join(row) for row in (HEADER, *ROWS)) + "\n"


def fvlfp(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def read(path):
    frame = read_predictions(path, ["sex", "y", "p"], numbers=["s"])
    return list(
        zip(*(frame[c].astype(str) for c in ("sex", "y", "p")), frame["s"].astype(float), strict=True)
    )


WANTED = [(sex, y, p, float(s)) for _, sex, y, p, s in ROWS]
KINDS = {
    "t.csv": TEXT.encode(),
    "windows.csv": TEXT.replace("\n", "\r\n").encode(),
    "no_end.csv": TEXT.rstrip("\n").encode(),
    "blank_end.csv": (TEXT + "\n\n").encode(),
    "mark.csv": TEXT.encode("utf-8-sig"),
    "t.tsv": TEXT.replace(",", "\t").encode(),
    "semicolon.csv": TEXT.replace(",", ";").encode(),
    "comma_decimals.csv": TEXT.replace(",", ";").replace("0.", "0,").encode(),
    "excel.csv": ("sep=;\n" + TEXT.replace(",", ";")).encode(),
    "bars.txt": TEXT.replace(",", "|").encode(),
    "utf16.csv": TEXT.encode("utf-16"),
    "utf16_unmarked.csv": TEXT.encode("utf-16-le"),
    "t.csv.gz": gzip.compress(TEXT.encode()),
    "spaced.csv": TEXT.replace(",", ", ").encode(),
    "quoted.csv": TEXT.replace("F", '"F"').encode(),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_text_table_gives_the_same_rows(tmp_path, name):
    (tmp_path / name).write_bytes(KINDS[name])
    assert read(tmp_path / name) == WANTED
    source = read_source(tmp_path / name)
    assert [tuple(x.strip() for x in row[:4]) for row in source.frame.to_numpy()] == [row[:4] for row in ROWS]
    assert list(source.rows) == [2, 3, 4, 5]


def test_every_kind_of_parquet_gives_the_same_rows(tmp_path):
    frame = pd.DataFrame(ROWS, columns=HEADER).astype({"s": float})
    kinds = {
        "plain": frame,
        "index": frame.set_index("id"),
        "category": frame.astype({"sex": "category", "y": "category"}),
        "numbers": frame.astype({"y": float, "p": "int8", "s": "float16"}),
        "null": frame.assign(nothing=None, boxes=[[1, 2]] * 4),
        "filtered": pd.concat([frame, frame])[:4].iloc[[0, 1, 2, 3]],
    }
    for name, kind in kinds.items():
        kind.to_parquet(tmp_path / f"{name}.parquet")
        got = read(tmp_path / f"{name}.parquet")
        assert [row[:3] for row in got] == [row[:3] for row in WANTED], name
        assert [row[3] for row in got] == pytest.approx([row[3] for row in WANTED], abs=1e-3), name
        assert list(read_source(tmp_path / f"{name}.parquet").rows) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,sex,y,p\n1,F,0,0,\n2,M,1,1,\n", "row 2 has 5 cells, the header has 4"),  # F1
        ("id,sex,y,p\n1,F,0,0\n4,extra,F,1,1\n", "row 3 has 5 cells"),  # F2
        ("id,sex,y,p\n1,F,0,0\n2,M,1\n", "row 3 has 3 cells"),
        ("id,sex,y,p,p\n1,F,0,0,1\n", "'p' occurs twice"),  # F19
        ("id,sex,y,p, p\n1,F,0,0,1\n", "'p' occurs twice"),
        ('id,sex,y,p\n1,F,0,0\n2,"M,1,1\n', "row 3 has a double quote that is not closed"),
        ('id,sex,y,p\n1,F,0,0\n2,"M",1,1\n3,"F,1,1\n4,"M,1,1\n', "row 4 has a double quote"),
        ('id,sex,y,p\n"1\n1",F,0,0\n2,M,1\n', "row 3 has 3 cells"),  # rows, not lines
        ("sep=,\nid,sex,y,p\n1,F,0,0\n2,M,1\n", "row 3 has 3 cells"),
        ("id,sex,y,p\n1,F,0,0\n2,M\xff,1,1\n", "not UTF-8"),
        ('{"sex": "F"}', "it is JSON"),
        ("PK\x03\x04", "Excel workbook"),
        ("\n\n", "names no column|is empty"),
        ("id,sex,y,p\n1,F,0,0\n\n2,M,1,1\n", "missing in row 3|row 3 has 0 cells"),
        (TEXT + TEXT, "row 6 repeats the names of the columns"),  # two files put below each other
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_row(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("latin-1"))
    words = ["--label", "y", "--prediction", "p", "--group", "sex", "--out", tmp_path / "out"]
    for result in (fvlfp("audit", "predictions", path, *words), fvlfp("check", path)):
        assert result.exit_code == 2, result.output
        assert pd.Series([result.output]).str.contains(message).all(), result.output
    assert not (tmp_path / "out").exists()


def audited(tmp_path, text, *words, name="t.csv"):
    (tmp_path / name).write_text(text)
    out = tmp_path / "out"
    columns = ["--label", "y", "--prediction", "p", "--group", "g", "--draws", 100, "--out", out]
    result = fvlfp("audit", "predictions", tmp_path / name, *columns, *words)
    if result.exit_code:
        assert result.exit_code == 2 and "Traceback" not in result.output
        return result.output, None
    return result.output, json.loads((out / "audit.json").read_text())


def test_a_file_whose_name_is_no_utf8_is_read(tmp_path):
    table = tmp_path / os.fsdecode(b"caf\xe9.csv")
    table.write_text("y,p,g\n" + "yes,yes,a\nno,yes,a\nyes,no,b\nno,no,b\n" * 3)
    columns = ["--label", "y", "--prediction", "p", "--group", "g", "--draws", 100, "--out", tmp_path / "out"]
    assert fvlfp("audit", "predictions", table, *columns).exit_code == 0
    assert "caf?.csv" in (tmp_path / "out" / "audit.json").read_text()


def test_spellings_are_merged_and_told_or_refused(tmp_path):  # F7, F17, M5, M6
    rows = "yes,yes,a\nno,yes,a\nyes,no,b\nno,no,b\n"
    said, document = audited(tmp_path, "y,p,g\n" + rows * 3 + "yes,yes,nan\n")
    assert set(document["attributes"]["g"]["groups"]) == {"a", "b"}
    assert document["attributes"]["g"]["missing"] == 1
    assert "g: 'nan' (1 row) is read as missing" in said
    assert document["provenance"]["table"]["merged"] == ["g: 'nan' (1 row) is read as missing"]
    for odd in ("Yes", "yes ", "YES"):
        said, document = audited(tmp_path, "y,p,g\n" + rows * 3 + f"{odd},yes,a\n")
        assert document is None and "row 14" in said and "spell them alike" in said
    said, document = audited(tmp_path, "y,p,g\n" + rows.replace(",yes", ",Yes") * 3)
    assert document is None and "'Yes' in column 'p' differs from 'yes' in column 'y'" in said
    said, document = audited(tmp_path, "y,p,g\n" + "1,1.0,1\n0,1.0,1.0\n1.0,0,2\n0,0,2.0\n" * 3)
    assert document["classes"] == ["0", "1"] and set(document["attributes"]["g"]["groups"]) == {"1", "2"}
    assert "g: '1.0' (3 rows) is read as '1'" in said
    said, document = audited(tmp_path, "y,p,g\n" + "01,1,3_9\n1,1,39\n01,01,39\n1,01,3_9\n" * 3)
    assert document["classes"] == ["01", "1"] and set(document["attributes"]["g"]["groups"]) == {"3_9", "39"}
    said, document = audited(
        tmp_path, "y,p,g\n" + "true,True,a\nFALSE,False,a\ntrue,False,b\nFALSE,True,b\n" * 3
    )
    assert document["classes"] == ["False", "True"]
    assert document["overall"]["rates"]["accuracy"]["value"] == 0.5


def test_compare_reads_by_the_same_rules(tmp_path):  # F17
    frame = pd.DataFrame(
        {"k": range(8), "y": [0, 1] * 4, "prediction": [0, 1, 1, 1] * 2, "g": ["a"] * 4 + ["b"] * 4}
    )
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.astype({"k": float, "y": float}).iloc[::-1].to_parquet(tmp_path / "b.parquet")
    words = ["--label", "y", "--group", "g", "--draws", 100]
    result = fvlfp(
        "compare", tmp_path / "a.csv", tmp_path / "b.parquet", *words, "--key", "k", "--out", tmp_path / "c"
    )
    assert result.exit_code == 0, result.output
    change = json.loads((tmp_path / "c" / "audit.json").read_text())["overall"]["rates"]["accuracy"]
    assert change["a"] == change["b"] == 0.75
    result = fvlfp(
        "compare", tmp_path / "a.csv", tmp_path / "b.parquet", *words, "--key", "", "--out", tmp_path / "d"
    )
    assert result.exit_code == 2 and "--key" in result.output
    for column, value in (("prediction", None), ("g", "A ")):
        changed = frame.astype({column: object})
        changed.loc[5, column] = value
        changed.to_csv(tmp_path / "bad.csv", index=False)
        result = fvlfp("compare", tmp_path / "a.csv", tmp_path / "bad.csv", *words)
        assert result.exit_code == 2 and "row 7" in result.output, result.output


def test_damaged_parquet_is_one_message(tmp_path):  # F9
    path = tmp_path / "t.parquet"
    pd.DataFrame({"y": np.arange(3000) % 2, "p": 1, "g": "a"}).to_parquet(path)
    whole = path.read_bytes()
    for start in range(4, len(whole), 97):
        path.write_bytes(whole[:start] + b"\0" * 40 + whole[start + 40 :])
        try:
            read_predictions(path, ["y", "p", "g"])
        except InputError as error:
            assert str(path) in str(error)


def test_a_column_of_lists_is_no_group(tmp_path):
    pq.write_table(pa.table({"y": [0, 1], "p": [0, 1], "g": [[1], [2]]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="'g' is not in the table"):
        read_predictions(tmp_path / "t.parquet", ["y", "p", "g"])


def test_points_between_thousands_beside_semicolons_are_refused(tmp_path):
    """4.342 beside 987 was read as 4.3: a weight of a five-hundredth of what was meant."""
    path = tmp_path / "t.csv"
    for weights, fits in ((["987", "4.342"], False), (["0.342", "4.342"], True), (["1", "4.34"], True)):
        path.write_text("g;w\n" + "".join(f"a;{weight}\n" for weight in weights))
        if fits:
            assert read_predictions(path, ["g"], numbers=["w"])["w"].tolist() == list(map(float, weights))
        else:
            with pytest.raises(InputError, match=r"column 'w', row 3: .* may stand between thousands"):
                read_predictions(path, ["g"], numbers=["w"])


def test_utf_32_and_a_zero_byte_are_named(tmp_path):
    """Both were read as UTF-16, and the message showed a column of Chinese signs."""
    rows = "y,p,g\n" + "1,1,a\n0,1,b\n1,0,a\n0,0,b\n" * 3
    (tmp_path / "t.csv").write_bytes(rows.encode("utf-32"))
    with pytest.raises(InputError, match="UTF-32"):
        open_delimited(tmp_path / "t.csv")
    said, document = audited(tmp_path, rows.replace("a\n", "a\0\n", 1))
    assert document is None and "row 2: 'a\\x00' (1 row) holds a control character" in said


def test_dashes_and_quotes_of_other_programs_make_no_other_group(tmp_path):
    rows = "1,1,20-29\n0,1,don't\n1,0,20-29\n0,0,don't\n" * 3
    for mine, theirs in (("20-29", "20\u201329"), ("don't", "don\u2019t")):
        said, document = audited(tmp_path, "y,p,g\n" + rows + rows.replace(mine, theirs))
        assert document is None and "differs from" in said and "dashes, quotes" in said


def test_a_column_whose_name_looks_the_same_is_named_by_its_codes(tmp_path):
    (tmp_path / "t.csv").write_text("gro\u0308\u00dfe,y\n1,1\n")
    with pytest.raises(InputError, match=r"did you mean 'gro\\u0308\\xdfe', which looks the same"):
        read_predictions(tmp_path / "t.csv", ["gr\u00f6\u00dfe"])


def test_large_whole_numbers_keep_every_digit(tmp_path):
    pd.DataFrame({"k": pd.array([2**60 + 1, None], "Int64")}).to_parquet(tmp_path / "t.parquet")
    assert read_predictions(tmp_path / "t.parquet", ["k"])["k"].tolist()[0] == str(2**60 + 1)


def test_signs_for_nothing_known_are_told(tmp_path):  # Adult writes ? for what nobody knows
    said, document = audited(tmp_path, "y,p,g\n" + "1,1,a\n0,1,b\n1,0,?\n0,0,a\n" * 3)
    assert "g: '?' (3 rows) is read as a name; leave such cells empty if it is none" in said
    assert set(document["attributes"]["g"]["groups"]) == {"?", "a", "b"}


def test_a_full_stop_at_the_end_makes_no_other_class(tmp_path):  # Adult's test file
    rows = "<=50K,<=50K,a\n>50K,<=50K,b\n<=50K,>50K,a\n>50K,>50K,b\n" * 3
    said, document = audited(tmp_path, "y,p,g\n" + rows + ">50K.,>50K,b\n")
    assert document is None and "row 14" in said and "by spaces, capitals" in said
    said, document = audited(tmp_path, "y,p,g\n" + rows.replace("K,a", "K.,a").replace("K,b", "K.,b"))
    assert document is None and "in column 'p' differs from" in said


def test_a_row_of_totals_is_remarked_on_with_its_row(tmp_path):
    rows = "1,1,a\n0,1,b\n1,0,a\n0,0,b\n" * 3
    said, document = audited(tmp_path, "y,p,g\n" + rows + "6,6,Total\n")
    assert "remark: Only row 14 has the label '6': is it a misspelling, or a row of totals?" in said
    assert document["remarks"] and not audited(tmp_path, "y,p,g\n" + rows)[1]["remarks"]


@pytest.mark.parametrize(
    ("label", "group", "message"), [("p", "g", "label and as prediction"), ("y", "y", "label and as group")]
)
def test_a_column_named_for_two_things_is_refused(tmp_path, label, group, message):
    (tmp_path / "t.csv").write_text("y,p,g\n" + "1,1,a\n0,1,b\n1,0,a\n0,0,b\n" * 3)
    words = ["--label", label, "--prediction", "p", "--group", group, "--out", tmp_path / "out"]
    result = fvlfp("audit", "predictions", tmp_path / "t.csv", *words)
    assert result.exit_code == 2 and f"is named as {message}" in result.output


def test_a_group_called_like_a_column_of_the_output_is_refused(tmp_path):  # F5
    (tmp_path / "t.csv").write_text("y,p,prediction\n" + "1,1,a\n0,1,b\n1,0,a\n0,0,b\n" * 3)
    words = ["--label", "y", "--prediction", "p", "--group", "prediction", "--out", tmp_path / "out"]
    result = fvlfp("audit", "predictions", tmp_path / "t.csv", *words)
    assert (
        result.exit_code == 2 and "'prediction' has the name of one that this audit writes" in result.output
    )
    assert not (tmp_path / "out").exists()


def test_old_mac_line_ends_numbers_with_separators_and_unsupported_rates(tmp_path):
    rows = "y,p,g\n" + "1,1,a\n0,1,b\n1,0,a\n0,0,b\n0,1,a\n" * 3
    _, document = audited(tmp_path, rows)
    assert document["attributes"]["g"]["gaps"]["equal_opportunity_difference"]["value"] is None, (
        "no positive in b"
    )
    (tmp_path / "mac").mkdir()
    _, same = audited(tmp_path / "mac", rows.replace("\n", "\r"))
    assert same["attributes"] == document["attributes"]
    weighted = rows.replace("y,p,g", "y,p,g,w").replace(",a\n", ',a,"1,000"\n').replace(",b\n", ",b,2\n")
    said, document = audited(tmp_path, weighted, "--weight", "w")
    assert document is None and "column 'w', row 2: '1,000' is no number" in said


def test_numbers_with_two_decimal_signs_are_refused(tmp_path):
    """Beside 0,5 nobody can tell whether 1.000 is one or a thousand."""
    path = tmp_path / "t.csv"
    path.write_text("y;w\n1;0,5\n0;0,25\n1;1.000\n")
    with pytest.raises(InputError, match=r"'w' has numbers with ',' \(row 2\) and with '\.' \(row 4\)"):
        read_columns(open_delimited(path), ["y"], ["w"])
    path.write_text("y;w\n1;0.5\n0;0.25\n")
    assert read_columns(open_delimited(path), ["y"], ["w"])[1]["w"].tolist() == [0.5, 0.25]
