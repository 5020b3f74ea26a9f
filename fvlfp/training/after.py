"""Free mitigation of a trained model: fit a map on clients' moments, choose on their validation data.

Moments are sums over a client's training examples (`fvlfp.posthoc.Moments`); for `thresholds` it is a
histogram of validation scores, class by group. No embedding and no single score leaves a client.

What this module does not do: no message is sent; the clients' sums are added up here, and the bytes they
would take are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator
from torch import Tensor

from fvlfp import dsop, posthoc
from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.fpf import cell_recalls, recall_gap
from fvlfp.posthoc import Erasure, Moments
from fvlfp.training.local import ClientData, confusion, suppress
from fvlfp.training.loss import Split
from fvlfp.training.task import Task

#: what validation may choose from, besides leaving the model alone
STRENGTHS = (1.0, 0.5)
STEPS = (1, 2, 4, 8)
BINS = 100


@dataclass(frozen=True)
class After:
    """erase: acts on images. text_map: (d, d), acts on class texts. thresholds: a fitted ThresholdOptimizer.

    facts: rank, lambda (or what stands for it), candidates, bytes a client sends for it.
    """

    erase: Erasure | None = None
    text_map: Tensor | None = None
    thresholds: Any = None
    facts: dict[str, Any] = field(default_factory=dict)

    def texts(self, texts: Tensor) -> Tensor:
        """Class embeddings (C, d) after the text map."""
        if self.text_map is None:
            return texts
        return F.normalize(texts.cpu().double() @ self.text_map.T.cpu(), dim=-1).to(texts)

    def tensors(self) -> dict[str, Tensor]:
        """What it is made of, to be saved."""
        found = {} if self.text_map is None else {"after/text_map": self.text_map}
        if self.erase is not None:
            found |= {f"after/{k}": getattr(self.erase, k) for k in ("read", "write", "mu")}
            found |= {"after/lambda": torch.tensor([self.erase.lam])}
        return {name: t.cpu().float().contiguous() for name, t in found.items()}

    def images(self, z: Tensor) -> Tensor:
        """Image embeddings (n, d) after the erasure."""
        return z if self.erase is None else self.erase(z)


@torch.no_grad()
def fit_after(cfg: Config, task: Task, clients: list[ClientData], prompts: Tensor) -> After:
    """Fit what `cfg.posthoc` names to a model with these prompts, in float64 on the CPU.

    Raises:
        InputError: `thresholds` for more than two classes.
    """
    words = [texts.cpu().double() for texts in task.group_texts.values()]
    if cfg.posthoc in ("text", "text-calibrated"):
        found = posthoc.text_projection(torch.cat(words))
        if cfg.posthoc == "text-calibrated":
            found = posthoc.calibrated(found, _pairs(task, prompts))
        return After(text_map=found, facts={"rank": sum(map(len, words)), "uplink_bytes": 0})
    if cfg.posthoc == "thresholds":
        return _thresholds(cfg, task, clients, prompts)
    summed = _sum_moments(cfg, task, clients)
    sent = {"uplink_bytes": 4 * sum(m.numbers() for m in summed.values())}
    if cfg.posthoc == "difference":
        mu = torch.stack([posthoc.within_class(m)[0] for m in summed.values()]).mean(0).float()
        erase = posthoc.difference([w.float() for w in words], mu)
        return After(erase, facts={"rank": erase.read.shape[1], "lambda": 1.0, **sent})
    joined = _joined(list(summed.values()))
    if cfg.posthoc == "leace-prompted":
        erase = posthoc.leace(joined)
        return After(erase, facts={"rank": erase.read.shape[1], "lambda": 1.0, **sent})
    if cfg.posthoc == "leace":
        candidates = [posthoc.leace(joined, lam=lam) for lam in STRENGTHS]
    else:
        candidates = [posthoc.probe(joined, steps) for steps in STEPS]
    none = Erasure(torch.zeros(len(joined.sums[0]), 0), torch.zeros(0), joined.sums[0].float(), 0.0)
    chosen, tried = _choose(cfg, task, clients, prompts, [none, *candidates])
    rank, lam = chosen.read.shape[1], chosen.lam
    return After(chosen, facts={"rank": rank, "lambda": lam, "candidates": tried, **sent})


def _sum_moments(cfg: Config, task: Task, clients: list[ClientData]) -> dict[str, Moments]:
    """Attribute -> moments of all clients' training examples, by labels or by the frozen model's reading."""
    out: dict[str, Moments] = {}
    for client in clients:
        for name, words in task.group_texts.items():
            z, y = client.train.z, client.train.y
            if cfg.posthoc in ("leace", "probe"):
                membership = F.one_hot(client.train.g[name], len(words)).float()
            else:
                membership = dsop.soft_membership(z, words, task.scale)
            found = posthoc.moments(z, y, membership, len(task.classes), cfg.min_cell)
            out[name] = out[name] + found if name in out else found
    return out


def _joined(parts: list[Moments]) -> Moments:
    """Several attributes as one: their groups side by side, so that one map erases all."""
    first = parts[0]
    return Moments(
        first.counts,
        first.sums,
        first.second,
        torch.cat([m.cell_counts for m in parts], 1),
        torch.cat([m.cell_sums for m in parts], 1),
    )


def _pairs(task: Task, prompts: Tensor) -> Tensor:
    """Differences (m, d) of texts that name the same class and two groups."""
    out = []
    for named in task.say(prompts, pairs=True).named.values():
        first, second = np.triu_indices(named.shape[1], 1)
        out.append((named[:, first] - named[:, second]).flatten(0, 1))
    return torch.cat(out).cpu()


def _choose(
    cfg: Config, task: Task, clients: list[ClientData], prompts: Tensor, candidates: list[Erasure]
) -> tuple[Erasure, list[dict[str, Any]]]:
    """The rule of `subspace.choose_projection`: the smallest pooled validation odds gap among candidates
    whose cell accuracy is within `tolerance` of the first one's (which does nothing)."""
    texts = task.class_texts(prompts)
    n_groups = {name: len(groups) for name, groups in task.groups.items()}
    rows: list[dict[str, Any]] = []
    for candidate in candidates:
        pooled: dict[str, np.ndarray] = {}
        for client in clients:
            val = Split(candidate(client.val.z), client.val.y, client.val.g)
            for name, counts in confusion(val, texts, n_groups).items():
                pooled[name] = pooled.get(name, 0) + suppress(counts, cfg.min_cell)
        gaps = [g for t in pooled.values() if (g := recall_gap(t, min_cell=cfg.min_cell)) is not None]
        recalls = np.concatenate([cell_recalls(t, min_cell=cfg.min_cell) for t in pooled.values()])
        rows.append(
            {
                "rank": candidate.read.shape[1],
                "lambda": candidate.lam,
                "cell_accuracy": float(recalls.mean()) if len(recalls) else 0.0,
                "odds_gap": max(gaps, default=None),
            }
        )
    enough = rows[0]["cell_accuracy"] - cfg.tolerance
    fit = [i for i, r in enumerate(rows) if r["odds_gap"] is not None and r["cell_accuracy"] >= enough]
    best = min(fit, key=lambda i: (rows[i]["odds_gap"], rows[i]["rank"]), default=0)
    return candidates[best], rows


