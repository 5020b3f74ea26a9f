"""FPF judged by peers, by hand: who is judged by whom, the convex programme, the choice."""

import numpy as np
import pytest
from scipy.optimize import minimize

from fvlfp.peers import (
    balanced_weights,
    cell_accuracy,
    choose,
    divergence,
    odds_gap,
    recalls,
    signed_gaps,
)

#: three judges, two candidates, one class, two groups
TOTAL = np.array([[[10, 10]], [[20, 0]], [[10, 30]]])
RIGHT = np.array([[[[9, 5]], [[1, 1]]], [[[10, 0]], [[20, 0]]], [[[1, 27]], [[5, 15]]]])


def test_recalls_by_hand():
    pooled = recalls(RIGHT, TOTAL, robust=False)
    assert pooled[0, 0] == pytest.approx([20 / 40, 32 / 40])
    nobody = np.array([[True, False], [False, True], [False, False]])
    pooled = recalls(RIGHT, TOTAL, nobody=nobody, robust=False)
    assert pooled[0, 0] == pytest.approx([11 / 30, 27 / 30])
    assert pooled[1, 0] == pytest.approx([6 / 20, 16 / 40])
    middle = recalls(RIGHT, TOTAL, robust=True)  # weights 10, 10 (of 20), 10: the plain median
    assert middle[0, 0, 0] == pytest.approx(0.5)
    assert middle[0, 0, 1] == pytest.approx(0.9)  # weights 10 and 20 (of 30), two judges


def test_one_lying_judge_of_five_moves_a_median_to_a_neighbour_at_most():
    total = np.full((5, 1, 2), 50)
    right = np.stack([[[[40 + j, 30 + j]]] for j in range(5)])
    honest = recalls(right, total)
    right[4] = 0
    total[4] = 10**6
    lied = recalls(right, total)
    assert np.abs(lied - honest).max() <= 1 / 50 + 1e-9
    assert np.abs(recalls(right, total, robust=False) - honest).max() > 0.5


def test_a_candidate_that_nobody_may_judge_is_unknown():
    assert np.isnan(recalls(RIGHT, TOTAL, nobody=np.array([[True, False]] * 3))[0]).all()


def test_reports_by_hand():
    recall = np.array([[[0.9, 0.7], [0.6, 0.8]], [[0.5, 0.5], [0.5, np.nan]]])
    assert cell_accuracy(recall) == pytest.approx([(0.9 + 0.7 + 0.6) / 3, 0.5])  # cells both have
    assert odds_gap(recall) == pytest.approx([0.2, 0.0])
    assert signed_gaps(recall)[0] == pytest.approx([0.1, -0.1, 0.0])
    assert np.isnan(odds_gap(recall[:, :, :1])).all()


def random_case(seed, k=6):
    rng = np.random.default_rng(seed)
    return rng.integers(10, 500, k).astype(float), rng.uniform(0.4, 1.0, (k, 2, 3))


@pytest.mark.parametrize("seed", range(4))
def test_the_dual_solves_the_programme(seed):
    """Against scipy's SLSQP on the weights themselves."""
    sizes, recall = random_case(seed)
    p, s, a = sizes / sizes.sum(), signed_gaps(recall), cell_accuracy(recall)
    share, floor = 0.6, float(a @ p) + 0.01
    mine = balanced_weights(sizes, recall, share=share, floor=floor)
    found = minimize(
        lambda w: 1e3 * ((w @ s) ** 2).sum(),
        p,
        bounds=[(1e-9, 1)] * len(p),
        constraints=[
            {"type": "eq", "fun": lambda w: w.sum() - 1},
            {"type": "ineq", "fun": lambda w: w @ a - floor},
            {"type": "ineq", "fun": lambda w: -np.log(share) - (w * np.log(w / p)).sum()},
        ],
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert abs(found.x.sum() - 1) < 1e-6
    assert found.x @ a >= floor - 1e-6
    assert mine.sum() == pytest.approx(1)
    assert mine @ a >= floor - 1e-4
    assert divergence(mine, p) <= -np.log(share) + 1e-6
    assert ((mine @ s) ** 2).sum() <= found.fun / 1e3 + 1e-4


def test_share_one_is_fedavg_and_less_share_is_a_smaller_gap():
    sizes, recall = random_case(9)
    p = sizes / sizes.sum()
    assert np.array_equal(balanced_weights(sizes, recall, share=1.0, floor=0.0), p)
    gaps = [
        ((balanced_weights(sizes, recall, share=share, floor=0.0) @ signed_gaps(recall)) ** 2).sum()
        for share in (1.0, 0.9, 0.7, 0.4)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < gaps[0]


def test_weights_have_the_form_of_fpf():
    """log(w_k / p_k) is linear in accuracy and signed gaps: what the gaps leave over is nothing."""
    sizes, recall = random_case(3, k=12)
    w = balanced_weights(sizes, recall, share=0.7, floor=0.0)
    x = np.column_stack([np.ones(12), cell_accuracy(recall), signed_gaps(recall)])
    y = np.log(w / (sizes / sizes.sum()))
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.abs(left).max() < 1e-6


def test_an_unreachable_floor_takes_the_most_accurate_within_the_share():
    sizes, recall = random_case(1)
    w = balanced_weights(sizes, recall, share=0.7, floor=2.0)
    p, a = sizes / sizes.sum(), cell_accuracy(recall)
    assert divergence(w, p) <= -np.log(0.7) + 1e-6
    assert w @ a > p @ a


def test_the_choice_is_the_fairest_that_is_accurate_enough():
    recall = np.array([[[0.9, 0.7]], [[0.8, 0.79]], [[0.5, 0.5]]])
    assert choose(recall, tolerance=0.02) == 1
    assert choose(recall, tolerance=0.001) == 0
    assert choose(recall, tolerance=1.0) == 2
    assert choose(np.full((3, 1, 2), np.nan), tolerance=1.0) == 0
