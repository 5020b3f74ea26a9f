"""Predictions of a trained model on the test rows: the only place that reads them.

What this module does not do: it reads no perceived group, except for the baseline `thresholds`, which is a
rule a group and cannot do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from fvlfp.training.fit_posthoc import crossed_groups
from fvlfp.training.model import ClientPrompts
from fvlfp.training.readout import Readout

if TYPE_CHECKING:
    from fvlfp.runs.train import Prepared, Trained


@torch.no_grad()
def predict(prepared: Prepared, trained: Trained | None = None) -> pd.DataFrame:
    """The test rows with `prediction` and, for two classes, `score` (probability of the second class).

    trained: None gives the zero-shot classifier with the card's first template. No perceived group is
    read: only image embeddings and class words go in. Where each client has a model of its own (`pooling` is
    "local" or "personal") every row is judged by one client's, drawn with probability n_k / sum n: rates are
    then those of a client drawn by size.
    """
    task, test = prepared.task, prepared.test
    readout = readout_of(prepared, trained)
    probability = readout.logits(readout.live(test)).softmax(-1).cpu().numpy()  # (n, C)
    chosen = probability.argmax(1)
    if readout.posthoc is not None and readout.posthoc.thresholds is not None and trained is not None:
        score = probability[:, 1].astype(float)
        chosen = readout.posthoc.thresholds.decide(score, crossed_groups(test), trained.cfg.seed)
    out = prepared.test_frame.copy()
    out["prediction"] = np.array(task.classes)[chosen]
    if len(task.classes) == 2:
        out["score"] = probability[:, 1].astype(float)
    return out


@torch.no_grad()
def readout_of(prepared: Prepared, trained: Trained | None) -> Readout:
    """The classifier of a finished run, for the test rows of `prepared`; None: the zero-shot one."""
    task = prepared.task
    if trained is None:
        return Readout(task, task.frozen_texts)
    model = trained.model
    if not isinstance(model, ClientPrompts):
        return Readout.of(task, model, projection=trained.projection, posthoc=trained.posthoc)
    rng = np.random.default_rng(trained.cfg.seed_for("local/judge"))
    shares = np.array(model.sizes) / sum(model.sizes)
    judge = torch.from_numpy(rng.choice(len(shares), size=len(prepared.test), p=shares))
    return Readout(task, model.class_texts(task)[judge.to(task.frozen_texts.device)])  # (n, C, d)
