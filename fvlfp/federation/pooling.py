"""Sums over clients of what they count: moments of features, and validation tables.

With `robust = "none"` they are added up; a client's numbers are scaled down where it claims more than
`norm_bound` times the median client's examples. With a robust rule, `liars` liars cannot move them far:

- of moments, a trimmed mean over clients of every number: of one group's mean in each class, and of what
  another group's mean differs from it *within a client*. Honest clients agree on differences more closely
  than on means. The numbers are coordinates along the axes that tell the classes apart, and the rest: a
  trimmed mean holds every coordinate within the honest ones, but not what liars can do with all of them
  together, so what classes are told by is one of them.
- of validation tables, every cell's recall is a median over clients.

No client's cell then weighs more than the median client's. A cell that 2 * liars clients or fewer hold is
unknown, as for judges (`fvlfp.peers.recalls`): liars claim every cell.

What this module does not do: it refuses nobody, see `fvlfp.federation.replies` for what is impossible.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fvlfp.config import Config
from fvlfp.federation.protocol import read_moments
from fvlfp.robust import capped, trimmed_mean, weighted_median

#: what one client sent, by array name
Arrays = dict[str, Tensor]


def pool_moments(parts: list[Arrays], cfg: Config, class_texts: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> (sums (C, G, d), counts (C, G)) over all clients.

    class_texts: (C, d) of the frozen model; a robust rule guards what tells them apart.
    """
    if cfg.robust == "none":
        return read_moments(summed(_scaled(parts, cfg, prefix="counts/")))
    moments, texts = [read_moments(part) for part in parts], class_texts.cpu().double().numpy()
    return {name: _trimmed([part[name] for part in moments], cfg.liars, texts) for name in moments[0]}


def pool_counts(parts: list[Arrays], cfg: Config) -> dict[str, np.ndarray]:
    """Name -> validation table (G, C, C) over all clients.

    Under a robust rule only the right ones (the diagonal) and the totals of a table mean something: wrong
    predictions stand in the row's next class.
    """
    if cfg.robust == "none":
        return {name: table.numpy() for name, table in summed(_scaled(parts, cfg)).items()}
    return {name: _middle(np.stack([part[name].numpy() for part in parts]), cfg.liars) for name in parts[0]}


def summed(parts: list[Arrays]) -> Arrays:
    """Arrays added up by name, in order."""
    total: Arrays = {}
    for part in parts:
        for name, tensor in part.items():
            total[name] = total[name] + tensor if name in total else tensor
    return total


def _scaled(parts: list[Arrays], cfg: Config, *, prefix: str = "") -> list[Arrays]:
    """The clients' arrays, none for more than `norm_bound` times the median client's examples (0: off)."""
    name = next((name for name in parts[0] if name.startswith(prefix)), None)
    if name is None or cfg.norm_bound == 0:
        return parts
    n = np.array([float(part[name].sum()) for part in parts])
    factors = capped(n, cfg.norm_bound) / np.where(n > 0, n, 1.0)
    return [
        part if factor == 1 or size == 0 else {key: tensor * factor for key, tensor in part.items()}
        for part, factor, size in zip(parts, factors, n, strict=True)
    ]


def _trimmed(
    parts: list[tuple[Tensor, Tensor]], liars: int, class_texts: np.ndarray
) -> tuple[Tensor, Tensor]:
    sums = np.stack([s.double().numpy() for s, _ in parts])  # (K, C, G, d)
    counts = np.stack([n.double().numpy() for _, n in parts])  # (K, C, G)
    axes = class_axes(sums, counts, liars, class_texts)
    means = sums @ axes / np.where(counts > 0, counts, 1.0)[..., None]
    first = (counts > 0).sum(0).argmax(1)[:, None]  # (C, 1): the group that most clients hold
    its_means = np.take_along_axis(means, first[None, ..., None], 2)  # (K, C, 1, d)
    its_counts = np.take_along_axis(counts, first[None], 2)  # (K, C, 1)
    weight = _believed(np.minimum(counts, its_counts), liars)
    middle = trimmed_mean(its_means, _believed(its_counts, liars)[..., None], liars)
    middle = middle + trimmed_mean(means - its_means, weight[..., None], liars)  # (C, G, d)
    total = weight.sum(0)
    pooled = np.nan_to_num(middle) @ axes.T * total[..., None]
    return torch.from_numpy(pooled).float(), torch.from_numpy(total).float()


def class_axes(sums: np.ndarray, counts: np.ndarray, liars: int, class_texts: np.ndarray) -> np.ndarray:
    """An orthonormal basis (d, d) whose first axes span what tells the classes apart, in texts and features.

    sums: (K, C, G, d); counts: (K, C, G); class_texts: (C, d).
    """
    by_class = counts.sum(2)  # (K, C)
    means = sums.sum(2) / np.where(by_class > 0, by_class, 1.0)[..., None]
    middle = np.nan_to_num(trimmed_mean(means, _believed(by_class, liars)[..., None], liars))  # (C, d)
    told_apart = np.concatenate([class_texts[1:] - class_texts[0], middle[1:] - middle[0]])  # (2C - 2, d)
    return np.linalg.qr(np.concatenate([told_apart, np.eye(sums.shape[-1])]).T)[0]


def _believed(sizes: np.ndarray, liars: int) -> np.ndarray:
    """Weights from sizes (K, ...): at most the median client's, 0 in a cell that liars could decide."""
    return np.where((sizes > 0).sum(0) > 2 * liars, capped(sizes, 1.0), 0.0)


def _middle(tables: np.ndarray, liars: int) -> np.ndarray:
    """(K, G, C, C) tables -> one whose recalls are medians over clients."""
    totals = tables.sum(-1).astype(float)  # (K, G, C)
    right = np.einsum("kgcc->kgc", tables)
    weight = _believed(totals, liars)
    recall = np.nan_to_num(weighted_median(right / np.where(totals > 0, totals, 1.0), weight))
    total, classes = weight.sum(0), np.arange(tables.shape[-1])
    out = np.zeros(tables.shape[1:])
    out[:, classes, classes] = recall * total
    out[:, classes, (classes + 1) % len(classes)] += (1 - recall) * total
    return out
