"""The hidden inputs of every graded step tell right answers, in any form, from the usual wrong ones."""

import importlib
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from fvlfp import cdfp, check, dsop
from fvlfp.course.lesson import NotYet, Step
from fvlfp.course.steps import lesson_06, lesson_07, lesson_08, lesson_09
from fvlfp.course.tour import lessons
from fvlfp.peers import balanced_weights, peer_weights
from fvlfp.robust import capped

LESSONS = {
    path.stem[:2]: importlib.import_module(f"fvlfp.course.steps.lesson_{path.stem[:2]}") for path in lessons()
}
#: "00 rate" -> the step
STEPS = {
    f"{number} {name}": step
    for number, lesson in LESSONS.items()
    for name, step in vars(lesson).items()
    if isinstance(step, Step)
}
#: as the lessons check them: these two are found by a search
LOOSE = {"08 fairest": 5e-3, "08 by_peers": 5e-3, "09 by_peers": 5e-3, "04 slope": 1e-2}

log_softmax = torch.nn.functional.log_softmax


def not_of_length_one(z, directions, source, target, alpha):
    return z + alpha * (directions[target] - directions[source])


def to_its_own_group(z, directions, source, target, alpha):
    return cdfp.counterfactual(z, directions, target, source, alpha)


def by_probabilities(a, b):
    p, q = a.softmax(-1), b.softmax(-1)
    m = (p + q) / 2
    return ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2  # 0 log 0 is no number


def kl(a, b):
    return (a.softmax(-1) * (log_softmax(a, -1) - log_softmax(b, -1))).sum(-1)


def plain_means(z, y, group):
    return dsop.centred(torch.stack([z[group == g].mean(0) for g in (0, 1)]))


def not_centred(z, y, group):
    return torch.stack(
        [torch.stack([z[(group == g) & (y == c)].mean(0) for c in (0, 1)]).mean(0) for g in (0, 1)]
    )


def without_scale(z, texts, scale, directions, source, target, alpha):
    return lesson_06.cf_loss.reference(z, texts, 1.0, directions, source, target, alpha)


def mean_over_rows(*batch):
    return lesson_06.cf_loss.reference(*batch).mean()


def unbalanced(z, y, q):
    return (q.T @ z) / q.sum(0)[:, None]


def below_the_best(accuracy, gap, tolerance):
    return np.where(accuracy >= accuracy.max() - tolerance, gap, np.inf).argmin()


def any_share(p, accuracy, signed, floor, share):
    return lesson_08.fairest.reference(p, accuracy, signed, floor, 0.05)


def no_cap(n, judged, share, tolerance):
    floor = float(judged.accuracy @ n) / n.sum() - tolerance
    return balanced_weights(n, judged, share=share, floor=floor)


def no_gate(n, judged, share, tolerance):
    p = capped(n, 2.0)
    return balanced_weights(p, judged, share=share, floor=np.median(judged.accuracy) - tolerance)


def half_the_effect(gap, part):
    return lesson_09.average_effect.reference(gap, part) / 2


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        (lesson_06.counterfactual, not_of_length_one),
        (lesson_06.counterfactual, to_its_own_group),
        (lesson_06.js_divergence, by_probabilities),
        (lesson_06.js_divergence, kl),
        (lesson_06.directions, plain_means),
        (lesson_06.directions, not_centred),
        (lesson_06.cf_loss, without_scale),
        (lesson_06.cf_loss, mean_over_rows),
        (lesson_06.flips, lambda a, b: [(a != b).mean(), abs(a.mean() - b.mean())]),
        (lesson_07.project, lambda z, U, mu, lam: z - lam * z @ U @ U.T),
        (lesson_07.project, lambda z, U, mu, lam: z - (z - mu) @ U @ U.T),
        (lesson_07.soft_membership, lambda z, E, scale: (z @ E.T).softmax(-1)),
        (lesson_07.soft_membership, lambda z, E, scale: torch.exp(scale * z @ E.T)),
        (lesson_07.soft_means, unbalanced),
        (lesson_07.choose, below_the_best),
        (lesson_07.choose, lambda accuracy, gap, tolerance: gap.argmin()),
        (lesson_08.fairest, any_share),
        (lesson_08.fairest, lambda p, *others: p),
        (lesson_08.by_peers, no_cap),
        (lesson_08.by_peers, no_gate),
        (lesson_09.average_effect, half_the_effect),
        (lesson_09.average_effect, lambda gap, part: gap[part] - gap["FedAvg"]),
    ],
)
def test_a_wrong_answer_fails(step, wrong):
    with pytest.raises(NotYet, match="what was asked"):
        check(
            "what was asked",
            wrong,
            step,
            atol=5e-3 if step in (lesson_08.fairest, lesson_08.by_peers) else 1e-5,
        )


def test_peers_are_the_librarys():
    n, judged, share, tolerance = lesson_08.by_peers.inputs(np.random.default_rng(0))
    found = lesson_08.by_peers.reference(n, judged, share, tolerance)
    assert np.array_equal(found, peer_weights(n, judged, share=share, tolerance=tolerance))


def rounded(array):
    """Three digits after the point; of a small number, three that count."""
    numbers = [float(f"{x:.3g}") if abs(x) < 0.01 else round(x, 3) for x in array.ravel().tolist()]
    return np.array(numbers).reshape(array.shape)


def in_numbers(answer, form):
    """An answer whose numbers were written otherwise; words and names stay."""
    if isinstance(answer, dict):
        return {name: in_numbers(value, form) for name, value in answer.items()}
    return answer if isinstance(answer, str) else form(np.asarray(answer))


