"""Scores, templates and label noise, against scikit-learn, by hand and by simulation."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from fvlfp import metrics
from fvlfp.audit import audit
from fvlfp.audit.stats import scores
from fvlfp.audit.stats.inversion import infer_estimates
from fvlfp.audit.stats.sensitivity import corrected
from fvlfp.errors import InputError

KW = {"label": "smiling", "prediction": "prediction", "positive": "yes", "draws": 200, "groups": ["shape"]}


@pytest.fixture
def scored(table):
    rng = np.random.default_rng(0)
    score = np.clip((table.prediction == "yes") * 0.5 + rng.random(600) * 0.5, 0, 1).round(2)
    return table.assign(score=score)


def test_auc_and_brier_are_scikit_learns(scored):
    part = audit(scored, score="score", **KW).document["attributes"]["shape"]["scores"]
    for name, rows in scored.groupby("shape"):
        y = (rows.smiling == "yes").astype(int)
        entry = part["groups"][name]
        assert entry["roc_auc"]["value"] == pytest.approx(roc_auc_score(y, rows.score))
        assert entry["brier"]["value"] == pytest.approx(brier_score_loss(y, rows.score))
        assert entry["roc_auc"]["low"] < entry["roc_auc"]["value"] < entry["roc_auc"]["high"]
    values = [g["roc_auc"]["value"] for g in part["groups"].values()]
    whole = part["overall"]["roc_auc"]["value"]
    assert part["gaps"]["roc_auc_gap"]["value"] == pytest.approx(max(values) - min(values))
    expected = whole / (1 + sum(abs(whole - v) for v in values))
    assert part["es_auc"]["value"] == pytest.approx(expected)
    assert part["gaps"]["roc_auc_gap"]["p_adjusted"] is not None


def test_delong_error_by_hand():
    # positives .8 .4, negatives .6 .2: placements 1, .5 and .5, 1; AUC .75
    value, se = scores.auc(np.array([0.8, 0.4, 0.6, 0.2]), np.array([1, 1, 0, 0]))
    assert value == pytest.approx(0.75)
    assert se == pytest.approx(np.sqrt(0.125 / 2 + 0.125 / 2))


def test_delong_error_is_the_spread_over_samples():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 60)
    found = np.array([scores.auc(rng.normal(label * 1.0), label) for _ in range(400)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.1)


def test_a_group_in_perfect_order_is_not_certain_and_takes_part_in_the_test(scored):
    """DeLong's error is 0 there: the test left the group out, and the gap's interval did not hold the gap."""
    shape, yes = scored["shape"] == "round", scored.smiling == "yes"
    frame = scored.assign(score=np.where(shape, 0.2 + 0.6 * yes, scored.score))
    part = audit(frame, score="score", **KW).document["attributes"]["shape"]["scores"]
    ordered, gap = part["groups"]["round"], part["gaps"]["roc_auc_gap"]
    assert ordered["roc_auc"]["value"] == ordered["roc_auc"]["high"] == 1
    assert 0.9 < ordered["roc_auc"]["low"] < 1
    assert 0 < gap["low"] < gap["value"] < gap["high"] and gap["p_value"] < 0.01
    assert 0 < ordered["brier"]["se"] < 0.05 and ordered["brier"]["value"] == pytest.approx(0.04)


@pytest.mark.parametrize(("score", "value"), [([1, 2, 3, 4, 5], 1.0), ([5, 4, 3, 2, 1], 0.0), ([1] * 5, 0.5)])
def test_an_error_of_0_is_that_of_a_score_interval(score, value):
    """Newcombe's formula, written out: at its end the area is 1.96 of that area's own errors away."""
    area, se = scores.auc(np.array(score, float), np.array([0, 0, 0, 1, 1]))
    end = max(area, 1 - area) - 1.959964 * se
    mean = (2 + 3) / 2 - 1
    variance = end * (1 - end) * (1 + mean * (1 - end) / (2 - end) + mean * end / (1 + end)) / (2 * 3)
    assert area == value and 0 < se < 0.5
    assert max(area, 1 - area) - end == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-5)


def test_equal_distances_have_the_error_of_a_rate():
    value, se = scores.brier(np.array([0.0, 1.0, 1.0]), np.array([0, 1, 1]))
    _, high = proportion_confint(0, 3, method="wilson")
    assert value == 0 and se == pytest.approx(high / 1.959964, rel=1e-6)


def test_calibration_error_by_hand_and_what_chance_gives():
    score, label = np.array([0.05, 0.05, 0.95, 0.95]), np.array([0, 1, 1, 1])
    bins = scores.calibration(score, label, 0.95)
    assert [(b["n"], b["share"]) for b in bins] == [(2, 0.5), (2, 1.0)]
    value, chance = scores.ece(bins, np.random.default_rng(0), 4000)
    assert value == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)
    # each bin: |x/2 - .05| with x ~ Binomial(2, .05): .9025 * .05 + .095 * .45 + .0025 * .95
    assert chance == pytest.approx(0.9025 * 0.05 + 0.095 * 0.45 + 0.0025 * 0.95, abs=0.005)


def test_scores_that_are_no_probabilities_have_no_calibration(scored):
    part = audit(scored.assign(score=scored.score * 7 - 3), score="score", **KW).document
    entry = part["attributes"]["shape"]["scores"]["groups"]["round"]
    assert entry["brier"]["value"] is None and "no probabilities" in entry["ece"]["reason"]
    assert entry["roc_auc"]["value"] > 0.5


def test_threshold_sweep_equals_deciding_at_each_threshold(scored):
    curve = audit(scored, score="score", **KW).document["attributes"]["shape"]["sweep"]
    y = (scored.smiling == "yes").to_numpy()
    for i in (0, 11, 30):
        decided = (scored.score >= curve["threshold"][i]).astype(int)
        table = metrics.confusion(y, decided, scored["shape"])
        for name in scores.SWEPT:
            assert curve[name][i] == pytest.approx(float(metrics.gaps(table)[name]))
        assert curve["balanced_accuracy"][i] == pytest.approx(float(metrics.balanced_accuracy(table)))


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda s: s.mask(s.index == 2), "row 4 is nan"),
        (lambda s: s.mask(s.index == 0, np.inf), "row 2 is inf"),
        (lambda s: s.astype(str).mask(s.index == 1, "high"), "row 3 is 'high'"),
    ],
)
def test_bad_scores(scored, score, message):
    with pytest.raises(InputError, match=message):
        audit(scored.assign(score=score(scored.score)), score="score", **KW)
    with pytest.raises(InputError, match="did you mean 'score'"):
        audit(scored, score="scor", **KW)
    with pytest.raises(InputError, match="two classes only"):
        audit(
            scored.assign(smiling="c").assign(prediction=list("ab") * 300),
            score="score",
            **{**KW, "positive": None},
        )


def test_a_group_of_one_class_has_no_auc(scored):
    frame = scored[(scored["shape"] == "round") | (scored.smiling == "no")]
    entry = audit(frame, score="score", **KW).document["attributes"]["shape"]["scores"]
    assert entry["groups"]["square"]["roc_auc"]["value"] is None
    assert entry["gaps"]["roc_auc_gap"]["value"] is None


def test_gap_of_estimates_covers_and_keeps_quiet():
    rng = np.random.default_rng(0)
    se = np.array([0.02, 0.03, 0.04, 0.02])
    covered = alarms = found = 0
    for _ in range(200):
        same = infer_estimates(rng.normal(0.8, se), se, draws=400, rng=rng)
        covered += same.low == 0
        alarms += same.p_value <= 0.05
        apart = infer_estimates(rng.normal([0.8, 0.8, 0.8, 0.5], se), se, draws=400, rng=rng)
        found += apart.low <= 0.3 <= apart.high
    assert covered >= 182 and alarms <= 18 and found >= 180


# templates


def test_band_is_the_range_over_templates(scored):
    frame = scored.assign(other=np.where(scored.score > 0.7, "yes", "no"))
    got = audit(frame, templates={"a {}": "prediction", "the {}": "other"}, **KW).document
    alone = audit(frame, **{**KW, "prediction": "other"}).document
    for gap, entry in got["attributes"]["shape"]["gaps"].items():
        both = [entry["value"], alone["attributes"]["shape"]["gaps"][gap]["value"]]
        assert entry["band"] == pytest.approx([min(both), max(both)])
    cell = got["overall"]["rates"]["balanced_accuracy"]
    other = alone["overall"]["rates"]["balanced_accuracy"]["value"]
    assert cell["band"] == pytest.approx(sorted([cell["value"], other]))


# label noise


def test_correction_undoes_mixing_exactly():
    true = np.array([[[400.0, 100], [50, 450]], [[300, 200], [200, 300]]])
    wrong = 0.1
    share = true.sum((1, 2)) / true.sum()
    x = wrong / (1 - (share**2).sum())
    mixed = (1 - x) * true + x * share[:, None, None] * true.sum(0)
    assert corrected(mixed, wrong)[0] == pytest.approx(true)
    assert corrected(mixed, wrong)[1]


def test_mixing_hides_gaps_and_impossible_errors_are_said(table):
    noise = audit(table, **KW).document["attributes"]["shape"]["label_noise"]
    gap = noise["gaps"]["equal_opportunity_difference"]
    known = [g for g in gap if g is not None]
    assert (
        known == sorted(known)
        and known[0]
        > metrics.gaps(
            metrics.confusion(
                table.smiling == "yes", table.prediction == "yes", table["shape"], positive=True
            )
        )["equal_opportunity_difference"]
    )
    apart = np.array([[[50, 0], [0, 0]], [[0, 0], [0, 50]]])
    assert not corrected(apart, 0.2)[1]
    assert not corrected(apart[:1], 0.2)[1]


def test_simulated_wrong_labels_are_corrected_on_average():
    rng = np.random.default_rng(0)
    n = 200_000
    group, y = rng.integers(0, 2, n), rng.integers(0, 2, n)
    p = np.where(rng.random(n) < np.where((group == 1) & (y == 1), 0.6, 0.8), y, 1 - y)
    seen = np.where(rng.random(n) < 0.1, 1 - group, group)
    table = metrics.confusion(y, p, seen)
    seen_gap = metrics.gaps(table)["equal_opportunity_difference"]
    assert seen_gap == pytest.approx(0.16, abs=0.01)
    assert metrics.gaps(corrected(table, 0.1)[0])["equal_opportunity_difference"] == pytest.approx(
        0.2, abs=0.01
    )


def test_frame_of_scores_may_be_integers():
    frame = pd.DataFrame({"shape": list("ab") * 10, "smiling": [0, 0, 1, 1] * 5, "prediction": [0, 1] * 10})
    frame["score"] = frame.prediction
    got = audit(frame, score="score", **{**KW, "positive": "1"}).document
    assert got["attributes"]["shape"]["scores"]["overall"]["roc_auc"]["value"] == pytest.approx(0.5)


def test_scores_have_a_band_over_templates_too(scored):
    frame = scored.assign(other=1 - scored["score"])
    document = audit(frame, score="score", template_scores={"other": "other"}, **KW).document
    part = document["attributes"]["shape"]["scores"]
    area = part["overall"]["roc_auc"]
    assert area["band"] == pytest.approx([1 - area["value"], area["value"]])
    assert all(e["band"][0] <= e["value"] <= e["band"][1] for e in part["gaps"].values())
    with pytest.raises(InputError, match="need a score column"):
        audit(frame, template_scores={"other": "other"}, **KW)
