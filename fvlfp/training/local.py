"""Local training of one client, one after another: the readable reference of `fvlfp.training.stacked`.

What this module does not do: it sends nothing. What leaves a client is decided in
`fvlfp.federation.client_app`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from fvlfp.baselines.losses import proximal
from fvlfp.clip.device import is_cuda
from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.options import LossOptions
from fvlfp.training.examples import Split
from fvlfp.training.loss import (
    Batch,
    batch_loss,
    batches,
    plan,
    row_weights,
)
from fvlfp.training.model import Model
from fvlfp.training.task import Task


@dataclass(frozen=True)
class Job:
    """What one client trains in one round.

    model: where it starts. data: its training examples, projected where DSOP acts in training. directions:
    attribute -> D (G, d) for pairing="image". seed_name: names the generators, so that the result depends on
    nothing but the job. projection: acts on live embeddings, which vision prompts make anew in every batch.
    round: counted from 1, for the schedule of the learning rate; 0: outside of rounds.
    """

    model: Model
    data: Split
    directions: dict[str, Tensor]
    seed_name: str
    projection: Projection | None = field(default=None, repr=False)
    round: int = 0


class LocalResult(NamedTuple):
    """model: what was trained. texts: its class texts (C, d). loss: mean over the local epochs."""

    model: Model
    texts: Tensor
    loss: float


def local_train(
    prompts: Tensor,
    data: Split,
    task: Task,
    cfg: Config,
    *,
    directions: dict[str, Tensor],
    seed_name: str,
) -> tuple[Tensor, float]:
    """Some epochs of Adam on one client's examples; returns new prompts and the mean training loss.

    prompts: (L, n_ctx, width). data, directions, seed_name: as in `Job`.
    """

    def loss_of(params: list[Tensor], batch: Batch) -> Tensor:
        return prompt_loss(params, batch, task, cfg, directions, start=[prompts])

    (new,), loss = optimise([prompts], data, task, cfg, seed_name=seed_name, loss_of=loss_of)
    return new, loss


def prompt_loss(
    params: list[Tensor],
    batch: Batch,
    task: Task,
    options: LossOptions,
    directions: dict[str, Tensor],
    *,
    start: list[Tensor],
) -> Tensor:
    """The loss (scalar) of prompts `params[0]` (and V, where there is one), FedProx's term included."""
    texts = task.encode_texts(
        params[0], pairs=options.uses_texts_of_pairs, group_words=options.uses_group_words
    )
    loss = batch_loss(texts, batch, task, options, directions)
    if options.lambda_prox > 0:
        loss = loss + options.lambda_prox * sum(map(proximal, params, start))
    return loss


def adam(params: list[Tensor], lr: float) -> torch.optim.Adam:
    """The optimiser of local training, in one kernel on CUDA, where starting kernels takes most of a step."""
    return torch.optim.Adam(params, lr=lr, fused=is_cuda(params[0].device) or None)


def optimise(
    start: list[Tensor],
    data: Split,
    task: Task,
    cfg: Config,
    *,
    seed_name: str,
    loss_of: Callable[[list[Tensor], Batch], Tensor],
    embed: Callable[[list[Tensor], Tensor], Tensor] | None = None,
) -> tuple[list[Tensor], float]:
    """The training loop of one client and round: new parameters, and the mean loss.

    loss_of: parameters and a batch -> the loss. embed: parameters and row numbers (n,) -> z (n, d); None
    takes the rows of `data.z`.
    """
    params = [t.detach().clone().requires_grad_() for t in start]
    optimiser = adam(params, cfg.lr)
    weights, drawn = row_weights(data, task, cfg), plan(data, task, cfg, seed_name)
    total = torch.zeros((), device=start[0].device)
    live = (lambda rows: embed(params, rows)) if embed else None
    for batch in batches(data, weights, drawn, cfg.batch, embed=live):
        loss = loss_of(params, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(batch.y)
    return [t.detach() for t in params], float(total) / (len(data) * cfg.local_epochs)
