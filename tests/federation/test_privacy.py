"""What leaves a client, that sums are enough, and differential privacy for the largest weight."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import kstest, norm

from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.federation import privacy
from fvlfp.federation.local_grid import LocalGrid
from fvlfp.federation.protocol import ClientReport, number, read_arrays
from fvlfp.fpf import client_weight
from fvlfp.runs.train import train
from fvlfp.training.reports import fusion_rule


def config(planted, method="fedavg", **changes):
    keep = {k: getattr(planted.cfg, k) for k in ("groups", "clients", "batch", "device")}
    return Config.make("smoke", method, **(keep | {"rounds": 2} | changes))


@pytest.fixture
def recorded(monkeypatch):
    """Every message of a run, as it travelled: [(question, answer)]."""
    seen = []
    deliver = LocalGrid._deliver

    def spy(self, message):
        key = deliver(self, message)
        seen.append((message, self._replies[key]))
        return key

    monkeypatch.setattr(LocalGrid, "_deliver", spy)
    return seen


def test_the_fused_prompts_follow_from_masked_sums(planted, recorded):
    """Secure aggregation, in process: the server learns two sums, never one client's share.

    Each client sends w_k P_k and w_k as integers (fixed point) plus masks; every pair of clients shares a
    mask that one adds and the other subtracts, modulo 2^64. What the server sees of one client is uniform.
    """
    cfg = config(planted, "fpf", rounds=1)
    trained, rule = train(cfg, planted, progress=None), fusion_rule(cfg, 2)
    scale = 2.0**32
    shares = []
    for _, reply in recorded:
        report = ClientReport.read(reply.content, classes=2)
        weight = client_weight(
            report.n, report.perf, report.disp, perf_mean=None, disp_mean=None, fusion=rule
        )
        prompts = read_arrays(reply.content, "arrays")["prompts"].double().numpy().ravel()
        both = np.append(prompts * weight, weight)
        shares.append(np.round(both * scale).astype(np.int64).astype(np.uint64))
    rng = np.random.default_rng(0)
    masked = [share.copy() for share in shares]
    for i in range(len(masked)):
        for j in range(i + 1, len(masked)):
            mask = rng.integers(0, 2**64, size=len(shares[0]), dtype=np.uint64)
            masked[i] += mask
            masked[j] -= mask
    assert not any((a == b).any() for a, b in zip(masked, shares, strict=True))
    total = np.sum(masked, axis=0, dtype=np.uint64)
    assert (total == np.sum(shares, axis=0, dtype=np.uint64)).all()  # masks are gone, bit for bit
    sums = total.astype(np.int64) / scale
    fused = (sums[:-1] / sums[-1]).reshape(trained.prompts.shape)
    assert np.abs(fused - trained.prompts.numpy()).max() < 1e-6  # float32 rounding of the plain sum


def test_means_for_the_next_round_are_sums_too(planted, recorded):
    """perf and disp enter as sum and number of those defined, so they can travel masked as well."""
    trained = train(config(planted, "fpf", rounds=1), planted, progress=None)
    reports = [reply.content.metric_records["metrics"] for _, reply in recorded]
    for key, name in (("perf", "balanced_accuracy"), ("disp", "odds_gap")):
        known = [v for r in reports if not math.isnan(v := number(r, key))]
        assert sum(known) / len(known) == pytest.approx(getattr(trained.history[0], name), abs=1e-12)


def test_flower_still_has_no_secure_aggregation_for_messages():
    """What deploy/README.md says of upstream. When this fails, FPF can go under Flower's own masks."""
    import flwr.clientapp.mod
    import flwr.serverapp.strategy

    for module in (flwr.clientapp.mod, flwr.serverapp.strategy):
        assert not [name for name in vars(module) if "secagg" in name.lower() or "secure" in name.lower()]


def test_small_counts_stay_home(planted, recorded):
    cfg = config(planted, "dsop", rounds=1, min_cell=9, cf_directions="image", dsop="image")
    train(cfg, planted, progress=None)
    seen = 0
    for _, reply in recorded:
        for name, tensor in read_arrays(reply.content, "arrays").items():
            if name.startswith("counts/") or "/" in name[1:2]:
                cells = tensor if name.startswith("counts/") else tensor.sum(-1)
                assert not ((cells > 0) & (cells < 9)).any(), name
                seen += 1
    assert seen


def test_clipping_shortens_and_never_lengthens():
    start, prompts = torch.zeros(2, 3), torch.full((2, 3), 2.0)
    clipped = privacy.clip_update(prompts, start, 1.0)
    assert float((clipped - start).norm()) == pytest.approx(1.0)
    assert torch.equal(privacy.clip_update(prompts * 0.1, start, 1.0), prompts * 0.1)
    assert torch.equal(privacy.clip_update(start, start, 1.0), start)


