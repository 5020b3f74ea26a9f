"""Free mitigation of a trained model: fit a map on clients' moments, choose on their validation data.

Moments are sums over a client's training examples (`fvlfp.baselines.linear_maps.Moments`); for `thresholds`
it is a histogram of validation scores, class by group. No embedding and no single score leaves a client.

What this module does not do: no message is sent; the clients' sums are added up here, and the bytes they
would take are counted.
"""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp import dsop
from fvlfp.baselines import linear_maps
from fvlfp.baselines.linear_maps import Moments
from fvlfp.baselines.posthoc import PostHoc
from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.errors import InputError
from fvlfp.training.examples import ClientData, Split
from fvlfp.training.readout import Readout
from fvlfp.training.reports import countable_rows
from fvlfp.training.select import Candidate, choose
from fvlfp.training.task import Task

log = logging.getLogger("fvlfp")

#: what validation may choose from, besides leaving the model alone
STRENGTHS = (1.0, 0.5)
STEPS = (1, 2, 4, 8)


@torch.no_grad()
def fit_posthoc(
    cfg: Config, task: Task, clients: list[ClientData], prompts: Tensor
) -> tuple[PostHoc, list[Candidate]]:
    """Fit what `cfg.posthoc` names to a model with these prompts, in float64 on the CPU; also what was tried.

    Raises:
        InputError: `thresholds` for more than two classes.
    """
    words = [texts.cpu().double() for texts in task.group_texts.values()]
    match cfg.posthoc:
        case "text" | "text-calibrated":
            text_map = linear_maps.text_projection(torch.cat(words))
            if cfg.posthoc == "text-calibrated":
                text_map = linear_maps.calibrated(text_map, _pairs(task, prompts))
            return PostHoc(text_map=text_map, rank=sum(map(len, words))), []
        case "thresholds":
            return _fit_thresholds(task, clients, prompts), []
    summed = _sum_moments(cfg, task, clients)
    joined = _joined(list(summed.values()))
    if not bool((joined.counts >= 2).any() and (joined.cell_counts > 0).any()):
        log.warning(
            "no client has enough rows (min_cell = %d): posthoc = %r is off", cfg.min_cell, cfg.posthoc
        )
        return PostHoc(rank=0, lam=0.0), []
    tried: list[Candidate] = []
    match cfg.posthoc:
        case "difference":
            mu = torch.stack([linear_maps.within_class(m)[0] for m in summed.values()]).mean(0).float()
            erase = linear_maps.difference([w.float() for w in words], mu)
        case "leace-prompted":
            erase = linear_maps.leace(joined)
        case "leace":
            candidates = [linear_maps.leace(joined, lam=lam) for lam in STRENGTHS]
            erase, tried = _chosen(cfg, task, clients, prompts, candidates)
        case _:
            candidates = [linear_maps.probe(joined, steps) for steps in STEPS]
            erase, tried = _chosen(cfg, task, clients, prompts, candidates)
    sent = 4 * sum(moments.numbers() for moments in summed.values())
    return PostHoc(erase, rank=erase.rank, lam=erase.lam, uplink_bytes=sent), tried


def _sum_moments(cfg: Config, task: Task, clients: list[ClientData]) -> dict[str, Moments]:
    """Attribute -> moments of all clients' training examples, by labels or by the frozen model's reading."""
    out: dict[str, Moments] = {}
    for client in clients:
        for name, words in task.group_texts.items():
            z, y = client.train.z, client.train.y
            if cfg.posthoc in ("leace", "probe"):
                membership = F.one_hot(client.train.g[name], len(words)).float()  # (n, G)
            else:
                membership = dsop.soft_membership(z, words, task.scale)
            own = linear_maps.moments(z, y, membership, len(task.classes), cfg.min_cell)
            out[name] = out[name] + own if name in out else own
    return out


def _joined(parts: list[Moments]) -> Moments:
    """Several attributes as one: their groups side by side, so that one map erases all."""
    return dataclasses.replace(
        parts[0],
        cell_counts=torch.cat([m.cell_counts for m in parts], 1),
        cell_sums=torch.cat([m.cell_sums for m in parts], 1),
    )


def _pairs(task: Task, prompts: Tensor) -> Tensor:
    """Differences (m, d) of texts that name the same class and two groups."""
    out = []
    for named in task.encode_texts(prompts, pairs=True).named.values():  # (C, G, d)
        first, second = np.triu_indices(named.shape[1], 1)
        out.append((named[:, first] - named[:, second]).flatten(0, 1))
    return torch.cat(out).cpu()


def _chosen(
    cfg: Config, task: Task, clients: list[ClientData], prompts: Tensor, candidates: list[Projection]
) -> tuple[Projection, list[Candidate]]:
    """The candidate that does best on the clients' pooled validation counts; "off" is among them."""
    d = len(candidates[0].mu)
    candidates = [Projection(torch.zeros(d, 0), torch.zeros(d), 0.0), *candidates]
    texts = task.class_texts(prompts)
    tried = []
    for candidate in candidates:
        readout = Readout(task, texts, posthoc=PostHoc(candidate))
        counts = [readout.confusion(countable_rows(client.val, cfg.min_cell)) for client in clients]
        pooled = [np.sum([table[name] for table in counts], axis=0) for name in task.groups]
        tried.append(Candidate.judge(candidate.rank, candidate.lam, pooled, min_cell=cfg.min_cell))
    return candidates[choose(tried, tolerance=cfg.tolerance)], tried


def _fit_thresholds(task: Task, clients: list[ClientData], prompts: Tensor) -> PostHoc:
    """What travels are counts of (bin, class, group); rows are rebuilt from them."""
    from fvlfp.baselines.thresholds import BINS, fit_thresholds, in_bins

    if len(task.classes) != 2:
        raise InputError("thresholds needs two classes")
    readout = Readout(task, task.class_texts(prompts))
    scores = [readout.logits(client.val.z).softmax(-1)[:, 1].cpu().numpy() for client in clients]
    labels = np.concatenate([client.val.y.cpu().numpy() for client in clients])
    groups = np.concatenate([crossed_groups(client.val) for client in clients])
    fitted = fit_thresholds(in_bins(np.concatenate(scores)), labels, groups)
    if not fitted.rules:
        log.warning("no group has validation rows of both classes: posthoc = 'thresholds' is off")
    sent = 4 * BINS * 2 * int(np.prod([len(values) for values in task.groups.values()]))
    return PostHoc(thresholds=fitted, uplink_bytes=sent)


def crossed_groups(data: Split) -> np.ndarray:
    """One code for each row (n,), of all its attributes together."""
    from fvlfp.baselines.thresholds import crossed

    return crossed(codes.cpu().numpy() for codes in data.g.values())
