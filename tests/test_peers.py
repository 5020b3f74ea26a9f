"""FPF judged by peers, by hand: who is judged by whom, the convex programme, the choice."""

import numpy as np
import pytest
from scipy.optimize import minimize

from fvlfp.peers import Judgement, balanced_weights, choose, divergence, peer_weights, recalls

#: three judges, two candidates, one class, two groups
TOTAL = np.array([[[10, 10]], [[20, 0]], [[10, 30]]])
RIGHT = np.array([[[[9, 5]], [[1, 1]]], [[[10, 0]], [[20, 0]]], [[[1, 27]], [[5, 15]]]])


def test_recalls_by_hand():
    middle = recalls(RIGHT, TOTAL)  # weights 10, 10 (of 20), 10: the plain median
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
    pooled = right.sum(0) / total.sum(0)
    assert np.abs(pooled - honest).max() > 0.5


@pytest.mark.parametrize("liars", [1, 3])
def test_lying_judges_cannot_leave_what_honest_ones_say(liars):
    """A known cell stays between two honest answers; a cell that they could rule is unknown."""
    rng = np.random.default_rng(liars)
    total = rng.integers(5, 200, (10, 2, 2))
    total[: 10 - liars, 0, 1] = 0
    total[:liars, 0, 1] = 40  # as many honest judges of this cell as liars
    right = np.round(total[:, None] * rng.uniform(0.6, 0.9, (10, 3, 2, 2))).astype(int)
    total[-liars:], right[-liars:] = 10**5, rng.integers(0, 2, (liars, 3, 2, 2)) * 10**5
    honest = right[:-liars] / np.maximum(total[:-liars, None], 1)
    found = recalls(right, total, liars=liars)
    assert np.isnan(found[:, 0, 1]).all()
    for c, g in ((0, 0), (1, 0), (1, 1)):
        assert (found[:, c, g] >= honest[:, :, c, g].min(0)).all()
        assert (found[:, c, g] <= honest[:, :, c, g].max(0)).all()


def test_an_accuracy_without_one_of_the_classes_is_unknown():
    table = np.full((2, 2, 2), 0.9)
    table[:, 1] = np.nan
    assert np.isnan(Judgement([table]).accuracy).all()


def test_a_candidate_that_nobody_may_judge_is_unknown():
    assert np.isnan(recalls(RIGHT, TOTAL, nobody=np.array([[True, False]] * 3))[0]).all()


def test_reports_by_hand():
    recall = np.array([[[0.9, 0.7], [0.6, 0.8]], [[0.5, 0.5], [0.5, np.nan]]])
    judged = Judgement([recall])
    assert judged.accuracy == pytest.approx([(0.9 + 0.7 + 0.6) / 3, 0.5])  # cells both have
    assert judged.gap == pytest.approx([0.2, 0.0])
    assert judged.signed[0] == pytest.approx([0.1, -0.1, 0.0])
    assert np.isnan(Judgement([recall[:, :, :1]]).gap).all()
    assert judged.filled().tables[0][1, 1].tolist() == [0.5, 0.8]
    two = Judgement([recall, recall[:, :, :1]])  # a second attribute of one group
    assert two.gap == pytest.approx(judged.gap)
    assert two.accuracy[0] == pytest.approx((0.9 + 0.7 + 0.6 + 0.9 + 0.6) / 5)


def random_case(seed, k=6):
    rng = np.random.default_rng(seed)
    return rng.integers(10, 500, k).astype(float), rng.uniform(0.4, 1.0, (k, 2, 3))


@pytest.mark.parametrize("seed", range(4))
def test_the_dual_solves_the_programme(seed):
    """Against scipy's SLSQP on the weights themselves."""
    sizes, recall = random_case(seed)
    judged = Judgement([recall])
    p, s, a = sizes / sizes.sum(), judged.signed, judged.accuracy
    share, floor = 0.6, float(a @ p) + 0.01
    mine = balanced_weights(sizes, Judgement([recall]), share=share, floor=floor)
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
    p, judged = sizes / sizes.sum(), Judgement([recall])
    assert np.array_equal(balanced_weights(sizes, judged, share=1.0, floor=0.0), p)
    gaps = [
        (
            (
                balanced_weights(sizes, Judgement([recall]), share=share, floor=0.0)
                @ Judgement([recall]).signed
            )
            ** 2
        ).sum()
        for share in (1.0, 0.9, 0.7, 0.4)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < gaps[0]


def test_weights_have_the_form_of_fpf():
    """log(w_k / p_k) is linear in accuracy and signed gaps: what the gaps leave over is nothing."""
    sizes, recall = random_case(3, k=12)
    w = balanced_weights(sizes, Judgement([recall]), share=0.7, floor=0.0)
    x = np.column_stack([np.ones(12), Judgement([recall]).accuracy, Judgement([recall]).signed])
    y = np.log(w / (sizes / sizes.sum()))
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.abs(left).max() < 1e-6


def test_an_unreachable_floor_takes_the_most_accurate_within_the_share():
    sizes, recall = random_case(1)
    w = balanced_weights(sizes, Judgement([recall]), share=0.7, floor=2.0)
    p, a = sizes / sizes.sum(), Judgement([recall]).accuracy
    assert divergence(w, p) <= -np.log(0.7) + 1e-6
    assert w @ a > p @ a


def test_the_choice_is_the_fairest_that_is_accurate_enough():
    judged = Judgement([np.array([[[0.9, 0.7]], [[0.8, 0.79]], [[0.5, 0.5]]])])
    assert choose(judged, tolerance=0.02) == 1
    assert choose(judged, tolerance=0.001) == 0
    assert choose(judged, tolerance=1.0) == 2
    assert choose(Judgement([np.full((3, 1, 2), np.nan)]), tolerance=1.0) == 0


def test_a_client_with_ruined_prompts_counts_for_nothing_whatever_it_claims():
    recall = np.array([[[0.9, 0.7]], [[0.8, 0.8]], [[0.85, 0.75]], [[0.5, 0.5]]])
    sizes = np.array([100.0, 120.0, 80.0, 10**9])
    w = peer_weights(sizes, Judgement([recall]), share=0.7, tolerance=0.01)
    assert w[3] == 0
    assert w.sum() == pytest.approx(1)
    unknown = peer_weights(sizes, Judgement([recall * np.nan]), share=0.7, tolerance=0.01)
    assert unknown == pytest.approx(np.array([100, 120, 80, 220]) / 520)
