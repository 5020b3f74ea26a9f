"""Files of an audit: complete, offline, escaped, atomic."""

import errno
import json
import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from fvlfp.audit import Audit, audit, compare, write_audit, write_comparison
from fvlfp.audit.report import plots, write
from fvlfp.data.predictions import read_predictions
from fvlfp.errors import InputError

KW = {"label": "smiling", "prediction": "prediction", "positive": "yes", "draws": 200}
HOSTILE = {"round": "<script>alert(1)</script>", "square": "=cmd()|'!A1 $x_$ 日本語"}


def hostile(table):
    return table.assign(shape=table["shape"].map(HOSTILE))


def test_folder_holds_the_four_files_and_json_gives_the_numbers_back(table, tmp_path):
    result = audit(table, groups=["shape", "tint"], **KW)
    report = write_audit(result, tmp_path / "out")
    assert report == tmp_path / "out" / "report.html"
    names = {p.name for p in report.parent.iterdir()}
    assert names == {"audit.json", "groups.csv", "gaps.csv", "report.html"}
    assert json.loads((report.parent / "audit.json").read_text()) == result.document
    groups = pd.read_csv(report.parent / "groups.csv")
    assert groups["value"].to_numpy() == pytest.approx(result.groups["value"].to_numpy(float), nan_ok=True)


@pytest.mark.figures
def test_report_is_one_offline_page_with_the_verdict_first(table, tmp_path):
    page = write_audit(audit(table, groups=["shape"], **KW), tmp_path / "out").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page)
    assert "http-equiv" in page and "default-src 'none'" in page
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings[:3] == ["Verdict", "What could not be judged", "By perceived shape"]
    assert "differences found" in page and "fvlfp audit predictions" in page


@pytest.mark.figures
def test_group_names_are_data_everywhere(table, tmp_path):
    out = tmp_path / "out"
    page = write_audit(audit(hostile(table), groups=["shape"], **KW), out).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    names = set(json.loads((out / "audit.json").read_text())["attributes"]["shape"]["groups"])
    assert names == set(HOSTILE.values())
    cells = set(pd.read_csv(out / "groups.csv")["group"])
    assert cells == {HOSTILE["round"], "'" + HOSTILE["square"]}


@pytest.mark.figures
def test_undefined_is_shown_as_undefined(table, tmp_path):
    frame = table[(table["shape"] == "round") | (table.smiling == "no")]
    page = write_audit(audit(frame, groups=["shape"], **KW), tmp_path / "out").read_text()
    assert "no example of the group has the positive label" in page
    assert "<span class='undefined'>undefined</span>" in page


