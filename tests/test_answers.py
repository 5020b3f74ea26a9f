"""Answers to the steps of lessons 00 to 09 in the forms in which learners write them; wrong ones fail.

`test_steps.py` has further wrong answers for lessons 06 to 09, `test_lesson.py` the rules of `check` itself.
"""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from fvlfp import check
from fvlfp.course.lesson import NotYet
from fvlfp.course.steps import (
    lesson_00,
    lesson_01,
    lesson_02,
    lesson_03,
    lesson_04,
    lesson_05,
    lesson_06,
    lesson_07,
    lesson_08,
    lesson_09,
)

#: steps whose answers are compared more loosely, as their lessons do
LOOSE = {id(lesson_04.slope): 1e-2, id(lesson_08.fairest): 5e-3, id(lesson_08.by_peers): 5e-3}


def rate_by_counting(groups, answers, group):
    yes = n = 0
    for of, answer in zip(groups, answers, strict=True):
        if of == group:
            n += 1
            yes += answer
    return Fraction(yes, n)


def table_by_loop(frame, column, attribute):
    shares = []
    for group in set(frame[attribute]):
        rows = frame[frame[attribute] == group]
        shares.append(len(rows[rows[column] == "yes"]) / len(rows))
    return np.float32(max(shares) - min(shares))


def softmax_in_torch(scores):
    return torch.tensor(scores).softmax(1)


def zero_shot_by_loop(pictures, sentences, scale):
    rows = []
    for z in pictures:
        cosines = [z @ t / math.sqrt(z @ z) / math.sqrt(t @ t) for t in sentences]
        weights = [math.exp(scale * c) for c in cosines]
        rows.append([w / sum(weights) for w in weights])
    return rows


def recalls_by_pandas(truth, said):
    frame = pd.DataFrame({"truth": truth, "right": truth == said})
    return frame.groupby("truth")["right"].mean().mean()


def wilson_by_formula(found, n):
    p, z2 = found / n, 1.959964**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = 1.959964 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return middle - half, middle + half


def gaps_by_crosstab(y, said, group):
    frame = pd.DataFrame({"y": y, "said": said, "group": group})
    rates = frame.groupby(["y", "group"])["said"].mean()
    return torch.tensor([np.ptp(rates[1].to_numpy()), np.ptp(rates[0].to_numpy())])


def loss_by_hand(z, y, texts, frozen, scale, lam):
    p = (scale * z @ texts.T).softmax(1)
    entropy = -torch.stack([p[i, c].log() for i, c in enumerate(y)]).mean()
    return (entropy + lam * (1 - torch.cosine_similarity(texts, frozen).mean())).item()


def paired_by_numpy(truth, before, after, ddof=1):
    change = np.where(after == truth, 1, 0) - np.where(before == truth, 1, 0)
    half = 1.96 * np.std(change, ddof=ddof) / len(change) ** 0.5
    return pd.Series([change.mean(), change.mean() - half, change.mean() + half])


def lie_by_loop(wish, prompts, weights, liar):
    rest = sum(w * p for k, (w, p) in enumerate(zip(weights, prompts, strict=True)) if k != liar)
    return ((wish - rest) / weights[liar]).numpy()


def js_with_xlogy(a, b):
    p, q = a.double().softmax(-1), b.double().softmax(-1)
    m = (p + q) / 2
    return (torch.special.xlogy(p, p) + torch.special.xlogy(q, q)).sum(-1) / 2 - torch.special.xlogy(
        m, m
    ).sum(-1)


def directions_by_loop(z, y, group):
    means = {g: sum(z[(group == g) & (y == c)].mean(0) / 2 for c in (0, 1)) for g in (0, 1)}
    middle = (means[0] + means[1]) / 2
    return [(means[0] - middle).tolist(), (means[1] - middle).tolist()]


def project_by_columns(z, basis, mu, lam):
    removed = sum(((z - mu) @ u)[:, None] * u for u in basis.T)
    return (z - lam * removed).numpy()


