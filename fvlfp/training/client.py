"""One client's round of training, whatever it trains.

What this module does not do: it takes one client at a time; see `fvlfp.training.stacked` for many at once.
"""

from __future__ import annotations

import torch

from fvlfp.config import Config
from fvlfp.training.adapter import adapter_train
from fvlfp.training.local import Job, LocalResult, local_train
from fvlfp.training.model import Adapter, Prompts
from fvlfp.training.task import Task
from fvlfp.training.vision import vision_train


def train_client(job: Job, task: Task, cfg: Config) -> LocalResult:
    """The job's model, trained on the job's data."""
    model, cfg = job.model, cfg.at_round(job.round)
    if isinstance(model, Adapter):
        adapter, loss = adapter_train(model.weights, job.data, task, cfg, seed_name=job.seed_name)
        return LocalResult(Adapter(adapter), task.frozen_texts, loss)
    if model.vision is None:
        text, loss = local_train(
            model.text, job.data, task, cfg, directions=job.directions, seed_name=job.seed_name
        )
        model = Prompts(text)
    else:
        model, loss = vision_train(
            model,
            job.data,
            task,
            cfg,
            projection=job.projection,
            directions=job.directions,
            seed_name=job.seed_name,
        )
    with torch.no_grad():
        return LocalResult(model, task.class_texts(model.text), loss)
