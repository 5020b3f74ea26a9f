"""What an audit judges and how: one object, checked once, copied into the document as ``settings``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fvlfp.audit.schema import Settings
from fvlfp.errors import InputError


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """Columns and choices of one audit; the fields are the arguments of ``audit``.

    Raises:
        InputError: options that contradict each other, or numbers out of range.
    """

    groups: Sequence[str]
    label: str | None = None
    prediction: str | None = None
    score: str | None = None
    threshold: float | None = None
    weight: str | None = None
    key: str | None = None
    positive: str | None = None
    templates: Mapping[str, str] = field(default_factory=dict)
    template_scores: Mapping[str, str] = field(default_factory=dict)
    bins: Mapping[str, Sequence[float]] = field(default_factory=dict)
    cross: bool = False
    draws: int = 2000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        check_numbers(self.draws, self.seed, self.level)
        if self.prediction is None and (self.score is None or self.threshold is None):
            raise InputError("name a column of predictions, or a score column and a threshold")
        if self.threshold is not None and (self.score is None or self.prediction is not None):
            raise InputError("a threshold turns a score column into predictions: name scores, no predictions")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"threshold={self.threshold}: must be finite")
        if self.template_scores and self.score is None:
            raise InputError("template_scores need a score column to be compared with")
        if self.label is None and self.score is not None and self.threshold is None:
            raise InputError("scores are judged against true classes: name the label column")
        if self.weight is not None and self.judges_scores:
            raise InputError("scores are judged without weights only: leave out the score or the weight")

    @property
    def judges_scores(self) -> bool:
        """Whether ranking and calibration are judged, for which truth is needed."""
        return self.score is not None and self.label is not None

    def settings(self) -> Settings:
        """The options as JSON."""
        named: Settings = {
            "label": self.label,
            "prediction": self.prediction,
            "groups": list(self.groups),
            "score": self.score,
            "threshold": self.threshold,
            "weight": self.weight,
            "positive": self.positive,
            "templates": dict(self.templates),
            "template_scores": dict(self.template_scores),
            "bins": {name: list(cuts) for name, cuts in self.bins.items()},
            "cross": self.cross,
            "draws": self.draws,
            "seed": self.seed,
            "level": self.level,
        }
        if self.key is not None:
            named["key"] = self.key
        return named


def check_numbers(draws: int, seed: int, level: float) -> None:
    """Raise InputError for draws, a seed or a level that no inference can be made with."""
    if draws < 100:
        raise InputError(f"draws={draws}: at least 100 are needed for an interval")
    if seed < 0:
        raise InputError(f"seed={seed}: must be 0 or more")
    if not 0.5 < level < 1:
        raise InputError(f"level={level}: must lie between 0.5 and 1, e.g. 0.95")
