"""FPF: Fair-aware Prompt Fusion. How much each client's prompts count, from performance *and* fairness.

`w_k ∝ n_k^a exp(beta (perf_k - perf_mean) - gamma (disp_k - disp_mean))` (METHOD.md: FPF).

perf_k is the *balanced* accuracy and disp_k the odds gap of the client's updated prompts on its own
validation data: with plain accuracy the rule rewards a constant predictor, which has no gap.

What this module does not do: it cannot check what a client reports. A lying client gains weight; the cap
and the floor bound how much. It is plain arithmetic and knows neither torch nor Flower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Examples worth of shrinkage of a client's reported gap towards zero: `prior` of `fvlfp.metrics.recall_gap`.
GAP_PRIOR = 10.0


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """The rule's constants.

    a: power of the client's size; beta, gamma: weight of performance and of disparity.
    cap: the exponential factor stays in [1/cap, cap], so no client ever counts for more than cap^2 times
        another of its size.
    floor: no client falls below floor * n_k / sum n (applied where all weights are known).
    chance: balanced accuracy of guessing, 1 / C; margin: a client under chance + margin gets no bonus for a
        small gap (the gate: a near-constant predictor has a small gap for the wrong reason).
    """

    a: float = 1.0
    beta: float = 0.0
    gamma: float = 0.0
    cap: float = 10.0
    floor: float = 0.01
    chance: float = 0.5
    margin: float = 0.02


def client_weight(
    n: int,
    perf: float | None,
    disp: float | None,
    *,
    perf_mean: float | None,
    disp_mean: float | None,
    fusion: Fusion,
) -> float:
    """One client's weight, before normalising, > 0; with last round's two means it needs no other report.

    n: examples (> 0). perf: balanced accuracy in [0, 1]; disp: odds gap in [0, 1]; None (or NaN) where
    undefined (one group only, too few positives): then the term is neutral, as it is in the first round,
    when no mean is known. beta = gamma = 0 and a = 1 give float(n) exactly.
    """
    perf, disp = defined(perf), defined(disp)
    perf_mean, disp_mean = defined(perf_mean), defined(disp_mean)
    exponent = 0.0
    if perf is not None and perf_mean is not None:
        exponent += fusion.beta * (perf - perf_mean)
    if disp is not None and disp_mean is not None:
        bonus = -fusion.gamma * (disp - disp_mean)
        gated = perf is None or perf < fusion.chance + fusion.margin
        exponent += min(bonus, 0.0) if gated else bonus
    limit = math.log(fusion.cap)
    size = float(n) if fusion.a == 1.0 else float(n) ** fusion.a
    return size * math.exp(max(-limit, min(limit, exponent)))


def fusion_weights(
    n: Sequence[int],
    perf: Sequence[float | None],
    disp: Sequence[float | None],
    *,
    fusion: Fusion,
    previous: Sequence[float] | None = None,
    momentum: float = 0.0,
) -> list[float]:
    """All clients' weights, up to a common factor, by this round's means.

    They are not normalised here: fusing divides by their sum, and a = 1, beta = gamma = 0 then gives FedAvg's
    n_k / sum n bit for bit.

    n, perf, disp: one entry a client, as in `client_weight`; the means are this round's (None entries left
    out). previous: last round's weights of the same clients, mixed in with `momentum` in [0, 1).

    Of two clients of one size, the one with the smaller gap counts more; a third could not measure its own:

    >>> rule = Fusion(beta=1.0, gamma=4.0)
    >>> weights = fusion_weights([100, 100, 50], [0.8, 0.8, None], [0.3, 0.1, None], fusion=rule)
    >>> [round(weight, 1) for weight in weights]
    [67.0, 149.2, 50.0]
    """
    perf_mean, disp_mean = mean_known(perf), mean_known(disp)
    weights = [
        client_weight(n_k, p, q, perf_mean=perf_mean, disp_mean=disp_mean, fusion=fusion)
        for n_k, p, q in zip(n, perf, disp, strict=True)
    ]
    share = sum(weights) / sum(n)  # floor and momentum on the same scale: only ratios matter
    weights = [max(w, fusion.floor * n_k * share) for w, n_k in zip(weights, n, strict=True)]
    if previous is not None and momentum > 0:
        scale = sum(weights) / sum(previous)
        mixed = zip(previous, weights, strict=True)
        weights = [momentum * p * scale + (1 - momentum) * w for p, w in mixed]
    return weights


def mean_known(values: Sequence[float | None]) -> float | None:
    """The mean of the entries that are defined; None if there are none."""
    known = [value for value in map(defined, values) if value is not None]
    return sum(known) / len(known) if known else None


def defined(value: float | None) -> float | None:
    """NaN (as tables and messages write "undefined") becomes None; anything else stays."""
    return None if value is None or math.isnan(value) else value
