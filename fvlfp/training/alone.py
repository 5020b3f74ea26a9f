"""Clients without a federation: every client for itself, or all rows on one client.

What this module does not do: nothing is sent and nothing is fused, so no Flower and no checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fvlfp.clip.pixels import Pixels
from fvlfp.config import Config
from fvlfp.training.adapter import initial
from fvlfp.training.local import ClientData, Job, local_train
from fvlfp.training.loss import Split
from fvlfp.training.stacked import train_stacked
from fvlfp.training.task import Task


def train_alone(
    clients: list[ClientData], task: Task, cfg: Config, *, stacked: bool, on_round: Callable[[float], None]
) -> Tensor:
    """Prompts (K, L, n_ctx, width), those of each of K clients, trained with the same budget as together.

    Adam starts anew in every round and batches are drawn as in a federation, so one client alone is
    FedAvg of one. on_round: called with each round's mean loss.
    """
    prompts = [initial(task, cfg) for _ in clients]
    for round_ in range(1, cfg.rounds + 1):
        jobs = [
            Job(p, client.train, {}, f"client/{client.client}/round/{round_}")
            for p, client in zip(prompts, clients, strict=True)
        ]
        if stacked:
            done = [(found, loss) for found, _, loss in train_stacked(jobs, task, cfg)]
        else:
            done = [
                local_train(j.prompts, j.data, task, cfg, directions={}, seed_name=j.seed_name) for j in jobs
            ]
        prompts = [found for found, _ in done]
        on_round(sum(loss for _, loss in done) / len(done))
    return torch.stack(prompts)


def merged(clients: list[ClientData]) -> ClientData:
    """One client that holds everybody's examples: what federated learning does without."""

    def together(splits: list[Split]) -> Split:
        return Split(
            torch.cat([s.z for s in splits]),
            torch.cat([s.y for s in splits]),
            {name: torch.cat([s.g[name] for s in splits]) for name in splits[0].g},
            Pixels.join(pixels) if (pixels := [s.pixels for s in splits if s.pixels]) else None,
        )

    return ClientData(0, together([c.train for c in clients]), together([c.val for c in clients]))


def history_row(round_: int, loss: float, clients: int) -> dict[str, Any]:
    """A round in which nothing was reported and nothing sent."""
    return {
        "round": round_,
        "clients": clients,
        "failed": [],
        "reasons": [],
        "loss": loss,
        "balanced_accuracy": None,
        "odds_gap": None,
        "largest_weight": None,
        "uplink_bytes": 0,
    }
