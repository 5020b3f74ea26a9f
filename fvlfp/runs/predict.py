"""Predictions of a trained model on the test rows: the only place that reads them.

What this module does not do: it reads no perceived group, except for the baseline `thresholds`, which is a
rule a group and cannot do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fvlfp.dsop import Projection
from fvlfp.training.adapter import readout
from fvlfp.training.after import by_thresholds
from fvlfp.training.vision import seen

if TYPE_CHECKING:
    from fvlfp.runs.train import Prepared, Trained


@torch.no_grad()
def predict(prepared: Prepared, trained: Trained | None = None) -> pd.DataFrame:
    """The test rows with `prediction` and, for two classes, `score` (probability of the second class).

    trained: None gives the zero-shot classifier with the card's first template. No perceived group is
    read: only image embeddings and class words go in. With `pooling = "local"` every row is judged by the
    model of one client, drawn with probability n_k / sum n: rates are then those of a client drawn by size.
    """
    task = prepared.task
    z = seen(prepared.test, task, None if trained is None else trained.vision).z
    if trained is None:
        probability = (task.scale * z @ task.frozen_texts.T).softmax(-1)
    elif trained.cfg.pooling == "local":
        rng = np.random.default_rng(trained.cfg.seed_for("local/judge"))
        shares = np.array(trained.sizes) / sum(trained.sizes)
        judge = torch.from_numpy(rng.choice(len(shares), size=len(z), p=shares)).to(z.device)
        texts = torch.stack([task.class_texts(p.to(z.device)) for p in trained.prompts])
        probability = (task.scale * torch.einsum("nd,ncd->nc", z, texts[judge])).softmax(-1)
    else:
        probability = class_probabilities(prepared, trained, z)
    out, found = prepared.test_frame.copy(), probability.cpu().numpy()
    chosen = found.argmax(1)
    if trained is not None and trained.after is not None and trained.after.thresholds is not None:
        chosen = by_thresholds(trained.after, found[:, 1].astype(float), prepared.test.g, trained.cfg.seed)
    out["prediction"] = np.array(task.classes)[chosen]
    if len(task.classes) == 2:
        out["score"] = found[:, 1].astype(float)
    return out


def class_probabilities(prepared: Prepared, trained: Trained, z: Tensor) -> Tensor:
    """(n, C) probabilities for image embeddings z (n, d), by one global model.

    z: with that model's vision prompts, where it has any.
    """
    task, device = prepared.task, z.device
    p = trained.projection
    z = Projection(p.basis.to(device), p.mu.to(device), p.lam)(z)
    z, texts = readout(task, trained.cfg, trained.prompts.to(device), z)
    if trained.after is not None:
        z, texts = trained.after.images(z), trained.after.texts(texts)
    return (task.scale * z @ texts.T).softmax(-1)
