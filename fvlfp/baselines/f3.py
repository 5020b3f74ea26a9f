"""F3 (Kanaparthy et al., arXiv 2109.02351): the server keeps the clients that are fairest on validation data.

Its rules, as weights of the clients: α-FairAvg averages the fairest share α, α-FairAccAvg the share α with
the best ratio of accuracy to unfairness; FairBest, the fairest model alone, is α = 1/K. What this module does
not do: it measures nothing. Both lists must come from data that the server trusts; a client that reports its
own can take over the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fvlfp.errors import InputError


def fair_avg(unfairness: Sequence[float], *, share: float) -> list[float]:
    """Equal weights for the fairest ⌈share · K⌉ clients, 0 for the others; of equal ones, for the first.

    unfairness: K gaps, at least 0, of the clients' models on one validation set.

    Raises:
        InputError: a share outside (0, 1].
    """
    return _equal(sorted(range(len(unfairness)), key=lambda k: unfairness[k]), share)


def fair_acc_avg(unfairness: Sequence[float], accuracy: Sequence[float], *, share: float) -> list[float]:
    """Equal weights for the ⌈share · K⌉ clients with the largest accuracy / unfairness, 0 for the others.

    A client with a gap of 0 stands before every other; among such, accuracy decides.

    Raises:
        InputError: a share outside (0, 1].
    """

    def merit(k: int) -> tuple[float, float]:
        return (accuracy[k] / unfairness[k] if unfairness[k] > 0 else math.inf, accuracy[k])

    return _equal(sorted(range(len(unfairness)), key=merit, reverse=True), share)


def _equal(order: Sequence[int], share: float) -> list[float]:
    if not 0 < share <= 1:
        raise InputError(f"share = {share}: must lie in (0, 1]")
    kept = math.ceil(share * len(order) - 1e-9)  # 0.3 * 10 is a little above 3
    chosen = set(order[:kept])
    return [1 / kept if k in chosen else 0.0 for k in range(len(order))]
