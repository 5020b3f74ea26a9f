"""The audit as a whole: its document, and one clear message for every odd table."""

import json

import numpy as np
import pandas as pd
import pytest

from fvlfp import metrics
from fvlfp.audit import Audit, audit
from fvlfp.errors import InputError

KW = {"label": "smiling", "prediction": "prediction", "draws": 200}


def run(frame, **kw):
    return audit(frame, **{**KW, "groups": ["shape"], **kw})


def small(**columns):
    return pd.DataFrame({"shape": ["round", "square"] * 4, "smiling": ["no", "yes"] * 4, **columns})


def test_document_holds_the_counts_and_they_give_the_values(table):
    got = run(table, groups=["shape", "tint"], positive="yes")
    document = json.loads(json.dumps(got.to_json(), allow_nan=False))
    assert document["schema"] == 1 and document["n"] == 600
    for part in document["attributes"].values():
        values = metrics.gaps(np.array(part["counts"]))
        for name, entry in part["gaps"].items():
            assert entry["value"] == pytest.approx(float(values[name]))
            assert entry["low"] <= entry["value"] <= entry["high"]
    square = table[(table["shape"] == "square") & (table.smiling == "yes")]
    cell = document["attributes"]["shape"]["groups"]["square"]["rates"]["tpr"]
    assert cell["value"] == pytest.approx((square.prediction == "yes").mean())
    assert cell["denominator"] == len(square)


def test_planted_gap_is_found_and_the_quiet_attribute_stays_quiet(table):
    gaps = run(table, groups=["shape", "tint"], draws=2000).gaps.set_index(["attribute", "gap"])
    tpr = gaps.loc[("shape", "equal_opportunity_difference")]
    assert tpr.p_adjusted < 0.01 and tpr.low > 0.1 and tpr.low < 0.3 < tpr.high
    assert (tpr.highest, tpr.lowest) == ("round", "square") and tpr.pair_low > 0
    assert tpr.excess == pytest.approx(tpr.value - tpr.expected_null)
    assert (gaps.loc["tint"].p_adjusted > 0.05).all() and (gaps.loc["tint"].p_value > 0.05).all()


def test_same_seed_same_numbers_and_attributes_do_not_disturb_each_other(table):
    alone, again = run(table), run(table)
    assert alone.document == again.document
    both = run(table, groups=["tint", "shape"])
    left, right = alone.document["attributes"]["shape"], both.document["attributes"]["shape"]
    assert left["gaps"]["accuracy_gap"]["high"] == right["gaps"]["accuracy_gap"]["high"]


def test_perfect_classifier_has_the_parity_gap_of_the_base_rates(table):
    shares = (table.smiling == "yes").groupby(table["shape"]).mean()
    entry = run(table).document["attributes"]["shape"]["gaps"]["demographic_parity_difference"]
    assert entry["perfect_classifier"] == pytest.approx(shares.max() - shares.min())
    assert entry["excess_over_perfect"] == pytest.approx(entry["value"] - entry["perfect_classifier"])


def test_undefined_stays_undefined_and_is_listed():
    frame = small(prediction=["no", "yes"] * 4)  # no round face smiles, every square one does
    got = run(frame)
    groups = got.document["attributes"]["shape"]["groups"]
    assert groups["round"]["rates"]["tpr"]["value"] is None
    assert groups["round"]["rates"]["tpr"]["reason"] == "no example of the group has the positive label"
    gap = got.document["attributes"]["shape"]["gaps"]["equal_opportunity_difference"]
    assert gap["value"] is gap["low"] is gap["p_value"] is None and "left_out" in gap["reason"]
    missing = {(e["group"], e["rate"]) for e in got.left_out}
    assert missing == {(g, "balanced_accuracy") for g in groups} | {("round", "tpr"), ("square", "fpr")}


def test_small_cells_are_flagged():
    got = run(small(prediction=["no", "yes", "yes", "no"] * 2))
    assert got.document["attributes"]["shape"]["groups"]["round"]["rates"]["accuracy"]["small"]
    assert any("fewer than 10" in w for w in got.warnings)


def test_crossed_groups_are_one_more_attribute(table):
    got = run(table, groups=["shape", "tint"], cross=True)
    crossed = got.document["attributes"]["shape x tint"]["groups"]
    assert list(crossed)[:2] == ["round x amber", "round x teal"] and len(crossed) == 6
    chosen = table[(table["shape"] == "round") & (table.tint == "teal")]
    assert crossed["round x teal"]["n"] == len(chosen)


def test_more_than_two_classes(table):
    rng = np.random.default_rng(0)
    frame = table.assign(smiling=rng.choice(["no", "some", "yes"], 600))
    frame["prediction"] = np.where(rng.random(600) < 0.7, frame.smiling, "some")
    got = run(frame).document
    part = got["attributes"]["shape"]
    assert got["positive"] is None and set(part["classes"]) == {"no", "some", "yes"}
    per_class = [part["classes"][c]["gaps"]["equal_opportunity_difference"]["value"] for c in part["classes"]]
    assert part["gaps"]["equal_opportunity_difference_class_max"]["value"] == pytest.approx(max(per_class))
    one = run(frame, positive="some").document["attributes"]["shape"]["gaps"]
    assert one["equal_opportunity_difference"]["value"] == pytest.approx(per_class[1])


def test_positive_class_default_is_said(table):
    assert any("'yes', the second in order, is used" in w for w in run(table).warnings)
    assert not run(table, positive="yes").warnings
    flipped = run(table, positive="no").document["attributes"]["shape"]["groups"]["round"]["rates"]
    chosen = table[table["shape"] == "round"]
    assert flipped["selection_rate"]["value"] == pytest.approx((chosen.prediction == "no").mean())


