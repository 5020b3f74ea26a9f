"""The hidden inputs of lessons 06 to 09 tell a right answer from the usual wrong ones."""

import numpy as np
import pytest
import torch

from fvlfp import cdfp, check, dsop
from fvlfp.course.lesson import NotYet
from fvlfp.course.steps import lesson_06, lesson_07, lesson_08, lesson_09
from fvlfp.peers import balanced_weights, peer_weights
from fvlfp.robust import capped

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


@pytest.mark.parametrize("lesson", [lesson_06, lesson_07, lesson_08, lesson_09])
def test_the_reference_passes_in_other_wrappings(lesson, capsys):
    for name, step in vars(lesson).items():
        if hasattr(step, "reference"):
            check(name, lambda *given, of=step.reference: np.asarray(of(*given)).tolist(), step)
    assert "✓" in capsys.readouterr().out


def test_peers_are_the_librarys():
    n, judged, share, tolerance = lesson_08.by_peers.inputs(np.random.default_rng(0))
    found = lesson_08.by_peers.reference(n, judged, share, tolerance)
    assert np.array_equal(found, peer_weights(n, judged, share=share, tolerance=tolerance))
