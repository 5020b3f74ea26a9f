"""Sums that a liar cannot move far, against plain ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fvlfp.robust import capped, trimmed_mean, weighted_median
from tests.fuzzing import FIXED


def test_equal_weights_give_numpys_median_and_mean():
    values = np.random.default_rng(0).normal(size=(7, 3, 2))
    ones = np.ones((7, 1, 1))
    assert weighted_median(values, ones) == pytest.approx(np.median(values, 0))
    assert weighted_median(values[:6], ones[:6]) == pytest.approx(np.median(values[:6], 0))
    assert trimmed_mean(values, ones, 0) == pytest.approx(values.mean(0))
    assert trimmed_mean(values, ones, 2) == pytest.approx(np.sort(values, 0)[2:5].mean(0))


def test_a_weighted_median_is_the_median_of_repeated_values():
    values, weights = np.array([3.0, 1.0, 2.0, 9.0]), np.array([2, 1, 3, 1])
    assert weighted_median(values, weights) == np.median(np.repeat(values, weights))


def test_without_weight_a_value_is_not_there():
    values, weights = np.array([[1.0, 5.0], [np.nan, 7.0]]), np.array([[1.0, 0.0], [0.0, 0.0]])
    assert weighted_median(values, weights)[0] == 1.0
    assert np.isnan(weighted_median(values, weights)[1])
    assert np.isnan(trimmed_mean(values, weights, 1)[1])


def test_a_cap_holds_a_giant():
    sizes = np.array([[10.0, 0.0], [20.0, 0.0], [1e9, 0.0]])
    assert capped(sizes, 3.0).tolist() == [[10.0, 0.0], [20.0, 0.0], [60.0, 0.0]]


@settings(max_examples=100, **FIXED)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=9), st.floats(-1e9, 1e9), st.floats(0.1, 1e9))
def test_one_liar_stays_within_what_honest_clients_say(honest, lie, weight):
    values = np.array([*honest, lie])
    weights = np.array([*np.ones(len(honest)), weight])
    moved = trimmed_mean(values, weights, 1)
    assert min(honest) - 1e-9 <= moved <= max(honest) + 1e-9