def soft_means_by_loop(z, y, q):
    return torch.stack(
        [
            sum((q[y == c, g, None] * z[y == c]).sum(0) / q[y == c, g].sum() for c in (0, 1)) / 2
            for g in range(q.shape[1])
        ]
    )


def choose_by_sorting(accuracy, gap, tolerance):
    allowed = [i for i in range(len(gap)) if accuracy[i] >= accuracy[0] - tolerance]
    return sorted(allowed, key=lambda i: gap[i])[0]


def signed_in_torch(recall):
    found = torch.tensor(recall)
    return (found - found.mean(2, keepdim=True)).flatten(1)


def tilted_by_softmax(n, accuracy, signed, beta, v):
    return torch.tensor(np.log(n) + beta * accuracy - (signed * v).sum(1)).softmax(0)


def named(parts):
    return " + ".join(p for p in ("CDFP", "DSOP", "FPF") if p in parts) or "FedAvg"


def cf_loss_in_numpy(z, texts, scale, directions, source, target, alpha):
    moved = F.normalize(z + alpha * (directions[target] - directions[source]), dim=1)
    p, q = ((scale * rows @ texts.T).double().softmax(1).numpy() for rows in (z, moved))
    m = (p + q) / 2
    return list((p * np.log(p / m) + q * np.log(q / m)).sum(1) / 2)


def effect_by_pairs(gap, part):
    without = {"CDFP": "DSOP + FPF", "DSOP": "CDFP + FPF", "FPF": "CDFP + DSOP"}[part].split(" + ")
    settings = [[], without[:1], without[1:], without]
    return [sum(gap[named([*some, part])] - gap[named(some)] for some in settings) / 4]


def weighted_list(prompts, weights):
    return [list(row) for row in sum(w * p for w, p in zip(weights, prompts, strict=True)).numpy()]


