"""Published fusion rules beside FPF as Flower strategies: q-FedAvg, FairFed and F3.

Two need one thing more from a client than FPF does, measured on the prompts as they *arrived*: q-FedAvg the
training loss, FairFed the validation counts (class by prediction by perceived group, without small cells).
F3 asks every client, once a round, how everybody's new prompts do on its validation rows.

What this module does not do: like FPF, no rule can check what a client reports.
"""

from __future__ import annotations

import numpy as np
import torch
from flwr.app import ArrayRecord, Message

from fvlfp.baselines.f3 import fair_acc_avg, fair_avg
from fvlfp.baselines.fairfed import fairfed_distance, fairfed_weights
from fvlfp.baselines.qfedavg import qfedavg_step
from fvlfp.config import Config
from fvlfp.federation.checkpoint import ServerState
from fvlfp.federation.peer_fusion import JudgedFusion, PeerFusion
from fvlfp.federation.protocol import ClientReport, arrays_of, read_arrays
from fvlfp.federation.strategy import FairFusion
from fvlfp.training.task import Task


def strategy_for(cfg: Config, task: Task, state: ServerState) -> FairFusion:
    """The strategy that `cfg.fusion` names, ready for the rounds after `state`."""
    c = len(task.classes)
    match cfg.fusion:
        case "qfedavg":
            return QFedAvgFusion(cfg, c, state, more={ClientReport.START_LOSS: 0})
        case "fairfed":
            counts = {f"{ClientReport.COUNTS}{name}": c * c * g for name, g in task.n_groups.items()}
            return FairFedFusion(cfg, c, state, more=counts)
        case "peers":
            return PeerFusion(cfg, task, state)
        case "f3" | "f3-acc":
            return F3Fusion(cfg, task, state)
    return FairFusion(cfg, c, state, parts=task.parts)


class QFedAvgFusion(FairFusion):
    """q-FedAvg (Li et al., ICLR 2020): clients count by their loss to the power q."""

    def _fuse(
        self, server_round: int, replies: list[Message], reports: list[ClientReport]
    ) -> ArrayRecord | None:
        ((name, sent),) = read_arrays(self.sent).items()
        answers = [
            (read_arrays(reply.content, "arrays")[name], report.start_loss or 0.0)
            for reply, report in zip(replies, reports, strict=True)
        ]
        return arrays_of({name: qfedavg_step(sent, answers, q=self.cfg.q, lipschitz=self.cfg.lipschitz)})


class FairFedFusion(FairFusion):
    """FairFed (Ezzeldin et al., AAAI 2023): a client counts less the further its gap is from everybody's."""

    def _weights(self, server_round: int, good: list[Message], reports: list[ClientReport]) -> list[float]:
        own = [[table for _, table in sorted(report.counts.items())] for report in reports]
        everybody = [np.sum(parts, axis=0) for parts in zip(*own, strict=True)]
        distances = [fairfed_distance(tables, everybody, min_cell=self.cfg.min_cell) for tables in own]
        total = sum(report.n for report in reports)
        known = [self.previous.get(report.client, report.n / total) for report in reports]
        before = [w / sum(known) for w in known]
        return fairfed_weights(before, distances, beta=self.cfg.fairfed_beta)


class F3Fusion(JudgedFusion):
    """F3 (Kanaparthy et al., arXiv 2109.02351): the share `peers_share` of clients with the fairest prompts.

    Their validation set at the server is all clients' validation rows together, each client's own among them.
    Where it shows no gap (no class has two groups), clients count by size.
    """

    def _weights(self, server_round: int, good: list[Message], reports: list[ClientReport]) -> list[float]:
        prompts = torch.stack([read_arrays(reply.content, "arrays")["prompts"] for reply in good])
        judged = self._judge(server_round, prompts, [])
        gap, accuracy, share = judged.gap.tolist(), judged.accuracy.tolist(), self.cfg.peers_share
        if not np.isfinite([*gap, *accuracy]).all():
            return [float(report.n) for report in reports]
        return (
            fair_avg(gap, share=share)
            if self.cfg.fusion == "f3"
            else fair_acc_avg(gap, accuracy, share=share)
        )

    def _recalls(self, right: np.ndarray, total: np.ndarray, nobody: np.ndarray) -> np.ndarray:
        """Over all rows together: NaN in a cell that nobody holds."""
        n = total.sum(0)
        return np.asarray(right.sum(0) / np.where(n > 0, n, np.nan))
