"""Post-hoc maps against their definitions: what must be gone, and what must move least."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge

from fvlfp import dsop
from fvlfp.baselines import linear_maps


def example(n=600, d=6, groups=2, seed=0):
    """Classes and groups that depend on each other, features with both, unequal variances."""
    rng = torch.Generator().manual_seed(seed)
    g = torch.randint(0, groups, (n,), generator=rng)
    y = (torch.rand(n, generator=rng) < 0.3 + 0.4 * (g == 0)).long()
    scale = torch.linspace(0.3, 2, d)
    z = torch.randn(n, d, generator=rng) * scale
    z[:, 0] += y
    z[:, 1] += 1.5 * g + 0.5 * y
    z[:, 2] -= (g == groups - 1) * 1.0
    mix = torch.randn(d, d, generator=rng) * 0.3 + torch.eye(d)
    return z @ mix, y, g


def moments_of(z, y, g, groups=2, parts=3):
    """Summed over clients, as they travel."""
    owner = torch.arange(len(y)) % parts
    total = None
    for k in range(parts):
        rows = owner == k
        one = linear_maps.moments(z[rows], y[rows], F.one_hot(g[rows], groups).float(), 2)
        total = one if total is None else total + one
    return total


def within(z, y, g, groups=2):
    """Covariance with the groups inside classes, every class the same weight, from the rows themselves."""
    onehot = F.one_hot(g, groups).double()
    parts = []
    for c in (0, 1):
        a, b = z[y == c].double(), onehot[y == c]
        parts.append((a - a.mean(0)).T @ (b - b.mean(0)) / len(a))
    return sum(parts) / 2


def test_moments_of_clients_are_the_moments_of_all():
    z, y, g = example()
    mean, covariance, cross = linear_maps.within_class(moments_of(z, y, g))
    by_class = [z[y == c].double() for c in (0, 1)]
    assert torch.allclose(mean, sum(a.mean(0) for a in by_class) / 2)
    naive = sum((a - a.mean(0)).T @ (a - a.mean(0)) / len(a) for a in by_class) / 2
    assert torch.allclose(covariance, naive)
    assert torch.allclose(cross, within(z, y, g), atol=1e-10)


@pytest.mark.parametrize("groups", [2, 4])
def test_leace_leaves_no_linear_trace_and_moves_less_than_a_projection(groups):
    z, y, g = example(groups=groups)
    found = moments_of(z, y, g, groups)
    erase = linear_maps.leace(found)
    after = erase.unnormalised(z)
    assert within(after, y, g, groups).abs().max() < 1e-4
    _, covariance, cross = linear_maps.within_class(found)
    q, sigma, _ = torch.linalg.svd(cross, full_matrices=False)
    q = q[:, sigma > 1e-8]
    orthogonal = z.double() - (z - erase.mu).double() @ q @ q.T
    assert within(orthogonal, y, g, groups).abs().max() < 1e-4

    def moved(x):  # in the data's own metric and in the plain one, within-class
        return (
            ((x.double() - z.double()) @ torch.linalg.inv(covariance) * (x.double() - z.double()))
            .sum(1)
            .mean()
        )

    assert moved(after) < moved(orthogonal)


def test_leace_is_the_published_formula():
    z, y, g = example()
    found = moments_of(z, y, g)
    mu, s, cross = (t.numpy() for t in linear_maps.within_class(found))
    values, vectors = np.linalg.eigh(s)
    w = vectors @ np.diag(values**-0.5) @ vectors.T
    wx = w @ cross
    pi = wx @ np.linalg.pinv(wx)
    naive = z.numpy() - (np.linalg.inv(w) @ pi @ w @ (z.numpy() - mu).T).T
    assert np.allclose(linear_maps.leace(found).unnormalised(z).numpy(), naive, atol=1e-4)


def test_first_probe_is_sklearns_ridge():
    z, y, g = example()
    found = moments_of(z, y, g)
    _, s, _ = linear_maps.within_class(found)
    # rows centred by class, every class the same weight
    centred = torch.cat([z[y == c].double() - z[y == c].double().mean(0) for c in (0, 1)])
    target = torch.cat([g[y == c].double() - g[y == c].double().mean() for c in (0, 1)])
    weight = torch.cat([torch.full((int((y == c).sum()),), 0.5 / int((y == c).sum())) for c in (0, 1)])
    alpha = 1e-3 * float(torch.trace(s)) / len(s)
    fitted = Ridge(alpha=alpha, fit_intercept=False).fit(centred, target, sample_weight=weight)
    ours = linear_maps.probe(found, 1).basis[:, 0].numpy()
    cosine = fitted.coef_ @ ours / np.linalg.norm(fitted.coef_)
    assert abs(cosine) == pytest.approx(1, abs=1e-5)


def test_probes_take_the_group_away_step_by_step():
    z, y, g = example(d=8)
    found = moments_of(z, y, g)
    left = [within(linear_maps.probe(found, k).unnormalised(z), y, g).norm().item() for k in (0, 1, 2, 4)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.2 * left[0]
    basis = linear_maps.probe(found, 4).basis
    assert torch.allclose(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-5)


def test_text_projection_is_chuangs_formula():
    rng = torch.Generator().manual_seed(3)
    words = torch.randn(3, 7, generator=rng)
    a = words.double().T.numpy()
    naive = np.eye(7) - a @ np.linalg.inv(a.T @ a) @ a.T
    found = linear_maps.text_projection(words)
    assert np.allclose(found.numpy(), naive)
    assert (words.double() @ found).abs().max() < 1e-10
    pairs = torch.randn(5, 7, generator=rng)
    m = sum(np.outer(p, p) for p in pairs.double().numpy()) / 5
    assert np.allclose(
        linear_maps.calibrated(found, pairs, 10.0).numpy(), naive @ np.linalg.inv(np.eye(7) + 10 * m)
    )


def test_calibration_makes_pairs_alike():
    rng = torch.Generator().manual_seed(4)
    words, pairs = torch.randn(2, 9, generator=rng), torch.randn(3, 9, generator=rng)
    plain = linear_maps.text_projection(words)
    strong = linear_maps.calibrated(plain, pairs)
    assert (strong @ pairs.double().T).norm() < 0.02 * (plain @ pairs.double().T).norm()


def test_difference_is_dsops_text_projection():
    z = F.normalize(torch.randn(5, 6, generator=torch.Generator().manual_seed(5)), dim=-1)
    words = F.normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(6)), dim=-1)
    mu = z.mean(0)
    basis = dsop.subspace(dsop.group_directions("text", words))[0]
    assert torch.allclose(
        linear_maps.difference([words], mu)(z), dsop.Projection(basis, mu, 1.0)(z), atol=1e-6
    )


def test_an_empty_erasure_is_the_identity_bit_for_bit():
    z = torch.randn(4, 6)
    nothing = dsop.Projection(torch.zeros(6, 0), torch.zeros(6))
    assert nothing(z) is z
