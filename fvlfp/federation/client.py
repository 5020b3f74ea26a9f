"""One client: its examples, its local training, and its reports. Pure torch, no Flower.

What this module does not do: it sends nothing. What leaves a client is decided in `fvlfp.federation.app`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp import cdfp, dsop, rivals
from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.federation.task import Task


@dataclass(frozen=True)
class Split:
    """Encoded examples: z (n, d) unit rows, y (n,) class indices, g: attribute -> (n,) group indices."""

    z: Tensor
    y: Tensor
    g: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray) -> Split:
        """The examples at `rows`."""
        index = torch.as_tensor(rows, device=self.z.device)
        return Split(self.z[index], self.y[index], {k: v[index] for k, v in self.g.items()})

    def project(self, projection: Projection) -> Split:
        """The same examples after DSOP."""
        return Split(projection(self.z), self.y, self.g)


@dataclass(frozen=True)
class ClientData:
    """One client's own examples; there is no test split here."""

    client: int
    train: Split
    val: Split


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

    loss = cross-entropy in which every class counts equally + lambda_cf CDFP + lambda_anchor anchor
    [+ lambda_gap gap] (METHOD.md: CDFP) [+ a baseline's own term]. data: already projected where DSOP acts
    in training. directions: attribute -> D (G, d) for pairing="image". seed_name: names the generators, so
    the result depends on nothing but the arguments. A term whose lambda is 0 is not computed at all.
    """
    params = prompts.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([params], lr=cfg.lr)
    order = torch.Generator().manual_seed(cfg.seed_for(f"{seed_name}/order"))
    draw = torch.Generator().manual_seed(cfg.seed_for(f"{seed_name}/counterfactual"))
    weight = class_weights(data.y, len(task.classes)) if cfg.class_balanced else None
    cells = rivals.cell_weights(data.y, data.g.values()) if cfg.cell_balanced else None
    source = _sources(data, task, cfg)
    total = 0.0
    for _ in range(cfg.local_epochs):
        shuffled = torch.randperm(len(data), generator=order).to(data.z.device)
        for rows in shuffled.split(cfg.batch):
            z, y = data.z[rows], data.y[rows]
            texts = task.class_texts(params)
            logits = task.scale * z @ texts.T
            if cells is None:
                loss = F.cross_entropy(logits, y, weight=weight)
            else:
                loss = rivals.weighted_cross_entropy(logits, y, cells[rows])
            if cfg.lambda_anchor > 0:
                loss = loss + cfg.lambda_anchor * cdfp.anchor_loss(texts, task.frozen_texts)
            if cfg.lambda_cf > 0:
                of_rows = {name: groups[rows] for name, groups in source.items()}
                fair = _cdfp_loss(params, z, texts, task, cfg, directions, of_rows, draw)
                loss = loss + cfg.lambda_cf * fair
            if cfg.lambda_gap > 0:
                gaps = [cdfp.gap_loss(logits, y, g[rows]) for g in data.g.values()]
                loss = loss + cfg.lambda_gap * torch.stack(gaps).mean()
            if cfg.lambda_prox > 0:
                loss = loss + cfg.lambda_prox * rivals.proximal(params, prompts)
            if cfg.lambda_uniform > 0:
                said = task.fair_group_texts(params).values()
                alike = [rivals.uniform_loss(z, words, task.scale) for words in said]
                loss = loss + cfg.lambda_uniform * torch.stack(alike).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(rows)
    return params.detach(), total / (len(data) * cfg.local_epochs)


def class_weights(y: Tensor, n_classes: int) -> Tensor:
    """Inverse class frequency on this client, mean 1 over its examples; an absent class weighs nothing."""
    counts = torch.bincount(y, minlength=n_classes).float()
    weight = torch.where(counts > 0, 1 / counts.clamp_min(1), torch.zeros_like(counts))
    return weight * len(y) / (counts > 0).sum()


def _sources(data: Split, task: Task, cfg: Config) -> dict[str, Tensor]:
    """The group g each counterfactual starts from, where it is known before the batch is drawn.

    Perceived labels are read for `image` directions only; for `prompted` ones it is the group that the
    frozen model itself reads; for `text` ones it is drawn at random in every batch.
    """
    if cfg.lambda_cf == 0 or cfg.pairing != "image" or cfg.cf_directions == "text":
        return {}
    if cfg.cf_directions == "image":
        return data.g
    return {name: (data.z @ texts.T).argmax(1) for name, texts in task.group_texts.items()}


def _cdfp_loss(
    prompts: Tensor,
    z: Tensor,
    texts: Tensor,
    task: Task,
    cfg: Config,
    directions: dict[str, Tensor],
    source: dict[str, Tensor],
    draw: torch.Generator,
) -> Tensor:
    """The CDFP term that the config names, averaged over the attributes."""
    losses = []
    if cfg.pairing == "image":
        for name, groups in task.groups.items():
            g = source.get(name)
            if g is None:
                g = torch.randint(0, len(groups), (len(z),), generator=draw).to(z.device)
            target = cdfp.other_group(g, len(groups), draw)
            losses.append(cdfp.image_loss(z, texts, task.scale, directions[name], g, target, cfg.alpha))
    else:
        for named, states in task.pair_texts(prompts).values():
            if cfg.pairing == "words":
                losses.append(cdfp.words_loss(z, texts, named, task.scale))
            else:
                losses.append(cdfp.layers_loss(states))
    return torch.stack(losses).mean()


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
