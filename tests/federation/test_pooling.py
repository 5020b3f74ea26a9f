"""Sums over clients, honest and not."""

import numpy as np
import pytest
import torch

from fvlfp import dsop
from fvlfp.config import Config
from fvlfp.federation.pooling import class_axes, pool_counts, pool_moments
from fvlfp.metrics import recall_gap

PLAIN, ROBUST = (Config.make("smoke", robust=rule, device="cpu") for rule in ("none", "trimmed-mean"))
WORDS = torch.nn.functional.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(5)), dim=1)


def clients(seed=0, k=10, n=120):
    """Moments of k clients whose features lean by group along one direction."""
    drawn = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(k):
        y, g = torch.randint(0, 2, (2, n), generator=drawn)
        z = WORDS[y] + 0.3 * torch.randn(n, 16, generator=drawn)
        z[:, 3] += 0.8 * g
        z = torch.nn.functional.normalize(z, dim=1)
        sums, counts = dsop.moments(z, y, torch.nn.functional.one_hot(g, 2), 2, 5)
        out.append({"sums/prompted/shape": sums, "counts/prompted/shape": counts})
    return out


def direction(parts, cfg):
    found = dsop.group_directions("prompted", WORDS, *pool_moments(parts, cfg, WORDS)["prompted/shape"])
    return torch.nn.functional.normalize(found[1], dim=0)


def lie(part, kind):
    """The strongest lies that pass the checks: sums as long as their counts allow."""
    sums, counts = (part[f"{x}/prompted/shape"].clone() for x in ("sums", "counts"))
    counts[:] = 1e6
    sums[:] = 0.0
    if kind == "along the classes":
        sums[:, 0], sums[:, 1] = 1e6 * WORDS[0], 1e6 * WORDS[1]
    return {"sums/prompted/shape": sums, "counts/prompted/shape": counts}


def test_honest_clients_are_added_up_bit_for_bit():
    parts = clients()
    sums, counts = pool_moments(parts, PLAIN, WORDS)["prompted/shape"]
    assert torch.equal(counts, sum(part["counts/prompted/shape"] for part in parts))
    total = parts[0]["sums/prompted/shape"]
    for part in parts[1:]:
        total = total + part["sums/prompted/shape"]
    assert torch.equal(sums, total)


@pytest.mark.parametrize("liars", [1, 3])
@pytest.mark.parametrize("kind", ["along the classes", "count, no sum"])
def test_liars_do_not_turn_the_direction_under_a_robust_rule(liars, kind):
    parts = clients()
    honest = direction(parts, PLAIN)
    cfg = ROBUST.replace(liars=liars)
    assert float(direction(parts, cfg) @ honest) > 0.95
    lied = [lie(part, kind) if k < liars else part for k, part in enumerate(parts)]
    assert float(direction(lied, cfg) @ honest) > 0.9
    if kind == "along the classes":
        assert float(direction(lied, PLAIN) @ honest) < 0.9


def test_what_tells_the_classes_apart_is_a_coordinate_of_its_own():
    sums, counts = (
        np.stack([part[f"{x}/prompted/shape"].double().numpy() for part in clients()])
        for x in ("sums", "counts")
    )
    axes = class_axes(sums, counts, 1, WORDS.double().numpy())
    assert axes.T @ axes == pytest.approx(np.eye(16), abs=1e-12)
    classes = sums.sum((0, 2)) / counts.sum((0, 2))[:, None]
    features = classes[1] - classes[0]
    for told, within in ((WORDS[1] - WORDS[0]).double().numpy(), 1e-6), (features, 0.1):
        rest = told @ axes[:, 2:]  # the first axis is of words, the second of features
        assert np.linalg.norm(rest) <= within * np.linalg.norm(told)


