"""What one client minimises, and on which batches, in which order: the mathematics of local training.

`plan` draws which rows, and which counterfactuals, make each batch; `batch_loss` is the loss of one batch
of one client. Both ways of training use the two as they stand: `fvlfp.training.local`, one client after
another, and `fvlfp.training.stacked`, many at once. For the second, `batch_loss` must not branch on the
*values* of tensors, and rows with `real` = 0 must count for nothing.

What this module does not do: it updates no prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp import cdfp, rivals
from fvlfp.clip.pixels import Pixels
from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.training.task import Said, Task


@dataclass(frozen=True)
class Split:
    """Encoded examples: z (n, d) unit rows, y (n,) class indices, g: attribute -> (n,) group indices.

    pixels: the n pictures, where the image tower is prompted and embeds them anew.
    """

    z: Tensor
    y: Tensor
    g: dict[str, Tensor]
    pixels: Pixels | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray) -> Split:
        """The examples at `rows`."""
        index = torch.as_tensor(rows, device=self.z.device)
        pixels = self.pixels and self.pixels.take(rows)
        return Split(self.z[index], self.y[index], {k: v[index] for k, v in self.g.items()}, pixels)

    def project(self, projection: Projection) -> Split:
        """The same examples after DSOP."""
        return Split(projection(self.z), self.y, self.g, self.pixels)


class Plan(NamedTuple):
    """E local epochs of a client: rows (E, n), the order of its examples; CDFP's g and g' (E, n) by name."""

    rows: Tensor
    source: dict[str, Tensor]
    target: dict[str, Tensor]


class Batch(NamedTuple):
    """n examples of one client: z (n, d), y (n,), g by attribute (n,), and what was drawn for them.

    weight: (n,) of each row in the cross-entropy. real: (n,) 1, or 0 for rows that only fill up.
    source, target: attribute -> (n,) groups g and g' of the counterfactual (pairing="image").
    """

    z: Tensor
    y: Tensor
    g: dict[str, Tensor]
    weight: Tensor
    real: Tensor
    source: dict[str, Tensor]
    target: dict[str, Tensor]


def plan(data: Split, task: Task, cfg: Config, seed_name: str) -> Plan:
    """What the generators that `seed_name` names draw for one client and round."""
    order = torch.Generator().manual_seed(cfg.seed_for(f"{seed_name}/order"))
    draw = torch.Generator().manual_seed(cfg.seed_for(f"{seed_name}/counterfactual"))
    where = data.z.device
    rows = [torch.randperm(len(data), generator=order) for _ in range(cfg.local_epochs)]
    out = Plan(torch.stack(rows).to(where), {}, {})
    if cfg.lambda_cf > 0 and cfg.pairing == "image":
        known = _sources(data, task, cfg)
        for name, groups in task.groups.items():
            if name in known:
                out.source[name] = known[name][out.rows]
            else:
                shape = (cfg.local_epochs, len(data))
                out.source[name] = torch.randint(0, len(groups), shape, generator=draw).to(where)
            out.target[name] = cdfp.other_group(out.source[name], len(groups), draw)
    return out


def _sources(data: Split, task: Task, cfg: Config) -> dict[str, Tensor]:
    """The group g each counterfactual starts from, where it is known before the batch is drawn.

    Perceived labels are read for `image` directions only; for `prompted` ones it is the group that the
    frozen model itself reads; for `text` ones it is drawn at random in every batch.
    """
    if cfg.cf_directions == "text":
        return {}
    if cfg.cf_directions == "image":
        return data.g
    return task.read_groups(data.z)


def row_weights(data: Split, task: Task, cfg: Config) -> Tensor:
    """Weights (n,) in the cross-entropy: inverse class or cell frequency on this client, mean 1; or 1."""
    if cfg.cell_balanced:
        return rivals.cell_weights(data.y, data.g.values())
    if not cfg.class_balanced:
        return torch.ones(len(data), device=data.z.device)
    counts = torch.bincount(data.y, minlength=len(task.classes)).float()
    return (len(data) / (counts > 0).sum() / counts.clamp_min(1))[data.y]


def says_pairs(cfg: Config) -> bool:
    """Whether the loss compares texts that name a group."""
    return cfg.lambda_cf > 0 and cfg.pairing != "image"


def says_words(cfg: Config) -> bool:
    """Whether the loss looks at group words."""
    return cfg.lambda_uniform > 0


def batches(
    data: Split, weights: Tensor, plan: Plan, size: int, *, see: Callable[[Tensor], Tensor] | None = None
) -> Iterator[Batch]:
    """The client's batches of `size` (the last of an epoch may be smaller), in the plan's order.

    see: makes z (n, d) of row numbers (n,) on the CPU when their batch comes; by default it is there already.
    """
    order = None if see is None else plan.rows.cpu()  # in one copy, not one a step
    for epoch in range(len(plan.rows)):
        for start in range(0, len(data), size):
            at = slice(start, start + size)
            rows = plan.rows[epoch, at]
            yield Batch(
                data.z[rows] if see is None or order is None else see(order[epoch, at]),
                data.y[rows],
                {name: groups[rows] for name, groups in data.g.items()},
                weights[rows],
                torch.ones(len(rows), device=data.z.device),
                {name: source[epoch, at] for name, source in plan.source.items()},
                {name: target[epoch, at] for name, target in plan.target.items()},
            )


def batch_loss(said: Said, batch: Batch, task: Task, cfg: Config, directions: dict[str, Tensor]) -> Tensor:
    """The training loss (scalar) of one batch of one client (METHOD.md: CDFP).

    Cross-entropy + lambda_cf CDFP + lambda_anchor anchor [+ lambda_gap gap] [+ a baseline's term]. said:
    what the client's prompts make of the words. directions: attribute -> D (G, d) for pairing="image". A term
    whose lambda is 0 is not computed at all.
    """
    logits = task.scale * batch.z @ said.texts.T
    each = F.cross_entropy(logits, batch.y, reduction="none")
    loss = (batch.weight * each).sum() / batch.weight.sum()
    if cfg.lambda_anchor > 0:
        loss = loss + cfg.lambda_anchor * cdfp.anchor_loss(said.texts, task.frozen_texts)
    if cfg.lambda_cf > 0:
        loss = loss + cfg.lambda_cf * _cdfp_loss(said, batch, task, cfg, directions)
    if cfg.lambda_gap > 0:
        gaps = [
            cdfp.gap_loss(logits, batch.y, g, n_groups=len(task.groups[name]), weight=batch.real)
            for name, g in batch.g.items()
        ]
        loss = loss + cfg.lambda_gap * torch.stack(gaps).mean()
    if cfg.lambda_uniform > 0:
        alike = [rivals.uniform_loss(batch.z, e, task.scale, weight=batch.real) for e in said.words.values()]
        loss = loss + cfg.lambda_uniform * torch.stack(alike).mean()
    return loss


def _cdfp_loss(said: Said, batch: Batch, task: Task, cfg: Config, directions: dict[str, Tensor]) -> Tensor:
    """The CDFP term that the config names, averaged over the attributes."""
    z, texts, scale = batch.z, said.texts, task.scale
    losses = []
    for name in task.groups:
        if cfg.pairing == "image":
            source, target, d = batch.source[name], batch.target[name], directions[name]
            losses.append(cdfp.image_loss(z, texts, scale, d, source, target, cfg.alpha, weight=batch.real))
        elif cfg.pairing == "words":
            losses.append(cdfp.words_loss(z, texts, said.named[name], scale, weight=batch.real))
        else:
            losses.append(cdfp.layers_loss(said.states[name]))
    return torch.stack(losses).mean()
