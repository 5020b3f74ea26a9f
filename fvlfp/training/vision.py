"""Clients that tune prompts V of the image tower beside P of the text tower (VPT-deep, MaPLe).

With V every picture is encoded anew in every batch, and again where a model is judged: at validation and at
inference. Two things stay with the frozen tower, whose embeddings `Split.z` holds: the sums from which DSOP's
subspace and CDFP's directions are made (before training), and the group that the frozen model reads in a
picture. The projection, and the counterfactuals, act on the live embedding.

What this module does not do: it trains no clients at once (an image tower is at work for one client as it
is), and it lets no direction or subspace follow V: on drawn faces V undid what they gain
(benchmarks/results/vision.md). V is fused as P is, by the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fvlfp.clip.encoder import BATCH
from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.errors import InputError
from fvlfp.training.local import tune
from fvlfp.training.loss import Split
from fvlfp.training.task import Task


def initial_vision(task: Task, cfg: Config) -> dict[str, Tensor]:
    """`vision`: where V (L_v, n_v, width_v) starts; {} where vision prompts are off."""
    if not cfg.vision_ctx:
        return {}
    assert task.initial_vision is not None  # `train` has compared the config with what was prepared
    return {"vision": task.initial_vision[: cfg.vision_depth]}


@torch.no_grad()
def seen(data: Split, task: Task, vision: Tensor | None) -> Split:
    """The same examples, embedded with V (L_v, n_v, width_v); None: as they are.

    Raises:
        InputError: the examples came without pictures.
    """
    if vision is None:
        return data
    if data.pixels is None or task.image is None:
        raise InputError("vision prompts need pictures: call prepare(cfg) with vision_ctx")
    vision = vision.to(data.z.device)
    parts = [task.image.encode(data.pixels[rows], vision) for rows in torch.arange(len(data)).split(BATCH)]
    return Split(torch.cat([*parts, data.z[:0]]), data.y, data.g)


def vision_train(
    prompts: Tensor,
    vision: Tensor,
    data: Split,
    task: Task,
    cfg: Config,
    *,
    projection: Projection,
    directions: dict[str, Tensor],
    seed_name: str,
) -> tuple[Tensor, Tensor, float]:
    """`client.local_train` for both towers: new P, new V, mean loss, by the same loss, optimiser and budget.

    data: after `projection`, which acts on live embeddings too, and with pictures.
    """
    image, pixels = task.image, data.pixels
    assert image is not None and pixels is not None

    def see(params: list[Tensor], rows: Tensor) -> Tensor:
        return projection(image.encode(pixels[rows], params[1]))

    start = [prompts, vision.to(prompts.device)]
    (new_prompts, new_vision), loss = tune(
        start, data, task, cfg, directions=directions, seed_name=seed_name, see=see
    )
    return new_prompts, new_vision, loss
