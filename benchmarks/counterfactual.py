"""What a model does when only the perceived group of an image's embedding changes, and where CDFP pulls.

Test rows are moved, `z_cf = normalise(z + D[g'] - D[g])`, from their own group g to every other g' by the
whole difference of the groups' class-balanced means on training rows, by perceived labels: the same moves for
every method, whatever directions it trained on. A measurement, never a choice.

What this module does not do: it makes no counterfactual *image*; a linear move of an embedding stands in.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp import cdfp, dsop
from fvlfp.config import Config
from fvlfp.runs.train import Prepared, Trained
from fvlfp.training.alone import merged
from fvlfp.training.loss import row_weights
from fvlfp.training.reports import client_moments
from fvlfp.training.task import Task

#: training rows whose gradients are compared
ROWS = 2_000


def flip_rate(prepared: Prepared, trained: Trained) -> float:
    """Share of (test row, other group) pairs whose predicted class changes when the row is moved there."""
    task, test = prepared.task, prepared.test
    name = next(iter(task.groups))
    d = _label_directions(prepared)
    with torch.no_grad():
        texts = task.class_texts(trained.prompts.to(task.initial.device))

        def decide(z: Tensor) -> Tensor:
            return (trained.projection(z) @ texts.T).argmax(1)

        before, flipped, pairs = decide(test.z), 0, 0
        for target in range(len(task.groups[name])):
            moving = test.g[name] != target
            to = torch.full_like(test.g[name], target)
            after = decide(cdfp.counterfactual(test.z, d, test.g[name], to, 1.0))
            flipped += int((after != before)[moving].sum())
            pairs += int(moving.sum())
    return round(flipped / pairs, 6)


def gradient_cosine(prepared: Prepared, cfg: Config, prompts: Tensor) -> float:
    """Cosine between the gradients of CDFP's term and of the cross-entropy, at `prompts`.

    Below 0 they pull apart. On rows drawn from all clients, with the directions and pairs of `cfg`
    (pairing="image").
    """
    task = prepared.task
    name = next(iter(task.groups))
    everything = merged(prepared.clients).train
    pick = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))[:ROWS]
    data = everything.take(pick.numpy())
    weights = row_weights(data, task, cfg)
    if cfg.cf_directions == "image":
        source, d = data.g[name], _label_directions(prepared)
    else:
        source = task.read_groups(data.z)[name]
        d = _directions(prepared, cfg)
    target = cdfp.other_group(source, len(task.groups[name]), torch.Generator().manual_seed(1))

    def gradient(of_pairs: bool) -> Tensor:
        params = prompts.detach().clone().to(task.initial.device).requires_grad_()
        texts = task.class_texts(params)
        if of_pairs:
            loss = cdfp.image_loss(data.z, texts, task.scale, d, source, target, cfg.alpha)
        else:
            each = F.cross_entropy(task.scale * data.z @ texts.T, data.y, reduction="none")
            loss = (weights * each).mean()
        return torch.autograd.grad(loss, params)[0].flatten()

    return round(float(F.cosine_similarity(gradient(True), gradient(False), dim=0)), 6)


def measured(prepared: Prepared, cfg: Config, trained: Trained) -> dict[str, Any]:
    """Flip rate of a prompt model, and the gradients' cosine before and after training where CDFP has one."""
    out = {"flip_rate": flip_rate(prepared, trained)}
    if cfg.lambda_cf > 0 and cfg.pairing == "image":
        start = prepared.task.initial[: cfg.depth]
        out["cosine_before"] = gradient_cosine(prepared, cfg, start)
        out["cosine_after"] = gradient_cosine(prepared, cfg, trained.prompts)
    return out


def _directions(prepared: Prepared, cfg: Config) -> Tensor:
    name, task = next(iter(prepared.task.groups)), prepared.task
    if cfg.cf_directions == "text":
        return dsop.group_directions("text", task.group_texts[name])
    return _summed(prepared, task, cfg, f"prompted/{name}")


def _label_directions(prepared: Prepared) -> Tensor:
    name = next(iter(prepared.task.groups))
    return _summed(prepared, prepared.task, prepared.cfg.with_method("fvlfp-labels"), f"image/{name}")


def _summed(prepared: Prepared, task: Task, cfg: Config, key: str) -> Tensor:
    found = [client_moments(client.train, task, cfg, None)[key] for client in prepared.clients]
    sums, counts = (torch.stack(x).sum(0) for x in zip(*found, strict=True))
    return dsop.group_directions("image", torch.empty(0), sums, counts)
