"""Every key of ``audit.json``, in the order in which it is written.

The document is plain JSON, so the types here are dictionaries with named keys: what computes an entry, what
writes it and what shows it are checked against the same lines. None is JSON's null: the value is undefined,
and ``reason`` says why. Rates, p-values and levels are in [0, 1]. What this module does not do: compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

SCHEMA = 1  # of audit.json; a reader refuses any other

#: What is known about model and data: any JSON that its owner wrote.
Facts = Mapping[str, Any]


class Banded(TypedDict):
    """A value and its smallest and largest one over the prompt templates, where there are several."""

    value: float | None
    band: NotRequired[list[float] | None]


class Estimate(Banded):
    """A value with its interval."""

    low: float | None
    high: float | None


class Rate(Estimate):
    """One rate of one group; of a mean of recalls the denominator is the smallest class's."""

    reason: str | None
    numerator: float | None
    denominator: float
    small: bool  # rests on fewer than ten examples


class ClassRates(TypedDict):
    """The rates of one class against the rest, in one group."""

    positives: float | None
    negatives: float | None
    rates: dict[str, Rate]


class GroupRates(ClassRates):
    """The rates of one group; with more than two classes also those of each class."""

    n: int
    classes: NotRequired[dict[str, ClassRates]]


# "class" cannot be written as a field, hence the other spelling of the next three.
Pair = TypedDict(
    "Pair",
    {
        "groups": list[str],  # highest, lowest
        "rate": str,
        "class": str | None,
        "difference": float,
        "low": float,
        "high": float,
    },
)
LeftOut = TypedDict("LeftOut", {"group": str, "rate": str, "class": NotRequired[str], "reason": str | None})
Cell = TypedDict("Cell", {"group": str, "class": str})


class Gap(Estimate):
    """One gap between groups; ``tested_as`` names the gap whose test it shares."""

    reason: str | None
    p_value: float | None
    p_adjusted: float | None  # Holm's, over the whole audit
    tested_as: str | None
    expected_null: float | None  # the mean gap of permuted group labels
    null_95: NotRequired[float | None]  # not of scores
    excess: NotRequired[float | None]  # not of scores
    minimum_detectable: float | None
    perfect_classifier: NotRequired[float | None]  # of demographic parity only
    excess_over_perfect: NotRequired[float | None]
    pair: NotRequired[Pair | None]  # the two groups that span it


class ClassGaps(TypedDict):
    """The gaps of one class against the rest: described, not tested."""

    gaps: dict[str, Gap]


class WorstCell(Estimate):
    """The smallest recall of any group and class."""

    cell: Cell


class LabelNoise(TypedDict):
    """Gaps corrected for assumed shares of wrong group labels; one entry per share."""

    wrong: list[float]
    gaps: dict[str, list[float | None]]
    possible: list[bool]


class Bin(TypedDict):
    """One reliability bin of scores."""

    mean_score: float
    share: float
    low: float
    high: float
    n: int


class ScoreEstimate(Banded):
    """ROC-AUC, Brier score (both with standard error) or calibration error (with its value by chance)."""

    low: NotRequired[float | None]
    high: NotRequired[float | None]
    se: NotRequired[float | None]
    expected_if_calibrated: NotRequired[float]
    reason: str | None


class GroupScores(TypedDict):
    """How the scores of one group rank and how well they are calibrated."""

    n: int
    roc_auc: ScoreEstimate
    brier: ScoreEstimate
    ece: ScoreEstimate
    bins: list[Bin]


class Scores(TypedDict):
    """Everything about the scores, for one attribute."""

    overall: GroupScores
    groups: dict[str, GroupScores]
    gaps: dict[str, Gap]
    es_auc: Banded


class Attribute(TypedDict):
    """Everything about one attribute of perceived groups."""

    groups: dict[str, GroupRates]
    gaps: dict[str, Gap]
    left_out: list[LeftOut]
    missing: int
    worst_cell_recall: WorstCell | None
    es_accuracy: Banded
    label_noise: LabelNoise | None
    counts: list[list[list[float]]] | None  # [group][label][prediction]; None with many classes
    classes: NotRequired[dict[str, ClassGaps]]
    scores: NotRequired[Scores]
    sweep: NotRequired[dict[str, list[float | None]]]  # "threshold" and each curve over it


class Settings(TypedDict):
    """The options of an audit, with ``key`` if it has one; a comparison has neither scores nor templates."""

    label: str | None
    prediction: str | None
    groups: list[str]
    score: NotRequired[str | None]
    threshold: NotRequired[float | None]
    weight: NotRequired[str | None]
    positive: str | None
    templates: NotRequired[dict[str, str]]
    template_scores: NotRequired[dict[str, str]]
    bins: NotRequired[dict[str, list[float]]]
    key: NotRequired[str | None]
    cross: bool
    draws: int
    seed: int
    level: float


class Subspaces(TypedDict):
    """Overlap in [0, 1] of every two named subspaces."""

    names: list[str]
    matrix: list[list[float]]


class HarmfulWords(TypedDict):
    """How often images are given a harmful word: rows of ``probes.associations``."""

    words: Mapping[str, list[str]]
    rates: list[Row]
    gaps: list[Row]


#: One row of a table of ``fvlfp.audit.clip``, column name -> value; the functions there name the columns.
Row = dict[str, Any]


class EmbeddingAttribute(TypedDict):
    """What an embedding shows of one attribute; None where ``reasons`` says why not."""

    shown: list[str | None]  # the group of each image in the picture
    reasons: dict[str, str]
    retrieval: list[Row] | None
    leakage: list[Row] | None
    flips: list[Row] | None
    subspaces: Subspaces | None
    associations: NotRequired[HarmfulWords | None]


class Plane(TypedDict):
    """Images and texts in two principal components."""

    rows: list[int]
    images: list[list[float]]
    texts: list[list[float]]
    modality_gap: float


class Embedding(Plane):
    """What is special to a CLIP."""

    modality_gap_band: list[float]
    k: int
    target: str
    attributes: dict[str, EmbeddingAttribute]


class AuditDocument(TypedDict):
    """The content of an audit's ``audit.json``."""

    schema: int
    n: int
    classes: list[str]
    positive: str | None
    settings: Settings
    overall: GroupRates
    attributes: dict[str, Attribute]
    remarks: list[str]
    warnings: list[str]
    provenance: Facts
    embedding: NotRequired[Embedding]


class RateChange(TypedDict):
    """One rate under both models and the paired change b - a with its interval."""

    a: float | None
    b: float | None
    change: float | None
    low: float | None
    high: float | None


class GapChange(RateChange):
    """One gap under both models and its change."""

    reason: str | None
    p_value: float | None
    p_adjusted: float | None


class GroupChanges(TypedDict):
    """The changes of one group's rates. Of two classes, `positives` and `negatives` as in an audit."""

    n: int
    positives: float | None
    negatives: float | None
    rates: dict[str, RateChange]


class ChangedAttribute(TypedDict):
    """The changes of everything about one attribute."""

    groups: dict[str, GroupChanges]
    changes: dict[str, GapChange]
    worst_cell_recall: RateChange
    missing: int


class ComparisonDocument(TypedDict):
    """The content of a comparison's ``audit.json``."""

    schema: int
    kind: str
    n: int
    names: list[str]
    classes: list[str]
    positive: str | None
    settings: Settings
    overall: GroupChanges
    attributes: dict[str, ChangedAttribute]
    remarks: list[str]
    warnings: list[str]
    provenance: Facts
