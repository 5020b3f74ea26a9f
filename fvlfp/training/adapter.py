"""FedCLIP's adapter (Lu et al. 2023): train a small attention on the image embedding instead of prompts.

`z' = normalise(softmax(W2 tanh(W1 z + b1) + b2) * z)`, classes stay the frozen texts. The adapter travels in
the place of the prompts, as one tensor A (2, d, d + 1): A[0] = [W1 | b1], A[1] = [W2 | b2].

What this module does not do: none of the three components, nor a prompt, acts together with an adapter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp.config import Config
from fvlfp.training.loss import Split, row_weights
from fvlfp.training.task import Task


def initial(task: Task, cfg: Config) -> Tensor:
    """Where training starts: the prompts of `cfg.depth` layers, or an adapter that changes no embedding yet.

    With W2 = 0 and b2 = 0 the attention is even, so round 0 is the zero-shot classifier either way.
    """
    if cfg.tune == "prompts":
        return task.initial[: cfg.depth]
    d = task.frozen_texts.shape[1]
    generator = torch.Generator().manual_seed(cfg.seed_for("adapter"))
    adapter = torch.zeros(2, d, d + 1)
    adapter[0, :, :d] = torch.randn(d, d, generator=generator) / d**0.5
    return adapter.to(task.frozen_texts.device)


def adapt(z: Tensor, adapter: Tensor) -> Tensor:
    """(n, d) unit rows -> (n, d) unit rows, by `adapter` (2, d, d + 1)."""
    (w1, b1), (w2, b2) = ((layer[:, :-1], layer[:, -1]) for layer in adapter)
    attention = F.softmax(torch.tanh(z @ w1.T + b1) @ w2.T + b2, -1)
    return F.normalize(attention * z, dim=-1)


def readout(task: Task, cfg: Config, trained: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Image (n, d) and class embeddings (C, d) whose cosines decide: what is trained changes one of them."""
    if cfg.tune == "adapter":
        return adapt(z, trained), task.frozen_texts
    return z, task.class_texts(trained)


def adapter_train(
    adapter: Tensor,
    data: Split,
    task: Task,
    cfg: Config,
    *,
    directions: dict[str, Tensor],
    seed_name: str,
) -> tuple[Tensor, float]:
    """`client.local_train` for an adapter: the same cross-entropy, optimiser, batches and budget."""
    params = adapter.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([params], lr=cfg.lr)
    order = torch.Generator().manual_seed(cfg.seed_for(f"{seed_name}/order"))
    weight = row_weights(data, task, cfg)
    total = torch.zeros((), device=params.device)
    for _ in range(cfg.local_epochs):
        for rows in torch.randperm(len(data), generator=order).to(data.z.device).split(cfg.batch):
            logits = task.scale * adapt(data.z[rows], params) @ task.frozen_texts.T
            each = F.cross_entropy(logits, data.y[rows], reduction="none")
            loss = (weight[rows] * each).sum() / weight[rows].sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(rows)
    return params.detach(), float(total) / (len(data) * cfg.local_epochs)
