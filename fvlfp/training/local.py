"""One client: its examples, its local training, and its reports. Pure torch, no Flower.

What this module does not do: it sends nothing. What leaves a client is decided in `fvlfp.federation.app`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp import dsop, rivals
from fvlfp.config import Config
from fvlfp.training.loss import Split, batch_loss, batches, plan, row_weights, says_pairs, says_words
from fvlfp.training.task import Task


@dataclass(frozen=True)
class ClientData:
    """One client's own examples; there is no test split here."""

    client: int
    train: Split
    val: Split


class Job(NamedTuple):
    """What `local_train` needs for one client and round, beside task and config."""

    prompts: Tensor
    data: Split
    directions: dict[str, Tensor]
    seed_name: str


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

    data: already projected where DSOP acts in training. directions: attribute -> D (G, d) for
    pairing="image". seed_name: names the generators, so the result depends on nothing but the arguments.
    """
    (new,), loss = tune([prompts], data, task, cfg, directions=directions, seed_name=seed_name)
    return new, loss


def tune(
    start: list[Tensor],
    data: Split,
    task: Task,
    cfg: Config,
    *,
    directions: dict[str, Tensor],
    seed_name: str,
    see: Callable[[list[Tensor], Tensor], Tensor] | None = None,
) -> tuple[list[Tensor], float]:
    """`local_train` for text prompts `start[0]`, and whatever else `start` holds.

    see: z (n, d) of row numbers (n,), embedded with the current parameters; None takes the rows of `data.z`.
    """
    params = [t.detach().clone().requires_grad_() for t in start]
    optimiser = torch.optim.Adam(params, lr=cfg.lr)
    weights, drawn = row_weights(data, task, cfg), plan(data, task, cfg, seed_name)
    total = torch.zeros((), device=start[0].device)
    live = partial(see, params) if see else None
    for batch in batches(data, weights, drawn, cfg.batch, see=live):
        said = task.say(params[0], pairs=says_pairs(cfg), words=says_words(cfg))
        loss = batch_loss(said, batch, task, cfg, directions)
        if cfg.lambda_prox > 0:
            loss = loss + cfg.lambda_prox * sum(map(rivals.proximal, params, start))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(batch.y)
    return [t.detach() for t in params], float(total) / (len(data) * cfg.local_epochs)


@torch.no_grad()
def confusion(split: Split, texts: Tensor, n_groups: dict[str, int]) -> dict[str, np.ndarray]:
    """Attribute -> counts (C, C, G): true class, predicted class, perceived group."""
    predicted = (split.z @ texts.T).argmax(1)
    n_classes = len(texts)
    out = {}
    for name, groups in n_groups.items():
        cell = (split.y * n_classes + predicted) * groups + split.g[name]
        counts = torch.bincount(cell, minlength=n_classes * n_classes * groups)
        out[name] = counts.reshape(n_classes, n_classes, groups).cpu().numpy()
    return out


def suppress(counts: np.ndarray, min_cell: int) -> np.ndarray:
    """`counts` (C, C, G) with every (class, group) cell of fewer than `min_cell` examples set to zero."""
    return counts * (counts.sum(1, keepdims=True) >= min_cell)


@torch.no_grad()
def client_moments(
    data: Split, task: Task, cfg: Config, prompts: Tensor | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> (sums (C, G, d), counts (C, G)) of this client's training features, for DSOP and CDFP.

    `prompted/<attribute>` weighs by the frozen model's own reading of the group (no label);
    `image/<attribute>` by perceived-group labels, and only if the config asks for them.
    """
    texts = task.group_texts if prompts is None else task.fair_group_texts(prompts)
    out = {}
    for name, words in texts.items():
        membership = dsop.soft_membership(data.z, words, task.scale)
        # Soft counts of the words' own reading are needed by every mode, if only for mu.
        out[f"prompted/{name}"] = dsop.moments(data.z, data.y, membership, len(task.classes), cfg.min_cell)
        if needs_group_labels(cfg):
            onehot = F.one_hot(data.g[name], len(words))
            out[f"image/{name}"] = dsop.moments(data.z, data.y, onehot, len(task.classes), cfg.min_cell)
    return out


def needs_group_labels(cfg: Config) -> bool:
    """Whether training reads perceived-group labels (reports on validation data aside)."""
    by_cdfp = cfg.lambda_cf > 0 and cfg.pairing == "image" and cfg.cf_directions == "image"
    by_dsop = cfg.lambda_dsop != 0 and cfg.dsop == "image"
    return by_cdfp or by_dsop or cfg.lambda_gap > 0