@pytest.mark.parametrize("liars", [1, 3])
@pytest.mark.parametrize("push", [1, -1])
def test_liars_do_not_push_a_difference_beyond_honest_clients(liars, push):
    """Each honest client sees the groups differ by so much along the classes' words; so does the server."""
    parts, axis = clients(), torch.nn.functional.normalize(WORDS[1] - WORDS[0], dim=0)

    def along(sums, counts):
        means = sums / counts[..., None]
        return (means[:, 1] - means[:, 0]) @ axis  # (C,)

    honest = torch.stack([along(*part.values()) for part in parts[liars:]])
    turn = torch.tensor([-1.0, 1.0])[None, :, None] * push * axis
    lied = {
        "sums/prompted/shape": 1e6 * turn.expand(2, 2, 16),
        "counts/prompted/shape": torch.full((2, 2), 1e6),
    }
    pooled = pool_moments([lied] * liars + parts[liars:], ROBUST.replace(liars=liars), WORDS)
    found = along(*pooled["prompted/shape"])
    assert (found <= honest.amax(0) + 1e-6).all() and (found >= honest.amin(0) - 1e-6).all()


def test_a_giant_is_scaled_down():
    parts = clients(k=4)
    giant = {name: 1000 * tensor for name, tensor in parts[0].items()}
    scaled = pool_moments([giant, *parts[1:]], PLAIN, WORDS)["prompted/shape"][1]
    assert float(scaled.sum()) <= 120 * (3 + 10) * 1.01
    whole = pool_moments([giant, *parts[1:]], PLAIN.replace(norm_bound=0.0), WORDS)["prompted/shape"][1]
    assert float(whole.sum()) > 100_000


def tables(recall, n=50, k=10):
    """k clients that all hold n rows a cell and find the same share of them right."""
    right = np.round(np.asarray(recall) * n).astype(int)
    table = np.zeros((2, 2, 2), int)
    for c in range(2):
        table[:, c, c], table[:, c, 1 - c] = right[c], n - right[c]
    return [{"0/shape": torch.from_numpy(table.copy())} for _ in range(k)]


def test_medians_of_equal_clients_are_their_sum():
    parts = tables([[0.9, 0.7], [0.6, 0.8]])
    plain, middle = (pool_counts(parts, cfg)["0/shape"] for cfg in (PLAIN, ROBUST))
    assert middle == pytest.approx(plain)


@pytest.mark.parametrize("liars", [1, 3])
def test_votes_of_liars_do_not_move_a_median(liars):
    parts = tables([[0.9, 0.7], [0.6, 0.8]])
    for k in range(liars):
        parts[k] = {"0/shape": torch.tensor([[[10**8, 0]] * 2, [[0, 10**8]] * 2])}
    assert recall_gap(pool_counts(parts, ROBUST)["0/shape"]) == pytest.approx(0.2)
    assert recall_gap(pool_counts(parts, PLAIN)["0/shape"]) > 0.3


@pytest.mark.parametrize("liars", [1, 3])
def test_a_cell_that_liars_could_decide_is_unknown(liars):
    cfg, parts, votes = ROBUST.replace(liars=liars), clients(), tables([[0.9, 0.7], [0.6, 0.8]])
    for k in range(2 * liars, 10):  # all others lack one cell
        for name in parts[k]:
            parts[k][name][1, 1] = 0
        votes[k]["0/shape"][1, 1] = 0
    for k in range(liars):
        parts[k], votes[k]["0/shape"][:] = lie(parts[k], "along the classes"), 10**6
    _, counts = pool_moments(parts, cfg, WORDS)["prompted/shape"]
    assert counts[1, 1] == 0 and (counts.flatten()[:3] > 0).all()
    totals = pool_counts(votes, cfg)["0/shape"].sum(-1)
    assert totals[1, 1] == 0 and (totals.flatten()[:3] > 0).all()
    one_more = [*parts[: 2 * liars], clients()[-1], *parts[2 * liars + 1 :]]
    assert pool_moments(one_more, cfg, WORDS)["prompted/shape"][1][1, 1] > 0, "one honest client more decides"
