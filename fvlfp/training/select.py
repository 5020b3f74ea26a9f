"""What is chosen on the clients' validation data: one rule for DSOP's projection and for post-hoc maps.

Of all candidates whose cell accuracy (mean recall over class-by-group cells) is within `tolerance` of the
first one's, which changes nothing, the one with the smallest odds gap; of equal gaps, the smallest rank. Cell
accuracy, because clients' data may be biased: there, balanced accuracy would reward using the group. A
projection that is chosen before training must also leave `KEPT` of what separates the classes' means: with
hand-written prompts, validation does not show what training would lose.

What this module does not do: it reads counts only, pooled over clients, and never those of a test row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fvlfp import metrics
from fvlfp.fpf import defined

#: Squared differences between class means that a projection must leave; lambda = 0.5 always leaves so much.
KEPT = 0.25


@dataclass(frozen=True)
class Candidate:
    """One (rank, lambda), and what it does on validation data.

    odds_gap: the largest over the attributes, None where undefined. worst_cell_recall, cell_accuracy: over
    all class-by-group cells of all attributes; 0 where no cell is large enough. kept: what it leaves of the
    differences between class means (`Projection.kept`); 1 where the prompts are trained already.
    """

    rank: int
    lam: float
    cell_accuracy: float
    worst_cell_recall: float
    odds_gap: float | None
    kept: float = 1.0

    @classmethod
    def judge(
        cls, rank: int, lam: float, counts: Sequence[np.ndarray], *, min_cell: int, kept: float = 1.0
    ) -> Candidate:
        """counts: (G, C, C) for each attribute, pooled over clients."""
        gaps = [metrics.recall_gap(table, min_cell=min_cell) for table in counts]
        cells = np.concatenate([metrics.recalls(table, min_cell=min_cell).ravel() for table in counts])
        recalls = cells[np.isfinite(cells)]
        return cls(
            rank,
            lam,
            cell_accuracy=float(recalls.mean()) if len(recalls) else 0.0,
            worst_cell_recall=float(recalls.min()) if len(recalls) else 0.0,
            odds_gap=defined(float(np.fmax.reduce(gaps))),
            kept=kept,
        )

    def to_dict(self) -> dict[str, float | None]:
        """As JSON and tables have it."""
        return {
            "rank": self.rank,
            "lambda": self.lam,
            "cell_accuracy": self.cell_accuracy,
            "worst_cell_recall": self.worst_cell_recall,
            "odds_gap": self.odds_gap,
            "kept": self.kept,
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Candidate:
        """The inverse of `to_dict`."""
        return cls(lam=row["lambda"], **{key: value for key, value in row.items() if key != "lambda"})


def choose(tried: Sequence[Candidate], *, tolerance: float) -> int:
    """The index of the best candidate; 0, which changes nothing, where no other is good enough."""
    enough = tried[0].cell_accuracy - tolerance
    gaps = {
        i: c.odds_gap
        for i, c in enumerate(tried)
        if c.cell_accuracy >= enough and c.kept >= KEPT - 1e-6 and c.odds_gap is not None
    }
    return min(gaps, key=lambda i: (gaps[i], tried[i].rank), default=0)
