"""Pictures and numbers of an embedding space: modality gap, group directions, moves along them.

What this module does not do: train anything (probes of leakage are in ``probes``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fvlfp.audit.report.plots import GREY, finish_legend, looks, new_figure
from fvlfp.audit.schema import Plane, Subspaces
from fvlfp.errors import InputError

SHOWN = 1000  # images drawn at most


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


def subspace(points: ArrayLike) -> np.ndarray:
    """Orthonormal columns (d, r) of the differences between points (m, d); r < m is their rank.

    Raises:
        InputError: fewer than two different points.
    """
    x = np.asarray(points, float)
    _, size, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    rank = int((size > 1e-6 * max(float(np.abs(x).max()), 1e-12)).sum())
    if not rank:
        raise InputError("fewer than two different points span no subspace")
    return np.asarray(axes[:rank].T)


def group_means(images: ArrayLike, groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean embedding of each group (G, d), balanced over classes so that a base rate is no direction.

    Args:
        images (n, d); groups, labels (n,) codes from 0. Only classes that every group has take part;
        where there is none, plain means.
    """
    z = np.asarray(images, float)
    size = groups.max() + 1, labels.max() + 1
    cell = groups * size[1] + labels
    n = np.bincount(cell, minlength=size[0] * size[1]).reshape(size)
    total = np.zeros((size[0] * size[1], z.shape[1]))
    np.add.at(total, cell, z)
    total = total.reshape(*size, -1)
    shared = (n > 0).all(0)
    if not shared.any():
        return np.asarray(total.sum(1) / n.sum(1)[:, None])
    return np.asarray((total[:, shared] / n[:, shared, None]).mean(1))


def counterfactual(images: ArrayLike, groups: np.ndarray, means: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Each image moved to another group, drawn evenly: unit rows of z + mean[g'] - mean[g], (n, d)."""
    step = np.random.default_rng(seed).integers(1, len(means), len(groups))
    moved = np.asarray(images, float) + means[(groups + step) % len(means)] - means[groups]
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True))


def plane(images: ArrayLike, texts: ArrayLike, *, seed: int = 0) -> Plane:
    """Images and texts in the first two principal components of both together.

    Returns rows (which images, at most ``SHOWN``, picked by `seed`), images and texts (their places) and the
    modality gap.
    """
    z, t = np.asarray(images, float), np.asarray(texts, float)
    pick = np.sort(np.random.default_rng(seed).permutation(len(z))[:SHOWN])
    both = np.concatenate([z[pick], t])
    centre = both.mean(0)
    _, _, axes = np.linalg.svd(both - centre, full_matrices=False)
    place = np.round((both - centre) @ axes[:2].T, 4)
    return {
        "rows": pick.tolist(),
        "images": place[: len(pick)].tolist(),
        "texts": place[len(pick) :].tolist(),
        "modality_gap": modality_gap(z, t),
    }


def picture(images: ArrayLike, texts: ArrayLike, groups: Sequence[Any], *, seed: int = 0) -> Figure:
    """Images (n, d) by perceived group (n,) and texts (m, d), as `plane` places them."""
    places = plane(images, texts, seed=seed)
    return scatter(places, [str(groups[i]) for i in places["rows"]])


def scatter(plane: Plane, groups: Sequence[str | None]) -> Figure:
    """A `plane` as a picture; `groups` names the group of each image, None for one that is not drawn."""
    place, words = np.array(plane["images"]), np.array(plane["texts"])
    figure, (ax,) = new_figure(6.4, 5.0, 1, 1)
    names = sorted({name for name in groups if name is not None})
    for name, look in zip(names, looks(), strict=False):
        dots = place[np.array(groups) == name]
        label = f"{name} (n={len(dots):,})"
        ax.plot(*dots.T, look["marker"], color=look["color"], ms=3.5, alpha=0.55, label=label)
    ax.plot(*words.T, "X", color="black", ms=9, mec="white", label="texts")
    ax.set(xlabel="first principal component", ylabel="second")
    ax.set_title(f"modality gap {plane['modality_gap']:.2f}", loc="left", color=GREY)
    finish_legend(figure, ax, max(0, len(names) - 8))
    return figure


def overlaps(spaces: Subspaces) -> Figure:
    """Squares of `overlap` between every two named subspaces: ``names`` and ``matrix``."""
    names, matrix = spaces["names"], np.array(spaces["matrix"], float)
    figure, (ax,) = new_figure(6.4, 1.6 + 0.45 * len(names), 1, 1)
    ax.imshow(matrix, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (i, j), value in np.ndenumerate(matrix):
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    for axis, ticks in ((ax.set_xticks, ax.set_xticklabels), (ax.set_yticks, ax.set_yticklabels)):
        axis(range(len(names)))
        for text in ticks([str(n) for n in names]):
            text.set_parse_math(False)
    ax.grid(visible=False)
    ax.tick_params(axis="x", rotation=20)
    return figure
