"""FPF by hand."""

import math

import pytest

from fvlfp.fpf import (
    Fusion,
    client_weight,
    fusion_weights,
    mean_known,
)

RULE = Fusion(beta=4.0, gamma=2.0)
N, PERF, DISP = [100, 50, 200], [0.9, 0.7, 0.8], [0.1, 0.4, 0.25]


def test_weights_equal_the_formula():
    """Exponents by hand: 4 x 0.1 - 2 x (-0.15) = 0.7, then -0.7, then 0; e^0.7 = 2.01375270747."""
    by_hand = [100 * 2.01375270747, 50 / 2.01375270747, 200.0]
    assert fusion_weights(N, PERF, DISP, fusion=RULE) == pytest.approx(by_hand, rel=1e-11)


def test_client_and_server_forms_agree_when_the_means_are_equal():
    means = {"perf_mean": mean_known(PERF), "disp_mean": mean_known(DISP)}
    own = [client_weight(n, p, d, **means, fusion=RULE) for n, p, d in zip(N, PERF, DISP, strict=True)]
    assert own == fusion_weights(N, PERF, DISP, fusion=RULE)


def test_without_beta_and_gamma_it_is_fedavg_exactly():
    assert fusion_weights(N, PERF, DISP, fusion=Fusion()) == [100.0, 50.0, 200.0]


def test_undefined_is_neutral():
    weights = fusion_weights([100, 100], [0.8, None], [None, None], fusion=RULE)
    assert weights == [100.0, 100.0]
    assert fusion_weights([100, 100], [0.8, math.nan], [math.nan, None], fusion=RULE) == weights
    assert mean_known([None, math.nan]) is None
    assert mean_known([0.5, math.nan]) == 0.5


def test_the_cap_bounds_a_liar():
    honest, liar = fusion_weights(
        [100, 100], [0.5, 1.0], [1.0, 0.0], fusion=Fusion(beta=100, gamma=100, cap=3)
    )
    assert liar / honest == pytest.approx(9.0)  # cap squared
    assert (
        fusion_weights([100, 100], [0.5, 1.0], [1.0, 0.0], fusion=Fusion(beta=100, cap=3, floor=0.4))[0]
        > honest
    )


def test_the_gate_gives_a_guesser_no_bonus_for_having_no_gap():
    fair_guesser = client_weight(100, 0.51, 0.0, perf_mean=0.51, disp_mean=0.3, fusion=RULE)
    assert fair_guesser == 100.0
    unfair_guesser = client_weight(100, 0.51, 0.6, perf_mean=0.51, disp_mean=0.3, fusion=RULE)
    assert unfair_guesser < 100.0


def test_momentum_moves_part_of_the_way():
    still = fusion_weights([1, 1], [0.5, 0.5], [0.2, 0.2], fusion=RULE, previous=[3.0, 1.0], momentum=0.5)
    share = still[0] / sum(still)
    assert share == pytest.approx(0.5 * 0.75 + 0.5 * 0.5)
