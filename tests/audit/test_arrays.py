"""Arrays as fairlearn takes them, weights, thresholds and tables without truth; fairlearn is the oracle."""

import json

import fairlearn.metrics as fl
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score
from typer.testing import CliRunner

from fvlfp.audit import audit, compare, write_audit
from fvlfp.audit.audit_options import AuditOptions
from fvlfp.audit.stats.columns import encode
from fvlfp.audit.stats.rates import group_rates
from fvlfp.cli import app
from fvlfp.data.predictions import read_predictions
from fvlfp.errors import InputError

KW = {"positive": "1", "draws": 200}
RATES = {"selection_rate": fl.selection_rate, "tpr": fl.true_positive_rate, "fpr": fl.false_positive_rate}
GAPS = {
    "demographic_parity_difference": fl.demographic_parity_difference,
    "demographic_parity_ratio": fl.demographic_parity_ratio,
    "equal_opportunity_difference": fl.equal_opportunity_difference,
    "equalized_odds_difference_worst": fl.equalized_odds_difference,
}


@pytest.fixture
def data(table):
    y, p = ((table[c] == "yes").astype(int).to_numpy() for c in ("smiling", "prediction"))
    weight = np.random.default_rng(2).uniform(0.1, 3, 600)
    return {"y_true": y, "y_pred": p}, table[["shape", "tint"]], weight


def forms(features):
    """The same features in every form that fairlearn or scikit-learn take."""
    yield features
    yield {name: features[name] for name in features}
    yield {name: features[name].tolist() for name in features}


def test_arrays_and_frames_give_the_same_document(data, table):
    arrays, features, _ = data
    frame = features.assign(y_true=arrays["y_true"], y_pred=arrays["y_pred"])
    plain = audit(frame, label="y_true", prediction="y_pred", groups=["shape", "tint"], **KW).document
    for given in forms(features):
        assert audit(**arrays, sensitive_features=given, **KW).document == plain
    moved = {name: pd.Series(values, index=range(5, 605)) for name, values in arrays.items()}
    assert audit(**moved, sensitive_features=features, **KW).document == plain  # rows go by order
    unnamed = audit(**arrays, sensitive_features=features.to_numpy(), **KW).document["attributes"]
    assert list(unnamed) == ["sensitive_feature_0", "sensitive_feature_1"]
    assert unnamed["sensitive_feature_0"]["counts"] == plain["attributes"]["shape"]["counts"]
    for one in (features["shape"].to_numpy(), features["shape"].tolist(), features[["shape"]].to_numpy()):
        (part,) = audit(**arrays, sensitive_features=one, **KW).document["attributes"].values()
        assert part["counts"] == plain["attributes"]["shape"]["counts"]


@pytest.mark.parametrize("weighted", [False, True])
def test_rates_and_gaps_are_fairlearns_with_and_without_weights(data, weighted):
    arrays, features, weight = data
    more = {"sample_weight": weight} if weighted else {}
    got = audit(**arrays, sensitive_features=features, **more, **KW)
    rates = got.groups.set_index(["attribute", "group", "rate"])["value"]
    gaps = got.gaps.set_index(["attribute", "gap"])["value"]
    for name in features:
        for rate, metric in {**RATES, "accuracy": accuracy_score}.items():
            theirs = fl.MetricFrame(
                metrics=metric,
                **arrays,
                sensitive_features=features[name],
                sample_params={"sample_weight": weight} if weighted else None,
            )
            for group, value in theirs.by_group.items():
                assert rates[name, group, rate] == pytest.approx(value), (name, group, rate)
        for gap, metric in GAPS.items():
            theirs = metric(**arrays, sensitive_features=features[name], **more)
            assert gaps[name, gap] == pytest.approx(theirs), (name, gap)


def test_equal_weights_change_nothing_and_unequal_ones_widen_intervals(data):
    arrays, features, weight = data
    plain = audit(**arrays, sensitive_features=features, **KW).groups
    same = audit(**arrays, sensitive_features=features, sample_weight=np.full(600, 7.0), **KW)
    for column in ("value", "low", "high"):
        assert same.groups[column].to_numpy(float) == pytest.approx(plain[column].to_numpy(float))
    weighted = audit(**arrays, sensitive_features=features, sample_weight=weight, **KW)
    rate = plain["rate"] == "accuracy"
    width = [(t[rate]["high"] - t[rate]["low"]).astype(float) for t in (plain, weighted.groups)]
    assert (width[1] > width[0]).all()
    assert "effective sample size" in weighted.remarks[0]
    assert (
        weighted.document["attributes"]["shape"]["groups"]["round"]["n"]
        == (features["shape"] == "round").sum()
    )


