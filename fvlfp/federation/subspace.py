"""The subspace of DSOP and the directions of CDFP, from what clients send; rank and lambda, from validation.

What this module does not do: it reads no test row, and it sees sums and counts only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from flwr.app import MessageType, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fvlfp import dsop
from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.federation.checkpoint import State
from fvlfp.federation.protocol import arrays_of, ask, read_arrays
from fvlfp.federation.replies import Shapes, check_counts, check_moments
from fvlfp.fpf import cell_recalls, recall_gap
from fvlfp.training.local import needs_group_labels
from fvlfp.training.task import Task

MOMENTS = f"{MessageType.QUERY}.moments"

#: lambdas that validation may choose from; every rank goes with each.
LAMBDAS = (1.0, 0.5)


def ask_subspace(grid: Grid, task: Task, cfg: Config, state: State) -> None:
    """Put the full-rank `basis`, `mu` and CDFP's `directions/...` into the state.

    A collapsed fair subspace (CDFP shrinks the very differences it needs) falls back to hand-written words.
    """
    use_dsop, use_cf = cfg.lambda_dsop != 0, cfg.lambda_cf > 0 and cfg.pairing == "image"
    d = task.frozen_texts.shape[1]
    tensors = {"basis": torch.zeros(d, 0), "mu": torch.zeros(d)}
    if use_dsop or use_cf:
        fair = state.tensors["prompts"] if cfg.dsop_words == "fair" else None
        summed = _ask_moments(grid, task, cfg, use_dsop, use_cf, fair)
        texts = task.group_texts if fair is None else task.fair_group_texts(fair)
        if use_dsop:
            stacked = torch.cat([_directions(cfg.dsop, name, texts, summed) for name in texts])
            tensors["basis"] = dsop.subspace(stacked.cpu())[0]
            if cfg.recentre:
                kind = "image" if cfg.dsop == "image" else "prompted"
                means = [
                    dsop.overall_mean(*summed[f"{kind}/{name}"], by_group=kind == "image") for name in texts
                ]
                tensors["mu"] = torch.stack(means).mean(0)
        if use_cf:
            for name in texts:
                found = _directions(cfg.cf_directions, name, task.group_texts, summed)
                tensors[f"directions/{name}"] = found.cpu()
    state.tensors |= tensors


def _ask_moments(
    grid: Grid, task: Task, cfg: Config, use_dsop: bool, use_cf: bool, prompts: Tensor | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Sums and counts added up over all clients; {} if words alone are enough."""
    by_dsop = use_dsop and (cfg.dsop in ("prompted", "image") or cfg.recentre)
    by_cf = use_cf and cfg.cf_directions in ("prompted", "image")
    if not (by_dsop or by_cf):
        return {}
    arrays = arrays_of({} if prompts is None else {"prompts": prompts})
    total: dict[str, Tensor] = {}
    replies = ask(
        grid,
        MOMENTS,
        RecordDict({"arrays": arrays}),
        check=check_moments(moment_shapes(task, cfg), min_cell=cfg.min_cell, most=cfg.max_examples),
        deadline=cfg.deadline,
        needed=cfg.min_available,
    )
    for reply in replies:
        for name, tensor in read_arrays(reply.content, "arrays").items():
            total[name] = total[name] + tensor if name in total else tensor
    names = [name.removeprefix("sums/") for name in total if name.startswith("sums/")]
    return {name: (total[f"sums/{name}"], total[f"counts/{name}"]) for name in names}


def moment_shapes(task: Task, cfg: Config) -> Shapes:
    """Array name -> (shape, dtype) of a client's moments."""
    kinds = ["prompted", "image"] if needs_group_labels(cfg) else ["prompted"]
    shapes: Shapes = {}
    for name, values in task.groups.items():
        cells = (len(task.classes), len(values))
        for kind in kinds:
            shapes[f"sums/{kind}/{name}"] = ((*cells, task.frozen_texts.shape[1]), "float32")
            shapes[f"counts/{kind}/{name}"] = (cells, "float32")
    return shapes