def test_missing_groups_are_left_out_and_counted(table):
    frame = table.copy()
    frame.loc[:9, "shape"] = None
    frame.loc[10, "shape"] = "  "
    got = run(frame)
    assert got.document["attributes"]["shape"]["missing"] == 11
    assert any("11 rows have no entry" in w for w in got.warnings)
    assert sum(g["n"] for g in got.document["attributes"]["shape"]["groups"].values()) == 589


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.iloc[:0], {}, "no rows"),
        (lambda f: f, {"label": "smilling"}, "did you mean 'smiling'"),
        (lambda f: f, {"groups": ["shap"]}, "did you mean 'shape'"),
        (lambda f: f, {"prediction": "yhat"}, "prediction column 'yhat' is not in the table"),
        (lambda f: f.assign(smiling=f.smiling.where(f.index != 3)), {}, "missing in row 5"),
        (lambda f: f.assign(prediction=f.prediction.where(f.index != 0)), {}, "missing in row 2"),
        (lambda f: f.assign(smiling="yes", prediction="yes"), {}, "only one class"),
        (lambda f: f.assign(prediction="1"), {}, "share no class"),
        (lambda f: f, {"positive": "yess"}, "did you mean 'yes'"),
        (lambda f: f.assign(shape=None), {}, "empty in every row"),
        (lambda f: f, {"groups": []}, "at least one"),
        (lambda f: f, {"groups": "shape"}, "list of column names"),
        (lambda f: f, {"groups": ["shape", "shape"]}, "named twice"),
        (lambda f: f, {"cross": True}, "at least two group columns"),
        (lambda f: f, {"draws": 5}, "at least 100"),
        (lambda f: f, {"level": 95}, "level"),
        (lambda f: f.assign(smiling=range(len(f)), prediction=range(len(f))), {}, "scores or texts"),
        (lambda f: f.query("smiling == prediction").iloc[:1], {}, "only one class"),
    ],
)
def test_bad_input_gives_one_clear_message(table, change, options, message):
    with pytest.raises(InputError, match=message):
        run(change(table), **options)


def test_one_row_with_a_named_positive_class_is_judged_as_far_as_it_goes(table):
    got = run(table.iloc[:1], positive="yes")
    assert got.document["n"] == 1
    gaps = got.document["attributes"]["shape"]["gaps"]
    assert all(e["value"] is None and e["reason"] == "only one group" for e in gaps.values())


def test_all_one_class_with_a_named_positive_class(table):
    got = run(table[table.smiling == "yes"], positive="yes").document["attributes"]["shape"]
    assert got["gaps"]["equal_opportunity_difference"]["value"] > 0
    assert got["gaps"]["equalized_odds_difference_worst"]["value"] is None
    assert {e["rate"] for e in got["left_out"]} == {"fpr", "balanced_accuracy"}


def test_one_group_only(table):
    got = run(table.assign(shape="round"))
    assert any("only one group" in w for w in got.warnings)
    assert got.gaps.value.isna().all()


def test_numbers_booleans_and_texts_are_the_same_classes(table):
    texts = run(table, positive="yes").document
    for yes, no in ((1, 0), (1.0, 0.0), (True, False), ("1", "0")):
        code = {"yes": yes, "no": no}
        frame = table.assign(smiling=table.smiling.map(code), prediction=table.prediction.map(code))
        got = run(frame, positive=str(yes)).document
        assert got["attributes"]["shape"]["counts"] == texts["attributes"]["shape"]["counts"]
    mixed = table.assign(smiling=table.smiling.map({"yes": 1, "no": 0}))
    mixed["prediction"] = table.prediction.map({"yes": "1.0", "no": "0.0"})
    assert run(mixed).document["attributes"]["shape"]["counts"] == texts["attributes"]["shape"]["counts"]


def test_ten_thousand_groups():
    rng = np.random.default_rng(0)
    n = 30_000
    frame = pd.DataFrame({"shape": np.arange(n) % 10_000, "smiling": rng.integers(0, 2, n)})
    frame["prediction"] = rng.integers(0, 2, n)
    got = run(frame, draws=100)
    assert len(got.document["attributes"]["shape"]["groups"]) == 10_000
    entry = got.document["attributes"]["shape"]["gaps"]["demographic_parity_difference"]
    assert entry["value"] == 1 and entry["low"] == 0  # three rows a group: chance alone gives this
    assert entry["expected_null"] == pytest.approx(1, abs=0.01)


def test_unicode_and_hostile_names_survive(table):
    names = {"round": "<script>alert(1)</script>", "square": "=cmd()|'!A1 $x$ 日本語 🙂"}
    got = run(table.assign(shape=table["shape"].map(names)))
    assert set(got.document["attributes"]["shape"]["groups"]) == set(names.values())


def test_read_gives_the_document_back(table, tmp_path):
    got = run(table)
    (tmp_path / "audit.json").write_text(json.dumps(got.document))
    assert Audit.read(tmp_path).document == got.document
    with pytest.raises(InputError, match="no audit at"):
        Audit.read(tmp_path / "elsewhere.json")
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(InputError, match="schema"):
        Audit.read(tmp_path)


def test_groups_table_is_tidy(table):
    got = run(table, groups=["shape", "tint"]).groups
    assert len(got) == 5 * 5
    assert ((got.low <= got.value) & (got.value <= got.high)).all()
