"""What is special to a CLIP: who comes up first, what gives the group away, what moving an embedding does.

One entry of the document, ``embedding``, from image and text embeddings alone. What cannot be judged
(one group, too few images) is left out with its reason. What this module does not do: encode anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from fvlfp.audit.clip import embeddings
from fvlfp.audit.clip.clip_options import EmbeddingOptions
from fvlfp.audit.clip.probes import CLIP_PAPER, associations, flip_rate, leakage
from fvlfp.audit.clip.retrieval import audit_retrieval
from fvlfp.audit.schema import Embedding, EmbeddingAttribute, HarmfulWords, Row, Subspaces
from fvlfp.errors import InputError

T = TypeVar("T")


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
    options: EmbeddingOptions | None = None,
) -> Embedding:
    """Retrieval skew, leakage, counterfactual flips, subspaces and (if offered) harmful words, by attribute.

    Args:
        images: (n, d) unit rows. labels: (n,) true classes, used to balance group means. groups:
            attribute -> (n,) perceived groups; a missing entry leaves the image out of that attribute.

    Raises:
        InputError: k of n or more images.
    """
    options = options or EmbeddingOptions()
    depth = options.depth(len(images))
    plane = embeddings.plane(images, words.classes[0], seed=options.seed)
    attributes: dict[str, EmbeddingAttribute] = {}
    for attribute, column in groups.items():
        known = ~pd.isna(pd.Series(column, dtype=object)).to_numpy()
        names = np.asarray(column, dtype=object)[known].astype(str).tolist()
        named = dict(zip(np.flatnonzero(known).tolist(), names, strict=True))
        y = pd.factorize(np.asarray(labels, dtype=object)[known].astype(str))[0]
        part = _Attribute(attribute, images[known], names, y, words, depth, options)
        attributes[attribute] = part.judge([named.get(i) for i in plane["rows"]])
    return {
        **plane,
        "modality_gap_band": _range([embeddings.modality_gap(images, t) for t in words.classes]),
        "k": depth,
        "target": options.target,
        "attributes": attributes,
    }


@dataclass(frozen=True)
class _Attribute:
    """The images (n, d) whose group is known, their groups' names (n,) and class codes y (n,)."""

    name: str
    z: np.ndarray
    names: list[str]
    y: np.ndarray
    words: Words
    k: int
    options: EmbeddingOptions

    def judge(self, shown: list[str | None]) -> EmbeddingAttribute:
        """Every part that can be judged, and why the others cannot."""
        o, reasons = self.options, dict[str, str]()

        def part(name: str, compute: Callable[[], T]) -> T | None:
            try:
                return compute()
            except InputError as error:
                reasons[name] = str(error)
                return None

        entry: EmbeddingAttribute = {
            "shown": shown,
            "reasons": reasons,
            "retrieval": part("retrieval", self.retrieval),
            "leakage": part("leakage", lambda: rows(leakage(self.z, self.names, seed=o.seed, level=o.level))),
            "flips": part("flips", self.flips),
            "subspaces": part("subspaces", self.subspaces),
        }
        if self.name in self.words.offered:
            entry["associations"] = part("associations", self.harmful_words)
        return entry

    def retrieval(self) -> list[Row]:
        """Who comes up first for the texts of the classes."""
        similarity, o = self.words.classes @ self.z.T, self.options
        return rows(
            audit_retrieval(
                similarity,
                self.names,
                queries=self.words.queries,
                k=self.k,
                target=o.target,
                draws=o.draws,
                seed=o.seed,
            )
        )

    def codes(self, refusal: str) -> np.ndarray:
        """The groups as codes (n,) from 0, in sorted order; InputError for one group only."""
        codes, uniques = pd.factorize(np.array(self.names), sort=True)
        if len(uniques) < 2:
            raise InputError(refusal)
        return codes

    def flips(self) -> list[Row]:
        """Share of images whose predicted class changes when their embedding is moved to another group."""
        z, classes, level = self.z, self.words.classes, self.options.level
        codes = self.codes("only one group: there is no other to move to")
        means = embeddings.group_means(z, codes, self.y)
        moved = embeddings.counterfactual(z, codes, means, seed=self.options.seed)
        tables = [
            flip_rate((z @ t.T).argmax(1), (moved @ t.T).argmax(1), self.names, level=level) for t in classes
        ]
        return _with_bands(tables)

    def subspaces(self) -> Subspaces:
        """How far the directions of the classes' words, the groups' words and the groups' images agree."""
        codes = self.codes("only one group spans no subspace")
        sentences = self.words.groups.get(self.name, {})
        spaces = {"words of the classes": embeddings.subspace(self.words.classes[0])}
        if len(sentences) > 1:
            spaces["words of the groups"] = embeddings.subspace([t.mean(0) for t in sentences.values()])
        means = embeddings.group_means(self.z, codes, self.y)
        spaces["images of the groups"] = embeddings.subspace(means)
        matrix = [[embeddings.overlap(u, v) for v in spaces.values()] for u in spaces.values()]
        return {"names": list(spaces), "matrix": matrix}

    def harmful_words(self) -> HarmfulWords:
        """How often each group's images are given a word of each harmful category, with the band."""
        o = self.options
        offered, texts = self.words.offered[self.name]
        by_template = [
            associations(
                np.array(offered)[(self.z @ t.T).argmax(1)].tolist(),
                self.names,
                level=o.level,
                draws=o.draws,
                seed=o.seed,
            )
            for t in texts
        ]
        rates, gaps = zip(*by_template, strict=True)
        return {"words": CLIP_PAPER, "rates": _with_bands(rates), "gaps": _with_bands(gaps)}


def rows(table: pd.DataFrame) -> list[Row]:
    """A table as JSON rows."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _with_bands(tables: Sequence[pd.DataFrame]) -> list[Row]:
    """The first template's rows, each with the range of its value over the tables of all templates."""
    values = np.stack([table["value"] for table in tables])
    return [row | {"band": _range(column)} for row, column in zip(rows(tables[0]), values.T, strict=True)]


def _range(values: Sequence[float] | np.ndarray) -> list[float]:
    return [float(min(values)), float(max(values))]
