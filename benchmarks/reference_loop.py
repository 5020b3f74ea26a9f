"""Federated prompt tuning as one would write it down at first: what benchmarks/speed.py compares with.

A plain loop after PromptFL (Guo et al., 2023): clients one after another; in every epoch every image is
opened and encoded again; every prompt is padded to 77 tokens; the text tower is open_clip's own. The
mathematics, the order of the examples and the first prompt are those of fvlfp with method="fedavg", depth=1,
lambda_anchor=0, class_balanced=False.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def encode_prompts(model: Any, ids: Tensor, context: Tensor) -> Tensor:
    """Unit text embeddings (C, d) of `ids` (C, 77) with the places behind start-of-text set to `context`."""
    x = model.token_embedding(ids)
    x = torch.cat([x[:, :1], context.expand(len(ids), -1, -1), x[:, 1 + len(context) :]], 1)
    x = model.transformer(x + model.positional_embedding, attn_mask=model.attn_mask)
    x = model.ln_final(x)[torch.arange(len(ids)), ids.argmax(-1)] @ model.text_projection
    return F.normalize(x, dim=-1)


def reference_loop(
    model: Any,
    transform: Any,
    ids: Tensor,
    images: Any,
    labels: Tensor,
    orders: list[list[list[Tensor]]],
    context: Tensor,
    *,
    batch: int,
    lr: float,
    clock: Callable[[], float],
) -> tuple[Tensor, list[float], list[float]]:
    """ids: (C, 77). images, labels: all examples. orders[round][client]: one tensor of rows an epoch.
    clock: seconds so far.

    Returns the last context (n_ctx, width), and of each round the mean loss and the seconds.
    """
    device, losses, seconds = context.device, [], []
    scale = model.logit_scale.exp()
    for clients in orders:
        started, total, seen, average = clock(), 0.0, 0, torch.zeros_like(context)
        for epochs in clients:
            mine = context.clone().requires_grad_()
            optimiser = torch.optim.Adam([mine], lr=lr)
            for rows in epochs:
                for some in rows.split(batch):
                    pixels = torch.stack([transform(images[int(i)]) for i in some]).to(device)
                    with torch.no_grad():
                        z = F.normalize(model.encode_image(pixels), dim=-1)
                    logits = scale * z @ encode_prompts(model, ids, mine).T
                    loss = F.cross_entropy(logits, labels[some].to(device))
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    total, seen = total + loss.item() * len(some), seen + len(some)
            average += mine.detach() * len(epochs[0])
        context = average / sum(len(epochs[0]) for epochs in clients)
        losses.append(total / seen)
        seconds.append(clock() - started)
    return context, losses, seconds