def test_the_noise_covers_the_largest_weight(planted):
    """Replacing the heaviest client's update by nothing moves the sum by at most std / multiplier."""
    weights = [5.0, 1.0, 1.0, 1.0]
    clip, z = 0.3, 2.0
    std = privacy.noise_std(weights, clip=clip, multiplier=z)
    assert std == pytest.approx(z * clip * 5 / 8)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 4, generator=generator)
    updates = [
        privacy.clip_update(start + torch.randn(2, 4, generator=generator), start, clip) for _ in weights
    ]

    def fused(prompts):
        return sum(w * p for w, p in zip(weights, prompts, strict=True)) / sum(weights)

    moved = float((fused(updates) - fused([start, *updates[1:]])).norm())
    assert moved <= std / z + 1e-6
    assert moved > z * clip / len(weights) / z  # what noise for K equal weights would have covered
    assert privacy.real_multiplier(weights, multiplier=z) == pytest.approx(z * (8 / 5) / 4)
    assert privacy.real_multiplier([3.0] * 4, multiplier=z) == pytest.approx(z)


def test_flowers_wrapper_takes_equal_weights():
    """Flower's own standard deviation: clip * multiplier / K, whatever the weights are."""
    from flwr.supercore.differential_privacy import compute_stdv

    assert compute_stdv(2.0, 0.3, 4) == pytest.approx(privacy.noise_std([1.0] * 4, clip=0.3, multiplier=2.0))
    assert compute_stdv(2.0, 0.3, 4) < privacy.noise_std([5.0, 1.0, 1.0, 1.0], clip=0.3, multiplier=2.0)


@pytest.mark.parametrize(("multiplier", "rounds"), [(1.0, 1), (2.0, 8), (8.0, 15)])
def test_epsilon_agrees_with_the_closed_form(multiplier, rounds):
    """T Gaussian mechanisms are one with multiplier z / sqrt(T); Balle and Wang 2018, theorem 8."""
    mu, delta = math.sqrt(rounds) / multiplier, 1e-3

    def excess(eps):
        return norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu) - delta

    exact = brentq(excess, 0.0, 200.0)
    assert privacy.epsilon(multiplier=multiplier, rounds=rounds, delta=delta) == pytest.approx(
        exact, rel=0.01
    )


def test_no_noise_is_no_privacy():
    assert privacy.epsilon(multiplier=0.0, rounds=1, delta=1e-3) == math.inf


def test_a_private_run_is_clipped_and_its_noise_is_fresh(planted, recorded, monkeypatch):
    cfg = config(planted, dp_noise=0.5, dp_clip=0.05)
    first = train(cfg, planted, progress=None)
    for question, reply in recorded:
        sent, back = (read_arrays(m.content, "arrays")["prompts"] for m in (question, reply))
        assert float((back - sent).norm()) <= 0.05 * (1 + 1e-4)
    assert not torch.equal(first.prompts, train(cfg, planted, progress=None).prompts)
    monkeypatch.setenv("FVLFP_NOISE_SEED", "7")
    second = train(cfg, planted, progress=None)
    assert torch.equal(second.prompts, train(cfg, planted, progress=None).prompts)
    assert not torch.equal(first.prompts, second.prompts)


def test_two_runs_without_one_client_do_not_differ_by_its_update(monkeypatch):
    """The attack on noise that repeats: subtract two releases that differ in one client's update."""
    drawn = torch.Generator().manual_seed(0)
    updates = 0.1 * torch.randn(10, 2, 4, 512, generator=drawn)
    full, without = updates.mean(0), updates[1:].sum(0) / 10
    std = privacy.noise_std([1.0] * 10, clip=float(updates[0].norm()), multiplier=1.0)

    def recovered():
        seen = privacy.add_noise(full, std, name="noise/round/1")
        seen -= privacy.add_noise(without, std, name="noise/round/1")
        return float(torch.cosine_similarity(seen.ravel(), updates[0].ravel(), dim=0))

    assert abs(recovered()) < 0.3
    monkeypatch.setenv("FVLFP_NOISE_SEED", "7")
    assert recovered() > 0.999


def test_fresh_noise_is_gaussian_of_the_right_width():
    """The noise is another in every run: the test fails by chance in one of a thousand million."""
    noise = privacy.add_noise(torch.zeros(50_000, dtype=torch.float64), 0.3, name="").numpy()
    assert kstest(noise / 0.3, "norm").pvalue > 1e-9


@pytest.mark.parametrize("clip", [1e-6, 1e-5, 1e-3, 1.0])
def test_no_honest_client_is_refused_for_rounding(clip):
    drawn = torch.Generator().manual_seed(1)
    start, update = torch.randn(4, 8, 512, generator=drawn), torch.randn(4, 8, 512, generator=drawn)
    moved = (privacy.clip_update(start + update, start, clip) - start).double().norm()
    assert 0 <= float(moved) <= clip * (1 + 1e-4)


def test_an_update_that_is_not_clipped_is_refused(planted, monkeypatch):
    from fvlfp.federation import client_app

    monkeypatch.setattr(client_app, "clip_update", lambda prompts, start, clip: prompts)
    with pytest.raises(RuntimeError, match=r"was not clipped to 0\.05"):
        train(config(planted, dp_noise=0.5, dp_clip=0.05), planted, progress=None)