def test_what_adds_groups_up_takes_whole_weights_for_repeated_rows(data):
    """An effective size shrinks a group with uneven weights, and must not shrink its share of all."""
    arrays, features, _ = data
    shape = features["shape"].to_numpy()
    times = np.where(shape == "round", np.random.default_rng(4).integers(1, 40, 600), 1)
    again = {name: np.repeat(values, times) for name, values in arrays.items()}
    weighted = audit(**arrays, sensitive_features={"shape": shape}, sample_weight=times, **KW)
    repeated = audit(**again, sensitive_features={"shape": np.repeat(shape, times)}, **KW)
    one, other = (a.document["attributes"]["shape"] for a in (weighted, repeated))
    assert one["es_accuracy"]["value"] == pytest.approx(other["es_accuracy"]["value"])
    for name, values in other["label_noise"]["gaps"].items():
        assert one["label_noise"]["gaps"][name][:2] == pytest.approx(values[:2]), name


def test_a_row_that_has_most_of_the_weight_is_remarked_on(data):
    """The effective sample size is then about 1, and every rate 0 or 1."""
    arrays, features, weight = data
    row = int(np.flatnonzero(features["shape"] == "round")[3])
    heavy = np.where(np.arange(600) == row, 1e6, weight)
    told = audit(**arrays, sensitive_features=features[["shape"]], sample_weight=heavy, **KW).remarks
    alone = f"row {row + 2} alone has 99.9 % of the weight"
    assert told[1].startswith(f"Of all rows, {alone}") and len(told) == 3
    assert told[2].startswith(f"shape: of the group 'round', {alone}")
    frame = features.assign(y=arrays["y_true"], p=arrays["y_pred"], w=heavy)
    options = {"label": "y", "prediction": "p", "groups": ["shape"], "weight": "w", **KW}
    assert compare(frame, frame, **options).remarks[1:3] == told[1:]


def test_a_group_whose_rows_have_weight_0_is_told_so(data):
    """It was said to have no examples, and the ratio undefined because nobody was selected."""
    arrays, features, weight = data
    weight = np.where(features["shape"] == "round", 0, weight)
    document = audit(**arrays, sensitive_features=features[["shape"]], sample_weight=weight, **KW).document
    shape = document["attributes"]["shape"]
    assert {out["reason"].partition("; ")[2] for out in shape["left_out"]} == {
        "rows of weight 0 do not count"
    }
    assert {gap["reason"] for name, gap in shape["gaps"].items() if "parity" in name} == {
        "fewer than two groups have a row with a weight above 0"
    }


def test_weights_that_are_0_wherever_a_group_is_known_are_refused(data):
    arrays, features, _ = data
    shape = features["shape"].to_numpy(dtype=object)
    shape[:9] = None
    with pytest.raises(
        InputError, match="weight 'sample_weight' is 0 in every row that has an entry in 'shape'"
    ):
        audit(**arrays, sensitive_features={"shape": shape}, sample_weight=1.0 * (np.arange(600) < 9), **KW)