def _directions(
    mode: str, name: str, texts: dict[str, Tensor], summed: dict[str, tuple[Tensor, Tensor]]
) -> Tensor:
    return dsop.group_directions(mode, texts[name].cpu(), *summed.get(f"{mode}/{name}", (None, None)))


def choose_projection(grid: Grid, task: Task, cfg: Config, state: State) -> None:
    """Cut `basis` to the rank, and set the lambda, that do best on the clients' validation data.

    Of all candidates whose cell accuracy (mean recall over class-by-group cells) is within `tolerance` of
    "off", the one with the smallest odds gap (the largest over attributes, counts pooled over clients). Cell
    accuracy, because clients' data may be biased: there, balanced accuracy would pay for using the group. A
    rank or lambda that the config fixes is not searched; lambda_dsop = 0 means off and asks nobody.
    """
    full = state.tensors["basis"].shape[1]
    lambdas = LAMBDAS if cfg.lambda_dsop < 0 else (cfg.lambda_dsop,)
    ranks = range(1, full + 1) if cfg.rank == 0 else (min(cfg.rank, full),)
    candidates = [(0, 0.0)] if cfg.rank == 0 and cfg.lambda_dsop < 0 else []
    candidates += [(rank, lam) for lam in lambdas for rank in ranks if rank > 0 and lam > 0]
    rank, lam = candidates[0] if candidates else (0, 0.0)
    tried: list[dict[str, Any]] = []
    if len(candidates) > 1:
        tried = _try_on_validation(grid, task, cfg, state, candidates)
        enough = tried[0]["cell_accuracy"] - cfg.tolerance
        fit = [row for row in tried if row["odds_gap"] is not None and row["cell_accuracy"] >= enough]
        if fit:
            best = min(fit, key=lambda row: (row["odds_gap"], row["rank"]))
            rank, lam = best["rank"], best["lambda"]
    state.tensors["basis"] = state.tensors["basis"][:, :rank].contiguous()
    state.facts |= {"rank": rank, "lambda": lam, "candidates": tried}


def _try_on_validation(
    grid: Grid, task: Task, cfg: Config, state: State, candidates: list[tuple[int, float]]
) -> list[dict[str, Any]]:
    content = RecordDict(
        {
            "arrays": arrays_of(state.trained),
            "subspace": arrays_of(
                {"basis": state.tensors["basis"], "mu": state.tensors["mu"], "lambda": torch.ones(1)}
            ),
            "candidates": arrays_of({"rank-lambda": torch.tensor(candidates)}),
        }
    )
    pooled: dict[str, np.ndarray] = {}
    n = len(task.classes)
    shapes: Shapes = {
        f"{i}/{name}": ((n, n, len(values)), "int64")
        for i in range(len(candidates))
        for name, values in task.groups.items()
    }
    replies = ask(
        grid,
        MessageType.EVALUATE,
        content,
        check=check_counts(shapes, min_cell=cfg.min_cell, most=cfg.max_examples),
        deadline=cfg.deadline,
        needed=cfg.min_available,
    )
    for reply in replies:
        for name, counts in read_arrays(reply.content, "arrays").items():
            pooled[name] = pooled.get(name, 0) + counts.numpy()
    rows = []
    for i, (rank, lam) in enumerate(candidates):
        tables = [pooled[f"{i}/{name}"] for name in cfg.groups]
        gaps = [g for t in tables if (g := recall_gap(t, min_cell=cfg.min_cell)) is not None]
        recalls = np.concatenate([cell_recalls(t, min_cell=cfg.min_cell) for t in tables])
        rows.append(
            {
                "rank": rank,
                "lambda": lam,
                "cell_accuracy": float(recalls.mean()) if len(recalls) else 0.0,
                "worst_cell_recall": float(recalls.min()) if len(recalls) else 0.0,
                "odds_gap": max(gaps, default=None),
            }
        )
    return rows


def final_projection(state: State) -> Projection:
    """The projection a finished run uses at inference."""
    return Projection(state.tensors["basis"], state.tensors["mu"], float(state.facts["lambda"]))