def test_noise_and_a_robust_rule_do_not_mix():
    with pytest.raises(InputError, match="a weighted sum"):
        Config.make("smoke", dp_noise=1.0, robust="median")


MOMENTS = {f"arrays/{part}/prompted/{g}" for part in ("sums", "counts") for g in ("shape", "tint")}
BY_LABEL = {name.replace("prompted", "image") for name in MOMENTS}
REPORT = {f"metrics/{k}" for k in ("num-examples", "perf", "disp", "loss", "client")}
CANDIDATES = 7  # "off", and three ranks with two lambdas each


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("fedavg", {}, {"train": {"arrays/prompts"} | REPORT}),
        ("fpf", {}, {"train": {"arrays/prompts"} | REPORT}),
        (
            "fvlfp",
            {},
            {
                "query.moments": MOMENTS | {"metrics/client"},
                "evaluate": {f"arrays/{i}/{g}" for i in range(CANDIDATES) for g in ("shape", "tint")}
                | {"metrics/client"},
                "train": {"arrays/prompts"} | REPORT,
            },
        ),
        (
            "fpf-peers",
            {},
            {
                "query.judge": {f"arrays/{x}/{g}" for x in ("right", "total") for g in ("shape", "tint")}
                | {"metrics/client"},
                "train": {"arrays/prompts"} | REPORT,
            },
        ),
        (
            "cdfp",
            {"cf_directions": "image"},
            {
                "query.moments": MOMENTS | BY_LABEL | {"metrics/client"},
                "train": {"arrays/prompts"} | REPORT,
            },
        ),
    ],
)
def test_nothing_else_leaves_a_client(planted, recorded, method, changes, expected):
    """The table of deploy/README.md, field by field. Whoever adds a field changes table and test."""
    train(config(planted, method, **changes), planted, progress=None)
    seen: dict[str, set[str]] = {}
    for question, reply in recorded:
        fields = {f"{kind}/{name}" for kind, record in reply.content.items() for name in record}
        seen.setdefault(question.metadata.message_type, set()).update(fields)
        assert set(reply.content) == {"arrays", "metrics"}
    assert seen == expected


def subtracted(found):
    """What a server can have by subtraction: the class totals of one table less those of another."""
    totals = {name: (sums.sum(1), counts.sum(1)) for name, (sums, counts) in found.items()}
    for name, (sums, counts) in totals.items():
        for other, (sums_2, counts_2) in totals.items():
            yield name, other, sums - sums_2, counts - counts_2


@pytest.mark.parametrize("method", ["fvlfp-labels", "fvlfp"])
@pytest.mark.parametrize("alone", [1, 3])
def test_no_small_cell_is_the_difference_of_two_tables(planted, method, alone):
    """The attack: `prompted` and `image` sums of the same rows, or of two attributes; before, cosine 1."""
    from fvlfp.training.reports import client_moments

    cfg, data = config(planted, method, min_cell=5), planted.clients[3].train
    g = {name: groups.clone() for name, groups in data.g.items()}
    rows = (data.y == 0).nonzero().ravel()
    g["shape"][rows], g["shape"][rows[:alone]] = 0, 1  # `alone` images of class 0 are in group 1
    data = dataclasses.replace(data, g=g)
    secret = data.z[rows[:alone]].sum(0)
    found = client_moments(data, planted.task, cfg, None)
    fair = client_moments(data, planted.task, cfg, planted.task.initial + 0.3)  # asked again, in other words
    tables = found | {f"fair/{name}": pair for name, pair in fair.items()}
    for name, other, sums, counts in subtracted(tables):
        assert counts.abs().max() < 1e-2, (name, other)
        assert sums.norm(dim=-1).max() < 1e-2, (name, other)
    if method == "fvlfp-labels":  # what would be had without: all rows less those of the kept cell
        left = data.z[rows].sum(0) - data.z[rows[alone:]].sum(0)
        assert float(torch.cosine_similarity(left, secret, dim=0)) > 0.999
        assert found["image/shape"][1][0].tolist()[1] == 0


def test_no_soft_count_under_min_cell_leaves_with_two_attributes(planted):
    from fvlfp.training.reports import client_moments

    for min_cell in (5, 40, 60):
        for client in planted.clients:
            found = client_moments(client.train, planted.task, config(planted, min_cell=min_cell), None)
            for _, counts in found.values():
                assert not ((counts > 1e-6) & (counts < min_cell)).any()


def test_validation_tables_of_two_attributes_count_the_same_rows(planted, recorded):
    """Else a cell of two rows is a class's total in one table less what is left in the other."""
    train(config(planted, "fvlfp", rounds=1, min_cell=12), planted, progress=None)
    seen = 0
    for question, reply in recorded:
        if question.metadata.message_type == "evaluate":
            tables = read_arrays(reply.content, "arrays")
            by_class = {tuple(table.sum((0, 2)).tolist()) for table in tables.values()}
            assert len(by_class) == 1
            assert all(((t.sum(-1) == 0) | (t.sum(-1) >= 12)).all() for t in tables.values())
            seen += 1
    assert seen == len(planted.clients)