FORMS = {
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(a.tolist()) if a.ndim else (a.item(),),
    "numpy": lambda a: a,
    "torch": torch.tensor,
    "pandas": lambda a: pd.Series(a.ravel()) if a.ndim < 2 else a,
    "rounded": lambda a: rounded(a) if a.dtype.kind == "f" else a,
    "Fraction": lambda a: Fraction(a.item()) if a.size == 1 and np.isfinite(a).all() else a,
    "32 bits": lambda a: a.astype(np.float32) if a.dtype.kind == "f" else a,
}


@pytest.mark.parametrize("name", STEPS)
def test_a_right_answer_passes_in_every_form(name, capsys):
    step = STEPS[name]
    for form in FORMS.values():
        check(
            name,
            lambda *given, form=form: in_numbers(step.reference(*given), form),
            step,
            atol=LOOSE.get(name, 1e-5),
        )
    assert capsys.readouterr().out.count("✓") == len(FORMS)


def wald(m, n):
    half = 1.96 * np.sqrt(m / n * (1 - m / n) / n)
    return m / n - half, m / n + half


def undefined_as_zero(rates):
    known = np.nan_to_num(np.asarray(rates, float))
    return known.max() - known.min()


def without_ones(measured, by_chance):
    return np.mean(np.asarray(by_chance) >= measured)


def larger_only(measured, by_chance):
    return (1 + (np.asarray(by_chance) > measured).sum()) / (1 + len(by_chance))


def occurring_cells_only(table, label, group):
    return table.groupby([label, group]).size().min()


def exponentials(logits):
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def trimmed_without_care(values, trim):
    return np.nan_to_num(np.sort(values, axis=0)[trim:-trim].sum(0) / max(1, len(values) - 2 * trim))


def added_by_both(shares, masks):
    sent = shares.copy()
    for k in range(len(shares)):
        for j in range(k + 1, len(shares)):
            sent[k] += masks[k, j]
            sent[j] += masks[k, j]
    return sent


def bonferroni(p_values):
    return np.minimum(1, np.asarray(p_values) * len(p_values))


def half_of_the_time(seconds, deadline, needed):
    return min(max(seconds), deadline)


WRONG = {
    "10 wilson": [wald],
    "10 gap": [undefined_as_zero, lambda rates: np.ptp(rates)],
    "10 p_value": [without_ones, larger_only],
    "10 noticed": [lambda *given: True, lambda *given: not STEPS["10 noticed"].reference(*given)],
    "11 lonely_rows": [lambda values: [1 + i for i, value in enumerate(values) if values.count(value) == 1]],
    "11 escapes": [lambda path: ".." in path, lambda path: path.startswith(("..", "/"))],
    "11 smallest_cell": [occurring_cells_only, lambda table, label, group: table[group].value_counts().min()],
    "11 needed": [lambda rate, half: int(1.96**2 * rate * (1 - rate) / half**2)],
    "12 share_called": [lambda scores, at: np.mean(np.asarray(scores) > at)],
    "12 logits": [
        lambda z, W, b, M, c: z @ W.T + b,
        lambda z, W, b, M, c: (z @ W.T + b) / np.linalg.norm(z @ M.T + c),
    ],
    "12 probabilities": [exponentials],
    "12 answers": [
        lambda lines: {line.split()[0]: line.split()[1] for line in lines},
        lambda lines: dict.fromkeys(lines, "amber"),
    ],
    "12 seen_before": [lambda new, old: len(set(new) & set(old))],
    "13 bytes_sent": [lambda n, m, d, r, rounds: rounds * 4 * n * m * d + 8 * r],
    "13 newest_good": [lambda saved: max(number for number, *_ in saved)],
    "13 may_count": [lambda labels, groups, least: len(labels)],
    "13 round_seconds": [half_of_the_time, lambda seconds, deadline, needed: max(seconds)],
    "14 too_long": [lambda lengths, bound: np.asarray(lengths) > bound * np.mean(lengths)],
    "14 trimmed_mean": [trimmed_without_care, lambda values, trim: values.mean(0)],
    "14 most_liars": [lambda clients: clients // 2],
    "14 capped": [lambda sizes, times: np.minimum(sizes, times * np.mean(sizes))],
    "14 lie": [lambda start, honest: -honest],
    "15 masked": [added_by_both, lambda shares, masks: shares],
    "15 the_other": [lambda a, b: (np.asarray(a) - b)[:-1]],
    "15 clipped": [lambda update, most: update * most / np.linalg.norm(update)],
    "15 delta": [lambda epsilon, z, rounds: STEPS["15 delta"].reference(epsilon, z, 1)],
    "15 real_multiplier": [lambda z, sizes: z, lambda z, sizes: z / len(sizes)],
    "16 share_called": [lambda table, label, group, answer: (table["answer"] == answer).mean()],
    "16 worst_cell": [lambda recall: recall.to_numpy().min(), lambda recall: recall.min(skipna=False).min()],
    "16 false_alarm": [lambda tests, level: tests * level, lambda tests, level: level],
    "16 holm": [bonferroni, lambda p: sorted(STEPS["16 holm"].reference(p))],
}


@pytest.mark.parametrize(("name", "wrong"), [(name, wrong) for name, some in WRONG.items() for wrong in some])
def test_a_usual_wrong_answer_fails(name, wrong):
    with pytest.raises(NotYet, match=name):
        check(name, wrong, STEPS[name], atol=LOOSE.get(name, 1e-5))


def test_every_step_has_a_wrong_answer():
    """Those of 06 to 09 stand above, and `test_answers.py` has them for 00 to 09."""
    assert {name for name in STEPS if name >= "10"} == set(WRONG)
