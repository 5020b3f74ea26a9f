"""Baselines against their published formulas, written naively."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fvlfp.baselines import fairfed, losses


def test_proximal_pulls_back_by_the_distance():
    params = torch.tensor([[[1.0, -2.0, 3.0]]], requires_grad=True)
    start = torch.tensor([[[0.0, 0.0, 3.0]]])
    loss = losses.proximal(params, start)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * np.linalg.norm([1, -2, 0]) ** 2)
    assert torch.equal(params.grad, params.detach() - start)


def test_uniform_loss_is_the_kl_from_uniform():
    rng = torch.Generator().manual_seed(0)
    z, words = (F.normalize(torch.randn(n, 8, generator=rng), dim=-1) for n in (20, 3))
    p = F.softmax(10 * z @ words.T, -1).double().numpy()
    naive = np.mean([sum(1 / 3 * np.log((1 / 3) / p[i, g]) for g in range(3)) for i in range(20)])
    assert losses.uniform_loss(z, words, 10.0).item() == pytest.approx(naive, rel=1e-5)
    assert losses.uniform_loss(z, words[:1].repeat(3, 1), 10.0).item() == pytest.approx(0, abs=1e-6)


def test_every_cell_weighs_the_same():
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    a, b = torch.tensor([0, 0, 0, 1, 0, 1, 1]), torch.tensor([0, 1, 1, 1, 0, 0, 0])
    weight = losses.cell_weights(y, [a])
    assert weight.sum().item() == pytest.approx(7)
    sums = {(c, g): weight[(y == c) & (a == g)].sum().item() for c in (0, 1) for g in (0, 1)}
    assert list(sums.values()) == pytest.approx([7 / 4] * 4)
    crossed = losses.cell_weights(y, [a, b])  # cells 000, 001, 011, 100, 110 are there
    assert crossed[(y == 1) & (a == 1) & (b == 0)].sum().item() == pytest.approx(7 / 5)


def counts(tpr, fpr, n=100):
    """Two classes, two groups: (group, true class, predicted class)."""
    table = np.zeros((2, 2, 2), int)
    for g in (0, 1):
        table[g, 1, 1], table[g, 0, 1] = round(tpr[g] * n), round(fpr[g] * n)
        table[g, 1, 0], table[g, 0, 0] = n - table[g, 1, 1], n - table[g, 0, 1]
    return table


def test_fairfed_distance_keeps_the_sign():
    """Two clients with opposite gaps are 1 apart; |0.5| - |-0.5| would say 0."""
    a, b = counts((0.9, 0.4), (0.1, 0.1)), counts((0.4, 0.9), (0.1, 0.1))
    assert fairfed.fairfed_distance([a], [b]) == pytest.approx(1.0)
    both = a + b  # everybody: no gap
    assert fairfed.fairfed_distance([a], [both]) == pytest.approx(0.5)


def test_fairfed_distance_without_a_gap_is_that_of_accuracy():
    one_group = counts((0.9, 0.9), (0.1, 0.1)) * np.array([1, 0])[:, None, None]
    assert fairfed.fairfed_distance([one_group], [counts((0.5, 0.5), (0.5, 0.5))]) == pytest.approx(0.4)


def test_fairfed_weights_by_hand():
    """w = (.5, .3, .2), d = (.1, .1, .4): mean .2, moved by beta (.1, .1, -.2)."""
    found = fairfed.fairfed_weights([0.5, 0.3, 0.2], [0.1, 0.1, 0.4], beta=0.5)
    assert found == pytest.approx([0.55, 0.35, 0.10])
    found = fairfed.fairfed_weights([0.5, 0.3, 0.2], [0.1, 0.1, 0.4], beta=2)
    assert found == pytest.approx([7 / 12, 5 / 12, 0])
    assert fairfed.fairfed_weights([0.5, 0.5], [0.3, 0.3], beta=9) == [0.5, 0.5]
