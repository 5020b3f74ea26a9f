"""CDFP against naive versions: loops over images, classes and groups."""

import math

import pytest
import torch
import torch.nn.functional as F

from fvlfp import cdfp

RNG = torch.Generator()
N, C, G, D, S = 6, 3, 4, 8, 12.0


@pytest.fixture(autouse=True)
def same_numbers_whatever_ran_before():
    RNG.manual_seed(0)


def unit(*shape):
    return F.normalize(torch.randn(*shape, generator=RNG), dim=-1)


@pytest.fixture
def case():
    return {
        "z": unit(N, D),
        "texts": unit(C, D),
        "directions": torch.randn(G, D, generator=RNG),
        "source": torch.randint(0, G, (N,), generator=RNG),
        "target": torch.randint(0, G, (N,), generator=RNG),
    }


def naive_softmax(row):
    powers = [math.exp(v) for v in row]
    return [p / sum(powers) for p in powers]


def naive_kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def naive_js(p, q):
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (naive_kl(p, m) + naive_kl(q, m)) / 2


def naive_logits(z, texts):
    return [S * sum(float(a) * float(b) for a, b in zip(z, t, strict=True)) for t in texts]


def test_image_loss_equals_a_naive_version(case):
    alpha, losses = 2.5, []
    for i in range(N):
        step = case["directions"][case["target"][i]] - case["directions"][case["source"][i]]
        moved = [float(case["z"][i][j]) + alpha * float(step[j]) for j in range(D)]
        length = math.sqrt(sum(v * v for v in moved))
        moved = [v / length for v in moved]
        p = naive_softmax(naive_logits(case["z"][i], case["texts"]))
        q = naive_softmax(naive_logits(moved, case["texts"]))
        losses.append(naive_js(p, q))
    ours = cdfp.image_loss(scale=S, alpha=alpha, **case)
    assert float(ours) == pytest.approx(sum(losses) / N, abs=1e-5)


def test_words_loss_equals_a_naive_version(case):
    pairs = unit(C, G, D)
    total = 0.0
    for i in range(N):
        neutral = naive_softmax(naive_logits(case["z"][i], case["texts"]))
        for g in range(G):
            named = naive_softmax(naive_logits(case["z"][i], [pairs[c, g] for c in range(C)]))
            total += naive_kl(neutral, named) / (N * G)
    assert float(cdfp.words_loss(case["z"], case["texts"], pairs, S)) == pytest.approx(total, abs=1e-5)


def test_layers_loss_equals_a_naive_version():
    states = [torch.randn(C, G, D, generator=RNG) for _ in range(2)]
    total, terms = 0.0, 0
    for state in states:
        for c in range(C):
            for g in range(G):
                for h in range(G):
                    if g != h:
                        total += sum(float(state[c, g, j] - state[c, h, j]) ** 2 for j in range(D))
                        terms += 1
    assert float(cdfp.layers_loss(states)) == pytest.approx(total / terms, rel=1e-5)


def test_anchor_and_gap_equal_naive_versions(case):
    other = unit(C, D)
    naive = sum(1 - float(case["texts"][c] @ other[c]) for c in range(C)) / C
    assert float(cdfp.anchor_loss(case["texts"], other)) == pytest.approx(naive, abs=1e-6)
    logits = torch.randn(40, 2, generator=RNG)
    y, g = torch.randint(0, 2, (40,), generator=RNG), torch.randint(0, 3, (40,), generator=RNG)
    gaps = []
    for c in range(2):
        means = []
        for h in range(3):
            rows = [i for i in range(40) if y[i] == c and g[i] == h]
            if rows:
                means.append(sum(naive_softmax(logits[i].tolist())[c] for i in rows) / len(rows))
        gaps.append(max(means) - min(means))
    assert float(cdfp.gap_loss(logits, y, g, n_groups=int(g.max()) + 1)) == pytest.approx(
        sum(gaps) / 2, abs=1e-5
    )


def test_js_divergence_of_opposites_is_log_2_and_of_equals_0():
    a, b = torch.tensor([50.0, -50.0]), torch.tensor([-50.0, 50.0])
    assert float(cdfp.js_divergence(a, b)) == pytest.approx(math.log(2), abs=1e-6)
    assert float(cdfp.js_divergence(a, a)) == 0.0


def test_counterfactual_of_the_same_group_or_alpha_0_is_the_image_itself(case):
    same = cdfp.counterfactual(case["z"], case["directions"], case["source"], case["source"], 3.0)
    torch.testing.assert_close(same, case["z"])
    still = cdfp.counterfactual(case["z"], case["directions"], case["source"], case["target"], 0.0)
    torch.testing.assert_close(still, case["z"])


def test_other_group_is_never_the_same_and_reaches_all():
    source = torch.arange(300) % 3
    target = cdfp.other_group(source, 3, torch.Generator().manual_seed(1))
    assert (source != target).all()
    counts = torch.bincount(source * 3 + target, minlength=9).reshape(3, 3)
    assert (counts[~torch.eye(3, dtype=torch.bool)] > 30).all()


def test_texts_that_ignore_the_direction_have_no_loss(case):
    direction = torch.zeros(2, D)
    direction[0, 0], direction[1, 0] = 0.5, -0.5
    texts = case["texts"].clone()
    texts[:, 0] = 0.0
    z = case["z"]
    zeros = torch.zeros(N, dtype=torch.long)
    blind = cdfp.image_loss(z, F.normalize(texts, dim=-1), S, direction, zeros, zeros + 1, 1e-3)
    aware = cdfp.image_loss(z, case["texts"], S, direction, zeros, zeros + 1, 1e-3)
    assert float(blind) < 1e-9 + float(aware) / 10
