"""DSOP: Demographic Subspace Orthogonal Projection.

`z' = normalise(z - lambda (z - mu) U U^T)`: image embeddings lose what tells perceived groups apart.
Where U comes from (METHOD.md: DSOP):

- `text`: differences of group words' embeddings; needs nothing but words;
- `prompted`: the same words *mapped onto the images*: every image belongs softly to each group by its
  zero-shot similarity to the group's words, and U spans the differences of the soft group means; no label;
- `text-span`: the group words' embeddings themselves; deletes shared meaning, kept for teaching;
- `image`: differences of group means by perceived-group labels, at the training clients only.

Means travel as sums and counts: they add up over clients, and no image embedding leaves one.

What this module does not do: it removes a *linear* subspace. A non-linear probe may still find the group,
and a task that needs the direction loses accuracy. It trains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Projection:
    """`z' = normalise(z - lambda (z - mu) U W^T)`, with W = U in DSOP.

    basis: U (d, r), orthonormal columns in DSOP. mu: (d,). lam: lambda in [0, 1]. write: W (d, r) where the
    projection is oblique, as LEACE's is (`fvlfp.baselines.linear_maps`).
    """

    basis: Tensor
    mu: Tensor
    lam: float = 1.0
    write: Tensor | None = None

    @property
    def rank(self) -> int:
        """r, how many directions are removed."""
        return self.basis.shape[1]

    def __call__(self, z: Tensor) -> Tensor:
        """(n, d) unit rows -> (n, d) unit rows. lambda = 0 or r = 0 returns z itself, bit for bit."""
        if self.lam == 0 or self.rank == 0:
            return z
        return F.normalize(self.unnormalised(z), dim=-1)

    def unnormalised(self, z: Tensor) -> Tensor:
        """Before rows are made unit again. With W = U and lambda = 1, `U^T z' = U^T mu` holds here."""
        write = self.basis if self.write is None else self.write
        return z - self.lam * (z - self.mu) @ self.basis @ write.T

    def kept(self, points: Tensor) -> float:
        """The share in [0, 1] of the squared differences between points (m, d) that is left of them.

        `||D'||^2 / ||D||^2`, D: the points less their mean; 1 where they do not differ. Of `class_means` it
        tells how much of what separates the classes is left when what separates the groups is gone.
        """
        before = centred(points)
        after = centred(self.unnormalised(points))
        size = float(before.square().sum())
        return float(after.square().sum()) / size if size > 0 else 1.0

    def to_rank(self, rank: int, lam: float) -> Projection:
        """The same subspace, its first `rank` directions only, with another lambda."""
        write = None if self.write is None else self.write[:, :rank]
        return replace(self, basis=self.basis[:, :rank], lam=lam, write=write)

    def to(self, device: torch.device) -> Projection:
        """The same projection on another device."""
        write = None if self.write is None else self.write.to(device)
        return replace(self, basis=self.basis.to(device), mu=self.mu.to(device), write=write)


def no_projection(d: int) -> Projection:
    """The identity, as a projection of rank 0."""
    return Projection(torch.zeros(d, 0), torch.zeros(d), 0.0)


def centred(prototypes: Tensor) -> Tensor:
    """`D = p - mean_g p`, (G, d): group directions without what all groups share."""
    return prototypes - prototypes.mean(0)


def subspace(directions: Tensor, tol: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Orthonormal basis U (d, r) of the row space of `directions` (m, d), and its r singular values.

    Values below `tol` times the largest are dropped; several attributes are stacked before the call. Of
    G centred directions, r <= G - 1. Signs are fixed (largest entry positive), so that every machine gets
    the same basis. All-zero directions give r = 0.
    """
    _, sigma, rows = torch.linalg.svd(directions.double(), full_matrices=False)
    keep = sigma > max(tol * float(sigma.max()), 1e-8)
    basis = rows[keep].T
    peak = basis.abs().argmax(0)
    basis = basis * torch.sign(basis[peak, torch.arange(basis.shape[1])])
    return basis.float(), sigma[keep].float()


def soft_membership(z: Tensor, group_texts: Tensor, scale: float) -> Tensor:
    """`q = softmax_g(s z E^T)` (n, G): how much each image looks like each group *to the frozen model*.

    z: (n, d) unit rows; group_texts: E (G, d) unit rows. No label is used.
    """
    return F.softmax(scale * z @ group_texts.T, -1)


