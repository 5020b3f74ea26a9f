"""The rounds of federated training that leaves each client a model of its own: `pooling = "personal"`.

In a round every client trains what is shared and what it keeps; the shared part is fused. What is what says
the method (`fvlfp.training.personal_methods`).

What this module does not do: it runs in one process, without Flower, and keeps no checkpoint, because what
clients keep would have to be in it. No reply is checked, so no deployment does it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fvlfp.config import Config
from fvlfp.training.examples import ClientData
from fvlfp.training.local import Job
from fvlfp.training.loss import Batch
from fvlfp.training.model import ClientPrompts, Prompts
from fvlfp.training.personal_methods import PersonalMethod, method_of
from fvlfp.training.reports import RoundReport
from fvlfp.training.stacked import clients_at_once, optimise_stack, stacks
from fvlfp.training.task import Task


def train_personal(
    clients: list[ClientData],
    task: Task,
    cfg: Config,
    *,
    stacked: bool,
    on_round: Callable[[RoundReport], None],
) -> ClientPrompts:
    """Each of K clients' own prompts, after as many rounds and local epochs as any federated method.

    Adam starts anew in every round and batches are drawn as in a federation. stacked: clients as one batch,
    or one after another. on_round: called with each round's report.
    """
    method, numbers = method_of(task, cfg), [client.client for client in clients]
    sizes = tuple(len(client.train) for client in clients)
    shares = torch.tensor(sizes, dtype=torch.float32, device=task.initial.device) / sum(sizes)
    at_once = max(1, clients_at_once(task, cfg) // method.sets) if stacked else 1
    trained = fused = [t.expand(len(clients), *t.shape) for t in method.start()]
    for round_ in range(1, cfg.rounds + 1):
        jobs = [  # the model is in `fused`, by tensor
            Job(Prompts(task.initial), client.train, {}, f"client/{k}/round/{round_}", round=round_)
            for k, client in zip(numbers, clients, strict=True)
        ]
        trained, losses = _train(method, fused, jobs, cfg.at_round(round_), at_once)
        fused = method.fuse(trained, shares, numbers, round_)
        loss = sum(n * x for n, x in zip(sizes, losses, strict=True)) / sum(sizes)
        sent = 4 * method.sent * len(clients)
        on_round(RoundReport(round=round_, clients=len(clients), loss=loss, uplink_bytes=sent))
    return ClientPrompts(method.own(trained, fused), sizes)


def _train(
    method: PersonalMethod, start: list[Tensor], jobs: list[Job], cfg: Config, at_once: int
) -> tuple[list[Tensor], list[float]]:
    """One round of every client: new parameters (K, ...) and losses."""
    trained = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in start]
    losses = [0.0] * len(jobs)
    for chosen in stacks(jobs, cfg, at_once):
        new, means = _train_stack(method, [t[chosen] for t in start], [jobs[k] for k in chosen], cfg)
        for all_of_it, part in zip(trained, new, strict=True):
            all_of_it[chosen] = part
        for k, mean in zip(chosen, means, strict=True):
            losses[k] = mean
    return trained, losses


def _train_stack(
    method: PersonalMethod, start: list[Tensor], jobs: list[Job], cfg: Config
) -> tuple[list[Tensor], list[float]]:
    def losses_of(params: list[Tensor], batch: Batch) -> Tensor:
        texts = method.task.class_texts(method.prompts(params))  # (n, sets, C, d)
        return method.losses(texts, params, [t[: len(texts)] for t in start], batch)

    return optimise_stack(start, jobs, method.task, cfg, losses_of=losses_of)
