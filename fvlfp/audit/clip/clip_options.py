"""What an audit of a CLIP judges and how: checked once, before anything is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fvlfp.audit.audit_options import AuditOptions, check_numbers
from fvlfp.errors import InputError

TARGETS = {"population": "the images' own shares", "uniform": "equal shares"}


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """Choices for what only an embedding shows.

    k: depth of MaxSkew@k, by default a tenth of the images and at most 100. target: the shares of the groups
    in a fair ranking, one of ``TARGETS``. draws, seed, level: of inference.

    Raises:
        InputError: an unknown target, or numbers out of range.
    """

    k: int | None = None
    target: str = "population"
    draws: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        check_numbers(self.draws, self.seed, self.level)
        if self.target not in TARGETS:
            raise InputError(f"target {self.target!r}: use {' or '.join(map(repr, TARGETS))}")

    def depth(self, n: int) -> int:
        """The depth k for a ranking of n images.

        Raises:
            InputError: a k outside 1 <= k < n, at which MaxSkew@k sees nothing of the model.
        """
        k = max(1, min(100, n // 10)) if self.k is None else self.k
        if not 1 <= k < n and (self.k is not None or n > 1):
            raise InputError(f"k={k} of n={n} images: MaxSkew@k sees the model only for 1 <= k < n")
        return k


@dataclass(frozen=True, kw_only=True)
class ClipAuditOptions:
    """Columns and choices; the fields are the arguments of ``audit_clip`` and ``audit_embeddings``.

    label, groups: columns. cross: also cross all groups. Others: see ``EmbeddingOptions``.

    Raises:
        InputError: as ``EmbeddingOptions``.
    """

    label: str
    groups: Sequence[str]
    cross: bool = False
    k: int | None = None
    target: str = "population"
    draws: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        self.of_embedding()

    def of_embedding(self) -> EmbeddingOptions:
        """The choices for the embedding."""
        draws = min(self.draws, 1000)
        return EmbeddingOptions(k=self.k, target=self.target, draws=draws, seed=self.seed)

    def of_predictions(self, positive: str | None) -> AuditOptions:
        """The choices for the audit of the column ``prediction``."""
        return AuditOptions(
            label=self.label,
            prediction="prediction",
            groups=list(self.groups),
            positive=positive,
            cross=self.cross,
            draws=self.draws,
            seed=self.seed,
        )
