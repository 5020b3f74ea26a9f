"""Somebody's own functions in the library's loop: the library's numbers, and refusals that name the part."""

import numpy as np
import pytest
import torch

from fvlfp import Config, Parts, cdfp, predict, train
from fvlfp.errors import InputError, RunStopped
from fvlfp.fpf import Fusion, fusion_weights
from fvlfp.peers import peer_weights


def mean_of(prompts, weights):
    return torch.einsum("k,klnw->lnw", weights, prompts)


def cf_loss(z, texts, scale, directions, source, target, alpha):
    moved = cdfp.counterfactual(z, directions, source, target, alpha)
    return cdfp.js_divergence(scale * z @ texts.T, scale * moved @ texts.T)


def by_fpf(n, perf, disp):
    return fusion_weights(n, perf, disp, fusion=Fusion())


def by_peers(n, judged):
    return peer_weights(n, judged, share=0.5, tolerance=0.01)


def project(z, basis, mu, lam):
    return z - lam * ((z - mu) @ basis) @ basis.T


def config(planted, method, **changes):
    keep = {k: getattr(planted.cfg, k) for k in ("groups", "clients", "batch", "device")}
    return Config.make("smoke", method, **(keep | {"rounds": 2} | changes))


CASES = {
    "fuse": ("fedavg", {}, Parts(fuse=mean_of)),
    "cf_loss": ("cdfp", {}, Parts(cf_loss=cf_loss)),
    "weights": ("fedavg", {}, Parts(weights=by_fpf)),
    "project": ("dsop", {"rank": 1, "lambda_dsop": 0.5}, Parts(project=project)),
    "a chosen projection": ("dsop", {}, Parts(project=project)),
    "peer_weights": (
        "fpf-peers",
        {"peers_share": 0.5, "tolerance": 0.01},
        Parts(peer_weights=by_peers),
    ),
    "all at once": (
        "fvlfp-peers",
        {"peers_share": 0.5, "tolerance": 0.01, "rank": 1, "lambda_dsop": 1.0},
        Parts(cf_loss=cf_loss, project=project, peer_weights=by_peers, fuse=mean_of),
    ),
}


@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "one by one"])
@pytest.mark.parametrize("part", CASES)
def test_the_same_function_gives_the_same_prompts(planted, part, stacked):
    method, keys, parts = CASES[part]
    cfg = config(planted, method, **keys)
    theirs = train(cfg, planted, progress=None, stacked=stacked)
    mine = train(cfg, planted, progress=None, stacked=stacked, parts=parts)
    assert torch.allclose(mine.prompts, theirs.prompts, atol=1e-5)
    assert np.allclose(predict(planted, mine)["score"], predict(planted, theirs)["score"], atol=1e-4)


def test_another_function_changes_the_prompts(planted):
    first_only = Parts(fuse=lambda prompts, weights: prompts[0])
    largest = Parts(weights=lambda n, perf, disp: [float(k == max(n)) for k in n])
    nothing = Parts(cf_loss=lambda z, *others: 0 * z[:, 0])
    fedavg = train(config(planted, "fedavg"), planted, progress=None).prompts
    for parts in (first_only, largest):
        other = train(config(planted, "fedavg"), planted, progress=None, parts=parts)
        assert not torch.allclose(other.prompts, fedavg, atol=1e-3)
    kept = Parts(project=lambda z, basis, mu, lam: z)
    cfg = config(planted, "dsop", rank=1, lambda_dsop=1.0)
    off = train(cfg, planted, progress=None, parts=kept)
    assert torch.allclose(off.prompts, fedavg, atol=1e-5)
    plain = predict(planted, train(config(planted, "fedavg"), planted, progress=None))
    assert np.allclose(predict(planted, off)["score"], plain["score"], atol=1e-4), "it predicts, too"
    without = train(config(planted, "cdfp"), planted, progress=None, parts=nothing)
    assert torch.allclose(without.prompts, fedavg, atol=1e-5)


def test_a_function_that_looks_at_values_trains_clients_one_by_one(planted):
    def looks(z, texts, *others):
        return cf_loss(z, texts, *others) if float(z.sum()) < np.inf else z[:, 0]

    cfg = config(planted, "cdfp")
    theirs = train(cfg, planted, progress=None)
    mine = train(cfg, planted, progress=None, parts=Parts(cf_loss=looks))
    assert torch.allclose(mine.prompts, theirs.prompts, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "parts", "said"),
    [
        ("fedavg", Parts(cf_loss=cf_loss), "never call cf_loss; it needs lambda_cf > 0"),
        ("fedavg", Parts(peer_weights=by_peers), "never call peer_weights; it needs fusion = 'peers'"),
        ("fedclip", Parts(fuse=mean_of), "never call fuse"),
        ("fedavg", Parts(project=project), "never call project; it needs lambda_dsop"),
        ("dsop", Parts(project=lambda z, *rest: z[:, :2]), "project must return"),
        ("qfedavg", Parts(weights=by_fpf), "never call weights"),
        ("fedavg", Parts(fuse=lambda prompts, weights: prompts), r"fuse must return prompts \(2, 4, 32\)"),
        ("fedavg", Parts(fuse=lambda prompts, weights: None), "got NoneType"),
        ("fedavg", Parts(weights=lambda n, perf, disp: [1.0]), "weights must be 4 numbers >= 0"),
        ("fedavg", Parts(weights=lambda n, perf, disp: [-1.0] * 4), "weights must be 4 numbers >= 0"),
        ("fedavg", Parts(weights=lambda n, perf, disp: None), "weights must be 4 numbers"),
    ],
)
def test_what_cannot_work_is_refused(planted, method, parts, said):
    with pytest.raises((InputError, RunStopped), match=said):  # RunStopped: every client failed at it
        train(config(planted, method), planted, progress=None, parts=parts)


def test_a_run_with_parts_keeps_no_checkpoint(planted, tmp_path):
    with pytest.raises(InputError, match="keeps no checkpoint"):
        train(config(planted, "fedavg"), planted, out=tmp_path, progress=None, parts=Parts(fuse=mean_of))