RIGHT = [
    (lesson_00.rate, rate_by_counting),
    (lesson_00.rate, lambda groups, answers, group: pd.Series(answers).groupby(groups).mean()[group]),
    (lesson_00.rate, lambda *given: round(float(rate_by_counting(*given)), 3)),
    (lesson_00.gap, lambda rates: np.ptp(list(rates.values()))),
    (lesson_00.gap, lambda rates: sorted(rates.values())[-1] - sorted(rates.values())[0]),
    (lesson_00.gap_in_table, table_by_loop),
    (lesson_00.gap_in_table, lambda *given: [round(float(table_by_loop(*given)), 3)]),
    (lesson_00.accuracy_by_group, lambda f, a: (f["prediction"] == f["smiling"]).groupby(f[a]).mean()),
    (
        lesson_00.accuracy_by_group,
        lambda f, a: {k: (g.prediction == g.smiling).mean() for k, g in f.groupby(a)},
    ),
    (lesson_01.unit, lambda rows: [row / math.sqrt(sum(row**2)) for row in rows]),
    (lesson_01.unit, lambda rows: F.normalize(torch.tensor(rows))),
    (lesson_01.softmax, softmax_in_torch),
    (lesson_01.softmax, lambda scores: pd.DataFrame(softmax_in_torch(scores).numpy())),
    (lesson_01.zero_shot, zero_shot_by_loop),
    (lesson_01.balanced_accuracy, recalls_by_pandas),
    (lesson_01.balanced_accuracy, lambda *given: torch.tensor([recalls_by_pandas(*given)])),
    (lesson_02.three_rates, lambda y, a: (a.mean(), a[y == 1].mean(), a[y == 0].mean())),
    (lesson_02.three_rates, lambda y, a: [Fraction(int(s.sum()), len(s)) for s in (a, a[y == 1], a[y == 0])]),
    (lesson_02.plausible, wilson_by_formula),
    (lesson_02.p_value, lambda gap, chance: (sum(g >= gap for g in chance) + 1) / (len(chance) + 1)),
    (lesson_02.true_gap, lambda measured, wrong: measured / (1 - wrong - wrong)),
    (lesson_03.two_gaps, gaps_by_crosstab),
    (
        lesson_03.eods,
        lambda t, f: pd.Series(
            {"FairMedFM": 1 - (t + f) / 2, "mean": (t + f) / 2, "sum": t + f, "worst": max(t, f)}
        ),
    ),
    (lesson_03.sum_from_fairmedfm, lambda eod: np.array([2 - 2 * eod])),
    (lesson_03.defined_gap, lambda r: np.nanmax(r) - np.nanmin(r) if np.isfinite(r).sum() > 1 else np.nan),
    (lesson_04.slope, lambda loss, at: (loss(at + 1e-3) - loss(at - 1e-3)) / 2e-3),
    (lesson_04.slope, lambda loss, at: torch.func.grad(loss)(torch.tensor(at))),
    (lesson_04.prompt_loss, loss_by_hand),
    (lesson_04.class_weights, lambda count: (1 / count) * count.sum() / len(count)),
    (lesson_04.class_weights, lambda count: [Fraction(int(count.sum()), int(c) * len(count)) for c in count]),
    (lesson_04.paired_change, paired_by_numpy),
    (lesson_05.mean_of_all, lambda means, n: sum(m * k for m, k in zip(means, n, strict=True)) / sum(n)),
    (lesson_05.fedavg, weighted_list),
    (lesson_05.fedavg, lambda prompts, w: (prompts * w.view(-1, 1, 1, 1)).sum(0).requires_grad_()),
    (
        lesson_05.bytes_per_round,
        lambda k, layers, vectors, width: k * 128.0 + 4 * k * layers * vectors * width,
    ),
    (lesson_05.lie, lie_by_loop),
    (lesson_05.clipped, lambda u, bound: u if u.norm() < bound else u / u.norm() * bound),
    (lesson_06.counterfactual, lambda z, d, s, t, a: F.normalize(z + a * d[t] - a * d[s], dim=1).tolist()),
    (lesson_06.js_divergence, js_with_xlogy),
    (lesson_06.directions, directions_by_loop),
    (lesson_06.flips, lambda a, b: (np.mean(a ^ b), (a.sum() - b.sum()) / len(a))),
    (lesson_06.cf_loss, cf_loss_in_numpy),
    (lesson_07.project, project_by_columns),
    (lesson_07.soft_membership, lambda z, E, s: torch.exp((s * z @ E.T).double().log_softmax(1))),
    (lesson_07.soft_means, soft_means_by_loop),
    (lesson_07.choose, choose_by_sorting),
    (
        lesson_08.own_weight,
        lambda n, p, d, pm, dm, b, g: n * math.exp(b * p - b * pm) / math.exp(g * d - g * dm),
    ),
    (lesson_08.signed_gaps, signed_in_torch),
    (lesson_08.tilted, tilted_by_softmax),
    (lesson_09.average_effect, effect_by_pairs),
]

