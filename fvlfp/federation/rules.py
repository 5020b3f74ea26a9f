"""Two published fusion rules beside FPF: q-FedAvg and FairFed.

Each needs one thing more from a client than FPF does, measured on the prompts as they *arrived*: q-FedAvg the
training loss, FairFed the validation counts (class by prediction by perceived group, small cells left at
home).

What this module does not do: like FPF, neither rule can check what a client reports.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Message, MetricRecord
from torch import Tensor

from fvlfp.config import Config
from fvlfp.federation.protocol import arrays_of, number, read_arrays
from fvlfp.federation.strategy import FairFusion
from fvlfp.rivals import fairfed_distance, fairfed_weights
from fvlfp.training.local import ClientData, confusion, suppress
from fvlfp.training.loss import row_weights
from fvlfp.training.task import Task


@torch.no_grad()
def extra_report(cfg: Config, task: Task, data: ClientData, prompts: Tensor) -> dict[str, Any]:
    """What `cfg.fusion` needs besides FPF's report; {} for FPF. prompts: as they arrived."""
    if cfg.fusion == "qfedavg":
        texts = task.class_texts(prompts)
        weight = row_weights(data.train, task, cfg)
        each = F.cross_entropy(task.scale * data.train.z @ texts.T, data.train.y, reduction="none")
        return {"start-loss": float((weight * each).sum() / weight.sum())}
    if cfg.fusion == "fairfed":
        n_groups = {name: len(groups) for name, groups in task.groups.items()}
        counts = confusion(data.val, task.class_texts(prompts), n_groups)
        return {f"counts/{k}": suppress(v, cfg.min_cell).ravel().tolist() for k, v in counts.items()}
    return {}


def strategy_for(cfg: Config, task: Task, *args: Any, **kwargs: Any) -> FairFusion:
    """The strategy that `cfg.fusion` names; arguments as for `FairFusion`."""
    c = len(task.classes)
    if cfg.fusion == "qfedavg":
        return QFedAvgFusion(cfg, c, *args, more={"start-loss": 0}, **kwargs)
    if cfg.fusion == "fairfed":
        counts = {f"counts/{name}": c * c * len(groups) for name, groups in task.groups.items()}
        return FairFedFusion(cfg, c, *args, more=counts, **kwargs)
    return FairFusion(cfg, c, *args, **kwargs)


class QFedAvgFusion(FairFusion):
    """q-FedAvg (Li et al., ICLR 2020): clients count by their loss to the power q.

    With F_k the client's loss on the prompts w that it was sent: `w <- w - sum_k D_k / sum_k h_k`,
    `D_k = F_k^q L (w - w_k)`, `h_k = q F_k^(q-1) |L (w - w_k)|^2 + L F_k^q`. The same as Flower's own
    strategy, which collects garbage once a reply and would take most of the run's time.

    `L` is a key of its own. The paper's 1 / (learning rate) is for gradient steps: Adam's are not, and with
    it the step shrinks to nothing.
    """

    def _fuse(self, server_round: int, replies: list[Message]) -> ArrayRecord | None:
        sent = read_arrays(self.sent)["prompts"]
        q, lipschitz, step, size = self.cfg.q, self.cfg.lipschitz, torch.zeros_like(sent), 0.0
        for reply in replies:
            loss = max(number(reply.content.metric_records["metrics"], "start-loss"), 1e-10)
            change = lipschitz * (sent - read_arrays(reply.content, "arrays")["prompts"])
            step += loss**q * change
            size += q * loss ** (q - 1) * float(change.square().sum()) + lipschitz * loss**q
        return arrays_of({"prompts": sent - step / size})


class FairFedFusion(FairFusion):
    """FairFed (Ezzeldin et al., AAAI 2023): a client counts less the further its gap is from everybody's."""

    def _weigh(self, clients: list[int], reports: list[MetricRecord]) -> None:
        tables = [[np.array(r[k]) for k in sorted(r) if k.startswith("counts/")] for r in reports]
        c = round(1 / self.fusion.chance)
        own = [[t.reshape(c, c, -1) for t in table] for table in tables]
        everybody = [np.sum(parts, axis=0) for parts in zip(*own, strict=True)]
        distances = [fairfed_distance(t, everybody, min_cell=self.cfg.min_cell) for t in own]
        n = [number(r, "num-examples") for r in reports]
        known = [self.previous.get(k, size / sum(n)) for k, size in zip(clients, n, strict=True)]
        before = [w / sum(known) for w in known]
        for report, w in zip(
            reports, fairfed_weights(before, distances, beta=self.cfg.fairfed_beta), strict=True
        ):
            report["weight"] = w
