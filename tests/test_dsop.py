"""DSOP against naive versions, and the algebra of METHOD.md."""

import math

import pytest
import torch
import torch.nn.functional as F

from fvlfp import dsop

RNG = torch.Generator()


@pytest.fixture(autouse=True)
def same_numbers_whatever_ran_before():
    RNG.manual_seed(0)


def rand(*shape):
    return torch.randn(*shape, generator=RNG)


@pytest.fixture
def z():
    return F.normalize(rand(50, 10), dim=-1)


@pytest.fixture
def projection():
    return dsop.Projection(dsop.subspace(rand(3, 10))[0], rand(10) * 0.1, 1.0)


def naive_project(z, basis, mu, lam):
    rows = []
    for row in z:
        out = [float(v) for v in row]
        for j in range(basis.shape[1]):
            along = sum((float(row[i]) - float(mu[i])) * float(basis[i, j]) for i in range(len(out)))
            out = [out[i] - lam * along * float(basis[i, j]) for i in range(len(out))]
        length = math.sqrt(sum(v * v for v in out))
        rows.append([v / length for v in out])
    return torch.tensor(rows)


@pytest.mark.parametrize("lam", [1.0, 0.5])
def test_projection_equals_a_naive_version(z, projection, lam):
    ours = dsop.Projection(projection.basis, projection.mu, lam)(z)
    torch.testing.assert_close(
        ours, naive_project(z, projection.basis, projection.mu, lam), atol=1e-5, rtol=0
    )


def test_algebra(z, projection):
    u = projection.basis
    p = torch.eye(10) - u @ u.T
    torch.testing.assert_close(p, p.T)
    torch.testing.assert_close(p @ p, p, atol=1e-6, rtol=0)
    inside = projection.unnormalised(z) @ u
    torch.testing.assert_close(inside, (projection.mu @ u).expand_as(inside), atol=1e-6, rtol=0)


def test_lambda_0_and_rank_0_return_the_very_same_tensor(z, projection):
    assert dsop.Projection(projection.basis, projection.mu, 0.0)(z) is z
    assert projection.to_rank(0, 1.0)(z) is z
    assert dsop.no_projection(10)(z) is z


def test_a_subspace_orthogonal_to_class_differences_changes_no_unnormalised_decision(z):
    texts = F.normalize(rand(3, 10), dim=-1)
    differences = dsop.centred(texts)
    away = torch.linalg.svd(differences)[2][2:5]  # rows orthogonal to all differences
    projection = dsop.Projection(dsop.subspace(away)[0], torch.zeros(10), 1.0)
    before, after = (z @ texts.T).argmax(1), (projection.unnormalised(z) @ texts.T).argmax(1)
    assert torch.equal(before, after)