def test_a_threshold_means_the_same_on_scores_of_32_bits(tmp_path):
    """0.7 as float32 is 0.699999988: as float64 it would fall below the threshold that it lies on."""
    score = np.tile(np.arange(11) / 10, 20)
    frame = pd.DataFrame({"g": np.repeat(["a", "b"], 110), "s": score.astype(np.float32)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    options = {"groups": ["g"], "score": "s", "threshold": 0.7, "draws": 100}
    read = [read_predictions(tmp_path / f"t.{end}", ["g"], numbers=["s"]) for end in ("csv", "parquet")]
    for table in (frame, *read):
        rates = audit(table, **options).document["overall"]["rates"]
        assert rates["selection_rate"]["numerator"] == (score >= 0.7).sum()


def test_the_interval_of_a_weighted_rate_covers():
    """Weights that have nothing to do with the outcome: 95 % intervals of the rate cover it in about 95 %."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        p, w, g = rng.random(200) < 0.4, rng.exponential(size=200), rng.integers(0, 2, 200)
        frame = pd.DataFrame({"p": p.astype(int), "g": g, "w": w})
        columns = encode(frame, AuditOptions(prediction="p", groups=["g"], weight="w"))
        cell = group_rates(columns.count("g"), 0.95)[0]["rates"]["selection_rate"]
        hits += cell["low"] <= 0.4 <= cell["high"]
    assert hits / 300 > 0.92


def test_without_truth_only_selection_rates_are_judged(data, tmp_path):
    arrays, features, _ = data
    whole = audit(**arrays, sensitive_features=features, **KW)
    got = audit(y_pred=arrays["y_pred"], sensitive_features=features, **KW)
    assert "No truth column" in got.remarks[0]
    assert set(got.groups["rate"]) == {"selection_rate"}
    assert set(got.gaps["gap"]) == {"demographic_parity_difference", "demographic_parity_ratio"}
    for name in features:
        a, b = (x.document["attributes"][name]["gaps"]["demographic_parity_difference"] for x in (whole, got))
        assert (a["value"], a["low"], a["p_value"]) == (b["value"], b["low"], b["p_value"])
    page = write_audit(got, tmp_path / "out").read_text()
    assert "No truth column" in page and "accuracy" not in page.lower().split("how the numbers")[0].replace(
        "accuracy gap", ""
    )


def test_three_classes_without_truth(tmp_path):
    rng = np.random.default_rng(0)
    p, g = rng.choice(list("abc"), 300), rng.choice(["u", "v"], 300)
    got = audit(y_pred=p, sensitive_features={"g": g}, draws=200)
    rates = got.groups.set_index(["group", "class"])["value"]
    assert rates["u", "b"] == pytest.approx((p[g == "u"] == "b").mean())
    assert write_audit(got, tmp_path / "out").exists()


def test_a_threshold_makes_the_predictions(data):
    arrays, features, _ = data
    score = np.random.default_rng(3).random(600).round(2)
    got = audit(
        y_true=arrays["y_true"],
        y_score=score,
        sensitive_features=features,
        threshold=0.3,
        positive="1",
        draws=200,
    )
    by_hand = audit(
        y_true=arrays["y_true"],
        y_pred=(score >= 0.3).astype(int),
        y_score=score,
        sensitive_features=features,
        **KW,
    )
    for name in features:
        assert got.document["attributes"][name]["gaps"] == by_hand.document["attributes"][name]["gaps"]
        assert got.document["attributes"][name]["scores"] == by_hand.document["attributes"][name]["scores"]
    blind = audit(y_score=score, sensitive_features=features, threshold=0.3, draws=200)
    share = (score >= 0.3)[features["shape"] == "round"].mean()
    cell = blind.document["attributes"]["shape"]["groups"]["round"]["rates"]["selection_rate"]
    assert cell["value"] == pytest.approx(share) and blind.document["positive"] == "selected"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sensitive_features": None}, "sensitive_features is missing"),
        ({"y_pred": [0, 1]}, "y_pred 2"),
        ({"y_true": np.zeros((600, 2))}, r"y_true has shape \(600, 2\)"),
        ({"sensitive_features": {"y_true": ["a"] * 600}}, "another name"),
        ({"sample_weight": [-1] + [1] * 599}, "row .* is -1, not a number >= 0"),
        ({"sample_weight": [0] * 600}, "0 in every row"),
        (
            {"y_pred": None, "y_score": [0.5] * 600, "threshold": np.nan},
            "threshold=nan: must be finite",
        ),
        ({"sample_weight": [1] * 600, "y_score": [0.5] * 600}, "without weights only"),
        ({"threshold": 0.5}, "a threshold turns a score column"),
        ({"y_pred": None}, "column of predictions, or a score"),
        ({"y_true": None, "y_score": [0.5] * 600}, "judged against true classes"),
        ({"seed": -1}, "seed=-1"),
        ({"drws": 100}, "unexpected keyword argument 'drws'"),
        ({"frame": pd.DataFrame({"a": [1]})}, "not both"),
    ],
)
def test_arrays_that_do_not_fit_are_one_clear_message(data, change, message):
    arrays, features, _ = data
    with pytest.raises(InputError, match=message):
        audit(**{**arrays, "sensitive_features": features, **KW, **change})


def test_weights_thresholds_and_no_truth_on_the_command_line(data, tmp_path):
    arrays, features, weight = data
    score = np.random.default_rng(3).random(600).round(2)
    features.assign(y=arrays["y_true"], p=arrays["y_pred"], s=score, w=weight).to_csv(tmp_path / "t.csv")
    for words, key in (
        (["--label", "y", "--prediction", "p", "--weight", "w"], "tpr"),
        (["--prediction", "p"], "selection_rate"),
        (["--label", "y", "--score", "s", "--threshold", "0.5"], "tpr"),
    ):
        words = [
            "audit",
            "predictions",
            str(tmp_path / "t.csv"),
            *words,
            "--group",
            "shape",
            "--draws",
            "100",
        ]
        done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
        assert done.exit_code == 0, done.output
        found = json.loads((tmp_path / "out" / "audit.json").read_text())
        assert key in found["attributes"]["shape"]["groups"]["round"]["rates"]
        assert "prediction" in pd.read_csv(tmp_path / "out" / "predictions.csv")
    words[words.index("0.5")] = "x"
    assert CliRunner().invoke(app, words).exit_code == 2
