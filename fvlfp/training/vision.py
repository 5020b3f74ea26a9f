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

from torch import Tensor

from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.training.examples import Split
from fvlfp.training.local import optimise, prompt_loss
from fvlfp.training.loss import Batch
from fvlfp.training.model import Prompts
from fvlfp.training.task import Task


def vision_train(
    prompts: Prompts,
    data: Split,
    task: Task,
    cfg: Config,
    *,
    projection: Projection | None,
    directions: dict[str, Tensor],
    seed_name: str,
) -> tuple[Prompts, float]:
    """`local_train` for both towers: new P and V, mean loss, by the same loss, optimiser and budget.

    data: after `projection`, which acts on live embeddings too, and with pictures.
    """
    image, pixels, vision = task.image, data.pixels, prompts.vision
    assert image is not None and pixels is not None and vision is not None
    start = [prompts.text, vision.to(prompts.text.device)]

    def embed(params: list[Tensor], rows: Tensor) -> Tensor:
        z = image.encode(pixels[rows], params[1])
        return z if projection is None else projection(z)

    def loss_of(params: list[Tensor], batch: Batch) -> Tensor:
        return prompt_loss(params, batch, task, cfg, directions, start=start)

    (text, new_vision), loss = optimise(
        start, data, task, cfg, seed_name=seed_name, loss_of=loss_of, embed=embed
    )
    return Prompts(text, new_vision), loss