def moments(
    z: Tensor, labels: Tensor, membership: Tensor, n_classes: int, min_cell: int = 0
) -> tuple[Tensor, Tensor]:
    """What one client sends: feature sums (C, G, d) and counts (C, G), class by group.

    z: (n, d); labels: (n,) in [C]; membership: (n, G), soft (rows sum to 1) or one-hot perceived groups.
    No cell with a count in (0, min_cell) is sent, and none can be had by subtraction either: a small cell is
    added to the largest cell of its class, so that every table of the same rows has the same totals by class,
    and a class with fewer than `min_cell` rows is left out. Sums over clients are the sums of the union, so
    secure aggregation can hide each client's share.
    """
    onehot = F.one_hot(labels, n_classes).to(z.dtype)
    counts = torch.einsum("nc,ng->cg", onehot, membership.to(z.dtype))
    sums = torch.einsum("nc,ng,nd->cgd", onehot, membership.to(z.dtype), z)
    keep = onehot.sum(0) >= min_cell  # of soft counts the sum may be 4.9999995
    return _merge_small(sums * keep[:, None, None], counts * keep[:, None], min_cell)


def _merge_small(sums: Tensor, counts: Tensor, min_cell: int) -> tuple[Tensor, Tensor]:
    """Cells (C, G) with a count in (0, min_cell) go into the largest cell of their class."""
    small = (counts > 0) & (counts < min_cell)
    sums, counts = sums.clone(), counts.clone()
    for c, g in small.nonzero().tolist():
        to = int(counts[c].argmax())
        if to != g:
            sums[c, to] += sums[c, g]
            counts[c, to] += counts[c, g]
            sums[c, g], counts[c, g] = 0, 0
    return sums, counts


def group_means(sums: Tensor, counts: Tensor) -> Tensor:
    """Group means (G, d), each balanced over the classes it has, from summed moments.

    A class counts only if *every* group that has anything has it; otherwise a group that lacks a class
    would differ from the others by that class. Groups with no such class get the mean of the others
    (direction zero).
    """
    present = counts > 0
    groups = present.any(0)
    shared = present[:, groups].all(1)
    if not shared.any():
        shared = present.any(1)
    means = sums / counts.clamp_min(1e-12)[..., None]  # (C, G, d)
    weight = (present & shared[:, None]).to(sums.dtype)
    out = (means * weight[..., None]).sum(0) / weight.sum(0).clamp_min(1)[:, None]
    known = weight.sum(0) > 0
    if not known.any():
        return torch.zeros_like(out)  # nothing is known of any group: no direction
    if not known.all():
        out = torch.where(known[:, None], out, out[known].mean(0))
    return out


def overall_mean(sums: Tensor, counts: Tensor, *, by_group: bool) -> Tensor:
    """mu (d,): the mean of class means; with `by_group`, the mean of class-by-group means."""
    if not by_group:
        sums, counts = sums.sum(1), counts.sum(1)
    sums, counts = sums.reshape(-1, sums.shape[-1]), counts.reshape(-1)
    present = counts > 0
    if not present.any():
        return torch.zeros(sums.shape[-1])
    return (sums[present] / counts[present, None]).mean(0)


def class_means(sums: Tensor, counts: Tensor) -> Tensor:
    """What tells the classes apart within groups: class means (C, d), each balanced over the groups it has.

    sums (C, G, d), counts (C, G): summed moments. A class without rows gets the mean of the others.
    """
    present = (counts > 0).to(sums.dtype)
    means = sums / counts.clamp_min(1e-12)[..., None] * present[..., None]
    known = present.sum(1) > 0
    if not known.any():
        return torch.zeros_like(means[:, 0])
    out = means.sum(1) / present.sum(1).clamp_min(1)[:, None]
    return torch.where(known[:, None], out, out[known].mean(0))


def group_directions(
    mode: str, group_texts: Tensor, sums: Tensor | None = None, counts: Tensor | None = None
) -> Tensor:
    """One attribute's directions (G, d), whose row space a projection removes, by `mode` (see above).

    group_texts: E (G, d). sums, counts: summed moments, for `prompted` and `image`.
    """
    if mode == "text":
        return centred(group_texts)
    if mode == "text-span":
        return group_texts
    if sums is None or counts is None:
        raise ValueError(f"mode {mode!r} needs moments")
    return centred(group_means(sums, counts))
