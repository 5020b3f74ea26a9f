"""Point values: by hand, then against fairlearn, with a test for each place where fairlearn differs."""

import fairlearn.metrics as fl
import numpy as np
import pytest

from fvlfp import metrics

# Two groups worked out by hand. Rows of a block: label -, +; columns: predicted -, +.
#   a: 4 negatives of which 1 selected; 6 positives of which 3 selected
#   b: 5 negatives of which 0 selected; 5 positives of which 4 selected
HAND = np.array([[[3, 1], [3, 3]], [[5, 0], [1, 4]]])


def test_rates_by_hand():
    r = metrics.rates(HAND)
    assert r["selection_rate"] == pytest.approx([4 / 10, 4 / 10])
    assert r["tpr"] == pytest.approx([3 / 6, 4 / 5])
    assert r["fpr"] == pytest.approx([1 / 4, 0])
    assert metrics.accuracy(HAND) == pytest.approx([6 / 10, 9 / 10])
    assert metrics.balanced_accuracy(HAND) == pytest.approx((8 / 9 + 7 / 11) / 2)
    assert metrics.worst_cell_recall(HAND) == pytest.approx(0.5)


def test_gaps_by_hand_and_the_three_formulas_called_equalized_odds():
    g = metrics.gaps(HAND)
    assert g["demographic_parity_difference"] == pytest.approx(0)
    assert g["demographic_parity_ratio"] == pytest.approx(1)
    assert g["equal_opportunity_difference"] == pytest.approx(0.3)
    assert g["equalized_odds_difference_worst"] == pytest.approx(0.3)
    assert g["equalized_odds_difference_sum"] == pytest.approx(0.55)
    assert g["equalized_odds_difference_mean"] == pytest.approx(0.275)
    assert g["accuracy_gap"] == pytest.approx(0.3)


def test_equity_scaled_by_hand():
    # overall .75, groups .6 and .9: .75 / (1 + .15 + .15)
    assert metrics.equity_scaled(0.75, np.array([0.6, 0.9])) == pytest.approx(0.75 / 1.3)


def columns(seed, n=400, k=3):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, k, n)
    label = (rng.random(n) < 0.3 + 0.1 * group).astype(int)
    prediction = np.where(rng.random(n) < 0.75, label, 1 - label)
    return label, prediction, group


@pytest.mark.parametrize("seed", range(5))
def test_point_values_equal_fairlearn(seed):
    y, p, a = columns(seed)
    table = metrics.confusion(y, p, a)
    got = metrics.gaps(table)
    kw = {"sensitive_features": a}
    assert got["demographic_parity_difference"] == pytest.approx(fl.demographic_parity_difference(y, p, **kw))
    assert got["demographic_parity_ratio"] == pytest.approx(fl.demographic_parity_ratio(y, p, **kw))
    assert got["equal_opportunity_difference"] == pytest.approx(fl.equal_opportunity_difference(y, p, **kw))
    worst, mean = (fl.equalized_odds_difference(y, p, agg=agg, **kw) for agg in ("worst_case", "mean"))
    assert got["equalized_odds_difference_worst"] == pytest.approx(worst)
    assert got["equalized_odds_difference_mean"] == pytest.approx(mean)
    assert got["equalized_odds_difference_sum"] == pytest.approx(2 * mean)
    frame = fl.MetricFrame(
        metrics={
            "selection_rate": fl.selection_rate,
            "tpr": fl.true_positive_rate,
            "fpr": fl.false_positive_rate,
        },
        y_true=y,
        y_pred=p,
        sensitive_features=a,
    )
    for name, values in metrics.rates(table).items():
        assert values == pytest.approx(frame.by_group[name].to_numpy())


def test_fairlearn_differs_a_group_without_positives_gets_a_tpr_of_zero():
    """fairlearn: recall of nothing is 0.0, so the gap is 0.5. Here: undefined, so there is no gap."""
    y = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    p = np.array([1, 1, 0, 0, 0, 0, 1, 0])
    a = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert fl.true_positive_rate(y[a == 1], p[a == 1]) == 0.0
    assert fl.equal_opportunity_difference(y, p, sensitive_features=a) == pytest.approx(0.5)
    table = metrics.confusion(y, p, a)
    assert np.isnan(metrics.rates(table)["tpr"][1])
    assert np.isnan(metrics.gaps(table)["equal_opportunity_difference"])


def test_fairlearn_differs_a_group_without_negatives_gets_a_fpr_of_zero():
    y = np.array([1, 1, 0, 0, 1, 1])
    p = np.array([1, 0, 1, 1, 1, 0])
    a = np.array([0, 0, 0, 0, 1, 1])
    assert fl.false_positive_rate(y[a == 1], p[a == 1]) == 0.0
    assert fl.equalized_odds_difference(y, p, sensitive_features=a) == pytest.approx(1.0)
    assert np.isnan(metrics.gaps(metrics.confusion(y, p, a))["equalized_odds_difference_worst"])


