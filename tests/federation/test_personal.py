"""A model for each client: losses and rounds against the published ones, and how they are judged."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.run import mean_client, own_rows
from fvlfp import cdfp
from fvlfp.baselines.fedmgp import draw, similarity
from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.runs.client_table import client_table
from fvlfp.runs.predict import predict
from fvlfp.runs.train import train
from fvlfp.training.local import local_train
from fvlfp.training.loss import batches, plan, row_weights
from fvlfp.training.personal_methods import method_of
from fvlfp.training.readout import Readout

METHODS = ("pfedfair", "fedpgp", "fedmgp")


def config(planted, method, **changes):
    keep = {k: getattr(planted.cfg, k) for k in ("groups", "clients", "rounds", "batch", "device", "seed")}
    return Config.make("smoke", method, **(keep | changes))


def run(planted, method, **changes):
    return train(config(planted, method, **changes), planted, progress=None)


def one_step(planted, method, **changes):
    """One client's parameters, the gradient of its first batch by the method, and the batch."""
    cfg = config(planted, method, **changes)
    found, data = method_of(planted.task, cfg), planted.clients[0].train
    rng = torch.Generator().manual_seed(0)
    start = [t[None] for t in found.start()]
    params = [(t + 0.05 * torch.randn(t.shape, generator=rng)).requires_grad_() for t in start]
    weights, drawn = row_weights(data, planted.task, cfg), plan(data, planted.task, cfg, "client/0/round/1")
    batch = next(iter(batches(data, weights, drawn, cfg.batch)))
    stacked = type(batch)(
        *({k: v[None] for k, v in part.items()} if isinstance(part, dict) else part[None] for part in batch)
    )
    texts = planted.task.class_texts(found.prompts(params))
    loss = found.losses(texts, params, start, stacked)
    grads = torch.autograd.grad(loss.sum(), params)
    return cfg, [p[0] for p in params], [s[0] for s in start], batch, loss[0], grads


def weighted_entropy(planted, texts, batch):
    each = F.cross_entropy(planted.task.scale * batch.z @ texts.T, batch.y, reduction="none")
    return (batch.weight * each).sum() / batch.weight.sum()


def test_pfedfair_minimises_loss_gap_and_distance(planted):
    cfg, (v,), (w,), batch, loss, (grad,) = one_step(planted, "pfedfair", lambda_anchor=0.0, lambda_prox=3.0)
    texts = planted.task.class_texts(v)
    logits = planted.task.scale * batch.z @ texts.T
    gaps = [cdfp.gap_loss(logits, batch.y, g, n_groups=int(g.max()) + 1) for g in batch.g.values()]
    rho = sum(gaps) / len(gaps)
    wanted = weighted_entropy(planted, texts, batch) + cfg.lambda_gap * rho + 3.0 / 2 * ((v - w) ** 2).sum()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(grad[0], torch.autograd.grad(wanted, v)[0], atol=1e-4)


def test_pfedfairs_shared_prompts_follow_the_moreau_envelope(planted):
    """The envelope of `1/2 |v - a_k|^2` is known: its minimiser in v is (a_k + lam w) / (1 + lam)."""
    torch.manual_seed(1)
    lam, p, w = 3.0, torch.tensor([0.25, 0.75]), torch.randn(2, 4, 5, requires_grad=True)
    anchors = torch.randn(2, 2, 4, 5)
    own = (anchors + lam * w) / (1 + lam)
    each = 0.5 * (own - anchors).square().sum((1, 2, 3)) + 0.5 * lam * (own - w).square().sum((1, 2, 3))
    (p @ each).backward()
    found = method_of(planted.task, config(planted, "pfedfair", lambda_prox=lam))
    (fused,) = found.fuse([own.detach()], p, [0, 1], 1)
    for everybody in fused:
        assert torch.allclose(everybody, w.detach() - w.grad / lam, atol=1e-5)
    assert torch.equal(found.own([own], [fused]), own)


def test_pfedfair_without_its_terms_trains_as_alone_and_fuses_as_fedavg(planted):
    """In round r each client's own prompts are what it trains from FedAvg's of round r - 1."""
    plain = {"lambda_gap": 0.0, "lambda_prox": 0.0}
    assert torch.allclose(
        run(planted, "pfedfair", rounds=1, **plain).model.text, run(planted, "local", rounds=1).model.text
    )
    cfg, w = config(planted, "fedavg", rounds=2), run(planted, "fedavg", rounds=1).prompts
    second = run(planted, "pfedfair", rounds=2, **plain).model.text
    for client, found in zip(planted.clients, second, strict=True):
        name = f"client/{client.client}/round/2"
        alone, _ = local_train(w, client.train, planted.task, cfg, directions={}, seed_name=name)
        assert torch.allclose(found, alone, atol=1e-3)


def test_fedpgp_minimises_loss_and_contrast(planted):
    _, (p, u, v), _, batch, loss, grads = one_step(planted, "fedpgp")
    assert u.shape[-1] == v.shape[-2] == 1
    own, shared = planted.task.class_texts(p + u @ v), planted.task.class_texts(p)
    contrast = 0.0
    for f, s, q in zip(planted.task.frozen_texts, shared, own, strict=True):
        a, b = torch.exp(s @ f / 0.5), torch.exp(s @ q / 0.5)
        contrast = contrast - torch.log(a / (a + b)) / len(own)
    wanted = weighted_entropy(planted, own, batch) + contrast
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    for grad, naive in zip(grads, torch.autograd.grad(wanted, [p, u, v]), strict=True):
        assert torch.allclose(grad[0], naive, atol=1e-4)


