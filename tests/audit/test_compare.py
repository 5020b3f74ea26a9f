"""Paired comparison: values by hand, pairing, coverage, and tables that do not match."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from fvlfp.audit import compare
from fvlfp.audit.report import write
from fvlfp.audit.stats.counts import Counts
from fvlfp.audit.stats.families import families
from fvlfp.audit.stats.gaps import TESTED_AS
from fvlfp.audit.stats.intervals import holm
from fvlfp.audit.stats.paired import infer_changes, mean_change, rate_change
from fvlfp.cli import app
from fvlfp.errors import InputError

KW = {"label": "smiling", "prediction": "prediction", "groups": ["shape"], "positive": "yes", "draws": 300}


def test_change_of_a_rate_by_hand():
    # 100 pairs: 40 both right, 10 only first, 25 only second, 25 neither
    value, low, high = rate_change(np.array([[25, 25], [10, 40]]))
    assert value == pytest.approx(0.15)
    p12, p21 = 26 / 102, 11 / 102  # Bonett and Price 2012: add one to both discordant cells
    half = stats.norm.ppf(0.975) * np.sqrt((p12 + p21 - (p12 - p21) ** 2) / 102)
    assert (low, high) == pytest.approx((p12 - p21 - half, p12 - p21 + half))
    assert np.isnan(rate_change(np.zeros((2, 2), int))).all()


def test_mean_change_leaves_out_the_undefined():
    assert mean_change([(0.1, 0.0, 0.2), (np.nan,) * 3]) == pytest.approx((0.1, 0.0, 0.2))
    assert mean_change([(0.1, 0.0, 0.2), (0.3, 0.2, 0.4)])[0] == pytest.approx(0.2)


def test_values_are_those_of_both_sides_and_change_is_b_minus_a(table):
    better = table.assign(prediction=np.where(np.arange(600) % 2, table.smiling, table.prediction))
    document = compare(table, better, **KW).document
    part = document["attributes"]["shape"]
    chosen = (table["shape"] == "square") & (table.smiling == "yes")
    cell = part["groups"]["square"]["rates"]["tpr"]
    assert cell["a"] == pytest.approx((table[chosen].prediction == "yes").mean())
    assert cell["b"] == pytest.approx((better[chosen].prediction == "yes").mean())
    for entry in [*part["changes"].values(), cell]:
        assert entry["change"] == pytest.approx(entry["b"] - entry["a"])
        assert entry["low"] <= entry["change"] <= entry["high"]


def test_a_mended_gap_is_found_and_the_same_model_is_not(table):
    mended = table.assign(prediction=table.smiling)
    found = compare(table, mended, **KW).changes.set_index("gap").loc["equal_opportunity_difference"]
    assert found.b == 0 and found.high < -0.05 and found.p_value < 0.05
    same = compare(table, table, **KW).changes.set_index("gap")
    assert (same.change == 0).all() and (same.low < 0).all() and (same.high > 0).all()


def test_pairing_makes_intervals_narrower():
    """Two models that agree on most rows: the change of a rate is surer than either rate."""
    rng = np.random.default_rng(0)
    n = 2000
    frame = pd.DataFrame({"shape": rng.choice(["r", "s"], n), "smiling": rng.choice(["no", "yes"], n)})
    frame["prediction"] = np.where(rng.random(n) < 0.8, frame.smiling, "no")
    near = frame.assign(prediction=np.where(rng.random(n) < 0.02, frame.smiling, frame.prediction))
    cell = compare(frame, near, **KW).document["attributes"]["shape"]["groups"]["r"]["rates"]["tpr"]
    assert cell["high"] - cell["low"] < 0.04  # Wilson's interval of one side alone is 0.07 wide


def test_rows_are_matched_by_key(table):
    table = table.assign(id=[f"face{i}" for i in range(600)])
    shuffled = table.sample(frac=1, random_state=0)
    same = compare(table, shuffled, key="id", **KW).changes
    assert (same.change == 0).all()


@pytest.mark.parametrize(
    ("change_b", "options", "message"),
    [
        (lambda f: f.iloc[:-1], {}, "600 and 599 rows"),
        (lambda f: f.assign(smiling=f.smiling.mask(f.index == 4, "perhaps")), {}, "differs .* row 6"),
        (lambda f: f.assign(shape=f["shape"].mask(f.index == 0, "flat")), {}, "not the same examples"),
        (lambda f: f.drop(columns="prediction"), {}, "'prediction' is not in the table"),
        (lambda f: f, {"key": "tint"}, "not unique"),
        (lambda f: f.assign(id=f["id"].mask(f.index == 3, "x")), {"key": "id"}, "not in the second"),
        (lambda f: f, {"draws": 3}, "at least 100"),
    ],
)
def test_tables_that_do_not_match(table, change_b, options, message):
    table = table.assign(id=[str(i) for i in range(600)])
    with pytest.raises(InputError, match=message):
        compare(table, change_b(table), **{**KW, **options})


@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.25, 0.05)])
def test_the_true_change_is_covered(gaps):
    """Two groups, rates .7 and .7 - gap, two models that agree more often than chance."""
    rng = np.random.default_rng(5)
    m, runs, covered = 300, 60, 0
    for _ in range(runs):
        joint = np.zeros((2, 1, 2, 2), int)
        for g in range(2):
            u = rng.random(m)
            v = np.where(rng.random(m) < 0.7, u, rng.random(m))
            a, b = u < 0.7 - gaps[0] * g, v < 0.7 - gaps[1] * g
            np.add.at(joint[g, 0], (a.astype(int), b.astype(int)), 1)
        table = np.zeros((2, 2, 2), int)
        table[:, 1] = joint.sum(-1)[:, 0]
        family = families(Counts("", ("u", "v"), ("0", "1"), table))[1]
        got = infer_changes(joint, family, draws=300, rng=rng)["equal_opportunity_difference"]
        covered += got.low <= gaps[1] - gaps[0] <= got.high
    assert covered / runs >= 0.88


def test_many_classes(table):
    rng = np.random.default_rng(0)
    frame = table.assign(smiling=rng.choice(["a", "b", "c"], 600))
    frame["prediction"] = np.where(rng.random(600) < 0.6, frame.smiling, "a")
    right = frame.assign(prediction=frame.smiling)
    options = {**KW, "positive": None}
    document = compare(frame, right, **options).document
    part = document["attributes"]["shape"]
    assert part["groups"]["round"]["rates"]["balanced_accuracy"]["b"] == 1
    assert part["changes"]["accuracy_gap"]["b"] == 0
    assert part["worst_cell_recall"]["b"] == 1 and part["worst_cell_recall"]["low"] > 0


def test_crossed_groups_and_missing_entries(table):
    rng = np.random.default_rng(0)
    holes = table.assign(tint=table.tint.where(rng.random(600) > 0.1))
    result = compare(holes, holes, **{**KW, "groups": ["shape", "tint"], "cross": True})
    part = result.document["attributes"]["shape x tint"]
    assert part["missing"] == holes.tint.isna().sum() > 0
    assert sum(g["n"] for g in part["groups"].values()) == 600 - part["missing"]
    assert any("shape x tint" in line and "left out" in line for line in result.warnings)


def test_a_class_no_group_has_under_one_model_stays_undefined(table):
    one = table[table.smiling == "no"]
    result = compare(one, one, **KW)
    tpr = result.document["attributes"]["shape"]["groups"]["round"]["rates"]["tpr"]
    assert tpr == dict.fromkeys(("a", "b", "change", "low", "high"))
    entry = result.document["attributes"]["shape"]["changes"]["equal_opportunity_difference"]
    assert entry["change"] is None and "undefined" in entry["reason"] and entry["p_adjusted"] is None
    assert result.document["overall"]["rates"]["balanced_accuracy"]["change"] is None


def test_correction_is_over_the_tested_gaps_only(table):
    better = table.assign(prediction=table.smiling)
    changes = compare(table, better, **{**KW, "groups": ["shape", "tint"]}).changes
    tested = changes[~changes.gap.isin(TESTED_AS)]
    assert tested.p_adjusted.notna().all() and (tested.p_adjusted >= tested.p_value).all()
    assert changes[changes.gap.isin(TESTED_AS)].p_adjusted.isna().all()
    theirs = holm(dict(enumerate(tested.p_value)))
    assert tested.p_adjusted.tolist() == pytest.approx(list(theirs.values()))


def test_overview_shows_accuracy_above_the_gaps(table):
    mended = table.assign(prediction=table.smiling)
    shown = compare(table, mended, **KW).overview("shape")
    assert list(shown.index) == ["balanced accuracy", "worst-cell recall", "odds gap (worst)", "parity gap"]
    assert list(shown.columns) == ["a", "b", "change", "low", "high"]
    assert shown.loc["balanced accuracy", "b"] == 1.0 and shown.loc["odds gap (worst)", "b"] == 0.0
    three = table.assign(smiling=np.resize(["a", "b", "c"], 600), prediction="a")
    several = compare(three, three, **{**KW, "positive": None})
    largest = several.changes.set_index("gap").loc["equalized_odds_difference_worst_class_max"]
    assert several.overview("shape").loc["odds gap (worst)", "a"] == largest["a"]
    assert several.odds_gap("shape")["a"] == largest["a"]


# weights and bands


def test_whole_weights_give_the_rates_of_repeated_rows(table):
    times = np.random.default_rng(3).integers(1, 4, 600)
    better = table.assign(prediction=np.where(np.arange(600) % 3, table.smiling, table.prediction))
    repeated = [frame.loc[frame.index.repeat(times)].reset_index(drop=True) for frame in (table, better)]
    wanted = compare(*repeated, **KW)
    got = compare(table.assign(w=times), better.assign(w=times), weight="w", **KW)
    for name in ("groups", "changes"):
        a, b = (getattr(found, name)[["a", "b", "change"]].astype(float) for found in (got, wanted))
        assert np.allclose(a, b, equal_nan=True), name
    width = [(c.groups["high"] - c.groups["low"]).astype(float).mean() for c in (got, wanted)]
    assert width[0] > width[1], "a repeated row is no new example"
    assert got.document["attributes"]["shape"]["groups"]["round"]["n"] == (table["shape"] == "round").sum()
    assert got.document["settings"]["weight"] == "w" and "weighted by 'w'" in got.remarks[0]


def test_equal_weights_change_nothing(table):
    better = table.assign(prediction=np.where(np.arange(600) % 3, table.smiling, table.prediction))
    same = compare(table.assign(w=2.5), better.assign(w=2.5), weight="w", **KW)
    plain = compare(table, better, **KW)
    for name in ("groups", "changes"):
        a, b = (getattr(found, name).select_dtypes("number").astype(float) for found in (same, plain))
        assert np.allclose(a, b, equal_nan=True, atol=1e-9), name


def test_weights_of_many_classes_and_weights_that_differ(table):
    rng = np.random.default_rng(0)
    names = np.array([f"c{i:02d}" for i in range(20)])
    many = table.assign(smiling=rng.choice(names, 600), prediction=rng.choice(names, 600), w=2.0)
    options = {**KW, "positive": None, "weight": "w"}
    right = many.assign(prediction=many.smiling)
    part = compare(many, right, **options).document["attributes"]["shape"]
    plain = compare(many, right, **{**options, "weight": None}).document["attributes"]["shape"]
    for gap, entry in plain["changes"].items():
        assert part["changes"][gap]["change"] == pytest.approx(entry["change"], nan_ok=True), gap
    with pytest.raises(InputError, match="'w' differs between the tables in row 5"):
        compare(many, right.assign(w=right.w.mask(right.index == 3, 1.0)), **options)


def test_bands_in_a_comparison(table):
    aged = table.assign(age=np.where(table["shape"] == "square", 30, 50))
    mended = aged.assign(prediction=aged.smiling)
    options = {**KW, "groups": ["age"], "bins": {"age": [40]}}
    banded = compare(aged, mended, **options).document["attributes"]["age"]
    plain = compare(table, mended, **KW).document["attributes"]["shape"]
    assert list(banded["groups"]) == ["under 40", "40 or more"]
    gap = "equal_opportunity_difference"
    assert banded["changes"][gap]["change"] == pytest.approx(plain["changes"][gap]["change"])


def test_weights_and_bands_on_the_command_line_and_from_a_weighted_audit(table, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "execute", write.in_process)
    weight = np.random.default_rng(1).integers(1, 5, 600)
    aged = table.assign(age=np.where(table["shape"] == "square", 30, 50), w=weight)
    aged.to_csv(tmp_path / "a.csv", index=False)
    aged.assign(prediction=aged.smiling).to_csv(tmp_path / "b.csv", index=False)
    words = ["--label", "smiling", "--group", "age", "--weight", "w", "--bin", "age:40", "--draws", "100"]

    def run(*more):
        result = CliRunner().invoke(app, list(map(str, more)))
        assert result.exit_code == 0, result.output

    for side in "ab":
        columns = ["--prediction", "prediction", "--positive", "yes"]
        run("audit", "predictions", tmp_path / f"{side}.csv", *words, *columns, "--out", tmp_path / side)
    run(
        "compare",
        tmp_path / "a.csv",
        tmp_path / "b.csv",
        *words,
        "--positive",
        "yes",
        "--out",
        tmp_path / "c",
    )
    run("compare", tmp_path / "a", tmp_path / "b", "--draws", 100, "--out", tmp_path / "d")
    tables, audits = (json.loads((tmp_path / x / "audit.json").read_text()) for x in "cd")
    a, b = (found["attributes"]["age"]["groups"]["under 40"]["rates"] for found in (tables, audits))
    assert a == b, "a weighted audit is compared with its weights"
    rate = a["accuracy"]["a"]
    young = aged[aged.age < 40]
    assert rate == pytest.approx(np.average(young.prediction == young.smiling, weights=young.w))
    assert "--bin age:40" in tables["provenance"]["command"]


def test_audits_that_were_weighted_or_decided_otherwise_are_refused(tmp_path, monkeypatch):
    """The second one's weights were dropped, and "b or not b" was compared as if it were about a."""
    monkeypatch.setattr(write, "execute", write.in_process)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.choice(list("abc"), 300), "g": rng.choice(["m", "f"], 300)})
    frame = frame.assign(p=frame.y, w=rng.integers(1, 5, 300), s=rng.random(300))
    frame.to_csv(tmp_path / "t.csv", index=False)

    def run(name, *more):
        audit = ["audit", "predictions", tmp_path / "t.csv", "--label", "y", "--group", "g", "--draws", 100]
        words = [*audit, *more] if name[0] != "=" else ["compare", *more, "--draws", 100]
        return CliRunner().invoke(app, list(map(str, [*words, "--out", tmp_path / name])))

    for name, more in {
        "plain": ["--prediction", "p"],
        "weighted": ["--prediction", "p", "--weight", "w"],
        "a": ["--score", "s", "--threshold", 0.4, "--positive", "a"],
        "b": ["--score", "s", "--threshold", 0.6, "--positive", "b"],
        "none": ["--score", "s", "--threshold", 2, "--positive", "a"],
    }.items():
        assert run(name, *more).exit_code == 0, name
    untrue = ["audit", "predictions", tmp_path / "t.csv", "--prediction", "p", "--group", "g", "--draws", 100]
    assert CliRunner().invoke(app, list(map(str, [*untrue, "--out", tmp_path / "untrue"]))).exit_code == 0
    decided = pd.read_csv(tmp_path / "a" / "predictions.csv").prediction
    assert (decided == np.where(frame.s >= 0.4, "a", "not a")).all(), "of b and c the score tells none"
    assert run("=c", tmp_path / "a", tmp_path / "none").exit_code == 0
    for first, second, message in (
        ("plain", "weighted", "with weight None"),
        ("weighted", "plain", "not audited alike"),
        ("a", "b", "whether it is 'b', and not whether it is 'a'"),
        ("untrue", "untrue", "was audited without true classes"),
    ):
        got = run("=d", tmp_path / first, tmp_path / second)
        assert got.exit_code == 2 and message in " ".join(got.output.split()), got.output


