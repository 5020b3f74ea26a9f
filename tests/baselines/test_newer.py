"""F3, FedPGP and FedMGP against their formulas, written naively or worked out by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fvlfp.baselines.f3 import fair_acc_avg, fair_avg
from fvlfp.baselines.fedmgp import alike, draw, similarity
from fvlfp.baselines.fedpgp import contrast, personal_prompt
from fvlfp.errors import InputError


def test_f3_keeps_the_fairest():
    gaps = [0.3, 0.1, 0.2, 0.1]
    assert fair_avg(gaps, share=0.5) == [0, 0.5, 0, 0.5]
    assert fair_avg(gaps, share=0.01) == [0, 1, 0, 0], "FairBest; of two, the first"
    assert fair_avg(gaps, share=1.0) == [0.25] * 4
    assert sum(w > 0 for w in fair_avg(list(range(10)), share=0.3)) == 3


def test_f3_weighs_accuracy_against_the_gap():
    gaps, accuracy = [0.10, 0.20, 0.05, 0.0], [0.9, 0.9, 0.4, 0.5]
    # accuracy / gap: 9, 4.5, 8, infinite
    assert fair_acc_avg(gaps, accuracy, share=0.25) == [0, 0, 0, 1]
    assert fair_acc_avg(gaps, accuracy, share=0.5) == [0.5, 0, 0, 0.5]
    assert fair_acc_avg([0.0, 0.0], [0.5, 0.8], share=0.5) == [0, 1]
    for share in (0.0, 1.5, -1, math.nan):
        with pytest.raises(InputError, match="share"):
            fair_avg(gaps, share=share)


def test_fedpgps_correction_has_low_rank():
    torch.manual_seed(2)
    p, u, v = torch.randn(2, 6, 16), torch.randn(2, 6, 2), torch.randn(2, 2, 16)
    moved = personal_prompt(p, u, v) - p
    assert torch.linalg.matrix_rank(moved, atol=1e-4).tolist() == [2, 2]
    assert torch.equal(personal_prompt(p, u, torch.zeros_like(v)), p)


def test_fedpgps_contrast_is_the_published_loss():
    torch.manual_seed(3)
    frozen, shared, personal = torch.randn(3, 5, 8).unbind()
    t, naive = 0.5, 0.0
    for f, s, q in zip(frozen, shared, personal, strict=True):
        a, b = (float(s @ x / s.norm() / x.norm()) for x in (f, q))
        naive -= math.log(math.exp(a / t) / (math.exp(a / t) + math.exp(b / t))) / 5
    assert contrast(frozen, shared, personal, temperature=t).item() == pytest.approx(naive, abs=1e-6)
    assert contrast(frozen, frozen, -frozen, temperature=t) < contrast(frozen, frozen, frozen, temperature=t)


def test_fedmgp_draws_prompts_by_their_likeness():
    own = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]]])
    shared = torch.tensor([[[2.0, 0.0]], [[1.0, 1.0]]])
    found = similarity(own, shared)
    assert found.tolist() == pytest.approx([1.0, 0.5**0.5, -(0.5**0.5)])
    rng = np.random.default_rng(0)
    first = np.array([draw(found, 1, temperature=0.5, rng=rng)[0] for _ in range(4_000)])
    wanted = (found / 0.5).softmax(0).numpy()
    assert np.bincount(first, minlength=3) / 4_000 == pytest.approx(wanted, abs=0.03)
    assert sorted(draw(found, 9, temperature=1.0, rng=rng)) == [0, 1, 2]


def test_fedmgps_diversity_is_the_mean_cosine_of_pairs():
    torch.manual_seed(4)
    texts = torch.randn(3, 2, 8)
    pairs = [(0, 1), (0, 2), (1, 2)]
    naive = np.mean(
        [float(F.cosine_similarity(texts[i, c], texts[j, c], dim=0)) for i, j in pairs for c in (0, 1)]
    )
    assert alike(texts).item() == pytest.approx(naive, abs=1e-6)
    assert alike(texts[:1].expand(3, 2, 8)).item() == pytest.approx(1.0, abs=1e-6)
    both = alike(torch.stack([texts, texts.flip(1)]))
    assert both.tolist() == pytest.approx([naive, naive], abs=1e-6), "of several clients"