def test_fedpgp_fuses_the_shared_prompts_alone(planted):
    found, shares = method_of(planted.task, config(planted, "fedpgp")), torch.tensor([0.2, 0.8])
    torch.manual_seed(0)
    trained = [torch.randn(2, *t.shape) for t in found.start()]
    p, u, v = found.fuse(trained, shares, [0, 1], 1)
    assert torch.equal(u, trained[1]) and torch.equal(v, trained[2])
    mean = 0.2 * trained[0][0] + 0.8 * trained[0][1]
    assert torch.allclose(p[0], mean) and torch.allclose(p[1], mean)
    assert torch.allclose(found.own(trained, [p, u, v])[1], mean + u[1] @ v[1])
    assert found.sent == trained[0][0].numel() < found.trained


def test_fedmgp_minimises_mean_loss_and_likeness(planted):
    _, (groups,), _, batch, loss, (grad,) = one_step(planted, "fedmgp")
    texts = [planted.task.class_texts(p) for p in groups]
    entropy = sum(weighted_entropy(planted, t, batch) for t in texts) / 5
    pairs = [(texts[i] * texts[j]).sum(-1).mean() for i in range(5) for j in range(i)]
    wanted = entropy + sum(pairs) / len(pairs)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(grad[0], torch.autograd.grad(wanted, groups)[0], atol=1e-4)


def test_fedmgp_averages_what_is_drawn_and_puts_it_back(planted):
    cfg = config(planted, "fedmgp")
    found, k = method_of(planted.task, cfg), [4, 7]
    torch.manual_seed(0)
    shared = None
    for round_ in (1, 2):
        own = torch.randn(2, 5, *planted.task.initial.shape)
        drawn = []
        for groups, number in zip(own, k, strict=True):
            rng = np.random.default_rng(cfg.seed_for(f"client/{number}/round/{round_}/groups"))
            likeness = torch.zeros(5) if shared is None else similarity(groups, shared)
            drawn.append(draw(likeness, 2, temperature=1.0, rng=rng))
        shared = torch.stack([(own[0][drawn[0][r]] + own[1][drawn[1][r]]) / 2 for r in (0, 1)])
        (fused,) = found.fuse([own], torch.tensor([0.1, 0.9]), k, round_)
        for client in (0, 1):
            for i in range(5):
                r = drawn[client].index(i) if i in drawn[client] else None
                assert torch.allclose(fused[client, i], own[client, i] if r is None else shared[r])
    assert found.sent == 2 / 5 * found.trained


@pytest.mark.parametrize("method", METHODS)
def test_one_after_another_is_the_same(planted, method):
    cfg = config(planted, method, rounds=2)
    stacked, alone = (train(cfg, planted, stacked=s, progress=None) for s in (True, False))
    texts, wanted = (t.model.class_texts(planted.task) for t in (stacked, alone))
    torch.testing.assert_close(texts, wanted, atol=1e-3, rtol=0)
    assert [r.loss for r in stacked.history] == pytest.approx([r.loss for r in alone.history], abs=1e-3)


def test_several_prompts_of_a_client_predict_by_mean_logits(planted):
    trained = run(planted, "fedmgp", rounds=1)
    task, z = planted.task, planted.test.z
    for texts, groups in zip(trained.model.class_texts(task), trained.model.text, strict=True):
        mean = torch.stack([task.logits(z, task.class_texts(p)) for p in groups]).mean(0)
        assert torch.allclose(task.logits(z, texts), mean, atol=1e-4)


def test_personal_models_are_judged_by_client_and_on_own_rows(planted):
    cfg, trained = config(planted, "pfedfair", rounds=1), run(planted, "pfedfair", rounds=1)
    readouts = [Readout(planted.task, planted.task.class_texts(p)) for p in trained.model.text]
    said = predict(planted, trained)["prediction"].to_numpy()
    each = np.stack([np.array(planted.task.classes)[r.logits(planted.test.z).argmax(1)] for r in readouts])
    assert (each == said).any(0).all() and (each != said).any()
    tables = [r.confusion(c.val)["shape"] for r, c in zip(readouts, planted.clients, strict=True)]
    counts = np.sum(tables, 0).sum(0)  # (C, C), class by prediction
    recall = counts.diagonal() / counts.sum(1)
    assert own_rows(planted, trained)["balanced_accuracy"] == pytest.approx(recall.mean(), abs=1e-6)
    assert own_rows(planted, run(planted, "fedavg", rounds=1)).keys() == mean_client(planted, trained).keys()
    table = client_table(cfg, planted, trained, {}).set_index("client")["balanced_accuracy"]
    of_first = tables[0].sum(0)
    first = of_first.diagonal() / of_first.sum(1)
    assert table["0"] == pytest.approx(first.mean())


def test_what_personal_models_cannot_do_is_refused(planted):
    for changes in ({"fusion": "fairfed"}, {"lambda_cf": 1.0}, {"robust": "median"}, {"fraction": 0.5}):
        with pytest.raises(InputError, match="pooling = 'personal' needs"):
            config(planted, "pfedfair", **changes)
    with pytest.raises(InputError, match=r"tune = 'groups' needs lambda_prox = 0\.0"):
        config(planted, "fedmgp", lambda_prox=1.0)
    with pytest.raises(InputError, match="vision_ctx needs"):
        config(planted, "pfedfair", vision_ctx=2)
