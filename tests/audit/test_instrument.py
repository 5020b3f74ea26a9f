"""The planted-truth benchmark itself: its truths are what it says, runs add up, its page states failures."""

import numpy as np
import pytest

from benchmarks import instrument
from fvlfp import metrics


@pytest.mark.parametrize(("groups", "pattern"), [(k, p) for k, ps in instrument.PATTERNS.items() for p in ps])
def test_planted_gap_is_the_true_gap(groups, pattern):
    true = metrics.gaps(instrument.truth(groups, 0.2, pattern))
    assert true["equal_opportunity_difference"] == pytest.approx(0.2)
    assert true["equalized_odds_difference_worst"] == pytest.approx(0.2)
    assert true["demographic_parity_difference"] == pytest.approx(0.1)
    assert true["accuracy_gap"] == pytest.approx(0.1)
    assert instrument.truth(groups, 0.2, pattern).sum((1, 2)) == pytest.approx(np.ones(groups))


def test_runs_are_numbered_so_that_later_ones_can_be_added():
    for cell in (next(instrument.cells()), list(instrument.cells())[-1]):
        both = instrument.measure(cell, 0, 4)
        first, second = instrument.measure(cell, 0, 2), instrument.measure(cell, 2, 4)
        assert {k: first.get(k, 0) + second.get(k, 0) for k in both} == pytest.approx(both)


def test_page_counts_and_lists_what_fails():
    sums = {f"{what} {name}": 100.0 for name in instrument.JUDGED for what in ("known", "covered", "width")}
    sums |= {"alarm": 2.0, "found": 50.0, "plain bootstrap": 0.0}
    rows = [{**cell, "runs": 100, "sums": dict(sums)} for cell in instrument.cells()]
    rows[3]["sums"]["covered accuracy_gap"] = 71.0
    text = instrument.page(rows)
    assert "accuracy_gap | 71.0% |" in text and "at most 2.0%" in text
    assert "0% to 0% of the data sets" in text