WRONG = [
    (lesson_00.rate, lambda groups, answers, group: sum(answers) / len(answers)),
    (
        lesson_00.rate,
        lambda groups, answers, group: sum(a for g, a in zip(groups, answers, strict=True) if g == group),
    ),
    (lesson_00.rate, lambda *given: float(100 * rate_by_counting(*given))),
    (lesson_00.rate, lambda *given: 5 / 6),
    (lesson_00.rate, lambda *given: str(rate_by_counting(*given))),
    (lesson_00.gap, lambda rates: max(rates.values())),
    (lesson_00.gap, lambda rates: rates["round"] - rates["square"] if "round" in rates else 0),
    (lesson_00.gap, lambda rates: max(rates)),
    (lesson_00.gap_in_table, lambda f, c, a: (f[c] == "yes").groupby(f[a]).sum().pipe(np.ptp)),
    (lesson_00.gap_in_table, lambda f, c, a: (f[c] == "yes").groupby(f[a]).mean()),
    (lesson_00.accuracy_by_group, lambda f, a: (f["prediction"] == f["smiling"]).mean()),
    (lesson_00.accuracy_by_group, lambda f, a: list((f["prediction"] == f["smiling"]).groupby(f[a]).mean())),
    (lesson_00.accuracy_by_group, lambda f, a: (f["prediction"] == "yes").groupby(f[a]).mean()),
    (lesson_01.unit, lambda rows: rows / np.linalg.norm(rows)),
    (lesson_01.unit, lambda rows: rows / rows.sum(1, keepdims=True)),
    (lesson_01.softmax, lambda scores: np.exp(scores) / np.exp(scores).sum()),
    (lesson_01.softmax, lambda scores: scores / scores.sum(1, keepdims=True)),
    (lesson_01.zero_shot, lambda z, t, s: softmax_in_torch(s * z @ t.T)),
    (lesson_01.zero_shot, lambda z, t, s: zero_shot_by_loop(z, t, 1.0)),
    (lesson_01.balanced_accuracy, lambda truth, said: (truth == said).mean()),
    (lesson_02.three_rates, lambda y, a: [a.mean(), a[y == 0].mean(), a[y == 1].mean()]),
    (lesson_02.three_rates, lambda y, a: [a.mean(), y[a == 1].mean(), y[a == 0].mean()]),
    (lesson_02.plausible, lambda m, n: (m / n, m / n)),
    (lesson_02.p_value, lambda gap, chance: (chance >= gap).mean()),
    (lesson_02.p_value, lambda gap, chance: (1 + (chance > gap).sum()) / (1 + len(chance))),
    (lesson_02.true_gap, lambda measured, wrong: measured / (1 - wrong)),
    (lesson_03.two_gaps, lambda *given: gaps_by_crosstab(*given).flip(0)),
    (lesson_03.eods, lambda t, f: {"worst": max(t, f), "sum": t + f, "mean": (t + f) / 2}),
    (lesson_03.sum_from_fairmedfm, lambda eod: 1 - eod),
    (lesson_03.sum_from_fairmedfm, lambda eod: eod + 0.25),
    (lesson_03.defined_gap, lambda r: np.nan_to_num(r).max() - np.nan_to_num(r).min()),
    (lesson_04.slope, lambda loss, at: loss(at + 1e-3) - loss(at - 1e-3)),
    (lesson_04.prompt_loss, lambda z, y, T, frozen, s, lam: F.cross_entropy(s * z @ T.T, y)),
    (lesson_04.prompt_loss, lambda z, y, T, frozen, s, lam: loss_by_hand(z, y, T, frozen, 1.0, lam)),
    (lesson_04.class_weights, lambda count: 1 / count),
    (lesson_04.class_weights, lambda count: count / count.sum()),
    (lesson_04.paired_change, lambda y, a, b: ((b == y).mean() - (a == y).mean(), 0.0, 0.0)),
    (lesson_04.paired_change, lambda y, a, b: paired_by_numpy(y, b, a)),
    (lesson_05.mean_of_all, lambda means, n: np.mean(means)),
    (lesson_05.fedavg, lambda prompts, w: prompts.mean(0)),
    (lesson_05.bytes_per_round, lambda k, layers, vectors, width: 4 * k * layers * vectors * width),
    (lesson_05.lie, lambda wish, prompts, w, liar: wish),
    (lesson_05.clipped, lambda u, bound: u.clamp(-bound, bound)),
    (lesson_05.clipped, lambda u, bound: u / u.norm() * bound),
    (lesson_08.own_weight, lambda n, p, d, pm, dm, b, g: n * math.exp(b * (p - pm) + g * (d - dm))),
    (lesson_08.signed_gaps, lambda r: (r - r.mean(1, keepdims=True)).reshape(len(r), -1)),
    (lesson_08.tilted, lambda n, a, s, b, v: n * np.exp(b * a - s @ v)),
    (lesson_09.fedavg, lambda prompts, w: prompts.sum(0)),
]


def tried(step, answer):
    check("what was asked", answer, step, atol=LOOSE.get(id(step), 1e-5))


@pytest.mark.parametrize(("step", "answer"), RIGHT)
def test_a_right_answer_passes(step, answer):
    tried(step, answer)


@pytest.mark.parametrize(("step", "answer"), WRONG)
def test_a_wrong_answer_fails(step, answer):
    with pytest.raises(NotYet, match="what was asked"):
        tried(step, answer)


def test_there_are_enough_answers():
    assert len(RIGHT) + len(WRONG) >= 88