class Scores(BaseEstimator):
    """The fitted estimator that fairlearn wants: the score is the prediction."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Scores:
        """Nothing to fit."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n, 1) scores -> (n,) scores."""
        return np.asarray(x)[:, 0]


def crossed(g: dict[str, Tensor]) -> np.ndarray:
    """One code a row for all attributes together, (n,)."""
    return np.array(["/".join(map(str, row)) for row in torch.stack(list(g.values()), 1).tolist()])


def _thresholds(cfg: Config, task: Task, clients: list[ClientData], prompts: Tensor) -> After:
    """fairlearn's ThresholdOptimizer (Hardt et al., NeurIPS 2016) on the clients' summed score histograms."""
    from fairlearn.postprocessing import ThresholdOptimizer

    if len(task.classes) != 2:
        raise InputError("thresholds needs two classes")
    texts = task.class_texts(prompts)
    bins, labels, groups = [], [], []
    for client in clients:  # what travels are counts of (bin, class, group); rows are rebuilt from them
        score = (task.scale * client.val.z @ texts.T).softmax(-1)[:, 1]
        bins.append((score * BINS).floor().clamp(0, BINS - 1).cpu().numpy())
        labels.append(client.val.y.cpu().numpy())
        groups.append(crossed(client.val.g))
    y, group = np.concatenate(labels), np.concatenate(groups)
    both = [k for k in np.unique(group) if len(np.unique(y[group == k])) == 2]
    known = np.isin(group, both)
    x = (np.concatenate(bins) + 0.5)[:, None] / BINS
    fitted = ThresholdOptimizer(
        estimator=Scores(),
        constraints="equalized_odds",
        objective="balanced_accuracy_score",
        prefit=True,
        predict_method="predict",
    ).fit(x[known], y[known], sensitive_features=group[known])
    sent = 4 * BINS * 2 * int(np.prod([len(v) for v in task.groups.values()]))
    return After(thresholds=fitted, facts={"uplink_bytes": sent, "groups": both})


def by_thresholds(after: After, score: np.ndarray, g: dict[str, Tensor], seed: int) -> np.ndarray:
    """Decisions (n,) in {0, 1} from score and group of every row; rows of unknown groups are cut at 1/2."""
    group = crossed(g)
    known = np.isin(group, after.facts["groups"])
    out = (score >= 0.5).astype(int)
    binned = (np.floor(score * BINS).clip(0, BINS - 1) + 0.5) / BINS
    if known.any():
        out[known] = after.thresholds.predict(
            binned[known, None], sensitive_features=group[known], random_state=seed
        )
    return out
