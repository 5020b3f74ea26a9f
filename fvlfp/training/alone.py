"""Clients without a federation: every client for itself, or all rows on one client.

What this module does not do: nothing is sent and nothing is fused, so no Flower and no checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from fvlfp.clip.pixels import Pixels
from fvlfp.config import Config
from fvlfp.training.client import train_client
from fvlfp.training.examples import ClientData, Split
from fvlfp.training.local import Job
from fvlfp.training.model import ClientPrompts, initial_model
from fvlfp.training.reports import RoundReport
from fvlfp.training.stacked import train_stacked
from fvlfp.training.task import Task


def train_alone(
    clients: list[ClientData],
    task: Task,
    cfg: Config,
    *,
    stacked: bool,
    on_round: Callable[[RoundReport], None],
) -> ClientPrompts:
    """The prompts of each of K clients, trained with the same budget as together.

    Adam starts anew in every round and batches are drawn as in a federation, so one client alone is
    FedAvg of one. on_round: called with each round's report.
    """
    models = [initial_model(task, cfg) for _ in clients]
    for round_ in range(1, cfg.rounds + 1):
        jobs = [
            Job(model, client.train, {}, f"client/{client.client}/round/{round_}", round=round_)
            for model, client in zip(models, clients, strict=True)
        ]
        done = train_stacked(jobs, task, cfg) if stacked else [train_client(job, task, cfg) for job in jobs]
        models = [result.model for result in done]
        loss = sum(result.loss for result in done) / len(done)
        on_round(RoundReport(round=round_, clients=len(clients), loss=loss))
    text = torch.stack([model.tensors()["prompts"] for model in models])  # (K, L, n_ctx, width)
    return ClientPrompts(text, tuple(len(client.train) for client in clients))


def merged(clients: list[ClientData]) -> ClientData:
    """One client that holds everybody's examples: what federated learning does without."""

    def together(splits: list[Split]) -> Split:
        return Split(
            torch.cat([s.z for s in splits]),
            torch.cat([s.y for s in splits]),
            {name: torch.cat([s.g[name] for s in splits]) for name in splits[0].g},
            Pixels.join(pixels) if (pixels := [s.pixels for s in splits if s.pixels]) else None,
        )

    train, val = together([c.train for c in clients]), together([c.val for c in clients])
    return ClientData(0, train, val, "all together")
