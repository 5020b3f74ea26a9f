"""Who comes up first? Skew of ranked images by perceived group, for text queries without a group.

``MaxSkew@k`` is the largest log ratio of a group's share among the first k to its share in the
target distribution (Geyik et al. 2019); ``NDKL`` weighs the divergence from the target at every depth.
Both need a target, so it is named with every number: the gallery's own shares ("population"), equal
shares ("uniform") or given ones. At k = n every ranking has the same shares: such a k sees nothing of
the model and is refused. Chance: the same ranking with shuffled groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fvlfp.audit.stats.intervals import holm
from fvlfp.errors import InputError


def target_shares(names: Sequence[str], codes: np.ndarray, target: str | Mapping[str, float]) -> np.ndarray:
    """Shares (G,) of the target distribution, each > 0, summing to 1.

    Raises:
        InputError: unknown name, a group without a share, or shares that do not sum to 1.
    """
    if isinstance(target, str):
        if target == "population":
            return np.bincount(codes, minlength=len(names)) / len(codes)
        if target == "uniform":
            return np.full(len(names), 1 / len(names))
        raise InputError(f"target {target!r}: use 'population', 'uniform' or a share for every group")
    missing = [n for n in names if not target.get(n, 0) > 0]
    if missing:
        raise InputError(f"the target gives group {missing[0]!r} no share above 0")
    shares = np.array([float(target[n]) for n in names])
    if abs(shares.sum() - 1) > 1e-6:
        raise InputError(f"the target's shares sum to {shares.sum():g}, not 1")
    return shares


def max_skew(ranked: np.ndarray, shares: np.ndarray, k: int) -> np.ndarray:
    """MaxSkew@k of group codes `ranked` (..., n) against `shares` (G,); 0 is the target, in nats.

    Raises InputError unless 1 <= k < n.
    """
    n = ranked.shape[-1]
    if not 1 <= k < n:
        raise InputError(f"k={k} of n={n} images: MaxSkew@k sees the model only for 1 <= k < n")
    top = (ranked[..., :k, None] == np.arange(len(shares))).mean(-2)
    return np.log(np.max(top / shares, axis=-1))


def ndkl(ranked: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Normalised discounted cumulative KL divergence of `ranked` (..., n) from `shares`; >= 0.

    Mean over depths i of KL(shares among the first i || target), weighted by 1 / log2(i + 1).
    """
    depth = np.arange(1, ranked.shape[-1] + 1)
    total = np.zeros(ranked.shape)
    for g, share in enumerate(shares):
        p = np.cumsum(ranked == g, axis=-1) / depth
        total += p * np.log(np.where(p > 0, p, 1) / share)
    weight = 1 / np.log2(depth + 1)
    return total @ (weight / weight.sum())


def audit_retrieval(
    similarity: ArrayLike,
    groups: Sequence[Any],
    *,
    queries: Sequence[str],
    k: int,
    target: str | Mapping[str, float] = "population",
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """MaxSkew@k and NDKL of every query, beside what shuffled groups give.

    Args:
        similarity: (queries, images), higher comes first; ties keep the order of the images. With a first
            axis for prompt templates, the first template is judged and the others give the band.
        groups: (images,) perceived group of each image.
        target: see `target_shares`.

    Returns one row per query and measure: query, measure, k, target, value, group (the most
    over-represented one), expected_null, null_95, p_value, p_adjusted (Holm over all rows), and with
    templates band_low and band_high, the range of the value over them.

    Raises:
        InputError: shapes that do not fit, missing values, one group only, k = n, a bad target.
    """
    scores, banded = _checked(similarity, len(queries), len(groups))
    names, codes = _group_codes(groups)
    shares = target_shares(names, codes, target)
    rng = np.random.default_rng(seed)
    shuffled = np.stack([rng.permutation(codes) for _ in range(draws)])
    chance = {f"max_skew@{k}": max_skew(shuffled, shares, k), "ndkl": _in_parts(shuffled, shares)}
    stated = target if isinstance(target, str) else _listed(names, shares)
    rows = []
    for i, query in enumerate(queries):
        ranked = codes[np.argsort(-scores[:, i], axis=-1, kind="stable")]  # (templates, images)
        top = np.bincount(ranked[0, :k], minlength=len(names)) / k / shares
        values = {f"max_skew@{k}": max_skew(ranked, shares, k), "ndkl": ndkl(ranked, shares)}
        for measure, each in values.items():  # each: (templates,)
            band = {"band_low": float(each.min()), "band_high": float(each.max())} if banded else {}
            rows.append(
                {"query": query, "measure": measure, "target": stated, "value": float(each[0])}
                | band
                | {"group": names[int(top.argmax())]}
                | _against(chance[measure], float(each[0]))
            )
    out = pd.DataFrame(rows)
    out["p_adjusted"] = pd.Series(holm(dict(enumerate(out["p_value"]))))
    return out


def _checked(similarity: ArrayLike, queries: int, images: int) -> tuple[np.ndarray, bool]:
    """Scores (templates, queries, images), all finite, and whether there were templates."""
    scores = np.asarray(similarity, float)
    if scores.shape[-2:] != (queries, images) or scores.ndim not in (2, 3):
        raise InputError(f"similarity is {scores.shape}, not {queries} queries x {images} images")
    if not np.isfinite(scores).all():
        raise InputError("similarity holds values that are not finite")
    return scores.reshape(-1, queries, images), scores.ndim == 3


def _group_codes(groups: Sequence[Any]) -> tuple[list[str], np.ndarray]:
    """Names of the groups, and the code (images,) of each image's."""
    if pd.Series(groups).isna().any():
        raise InputError("an image without a perceived group cannot be ranked: leave it out first")
    codes, uniques = pd.factorize(pd.Series(groups).astype("str"), sort=True)
    names = [str(u) for u in uniques]
    if len(names) < 2:
        raise InputError(f"only one group ({names[0]!r}): no skew can be judged")
    return names, codes


def _listed(names: Sequence[str], shares: np.ndarray) -> str:
    return ", ".join(f"{n} {s:g}" for n, s in zip(names, shares, strict=True))


def _against(null: np.ndarray, value: float) -> dict[str, float]:
    """What shuffled groups give, `null` (draws,), and how often they reach `value`."""
    return {
        "expected_null": float(null.mean()),
        "null_95": float(np.quantile(null, 0.95)),
        "p_value": (1 + int((null >= value - 1e-12).sum())) / (1 + len(null)),
    }


def _in_parts(ranked: np.ndarray, shares: np.ndarray) -> np.ndarray:
    size = max(1, 2_000_000 // ranked.shape[-1])
    return np.concatenate([ndkl(ranked[i : i + size], shares) for i in range(0, len(ranked), size)])
