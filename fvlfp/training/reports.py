"""What a client reports of its examples, and what a round reports of its clients. Sums and counts only.

What this module does not do: it sends nothing, see `fvlfp.federation.client_app`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp import dsop, metrics
from fvlfp.config import Config
from fvlfp.fpf import GAP_PRIOR, Fusion, defined
from fvlfp.options import FusionOptions
from fvlfp.suppression import countable
from fvlfp.training.examples import Split
from fvlfp.training.task import Task


@dataclass(frozen=True)
class RoundReport:
    """One round, as the server saw it.

    loss: mean over clients, by size. balanced_accuracy, odds_gap: means over the clients' own validation
    data, None where undefined. largest_weight: the largest share of one client in the sum. failed: the
    names of clients that were left out (`Roll.name`); reasons: why, one line each. uplink_bytes: what all
    clients sent.
    """

    round: int
    clients: int
    failed: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    loss: float = 0.0
    balanced_accuracy: float | None = None
    odds_gap: float | None = None
    largest_weight: float | None = None
    uplink_bytes: int = 0

    def numbers(self) -> dict[str, float]:
        """What is known of the round as numbers by name, as trackers of experiments take them."""
        return {k: v for k, v in asdict(self).items() if isinstance(v, int | float) and k != "round"}

    def describe(self, rounds: int, seconds: float) -> str:
        """One line for the log."""

        def show(value: float | None) -> str:
            return "undefined" if value is None else f"{value:.3f}"

        line = (
            f"round {self.round:>3}/{rounds}  loss {self.loss:.4f}  balanced accuracy "
            f"{show(self.balanced_accuracy)}  odds gap {show(self.odds_gap)} (validation)  {seconds:.1f} s"
        )
        return line + (f"  FAILED clients: {', '.join(self.failed)}" if self.failed else "")


def fusion_rule(options: FusionOptions, n_classes: int) -> Fusion:
    """FPF's constants, as the config states them."""
    return Fusion(
        a=options.fpf_a,
        beta=options.beta,
        gamma=options.gamma,
        cap=options.fpf_cap,
        floor=options.fpf_floor,
        chance=1 / n_classes,
        margin=options.fpf_margin,
    )


def performance_and_gap(counts: Sequence[np.ndarray], *, min_cell: int) -> tuple[float | None, float | None]:
    """FPF's perf_k and disp_k from a client's counts (G, C, C), one table for each attribute.

    Balanced accuracy, and the largest odds gap over the attributes, shrunk as `GAP_PRIOR` says.
    """
    perf = float(metrics.balanced_accuracy(counts[0], min_cell=min_cell))
    gaps = [float(metrics.recall_gap(table, min_cell=min_cell, prior=GAP_PRIOR)) for table in counts]
    return defined(perf), defined(float(np.fmax.reduce(gaps)))


def countable_rows(data: Split, min_cell: int, *, by_group: bool = True) -> Split:
    """The examples that a client may count in tables that leave it: none in a cell under `min_cell`.

    by_group: cells are class by group, of every attribute; else whole classes.
    """
    keep = countable(data.y, data.g.values() if by_group else (), min_cell)
    return data if bool(keep.all()) else data.take(keep.nonzero().ravel().cpu().numpy())


@torch.no_grad()
def client_moments(
    data: Split, task: Task, cfg: Config, prompts: Tensor | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> (sums (C, G, d), counts (C, G)) of this client's training features, for DSOP and CDFP.

    `prompted/<attribute>` weighs by the frozen model's own reading of the group (no label);
    `image/<attribute>` by perceived-group labels, and only if the config asks for them. All tables count the
    same rows, so that no small cell is the difference of two of them.
    """
    data = countable_rows(data, cfg.min_cell, by_group=cfg.moments_by_label)
    texts = task.group_texts if prompts is None else task.fair_group_texts(prompts)
    out = {}
    for name, words in texts.items():
        membership = dsop.soft_membership(data.z, words, task.scale)  # (n, G)
        # Soft counts of the words' own reading are needed by every mode, if only for mu.
        out[f"prompted/{name}"] = dsop.moments(data.z, data.y, membership, len(task.classes), cfg.min_cell)
        if cfg.moments_by_label:
            onehot = F.one_hot(data.g[name], len(words))
            out[f"image/{name}"] = dsop.moments(data.z, data.y, onehot, len(task.classes), cfg.min_cell)
    return out