def test_audits_are_paired_by_their_key_and_otherwise_told_to_be_paired_by_order(tmp_path, monkeypatch):
    """Audits kept no key: rows of two orders were paired, and the interval of the change was another one."""
    monkeypatch.setattr(write, "execute", write.in_process)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.integers(0, 2, 400), "g": np.tile(["m", "f"], 200), "id": range(400)})
    frame = frame.sort_values(["y", "g"]).assign(p=np.where(rng.random(400) < 0.3, 1 - frame.y, frame.y))
    frame.to_csv(tmp_path / "a.csv", index=False)
    other = frame.assign(p=frame.p.mask(frame.id < 20, 1)).sample(frac=1, random_state=1)
    other.sort_values(["y", "g"], kind="stable").to_csv(tmp_path / "b.csv", index=False)
    columns = ["--label", "y", "--group", "g", "--prediction", "p", "--positive", 1, "--draws", 100]

    def run(*words):
        return CliRunner().invoke(app, list(map(str, words)))

    for side in "ab":
        for name, more in ((side, []), (f"{side}-keyed", ["--key", "id"])):
            words = [tmp_path / f"{side}.csv", *columns, *more, "--out", tmp_path / name]
            assert run("audit", "predictions", *words).exit_code == 0
    changes = {}
    by_order = "Rows are paired by their order"
    for name, a, b, told in (
        ("keyed", "a-keyed", "b-keyed", False),
        ("tables", "a.csv", "b.csv", False),
        ("order", "a", "b", True),
        ("half", "a-keyed", "b", True),
        ("one file", "a", "a-keyed", False),
    ):
        more = [*columns, "--key", "id"] if name == "tables" else ["--draws", 100]
        result = run("compare", tmp_path / a, tmp_path / b, *more, "--out", tmp_path / name)
        assert result.exit_code == 0 and (by_order in result.stderr) == told, (name, result.output)
        changes[name] = json.loads((tmp_path / name / "audit.json").read_text())
    overall = {name: found["overall"]["rates"]["accuracy"] for name, found in changes.items()}
    assert overall["keyed"] == overall["tables"] and changes["keyed"]["settings"]["key"] == "id"
    assert overall["keyed"]["change"] == overall["order"]["change"]
    keyed, ordered = (overall[name]["high"] - overall[name]["low"] for name in ("keyed", "order"))
    assert keyed < ordered
    assert "--key id" in changes["keyed"]["provenance"]["command"]
    frame.assign(id=frame.id.replace(7, 8)).to_csv(tmp_path / "a.csv", index=False)
    result = run("audit", "predictions", tmp_path / "a.csv", *columns, "--key", "id", "--out", tmp_path / "x")
    assert result.exit_code == 2 and "key 'id' is not unique in row" in result.stderr


