"""Is the audit about what its reader thinks? Remarks, refusals, and one rule for values."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fvlfp.audit import audit, compare, write_audit
from fvlfp.audit.stats.bins import bin_groups, bin_words, parse_bins
from fvlfp.cli import app
from fvlfp.errors import InputError
from fvlfp.values import code, names_of

KW = {"label": "smiling", "prediction": "prediction", "groups": ["shape"], "positive": "yes", "draws": 200}


def run(frame, **options):
    return audit(frame, **{**KW, **options})


def test_probabilities_as_predictions_are_refused_with_the_row_and_the_way(table):
    scores = np.where(table.index < 3, "yes", "0.37")
    with pytest.raises(InputError, match=r"is 0.37 in row 5.*--score prediction.*--threshold"):
        run(table.assign(prediction=scores))
    numbers = table.assign(smiling=(table.smiling == "yes").astype(int), prediction=np.linspace(0, 1, 600))
    with pytest.raises(InputError, match=r"row 3, which is never a label"):
        run(numbers, positive="1")


def test_fractions_that_are_labels_are_classes(table):
    half = {"yes": 0.5, "no": 1.5}
    got = run(table.replace({"smiling": half, "prediction": half}), positive="0.5")
    same = run(table)
    assert got.document["attributes"]["shape"]["counts"] == same.document["attributes"]["shape"]["counts"]


def test_predicted_values_that_are_never_labels_are_counted(table):
    got = run(table.assign(prediction=table.prediction.mask(table.index < 7, "perhaps")), positive=None)
    assert any("'perhaps' never occurs as a label; 7 predictions are wrong" in w for w in got.warnings)


def test_scores_of_the_other_class_are_remarked_on(table):
    rng = np.random.default_rng(0)
    right = np.clip((table.prediction == "yes") * 0.6 + rng.random(600) * 0.4, 0, 1)
    assert run(table.assign(score=right), score="score").remarks == []
    (remark,) = run(table.assign(score=1 - right), score="score").remarks
    assert "predictions of the other class" in remark and "other than 'yes'" in remark


def test_scores_that_rank_the_labels_upside_down_though_they_fit_the_predictions(table):
    wrong = table.assign(prediction=table.smiling.map({"yes": "no", "no": "yes"}))
    (remark,) = run(wrong.assign(score=(wrong.prediction == "yes") * 0.5 + 0.2), score="score").remarks
    assert "rank 'yes' below the other class (ROC-AUC 0.000)" in remark


@pytest.mark.parametrize(("values", "words"), [([-3.0, 8.5], "from -3 to 8.5"), ([0.4, 0.4], "score is 0.4")])
def test_scores_that_are_no_probabilities_or_constant(table, values, words):
    score = np.where(table.prediction == "yes", max(values), min(values))
    assert any(words in remark for remark in run(table.assign(score=score), score="score").remarks)


def test_one_class_only_is_a_remark_on_the_first_page(table, tmp_path):
    got = run(table.assign(prediction="yes"))
    assert got.remarks[0].startswith("Every prediction is 'yes'")
    page = write_audit(got, tmp_path / "out").read_text()
    assert page.index("Every prediction is") < page.index("What could not be judged")
    assert run(table.assign(smiling="yes")).remarks[0].startswith("Every label is 'yes'")
    change = compare(table, table.assign(prediction="no"), names=("old", "new"), **KW)
    assert change.remarks[0].startswith("new: Every prediction is 'no'")


# groups that are too fine


@pytest.fixture
def aged(table):
    rng = np.random.default_rng(1)
    age = np.where(table["shape"] == "square", rng.uniform(0, 40, 600), rng.uniform(40, 90, 600))
    return table.assign(age=age.round(2))


def test_a_continuous_age_is_too_fine_and_two_bands_find_the_gap(aged, tmp_path):
    fine = run(aged, groups=["age"])
    assert "too fine to judge" in fine.remarks[0] and "--bin age:" in fine.remarks[0]
    page = write_audit(fine, tmp_path / "out").read_text()
    assert "the groups are too fine to judge" in page and "no difference found" not in page
    offered = fine.remarks[0].rpartition("--bin ")[2]
    assert not run(aged, groups=["age"], bins=parse_bins([offered])).remarks
    banded = run(aged, groups=["age"], bins={"age": [40]})
    groups = banded.document["attributes"]["age"]["groups"]
    by_hand = (aged.age < 40).sum()
    assert [groups[g]["n"] for g in ("under 40", "40 or more")] == [by_hand, 600 - by_hand]
    plain = run(aged, groups=["shape"]).document["attributes"]["shape"]["gaps"]["accuracy_gap"]["value"]
    assert banded.document["attributes"]["age"]["gaps"]["accuracy_gap"]["value"] == pytest.approx(plain)


def test_bands_keep_their_order_their_edges_and_what_is_missing():
    frame = pd.DataFrame({"age": ["20", 19.99, None, "", "1e2", 40]})
    got = bin_groups(frame, {"age": [0, 20, 40]}, ["age"])["age"]
    assert got.tolist()[:2] == ["20 to under 40", "0 to under 20"] and got.isna().tolist()[2:4] == [
        True,
        True,
    ]
    assert got.tolist()[4:] == ["40 or more"] * 2
    assert code(got).names == ("0 to under 20", "20 to under 40", "40 or more")


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ({"tint": [1]}, "not a group column"),
        ({"shape": [1]}, "row 2 is '(round|square)': bins need numbers"),
        ({"shape": [2, 1]}, "must be numbers that rise"),
        ({"shape": []}, "must be numbers that rise"),
    ],
)
def test_bins_that_do_not_fit(table, bins, message):
    with pytest.raises(InputError, match=message):
        run(table, bins=bins)


@pytest.mark.parametrize("words", [["age"], ["age:"], ["age:x"], [":1"], ["a:1", "a:2"]])
def test_bin_words_that_say_nothing(words):
    with pytest.raises(InputError, match="--bin"):
        parse_bins(words)


def test_bin_on_the_command_line_and_its_comparison(aged, tmp_path):
    aged.to_csv(tmp_path / "t.csv", index=False)
    words = [
        "audit",
        "predictions",
        str(tmp_path / "t.csv"),
        "--label",
        "smiling",
        "--prediction",
        "prediction",
    ]
    words += ["--group", "age", "--bin", "age:0,20,40", "--positive", "yes", "--draws", "100"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert list(document["attributes"]["age"]["groups"]) == ["0 to under 20", "20 to under 40", "40 or more"]
    assert "--bin age:0,20,40" in (tmp_path / "a" / "report.html").read_text()
    done = CliRunner().invoke(
        app, ["compare", *[str(tmp_path / "a")] * 2, "--draws", "100", "--out", str(tmp_path / "c")]
    )
    assert done.exit_code == 0, done.output


# one rule for values


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1, 1.0, "1", "1.0", " 1 "], ["1"] * 5),
        (["01", "1", "3_9", "39", "1.50"], ["01", "1", "3_9", "39", "1.50"]),
        (["yes ", "yes", "Yes"], ["yes", "yes", "Yes"]),
        ([None, "", "  ", float("nan")], [None] * 4),
        (["nan", "NA", "None"], ["nan", "NA", "None"]),
        ([True, "True", False], ["True", "True", "False"]),
        ([0.0, "-0.0", "0", -0.0], ["0"] * 4),
    ],
)
def test_what_is_one_value(values, names):
    assert names_of(pd.Series(values, dtype=object)).tolist() == names


def test_cuts_keep_all_their_digits():
    """Six of them made one band of two, and another command of the one that the report gives."""
    cuts = [19700101.0, 19700102.0, 19900101.5]
    frame = pd.DataFrame({"born": [19690101, 19700101, 19900102]})
    names = bin_groups(frame, {"born": cuts}, ["born"])["born"].tolist()
    assert names == ["under 19700101", "19700101 to under 19700102", "19900101.5 or more"]
    assert bin_words({"born": cuts}) == ["born:19700101,19700102,19900101.5"]
    assert parse_bins(bin_words({"born": cuts})) == {"born": cuts}


def test_merged_and_look_alike_values_are_said(table):
    frame = table.assign(smiling=table.smiling.mask(table.index == 0, "yes "))
    frame["shape"] = frame["shape"].mask(frame.index == 1, "Round")
    notes = run(frame).warnings
    assert any("smiling: 'yes', 'yes ' are one value, 'yes'" in note for note in notes)
    assert any("'Round', 'round' differ only in capitals" in note for note in notes)


def test_compare_reads_values_as_audit_does(table):
    number = {"yes": "1", "no": "0"}
    a = table.replace({"smiling": number, "prediction": number}).assign(id=range(600))
    b = a.assign(smiling=a.smiling + ".0", id=a.id.astype(float).astype(str)).sample(frac=1, random_state=0)
    got = compare(a, b, key="id", **{**KW, "positive": "1"})
    assert (got.changes.change == 0).all()
    with pytest.raises(InputError, match="key 'id' is missing in row 3"):
        compare(a.assign(id=[0, None, *range(2, 600)]), b, key="id", **{**KW, "positive": "1"})


def test_twenty_five_crossed_attributes_are_those_combinations_that_occur(table):
    """Past 2 ** 63 possible combinations, counted by another library."""
    rows = np.random.default_rng(0).choice(list("abcdef"), (20, 25))  # 6 ** 25
    wide = pd.DataFrame(rows[np.arange(600) % 20], columns=[f"g{i}" for i in range(25)])
    got = audit(wide.join(table), **{**KW, "groups": list(wide), "draws": 100}, cross=True).document
    crossed = got["attributes"][" x ".join(wide)]["groups"]
    counted = wide.groupby(list(wide), observed=True).size()
    assert {name: group["n"] for name, group in crossed.items()} == {
        " x ".join(names): n for names, n in counted.items()
    }


def test_a_gap_of_zero_names_no_pair(table):
    got = run(table.assign(prediction="yes")).document["attributes"]["shape"]["gaps"]
    assert (
        got["demographic_parity_difference"] | {"value": 0, "pair": None}
        == got["demographic_parity_difference"]
    )
