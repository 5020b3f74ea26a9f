"""Intervals and tests against statsmodels, scipy, published examples and simulation."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from fvlfp.audit.stats import intervals
from fvlfp.audit.stats.counts import Counts
from fvlfp.audit.stats.families import families
from fvlfp.audit.stats.resampling import Family, infer, null
from fvlfp.metrics import spread


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 10), (7, 7), (812, 1000)])
def test_wilson_is_statsmodels(k, n):
    assert intervals.wilson(k, n) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)


def test_wilson_of_nothing_is_undefined():
    low, high = intervals.wilson([0, 1], [0, 2])
    assert np.isnan(low[0]) and np.isnan(high[0]) and 0 < low[1] < high[1] < 1


def test_newcombe_published_example_and_statsmodels():
    # Newcombe 1998, table II (a): 56/70 and 48/80, method 10: 0.0524 to 0.3339
    assert intervals.newcombe(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    theirs = confint_proportions_2indep(9, 10, 3, 10, method="newcomb", compare="diff")
    assert intervals.newcombe(9, 10, 3, 10) == pytest.approx(theirs, abs=1e-9)


def test_mean_of_rates_leaves_out_the_undefined_one():
    value, low, high = intervals.mean_of_rates(np.array([8, 0, 3]), np.array([10, 0, 4]))
    assert value == pytest.approx((0.8 + 0.75) / 2)
    assert 0.4 < low < value < high < 1
    one = intervals.mean_of_rates(np.array([8]), np.array([10]))
    assert one[1:] == pytest.approx([float(x) for x in intervals.wilson(8, 10)])


def test_smallest_rate_of_one_is_wilson_and_of_many_wider():
    one = intervals.smallest_rate(np.array([8]), np.array([10]))
    assert one == pytest.approx((0.8, *intervals.wilson(8, 10)))
    two = intervals.smallest_rate(np.array([8, 8]), np.array([10, 10]))
    assert two[0] == one[0] and two[1] == pytest.approx(one[1]) and two[2] > one[2]


def test_holm_is_statsmodels():
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": 0.9}
    theirs = multipletests(list(p.values()), method="holm")[1]
    assert list(intervals.holm(p).values()) == pytest.approx(list(theirs))
    assert intervals.holm({}) == {}


def two_groups(k1, n1, k2, n2):
    counts = np.array([[[n1 - k1, k1]], [[n2 - k2, k2]]])
    return Family(counts, lambda f: {"gap": spread(f[..., 0, 1])}, "gap")


def test_permutation_test_of_two_groups_is_fishers():
    """Shuffling the groups of a 2 x 2 table is Fisher's null, ordered by the size of the gap."""
    k1, n1, k2, n2 = 9, 12, 3, 11
    got = infer(two_groups(k1, n1, k2, n2), draws=40_000, rng=np.random.default_rng(0))["gap"]
    x = np.arange(0, 13)
    weight = stats.hypergeom.pmf(x, n1 + n2, k1 + k2, n1)
    gap = np.abs(x / n1 - (k1 + k2 - x) / n2)
    exact = weight[gap >= abs(k1 / n1 - k2 / n2) - 1e-12].sum()
    assert got.p_value == pytest.approx(exact, abs=4 * np.sqrt(exact / 40_000))
    assert got.expected_null == pytest.approx((weight * gap).sum(), abs=0.003)


def test_null_of_seven_groups_keeps_the_margins_and_expects_a_gap():
    rng = np.random.default_rng(0)
    n = np.array([30, 40, 50, 60, 70, 80, 90])
    hits = rng.binomial(n, 0.6)
    family = Family(
        np.stack([n - hits, hits], -1)[:, None], lambda f: {"mean": f[..., 0, 1].mean(-1)}, "mean"
    )
    draws = null(family, draws=4000, rng=rng)["mean"]
    assert draws.mean() == pytest.approx(hits.sum() / n.sum(), abs=0.003)
    spread_family = Family(family.counts, lambda f: {"gap": spread(f[..., 0, 1])}, "gap")
    gaps = null(spread_family, draws=4000, rng=rng)["gap"]
    # the range of seven normal deviates has mean 2.704; the groups differ in size, hence the room
    sd = np.sqrt(0.24 / n)
    assert 2.704 * sd.min() < gaps.mean() < 2.704 * sd.max()


