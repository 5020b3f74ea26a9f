"""Pictures and numbers of an embedding space: the modality gap, and how far two subspaces agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fvlfp.audit.plots import GREY, finish_legend, looks, new_figure
from fvlfp.errors import InputError


def modality_gap(images: ArrayLike, texts: ArrayLike) -> float:
    """Distance of the mean image and the mean text embedding (Liang et al. 2022); 0 to 2 for unit rows."""
    return float(np.linalg.norm(np.asarray(images, float).mean(0) - np.asarray(texts, float).mean(0)))


def overlap(u: ArrayLike, v: ArrayLike) -> float:
    """Mean squared cosine of the principal angles of two subspaces, 0 (orthogonal) to 1 (one in the other).

    Args:
        u, v: orthonormal columns, (d, r) and (d, s). The mean is over min(r, s) angles.
    """
    u, v = np.asarray(u, float), np.asarray(v, float)
    for name, basis in (("u", u), ("v", v)):
        if basis.ndim != 2 or not np.allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-4):
            raise InputError(f"{name} has no orthonormal columns")
    return float((np.linalg.svd(u.T @ v, compute_uv=False) ** 2).mean())


def picture(
    images: ArrayLike, texts: ArrayLike, groups: Sequence[Any], *, shown: int = 1500, seed: int = 0
) -> Figure:
    """Images by perceived group and texts in the first two principal components of both together.

    Args:
        images (n, d), texts (m, d), groups (n,). At most `shown` images are drawn, picked by `seed`.
    """
    z, t = np.asarray(images, float), np.asarray(texts, float)
    labels = np.asarray(groups).astype(str)
    pick = np.random.default_rng(seed).permutation(len(z))[:shown]
    both = np.concatenate([z[pick], t])
    centre = both.mean(0)
    _, _, axes = np.linalg.svd(both - centre, full_matrices=False)
    place = (both - centre) @ axes[:2].T
    figure, (ax,) = new_figure(6.4, 5.0, 1, 1)
    names = sorted(set(labels))
    for name, look in zip(names, looks(), strict=False):
        rows = labels[pick] == name
        dots = place[: len(pick)][rows]
        ax.plot(
            *dots.T,
            look["marker"],
            color=look["color"],
            ms=3.5,
            alpha=0.55,
            label=f"{name} (n={rows.sum():,})",
        )
    ax.plot(*place[len(pick) :].T, "X", color="black", ms=9, mec="white", label="texts")
    gap = modality_gap(z, t)
    ax.set(xlabel="first principal component", ylabel="second")
    ax.set_title(f"modality gap {gap:.2f}", loc="left", color=GREY)
    finish_legend(figure, ax, max(0, len(names) - 8))
    return figure