def test_a_failure_leaves_nothing_behind(table, tmp_path, monkeypatch):
    result = audit(table, groups=["shape"], **KW)
    monkeypatch.setattr("fvlfp.audit.report.page.verdict", lambda document: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_audit(result, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_old_audit_is_replaced_and_other_files_stay(table, tmp_path):
    old = pd.DataFrame({"of": ["an earlier audit"]})
    write_audit(audit(table[:300], groups=["shape"], **KW), tmp_path, rows=old, by_template=old)
    assert {"predictions.csv", "templates.csv"} < {file.name for file in tmp_path.iterdir()}
    (tmp_path / "mine.txt").write_text("keep")
    write_audit(audit(table, groups=["shape"], **KW), tmp_path)
    assert json.loads((tmp_path / "audit.json").read_text())["n"] == len(table)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert len(list(tmp_path.iterdir())) == 5


def test_a_file_in_the_way_is_one_clear_message(table, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write_audit(audit(table, groups=["shape"], **KW), tmp_path / "out")


def test_model_and_data_come_from_provenance_and_the_rest_is_said_to_be_unknown(table, tmp_path):
    known = {"model": "ToyCLIP-64", "data": {"licence": "CC0 <b>", "label_origin": "drawn"}}
    result = audit(table, groups=["shape"], provenance=known, **KW)
    page = write_audit(result, tmp_path / "out").read_text()
    for text in ("ToyCLIP-64", "CC0 &lt;b&gt;", "drawn", "Not stated"):
        assert text in page


@pytest.mark.figures
def test_many_classes_and_one_group_have_a_report(table, tmp_path):
    rng = np.random.default_rng(0)
    frame = table.assign(smiling=rng.choice(["a", "b", "c"], 600), shape="round")
    frame["prediction"] = frame.smiling
    result = audit(frame, label="smiling", prediction="prediction", groups=["shape", "tint"], draws=200)
    page = write_audit(result, tmp_path / "out").read_text()
    assert "only one group" in page and "could not be judged" in page


@pytest.mark.figures
def test_comparison_files(table, tmp_path):
    better = table.assign(prediction=table.smiling)
    result = compare(hostile(table), hostile(better), groups=["shape"], names=("<a>", "b"), **KW)
    page = write_comparison(result, tmp_path / "out").read_text()
    assert "<script" not in page and "▼ smaller gaps, none larger" in page and "&lt;a&gt;" in page
    gaps = pd.read_csv(tmp_path / "out" / "gaps.csv").set_index("gap")
    assert gaps.loc["equal_opportunity_difference", "high"] < 0


@pytest.mark.figures
def test_a_style_set_elsewhere_changes_no_page(table, tmp_path):
    result = audit(hostile(table), groups=["shape"], **KW)
    plain = write_audit(result, tmp_path / "plain").read_text()
    with mpl.rc_context({"text.color": "red", "font.size": 30, "font.family": "monospace"}):
        styled = write_audit(result, tmp_path / "styled").read_text()
        assert mpl.rcParams["font.size"] == 30, "and the caller's style is as before"
    assert styled == plain


@pytest.mark.kernel
def test_the_notebook_gives_the_same_page(table, tmp_path):
    result = audit(hostile(table), groups=["shape"], **KW)
    direct = write_audit(result, tmp_path / "direct").read_text()
    executed = write_audit(result, tmp_path / "executed", notebook=True).read_text()
    assert executed == direct


def test_a_failing_notebook_leaves_nothing_behind(table, tmp_path, monkeypatch):
    monkeypatch.setattr("fvlfp.audit.report.write.execute", lambda document, title: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_audit(audit(table, groups=["shape"], **KW), tmp_path / "out", notebook=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.figures
def test_figures_carry_names_as_text_without_mathtext():
    document = audit(
        pd.DataFrame({"g": ["$x_1$", "b"] * 20, "y": [0, 0, 1, 1] * 10, "p": [0, 1, 1, 1] * 10}),
        label="y",
        prediction="p",
        groups=["g"],
        draws=100,
    ).document
    drawn = plots.svg(plots.rates(document, "g")).decode()
    assert "$x_1$" in drawn and drawn == plots.svg(plots.rates(document, "g")).decode()


# reading


def test_csv_reads_only_what_is_needed_and_keeps_na_as_a_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\ufeffy,yhat,g,junk,p\n1,0,NA,x,0.5\n0,0,,x,1e-3\n1,1,é,x,1\n", encoding="utf-8")
    frame = read_predictions(path, ["y", "yhat", "g"], numbers=["p"])
    assert list(frame.columns) == ["y", "yhat", "g", "p"]
    assert frame["g"].tolist()[0] == "NA" and pd.isna(frame["g"][1]) and frame["g"][2] == "é"
    assert frame["p"].tolist() == [0.5, 0.001, 1.0]
    got = audit(frame, label="y", prediction="yhat", groups=["g"], draws=200)
    assert got.document["attributes"]["g"]["missing"] == 1


def test_csv_in_chunks_equals_csv_at_once(table, tmp_path, monkeypatch):
    table.to_csv(tmp_path / "t.csv", index=False)
    whole = read_predictions(tmp_path / "t.csv", table.columns)
    monkeypatch.setattr("fvlfp.data.delimited.BLOCK", 90)
    parts = read_predictions(tmp_path / "t.csv", table.columns)
    assert whole.astype(str).equals(parts.astype(str)) and whole.astype(str).equals(table.astype(str))


def test_parquet_equals_csv(table, tmp_path):
    table.to_parquet(tmp_path / "t.parquet")
    got = read_predictions(tmp_path / "t.parquet", ["shape", "smiling"])
    assert got.astype(str).equals(table[["shape", "smiling"]].astype(str))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"y,yhat\n1,2\n", "did you mean|'g' is not in the table"),
        ("t.csv", b"y,g,p\n1,a,high\n", "row 2: 'high' is no number"),
        ("t.csv", b"y,g,p\n\xff\xfe,a,1\n", "cannot be read"),
        ("t.csv", b'y,g,p\n1,"a,1\n', "cannot be read"),
        ("t.parquet", b"not parquet", "cannot be read as Parquet"),
    ],
)
def test_unreadable_tables_give_one_clear_message(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path / name, ["y", "g"], numbers=["p"])
    with pytest.raises(InputError, match="no such file"):
        read_predictions(tmp_path / "absent.csv", ["y"])


def test_a_table_without_rows_is_said_to_be_empty(tmp_path):
    (tmp_path / "t.csv").write_text("y,yhat,g\n")
    frame = read_predictions(tmp_path / "t.csv", ["y", "yhat", "g"])
    with pytest.raises(InputError, match="no rows"):
        audit(frame, label="y", prediction="yhat", groups=["g"])


def test_a_text_that_is_no_number_is_named_with_its_row_in_a_later_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("fvlfp.data.delimited.BLOCK", 16)
    (tmp_path / "t.csv").write_text("y,s\n" + "1,0.5\n" * 4 + "1,\n1,high\n")
    with pytest.raises(InputError, match="row 7: 'high' is no number"):
        read_predictions(tmp_path / "t.csv", ["y"], numbers=["s"])
    (tmp_path / "t.csv").write_text("y,s\n1,0.5\n1,\n")
    assert np.isnan(read_predictions(tmp_path / "t.csv", ["y"], numbers=["s"])["s"]).tolist() == [False, True]


def test_a_score_column_that_is_also_the_prediction_is_read_once(tmp_path):
    (tmp_path / "t.csv").write_text("y,p\n1,1\n0,0\n")
    assert list(read_predictions(tmp_path / "t.csv", ["y", "p", "p"], numbers=["p"]).columns) == ["y", "p"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_column_that_is_not_there_or_there_twice(tmp_path, suffix):
    frame = pd.DataFrame({"gender": ["a"], "y": ["1"]})
    write = frame.to_csv if suffix == "csv" else frame.to_parquet
    write(tmp_path / f"t.{suffix}", index=False)
    with pytest.raises(InputError, match="'gendre' is not in the table; did you mean 'gender'"):
        read_predictions(tmp_path / f"t.{suffix}", ["y", "gendre"])


def test_parquet_numbers_and_missing_groups(tmp_path):
    frame = pd.DataFrame({"y": [1, 0], "g": ["a", None], "s": [0.25, 1.0]})
    frame.to_parquet(tmp_path / "t.pq")
    got = read_predictions(tmp_path / "t.pq", ["y", "g"], numbers=["s"])
    assert got["s"].tolist() == [0.25, 1.0] and got["g"].isna().tolist() == [False, True]
    frame.assign(s=["0.25", "x"]).to_parquet(tmp_path / "t.pq")
    with pytest.raises(InputError, match="row 2: 'x'"):
        read_predictions(tmp_path / "t.pq", ["y", "g"], numbers=["s"])


def test_every_formula_start_is_disarmed_in_csv_and_nowhere_else(tmp_path):
    names = ["=a", "+a", "-a", "@a", "\ta", "\ra", "a=", "'a"]
    frame = pd.DataFrame({"g": names * 4, "y": ["0", "1"] * 16, "p": ["0", "1", "1", "1"] * 8})
    kw = {"label": "y", "prediction": "p", "groups": ["g"], "positive": "1", "draws": 100}
    report = write_audit(audit(frame, **kw), tmp_path / "out")
    text = (tmp_path / "out" / "groups.csv").read_text()
    assert not re.search(r"(^|,)\"?[=+@\t]", text) and "'=a" in text and ",a=," in text
    known = json.loads(report.with_name("audit.json").read_text())["attributes"]["g"]["groups"]
    assert set(known) == set(names)


def test_a_folder_that_cannot_be_made_is_one_clear_message(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        write_audit(audit(table, groups=["shape"], **KW), tmp_path / "file" / "out")


def test_signed_pair_is_beside_every_gap_that_has_one(table, tmp_path):
    result = audit(table, groups=["shape"], **KW)
    pair = result.document["attributes"]["shape"]["gaps"]["equal_opportunity_difference"]["pair"]
    page = write_audit(result, tmp_path / "out").read_text()
    assert f"round – square, true positive rate of yes: {pair['difference']:+.3f}" in page


def test_more_rows_than_a_page_shows_are_counted(tmp_path):
    names = [f"g{i}" for i in range(60)]
    frame = pd.DataFrame({"g": names * 4, "y": ["0", "1"] * 120, "p": ["0", "1"] * 120})
    kw = {"label": "y", "prediction": "p", "groups": ["g"], "positive": "1", "draws": 100}
    page = write_audit(audit(frame, **kw), tmp_path / "out").read_text()
    assert "20 more rows are in the CSV files" in page


def test_a_distance_means_the_same_in_every_panel(table):
    settings = {"label": "smiling", "prediction": "prediction", "groups": ["shape"], "positive": "yes"}
    judged = audit(table, **settings, draws=200).to_json()
    paired = compare(table, table, **settings, draws=200).to_json()
    for figure in (plots.rates(judged, "shape"), plots.dumbbells(paired, "shape")):
        lengths = [np.ptp(ax.get_xlim()) for ax in figure.axes if ax.get_visible()]
        assert lengths == pytest.approx([lengths[0]] * len(lengths))


def test_each_panel_says_how_many_examples_its_rate_rests_on(table):
    settings = {"label": "smiling", "prediction": "prediction", "groups": ["shape"], "positive": "yes"}
    smiles = table[table["shape"] == "round"]["smiling"] == "yes"
    counts = [len(smiles), len(smiles), smiles.sum(), (~smiles).sum()]
    judged = audit(table, **settings, draws=100).to_json()
    paired = compare(table, table, **settings, draws=100).to_json()
    rates, change = plots.rates(judged, "shape"), plots.dumbbells(paired, "shape")
    for figure, order in ((rates, (0, 1, 2, 3)), (change, (0, 2, 3, 1))):
        told = [ax.get_yticklabels()[0].get_text() for ax in figure.axes]
        named = ["round  ({})" if i % 2 == 0 else "{}" for i in range(4)]
        assert told[:4] == [name.format(f"n={counts[i]:,}") for name, i in zip(named, order, strict=True)]


# what other machines and odd values do


@pytest.mark.kernel
def test_another_environments_kernel_is_not_used(table, tmp_path, monkeypatch, capsys):
    spec = tmp_path / "other" / "kernels" / "python3"
    spec.mkdir(parents=True)
    kernel = {"argv": ["/bin/false", "{connection_file}"], "display_name": "other", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "other"))
    result = audit(table, groups=["shape"], **KW)
    page = write_audit(result, tmp_path / "out", notebook=True).read_text()
    assert page == write_audit(result, tmp_path / "direct").read_text()
    assert "did not run" not in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("Kernel died"), KeyError("python3"), OSError("no port")])
def test_no_kernel_at_all_loses_nothing(table, tmp_path, monkeypatch, capsys, error):
    def fails(document, title):
        raise error

    monkeypatch.setattr("fvlfp.audit.report.write.execute", fails)
    result = audit(table, groups=["shape"], **KW)
    page = write_audit(result, tmp_path / "out", notebook=True).read_text()
    assert page == write_audit(result, tmp_path / "direct").read_text()
    assert "the report notebook did not run" in capsys.readouterr().err


def test_rows_are_written_together_with_the_report_or_not_at_all(table, tmp_path, monkeypatch):
    result = audit(table, groups=["shape"], **KW)
    report = write_audit(result, tmp_path / "out", rows=table)
    assert len(pd.read_csv(report.with_name("predictions.csv"))) == len(table)
    monkeypatch.setattr("fvlfp.audit.report.page.verdict", lambda document: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_audit(result, tmp_path / "other", rows=table)
    assert not (tmp_path / "other").exists()


@pytest.mark.figures
def test_control_characters_leave_a_figure_that_parses(table):
    frame = table.assign(shape=table["shape"] + "\x01\x1b[31m")
    document = audit(frame, groups=["shape"], **KW).document
    root = ElementTree.fromstring(plots.svg(plots.rates(document, "shape")))
    assert any("round?" in "".join(node.itertext()) for node in root.iter())


def test_paths_of_this_machine_are_told_by_name_only(table, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_text("")
    known = {"pretrained": str(weights), "data": {"files": [weights], "notes": "/not/here/x.pt and words"}}
    result = audit(table, groups=["shape"], provenance=known, **KW)
    write_audit(result, tmp_path / "out")
    for name in ("audit.json", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert str(tmp_path) not in text and "weights.pt" in text
    assert result.document["provenance"]["data"]["notes"] == "/not/here/x.pt and words"


def test_an_audit_without_settings_is_one_clear_message(table, tmp_path):
    write_audit(audit(table, groups=["shape"], **KW), tmp_path)
    document = json.loads((tmp_path / "audit.json").read_text())
    del document["settings"]
    (tmp_path / "audit.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="'settings' is missing"):
        Audit.read(tmp_path)


@pytest.mark.parametrize("huge", [1e308, -1e308, float("inf")])
def test_a_score_that_cannot_be_squared_is_refused_with_its_row(table, huge):
    with pytest.raises(InputError, match=r"row 3 is .*not a finite number"):
        audit(table.assign(score=[0.5, huge] + [0.5] * 598), groups=["shape"], score="score", **KW)


def test_numbers_that_name_groups_stay_as_they_are_in_csv(tmp_path):  # F22
    frame = pd.DataFrame({"g": ["-1", "1", "-0.5", "-1a"] * 8, "y": ["0", "1"] * 16, "p": ["0", "1"] * 16})
    write_audit(audit(frame, label="y", prediction="p", groups=["g"], draws=100), tmp_path / "out")
    groups = pd.read_csv(tmp_path / "out" / "groups.csv", dtype=str)["group"]
    assert set(groups) == {"-1", "1", "-0.5", "'-1a"}


@pytest.mark.parametrize("name", ["predictions.csv", "report.html", "groups.csv", "audit.json"])
def test_somebody_elses_files_are_not_written_over(table, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"holds {name} and no audit"):
        write_audit(audit(table, groups=["shape"], **KW), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_a_comparison_does_not_take_the_place_of_an_audit(table, tmp_path):
    write_audit(audit(table, groups=["shape"], **KW), tmp_path / "a", rows=table)
    change = compare(table, table, **{**KW, "groups": ["shape"], "draws": 100})
    with pytest.raises(InputError, match="another kind"):
        write_comparison(change, tmp_path / "a")
    write_comparison(change, tmp_path / "c")
    write_comparison(change, tmp_path / "c")
    with pytest.raises(InputError, match="another kind"):
        write_audit(audit(table, groups=["shape"], **KW), tmp_path / "c")


def test_two_commands_that_make_one_folder_both_end_well(table, tmp_path, monkeypatch):
    result, page = audit(table, groups=["shape"], **KW), write._page

    def meanwhile(*words):
        monkeypatch.setattr(write, "_page", page)
        write_audit(result, tmp_path / "a")
        return page(*words)

    monkeypatch.setattr(write, "_page", meanwhile)
    write_audit(result, tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and Audit.read(
        tmp_path / "a"
    ).to_json() == result.document


def test_a_full_disk_is_one_clear_message(table, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "_csv", full)
    with pytest.raises(InputError, match=r"cannot write to .*: No space left"):
        write_audit(audit(table, groups=["shape"], **KW), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_carriage_return_in_a_name_is_refused_as_a_line_break_is(tmp_path):
    """A CSV writer leaves it bare, and whoever reads the file back gets two rows."""
    pd.DataFrame({"g": ["a\rb", "c"]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"row 1: .* holds a line break"):
        read_predictions(tmp_path / "t.parquet", ["g"])
