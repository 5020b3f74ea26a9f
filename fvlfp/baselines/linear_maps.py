"""Free mitigation of a trained model: linear maps fitted on sums and second moments, without any training.

- `text_projection`, `calibrated`: Chuang et al. 2023 (arXiv 2302.00070), on the class texts; words only;
- `difference`: the orthogonal projection of image embeddings along differences of group words; words only;
- `probe`: iterated linear probes, INLP (Ravfogel et al., ACL 2020) with the mean put back; group labels;
- `leace`: least-squares concept erasure (Belrose et al., NeurIPS 2023), oblique; group labels, or soft
  readings.

What this module does not do: it chooses nothing (see `fvlfp.training.fit_posthoc`), and only linear
traces of a group are removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp import dsop
from fvlfp.dsop import Projection


@dataclass(frozen=True)
class Moments:
    """Sums over examples, which add up over clients.

    counts (C,), sums (C, d), second (C, d, d): number, sum and sum of z z^T a class.
    cell_counts (C, G), cell_sums (C, G, d): number (or soft mass) and sum a class and group.
    """

    counts: Tensor
    sums: Tensor
    second: Tensor
    cell_counts: Tensor
    cell_sums: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(getattr(self, k) + getattr(other, k) for k in self.__dataclass_fields__))

    def numbers(self) -> int:
        """How many numbers one client sends."""
        return sum(getattr(self, k).numel() for k in self.__dataclass_fields__)


def moments(z: Tensor, y: Tensor, membership: Tensor, n_classes: int, min_cell: int = 0) -> Moments:
    """One client's moments. z (n, d); y (n,); membership (n, G), one-hot or soft. Small cells are left out.

    They are summed in float64 on the CPU: not every device has such numbers.
    """
    z, y, membership = z.cpu().double(), y.cpu(), membership.cpu()
    cell_sums, cell_counts = dsop.moments(z, y, membership, n_classes, min_cell)
    onehot = F.one_hot(y, n_classes).to(z.dtype)
    counts = onehot.sum(0)
    keep = counts >= min_cell
    sums = onehot.T @ z
    second = torch.stack([z[y == c].T @ z[y == c] for c in range(n_classes)])
    return Moments(counts * keep, sums * keep[:, None], second * keep[:, None, None], cell_counts, cell_sums)


def within_class(m: Moments) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (d,), covariance (d, d) and covariance with group membership (d, G), inside classes.

    Every class counts equally; a class nobody has is left out.
    """
    there = m.counts >= 2
    n = m.counts[there]
    means = m.sums[there] / n[:, None]
    covariance = m.second[there] / n[:, None, None] - torch.einsum("cd,ce->cde", means, means)
    cross = m.cell_sums[there] - m.cell_counts[there][..., None] * means[:, None]
    return means.mean(0), covariance.mean(0), (cross / n[:, None, None]).mean(0).T


def text_projection(words: Tensor) -> Tensor:
    """`P0 = I - A^T (A A^T)^-1 A` (d, d) for the rows A (m, d) of group words."""
    words = words.double()
    eye = torch.eye(words.shape[1], dtype=torch.double, device=words.device)
    return eye - torch.linalg.pinv(words) @ words


def calibrated(projection: Tensor, pairs: Tensor, lam: float = 1000.0) -> Tensor:
    """`P0 (I + lambda/|S| sum_(i,j in S) (t_i - t_j)(t_i - t_j)^T)^-1` (d, d); 1000 is the authors' lambda.

    pairs: (m, d), the differences of texts that say the same class and differ in the group word.
    """
    pairs = pairs.double()
    eye = torch.eye(pairs.shape[1], dtype=torch.double, device=pairs.device)
    return projection @ torch.linalg.inv(eye + lam / len(pairs) * pairs.T @ pairs)


def difference(words: list[Tensor], mu: Tensor) -> Projection:
    """Orthogonal projection along the differences of group words; words: E (G, d) of each attribute."""
    basis = (
        dsop.subspace(torch.cat([dsop.centred(w) for w in words]))[0].to(mu).contiguous()
    )  # as it is saved
    return Projection(basis, mu)


def probe(m: Moments, steps: int, *, ridge: float = 1e-3) -> Projection:
    """INLP on moments: `steps` times, the ridge probes of the groups are fitted and projected away.

    A probe is `(S + ridge tr(S)/d I)^-1 S_zg`, as ridge regression of group membership on z gives it; each
    takes at most G - 1 directions.
    """
    mu, covariance, cross = within_class(m)
    d = len(mu)
    eye = torch.eye(d, dtype=torch.double, device=mu.device)
    keep, found = eye, torch.zeros(d, 0, dtype=torch.double, device=mu.device)
    for _ in range(steps):
        s = keep @ covariance @ keep
        probes = keep @ torch.linalg.solve(s + ridge * torch.trace(covariance) / d * eye, keep @ cross)
        directions, sigma, _ = torch.linalg.svd(probes, full_matrices=False)
        fresh = directions[:, sigma > 1e-8 * max(1.0, float(sigma.max()))][:, : cross.shape[1] - 1]
        found = torch.linalg.qr(torch.cat([found, fresh], 1))[0]
        keep = eye - found @ found.T
    return Projection(found.float(), mu.float())


def leace(m: Moments, *, tol: float = 1e-6, lam: float = 1.0) -> Projection:
    """`z - W^+ Q Q^T W (z - mu)`, W = S^(-1/2), Q the column space of `W S_zg` (theorem 4.3).

    Afterwards no linear probe, within classes, tells the groups, and no other such map moves z less.
    """
    mu, covariance, cross = within_class(m)
    values, vectors = torch.linalg.eigh(covariance)
    good = values > tol * values.max()
    root = values[good].sqrt()
    whiten, unwhiten = vectors[:, good] / root, vectors[:, good] * root
    left, sigma, _ = torch.linalg.svd(whiten.T @ cross, full_matrices=False)
    q = left[:, sigma > 1e-4 * sigma.max().clamp_min(1e-12)][:, : max(1, cross.shape[1] - 1)]
    return Projection((whiten @ q).float(), mu.float(), lam, write=(unwhiten @ q).float())
