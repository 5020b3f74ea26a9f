"""One client trains FedCLIP's adapter (`fvlfp.baselines.fedclip`) instead of prompts.

What this module does not do: none of the three components, nor a prompt, acts together with an adapter.
"""

from __future__ import annotations

from torch import Tensor

from fvlfp.baselines.fedclip import adapt
from fvlfp.config import Config
from fvlfp.training.examples import Split
from fvlfp.training.local import optimise
from fvlfp.training.loss import Batch, cross_entropy
from fvlfp.training.task import Task


def adapter_train(
    adapter: Tensor, data: Split, task: Task, cfg: Config, *, seed_name: str
) -> tuple[Tensor, float]:
    """`local_train` for an adapter A (2, d, d + 1): the same cross-entropy, optimiser, batches and budget."""

    def loss_of(params: list[Tensor], batch: Batch) -> Tensor:
        return cross_entropy(task.logits(adapt(batch.z, params[0]), task.frozen_texts), batch)

    (new,), loss = optimise([adapter], data, task, cfg, seed_name=seed_name, loss_of=loss_of)
    return new, loss
