"""What one client minimises, and on which batches, in which order: the mathematics of local training.

`plan` draws which rows, and which counterfactuals, make each batch; `batch_loss` is the loss of one batch
of one client. Both ways of training use the two as they stand: `fvlfp.training.local`, one client after
another, and `fvlfp.training.stacked`, many at once. For the second, `batch_loss` must not branch on the
*values* of tensors, and rows with `real` = 0 must count for nothing.

What this module does not do: it updates no prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp import cdfp
from fvlfp.baselines import losses as baseline
from fvlfp.config import Config
from fvlfp.options import LossOptions
from fvlfp.training.examples import Split
from fvlfp.training.task import Task, TextEmbeddings


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
    if cfg.uses_directions:
        known = _sources(data, task, cfg)
        for name, groups in task.groups.items():
            if name in known:
                out.source[name] = known[name][out.rows]
            else:
                shape = (cfg.local_epochs, len(data))
                out.source[name] = torch.randint(0, len(groups), shape, generator=draw).to(where)
            out.target[name] = cdfp.other_group(out.source[name], len(groups), draw)
    return out


def _sources(data: Split, task: Task, options: LossOptions) -> dict[str, Tensor]:
    """The group g each counterfactual starts from, where it is known before the batch is drawn.

    Perceived labels are read for `image` directions only; for `prompted` ones it is the group that the
    frozen model itself reads; for `text` ones it is drawn at random in every batch.
    """
    if options.cf_directions == "text":
        return {}
    if options.cf_directions == "image":
        return data.g
    return task.read_groups(data.z)


def row_weights(data: Split, task: Task, options: LossOptions) -> Tensor:
    """Weights (n,) in the cross-entropy: inverse class or cell frequency on this client, mean 1; or 1."""
    if options.cell_balanced:
        return baseline.cell_weights(data.y, data.g.values())
    if not options.class_balanced:
        return torch.ones(len(data), device=data.z.device)
    counts = torch.bincount(data.y, minlength=len(task.classes)).float()
    return (len(data) / (counts > 0).sum() / counts.clamp_min(1))[data.y]


def batches(
    data: Split, weights: Tensor, plan: Plan, size: int, *, embed: Callable[[Tensor], Tensor] | None = None
) -> Iterator[Batch]:
    """The client's batches of `size` (the last of an epoch may be smaller), in the plan's order.

    embed: makes z (n, d) of row numbers (n,) on the CPU when their batch comes; by default it is there.
    """
    order = None if embed is None else plan.rows.cpu()  # in one copy, not one in every step
    for epoch in range(len(plan.rows)):
        for start in range(0, len(data), size):
            at = slice(start, start + size)
            rows = plan.rows[epoch, at]
            yield Batch(
                data.z[rows] if embed is None or order is None else embed(order[epoch, at]),
                data.y[rows],
                {name: groups[rows] for name, groups in data.g.items()},
                weights[rows],
                torch.ones(len(rows), device=data.z.device),
                {name: source[epoch, at] for name, source in plan.source.items()},
                {name: target[epoch, at] for name, target in plan.target.items()},
            )


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Weighted mean cross-entropy (scalar) of logits (n, C)."""
    each = F.cross_entropy(logits, batch.y, reduction="none")
    return (batch.weight * each).sum() / batch.weight.sum()


def batch_loss(
    texts: TextEmbeddings, batch: Batch, task: Task, options: LossOptions, directions: dict[str, Tensor]
) -> Tensor:
    """The training loss (scalar) of one batch of one client (METHOD.md: CDFP).

    Cross-entropy + lambda_cf CDFP + lambda_anchor anchor [+ lambda_gap gap] [+ a baseline's term]. texts:
    what the client's prompts make of the words. directions: attribute -> D (G, d) for pairing="image". A term
    whose lambda is 0 is not computed at all.
    """
    logits = task.logits(batch.z, texts.classes)
    loss = cross_entropy(logits, batch)
    if options.lambda_anchor > 0:
        loss = loss + options.lambda_anchor * cdfp.anchor_loss(texts.classes, task.frozen_texts)
    if options.lambda_cf > 0:
        loss = loss + options.lambda_cf * _cdfp_loss(texts, batch, task, options, directions)
    if options.lambda_gap > 0:
        gaps = [
            cdfp.gap_loss(logits, batch.y, g, n_groups=len(task.groups[name]), weight=batch.real)
            for name, g in batch.g.items()
        ]
        loss = loss + options.lambda_gap * torch.stack(gaps).mean()
    if options.lambda_uniform > 0:
        alike = [
            baseline.uniform_loss(batch.z, e, task.scale, weight=batch.real)
            for e in texts.group_words.values()
        ]
        loss = loss + options.lambda_uniform * torch.stack(alike).mean()
    return loss


def _cdfp_loss(
    texts: TextEmbeddings, batch: Batch, task: Task, options: LossOptions, directions: dict[str, Tensor]
) -> Tensor:
    """The CDFP term that the config names, averaged over the attributes."""
    z, classes, scale = batch.z, texts.classes, task.scale
    losses = []
    for name in task.groups:
        if options.pairing == "image":
            source, target, d = batch.source[name], batch.target[name], directions[name]
            if task.parts.cf_loss is None:
                losses.append(
                    cdfp.image_loss(z, classes, scale, d, source, target, options.alpha, weight=batch.real)
                )
            else:
                each = task.parts.cf_loss(z, classes, scale, d, source, target, options.alpha)
                losses.append((each * batch.real).sum() / batch.real.sum())
        elif options.pairing == "words":
            losses.append(cdfp.words_loss(z, classes, texts.named[name], scale, weight=batch.real))
        else:
            losses.append(cdfp.layers_loss(texts.states[name]))
    return torch.stack(losses).mean()