def test_subspace_is_an_orthonormal_basis_of_the_rows_with_fixed_signs():
    directions = dsop.centred(rand(4, 10))
    basis, sigma = dsop.subspace(directions)
    assert basis.shape == (10, 3)  # G - 1
    torch.testing.assert_close(basis.T @ basis, torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(directions @ basis @ basis.T, directions, atol=1e-5, rtol=0)
    assert (sigma[:-1] >= sigma[1:]).all()
    assert torch.equal(dsop.subspace(-directions)[0], basis)
    assert dsop.subspace(torch.zeros(3, 10))[0].shape == (10, 0)


def naive_moments(z, y, member, n_classes):
    classes, groups, d = n_classes, member.shape[1], z.shape[1]
    sums = [[[0.0] * d for _ in range(groups)] for _ in range(classes)]
    counts = [[0.0] * groups for _ in range(classes)]
    for i in range(len(z)):
        for g in range(groups):
            counts[int(y[i])][g] += float(member[i, g])
            for j in range(d):
                sums[int(y[i])][g][j] += float(member[i, g]) * float(z[i, j])
    return torch.tensor(sums), torch.tensor(counts)


def test_membership_and_moments_equal_naive_versions_and_add_up(z):
    y, words = torch.arange(50) % 2, F.normalize(rand(3, 10), dim=-1)
    q = dsop.soft_membership(z, words, 7.0)
    for i in range(5):
        powers = [math.exp(7.0 * float(z[i] @ words[g])) for g in range(3)]
        assert q[i].tolist() == pytest.approx([p / sum(powers) for p in powers], abs=1e-5)
    sums, counts = dsop.moments(z, y, q, 2)
    naive_sums, naive_counts = naive_moments(z, y, q, 2)
    torch.testing.assert_close(sums, naive_sums, atol=1e-5, rtol=0)
    torch.testing.assert_close(counts, naive_counts, atol=1e-5, rtol=0)
    parts = [dsop.moments(z[rows], y[rows], q[rows], 2) for rows in torch.arange(50).split(17)]
    torch.testing.assert_close(sum(p[0] for p in parts), sums, atol=1e-5, rtol=0)


def test_small_cells_stay_home(z):
    y = torch.tensor([0] * 47 + [1] * 3)
    onehot = F.one_hot(torch.zeros(50, dtype=torch.long), 2)
    sums, counts = dsop.moments(z, y, onehot, 2, min_cell=5)
    assert counts.tolist() == [[47, 0], [0, 0]]
    assert not sums[1].any() and not sums[0, 1].any()


def test_a_class_of_exactly_min_cell_rows_counts_in_every_table():
    """Soft counts of five rows may add up to 4.9999995: a server would see two tables that disagree."""
    y = torch.tensor([0] * 6 + [1] * 5)
    for _ in range(100):
        z = F.normalize(rand(11, 10), dim=-1)
        soft = dsop.soft_membership(z, F.normalize(rand(3, 10), dim=-1), 5.0)
        hard = F.one_hot(soft.argmax(1), 3)
        for each in (soft, hard):
            counts = dsop.moments(z, y, each, 2, min_cell=5)[1]
            assert counts.sum(1).tolist() == pytest.approx([6, 5], abs=1e-4)


def test_group_means_are_balanced_over_shared_classes():
    sums = torch.tensor([[[10.0], [0.0], [4.0]], [[90.0], [3.0], [8.0]]])  # (C=2, G=3, d=1)
    counts = torch.tensor([[10.0, 0.0, 2.0], [30.0, 1.0, 4.0]])
    # group 1 lacks class 0, so only class 1 is shared: means 3, 3, 2
    assert dsop.group_means(sums, counts)[:, 0].tolist() == [3.0, 3.0, 2.0]
    counts[0, 1], sums[0, 1] = 2.0, 4.0  # now class 0 is shared too: means 1, 2, 2 in it
    assert dsop.group_means(sums, counts)[:, 0].tolist() == [2.0, 2.5, 2.0]
    assert float(dsop.overall_mean(sums, counts, by_group=True)) == pytest.approx((1 + 2 + 2 + 3 + 3 + 2) / 6)
    assert float(dsop.overall_mean(sums, counts, by_group=False)) == pytest.approx((18 / 14 + 101 / 35) / 2)


def test_class_means_are_balanced_over_groups():
    sums = torch.tensor([[[90.0, 0.0], [1.0, 2.0]], [[0.0, 0.0], [4.0, 8.0]], [[0.0, 0.0], [0.0, 0.0]]])
    counts = torch.tensor([[90.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
    means = dsop.class_means(sums, counts)
    assert means[:2].tolist() == [[1.0, 1.0], [2.0, 4.0]]  # ninety rows of one group weigh as much as one row
    assert means[2].tolist() == [1.5, 2.5]  # nobody has this class
    assert not dsop.class_means(0 * sums, 0 * counts).any()


def test_what_a_projection_keeps_of_differences():
    points = torch.tensor([[1.0, 0.0, 3.0], [-1.0, 0.0, 3.0], [0.0, 2.0, 3.0], [0.0, -2.0, 3.0]])
    first = dsop.Projection(torch.eye(3)[:, :1], torch.ones(3), 1.0)  # takes 2 of 10
    assert first.kept(points) == pytest.approx(0.8)
    assert first.to_rank(1, 0.5).kept(points) == pytest.approx(1 - 0.2 * 0.75)
    assert dsop.Projection(torch.eye(3)[:, :2], torch.ones(3), 1.0).kept(points) == pytest.approx(0.0)
    assert dsop.Projection(torch.eye(3), torch.zeros(3), 0.5).kept(points) == pytest.approx(0.25)
    assert dsop.no_projection(3).kept(points) == 1.0
    assert first.kept(torch.ones(4, 3)) == 1.0  # nothing there to take


def test_an_unseen_group_has_direction_zero():
    sums, counts = torch.zeros(1, 3, 2), torch.tensor([[4.0, 0.0, 4.0]])
    sums[0, 0], sums[0, 2] = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 4.0])
    directions = dsop.group_directions("image", torch.zeros(3, 2), sums, counts)
    assert directions[1].abs().max() < 1e-7
    assert directions[0].tolist() == pytest.approx([0.5, -0.5])


def test_modes_need_what_they_say():
    texts = F.normalize(rand(3, 10), dim=-1)
    torch.testing.assert_close(
        dsop.group_directions("text", texts).sum(0), torch.zeros(10), atol=1e-6, rtol=0
    )
    assert dsop.group_directions("text-span", texts) is texts
    with pytest.raises(ValueError, match="needs moments"):
        dsop.group_directions("prompted", texts)
