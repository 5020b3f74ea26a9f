"""What is special to a CLIP: who comes up first, what gives the group away, what moving an embedding does.

One entry of the document, ``embedding``, from image and text embeddings alone. What cannot be judged
(one group, too few images) is left out with its reason. What this module does not do: encode anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from fvlfp.audit.clip import embeddings
from fvlfp.audit.clip.probes import CLIP_PAPER, associations, flip_rate, leakage
from fvlfp.audit.clip.retrieval import audit_retrieval
from fvlfp.errors import InputError


@dataclass(frozen=True)
class Words:
    """Embedded texts, unit rows.

    queries: what each class is called under the first template. classes: (templates, C, d). groups:
    attribute -> group -> (m, d), sentences that name the group. offered: attribute -> (texts, their (t, m, d)
    embeddings by template), the harmful words of ``CLIP_PAPER`` among them; empty unless asked for.
    """

    queries: list[str]
    classes: np.ndarray
    groups: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    offered: Mapping[str, tuple[list[str], np.ndarray]] = field(default_factory=dict)


def audit_embedding(
    images: np.ndarray,
    labels: Sequence[Any],
    groups: Mapping[str, Sequence[Any]],
    words: Words,
    *,
    k: int | None = None,
    target: str = "population",
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Retrieval skew, leakage, counterfactual flips, subspaces and (if offered) harmful words, by attribute.

    Args:
        images: (n, d) unit rows. labels: (n,) true classes, used to balance group means. groups:
            attribute -> (n,) perceived groups; a missing entry leaves the image out of that attribute.
        k: depth of MaxSkew@k; by default a tenth of the images, 100 at most.
        target: "population" or "uniform", see ``retrieval``.

    Raises:
        InputError: k of n or more images, or a target that is neither of the two.
    """
    n = len(images)
    depth = max(1, min(100, n // 10)) if k is None else k
    if not 1 <= depth < n and n > 1:
        raise InputError(f"k={depth} of n={n} images: MaxSkew@k sees the model only for 1 <= k < n")
    if target not in ("population", "uniform"):
        raise InputError(f"target {target!r}: use 'population' or 'uniform'")
    found = embeddings.plane(images, words.classes[0], seed=seed)
    found["modality_gap_band"] = _range([embeddings.modality_gap(images, t) for t in words.classes])
    found |= {"k": depth, "target": target, "attributes": {}}
    for attribute, column in groups.items():
        known = ~pd.isna(pd.Series(column, dtype=object)).to_numpy()
        names = np.asarray(column, dtype=object)[known].astype(str)
        named = dict(zip(np.flatnonzero(known).tolist(), names.tolist(), strict=True))
        y = pd.factorize(np.asarray(labels, dtype=object)[known].astype(str))[0]
        common: dict[str, Any] = {"draws": draws, "seed": seed}
        entry = _attribute(attribute, images[known], names.tolist(), y, words, depth, target, level, common)
        found["attributes"][attribute] = {"shown": [named.get(i) for i in found["rows"]], **entry}
    return found


def _attribute(
    attribute: str,
    z: np.ndarray,
    names: list[str],
    y: np.ndarray,
    words: Words,
    k: int,
    target: str,
    level: float,
    common: dict[str, Any],
) -> dict[str, Any]:
    parts: dict[str, Callable[[], Any]] = {
        "retrieval": lambda: audit_retrieval(
            words.classes @ z.T, names, queries=words.queries, k=k, target=target, **common
        ).to_dict("records"),
        "leakage": lambda: leakage(z, names, seed=common["seed"], level=level).to_dict("records"),
        "flips": lambda: _flips(z, names, y, words.classes, common["seed"], level),
        "subspaces": lambda: _subspaces(z, names, y, words.classes[0], words.groups.get(attribute, {})),
    }
    if attribute in words.offered:
        parts["associations"] = lambda: _harmful(z, names, *words.offered[attribute], level, **common)
    entry: dict[str, Any] = {"reasons": {}}
    for part, judge in parts.items():
        try:
            entry[part] = judge()
        except InputError as error:
            entry[part], entry["reasons"][part] = None, str(error)
    return entry


def _range(values: Sequence[float]) -> list[float]:
    return [float(min(values)), float(max(values))]


def _flips(
    z: np.ndarray, names: list[str], y: np.ndarray, classes: np.ndarray, seed: int, level: float
) -> list[dict[Any, Any]]:
    """Share of images whose predicted class changes when their embedding is moved to another group."""
    codes, uniques = pd.factorize(np.array(names), sort=True)
    if len(uniques) < 2:
        raise InputError("only one group: there is no other to move to")
    moved = embeddings.counterfactual(z, codes, embeddings.group_means(z, codes, y), seed=seed)
    tables = [flip_rate((z @ t.T).argmax(1), (moved @ t.T).argmax(1), names, level=level) for t in classes]
    values = np.stack([table["value"] for table in tables])
    bands = [_range(column) for column in values.T.tolist()]
    return [row | {"band": band} for row, band in zip(tables[0].to_dict("records"), bands, strict=True)]


def _subspaces(
    z: np.ndarray, names: list[str], y: np.ndarray, classes: np.ndarray, said: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """How far the directions of the classes' words, the groups' words and the groups' images agree."""
    codes, uniques = pd.factorize(np.array(names), sort=True)
    if len(uniques) < 2:
        raise InputError("only one group spans no subspace")
    spaces = {"words of the classes": embeddings.subspace(classes)}
    if len(said) > 1:
        spaces["words of the groups"] = embeddings.subspace([t.mean(0) for t in said.values()])
    spaces["images of the groups"] = embeddings.subspace(embeddings.group_means(z, codes, y))
    matrix = [[embeddings.overlap(u, v) for v in spaces.values()] for u in spaces.values()]
    return {"names": list(spaces), "matrix": matrix}


def _harmful(
    z: np.ndarray, names: list[str], offered: list[str], texts: np.ndarray, level: float, **common: Any
) -> dict[str, Any]:
    """How often each group's images are given a word of each harmful category, with band over templates."""
    by_template = [
        associations(np.array(offered)[(z @ t.T).argmax(1)].tolist(), names, level=level, **common)
        for t in texts
    ]
    rates, gaps = (table.to_dict("records") for table in by_template[0])
    for rows, which in ((rates, 0), (gaps, 1)):
        values = np.stack([pair[which]["value"] for pair in by_template])
        for row, column in zip(rows, values.T.tolist(), strict=True):
            row["band"] = _range(column)
    return {"words": CLIP_PAPER, "rates": rates, "gaps": gaps}