def test_interval_of_a_two_group_gap_is_close_to_newcombes():
    got = infer(two_groups(160, 200, 100, 200), draws=8000, rng=np.random.default_rng(0))["gap"]
    assert (got.low, got.high) == pytest.approx(intervals.newcombe(160, 200, 100, 200), abs=0.012)


def test_interval_leaves_out_zero_exactly_when_the_test_rejects():
    rng = np.random.default_rng(3)
    for _ in range(12):
        k1, k2 = rng.binomial(150, [0.5, 0.6])
        got = infer(two_groups(k1, 150, k2, 150), draws=4000, rng=rng)["gap"]
        if not 0.03 < got.p_value < 0.07:  # permutation and binomial draws differ by a hair
            assert (got.low > 0) == (got.p_value < 0.05)


@pytest.mark.parametrize(("groups", "n"), [(2, 60), (7, 40)])
def test_a_zero_gap_is_covered_and_false_alarms_are_rare(groups, n):
    """A plain bootstrap covers a zero gap in hardly any case (benchmarks/instrument.py has more)."""
    rng = np.random.default_rng(1)
    covered = alarms = 0
    runs = 120
    for _ in range(runs):
        hits = rng.binomial(n, 0.7, groups)
        counts = np.stack([n - hits, hits], -1)[:, None]
        got = infer(Family(counts, lambda f: {"gap": spread(f[..., 0, 1])}, "gap"), draws=200, rng=rng)["gap"]
        covered += got.low == 0
        alarms += got.p_value <= 0.05
    assert covered / runs >= 0.90
    assert alarms / runs <= 0.10


def test_a_planted_gap_is_covered():
    rng = np.random.default_rng(2)
    p = np.array([0.8, 0.7, 0.72, 0.75, 0.6])
    inside = 0
    for _ in range(100):
        hits = rng.binomial(200, p)
        counts = np.stack([200 - hits, hits], -1)[:, None]
        got = infer(Family(counts, lambda f: {"gap": spread(f[..., 0, 1])}, "gap"), draws=200, rng=rng)["gap"]
        inside += got.low <= 0.2 <= got.high
    assert inside / 100 >= 0.90


def test_minimum_detectable_gap_is_the_textbook_one_for_two_groups():
    # two groups of 500 at rate .5: (1.960 + 0.842) * sqrt(2 * .25 / 500) = 0.0886
    got = infer(two_groups(252, 500, 248, 500), draws=8000, rng=np.random.default_rng(0))["gap"]
    assert got.minimum_detectable == pytest.approx(0.0886, abs=0.006)


def test_many_classes_use_the_same_null_as_two():
    """A third class nobody has changes nothing about the parity of the first two."""
    two = np.array([[[30, 10], [8, 22]], [[25, 5], [15, 25]]])
    three = np.zeros((2, 3, 3), int)
    three[:, :2, :2] = two
    a = infer(families(Counts("", ("u", "v"), ("0", "1"), two))[0], draws=4000, rng=np.random.default_rng(0))
    b = infer(
        families(Counts("", ("u", "v"), tuple("012"), three))[0], draws=4000, rng=np.random.default_rng(0)
    )
    left, right = a["demographic_parity_difference"], b["demographic_parity_difference[1]"]
    assert left.p_value == pytest.approx(right.p_value, abs=0.04)
    assert left.expected_null == pytest.approx(right.expected_null, abs=0.005)
    assert (left.low, left.high) == pytest.approx((right.low, right.high), abs=0.02)