def test_audits_of_one_name_are_told_apart_and_one_that_is_given_twice_is_said(table, tmp_path, monkeypatch):
    """The report said "audit against audit"."""
    monkeypatch.setattr(write, "execute", write.in_process)
    words = ["--label", "smiling", "--group", "shape", "--draws", 100, "--out", tmp_path / "c"]
    for side in "ab":
        (tmp_path / side).mkdir()
        table.to_csv(tmp_path / side / "t.csv", index=False)
    for other, names in (("b", ["a/t.csv", "b/t.csv"]), ("b/../a", ["t.csv", "t.csv"])):
        paths = [tmp_path / "a" / "t.csv", tmp_path / other / "t.csv"]
        result = CliRunner().invoke(app, list(map(str, ["compare", *paths, *words])))
        assert json.loads((tmp_path / "c" / "audit.json").read_text())["names"] == names
        assert ("is compared with itself" in result.stderr) == (names[0] == names[1])


def test_keys_that_differ_by_capitals_name_two_rows(table, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "execute", write.in_process)
    keyed = table.assign(id=[f"{'aA'[i % 2]}{i // 2}" for i in range(600)])
    keyed.to_csv(tmp_path / "a.csv", index=False)
    keyed.iloc[::-1].to_csv(tmp_path / "b.csv", index=False)
    words = [
        "--label",
        "smiling",
        "--group",
        "shape",
        "--key",
        "id",
        "--draws",
        "100",
        "--out",
        tmp_path / "c",
    ]
    result = CliRunner().invoke(
        app, list(map(str, ["compare", tmp_path / "a.csv", tmp_path / "b.csv", *words]))
    )
    assert result.exit_code == 0, result.output
    changes = json.loads((tmp_path / "c" / "audit.json").read_text())["attributes"]["shape"]["changes"]
    assert all(entry["change"] == 0 for entry in changes.values())