def test_fairlearn_differs_undefined_group_beside_two_good_ones():
    """Two groups with equal recall and a third without positives: fairlearn invents a gap of 1."""
    y = np.array([1, 1, 0, 1, 1, 0, 0, 0])
    p = np.array([1, 1, 0, 1, 1, 0, 0, 0])
    a = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    assert fl.equal_opportunity_difference(y, p, sensitive_features=a) == pytest.approx(1.0)
    assert metrics.gaps(metrics.confusion(y, p, a))["equal_opportunity_difference"] == 0.0


def test_parity_ratio_when_nobody_is_selected():
    """0 / 0 is undefined, for fairlearn (since 0.12) and here."""
    y, p, a = np.array([1, 0, 1, 0]), np.zeros(4, int), np.array([0, 0, 1, 1])
    assert np.isnan(fl.demographic_parity_ratio(y, p, sensitive_features=a))
    assert np.isnan(metrics.gaps(metrics.confusion(y, p, a))["demographic_parity_ratio"])


def test_one_group_has_no_gap():
    assert np.isnan(list(metrics.gaps(HAND[:1]).values())).all()


def test_many_classes_are_judged_one_against_the_rest():
    rng = np.random.default_rng(1)
    table = rng.integers(1, 30, (3, 4, 4))
    per_class = [metrics.gaps(table, k) for k in range(4)]
    for k in range(4):
        binary = np.zeros((3, 2, 2), int)
        for y in range(4):
            for p in range(4):
                binary[:, int(y == k), int(p == k)] += table[:, y, p]
        for name in ("demographic_parity_difference", "equalized_odds_difference_sum"):
            assert per_class[k][name] == pytest.approx(metrics.gaps(binary)[name])
    got = metrics.over_classes(per_class)
    values = [g["equal_opportunity_difference"] for g in per_class]
    assert got["equal_opportunity_difference_class_max"] == max(values)
    assert got["equal_opportunity_difference_class_mean"] == pytest.approx(np.mean(values))
    assert got["demographic_parity_ratio_class_min"] == min(g["demographic_parity_ratio"] for g in per_class)


def test_leading_axes_are_draws():
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 9, (6, 4, 2, 2))
    together = metrics.gaps(stack)
    for i in range(6):
        for name, value in metrics.gaps(stack[i]).items():
            assert together[name][i] == pytest.approx(float(value), nan_ok=True)


COUNTS = np.array([[[8, 2], [1, 9]], [[5, 5], [2, 2]]])  # group, label, prediction


def test_what_training_reads_by_hand():
    assert metrics.balanced_accuracy(COUNTS) == pytest.approx((13 / 20 + 11 / 14) / 2)
    assert metrics.recall_gap(COUNTS) == pytest.approx(0.9 - 0.5)
    assert metrics.recall_gap(COUNTS, min_cell=5) == pytest.approx(0.8 - 0.5)  # the cell of 4 is left out
    assert metrics.recall_gap(COUNTS, prior=10) == pytest.approx(max(0.4 * 4 / 14, 0.3 * 10 / 20))
    assert metrics.recalls(COUNTS) == pytest.approx(np.array([[0.8, 0.9], [0.5, 0.5]]))
    assert metrics.recalls(COUNTS, min_cell=5)[1, 1] != metrics.recalls(COUNTS, min_cell=5)[1, 1]


def test_balanced_accuracy_needs_every_class():
    """Always saying the only class one holds must not look like perfection."""
    constant = np.zeros((2, 2, 2), int)
    constant[:, 0, 0] = 30
    assert np.isnan(metrics.balanced_accuracy(constant))
    assert np.isnan(metrics.balanced_accuracy(COUNTS, min_cell=15))


def test_recall_gap_is_fairlearns_equalized_odds_difference():
    rng = np.random.default_rng(0)
    y, p, g = rng.integers(0, 2, (3, 300))
    counts = metrics.confusion(y, p, g)
    assert metrics.recall_gap(counts) == pytest.approx(
        fl.equalized_odds_difference(y, p, sensitive_features=g)
    )
    assert metrics.recall_gap(counts) == metrics.gaps(counts)["equalized_odds_difference_worst"]


def test_a_gap_needs_two_groups():
    assert np.isnan(metrics.recall_gap(np.zeros((2, 2, 2), int)))
    assert np.isnan(metrics.recall_gap(COUNTS * np.array([1, 0])[:, None, None]))
    assert np.isfinite(metrics.recall_gap(np.stack([COUNTS, COUNTS]))).all()  # leading axes
