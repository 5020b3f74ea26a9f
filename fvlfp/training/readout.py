"""From embeddings and prompts to logits: the order of all transforms stands here, and only here.

pictures -> [vision prompts] -> z (n, d) -> [projection] -> [adapter] -> [erasure] -> logits `s z T^T` (n, C)
prompts  -> class texts T (C, d) -> [text map] ----------------------------------------^

Validation, the choice of a projection, prediction and deployment all classify through it.

What this module does not do: it trains nothing. In training a client's examples are projected once, and
`Task.logits` is called on batches (`fvlfp.training.loss`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fvlfp.baselines.fedclip import adapt
from fvlfp.baselines.posthoc import PostHoc
from fvlfp.clip.encoder import BATCH
from fvlfp.dsop import Projection
from fvlfp.errors import InputError
from fvlfp.training.examples import Split
from fvlfp.training.model import Adapter, Model
from fvlfp.training.task import Task


@dataclass(frozen=True)
class Readout:
    """A classifier. texts: T (C, d), or (n, C, d) where every row has a classifier of its own.

    vision: prompts V of the image tower. projection: DSOP's. adapter: FedCLIP's. posthoc: fitted afterwards.
    """

    task: Task
    texts: Tensor
    vision: Tensor | None = None
    projection: Projection | None = None
    adapter: Tensor | None = None
    posthoc: PostHoc | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        model: Model,
        *,
        projection: Projection | None = None,
        posthoc: PostHoc | None = None,
        texts: Tensor | None = None,
    ) -> Readout:
        """The classifier that a model makes, on the task's device.

        texts: the model's class texts (C, d), where they are known already.
        """
        device = task.frozen_texts.device
        projection = projection and task.parts.applied(projection.to(device))
        if isinstance(model, Adapter):
            return cls(task, task.frozen_texts, None, projection, model.weights.to(device), posthoc)
        if texts is None:
            with torch.no_grad():
                texts = task.class_texts(model.text.to(device))
        return cls(task, texts, model.vision, projection, None, posthoc)

    def live(self, data: Split) -> Tensor:
        """Embeddings (n, d) of examples as this model's image tower sees them."""
        return embed_live(data, self.task, self.vision)

    def images(self, z: Tensor) -> Tensor:
        """Live embeddings (n, d) after projection, adapter and erasure: what is compared with the texts."""
        if self.projection is not None:
            z = self.projection(z)
        if self.adapter is not None:
            z = adapt(z, self.adapter)
        return z if self.posthoc is None else self.posthoc.images(z)

    def class_texts(self) -> Tensor:
        """T (C, d) or (n, C, d) after the text map."""
        return self.texts if self.posthoc is None else self.posthoc.texts(self.texts)

    @torch.no_grad()
    def logits(self, z: Tensor) -> Tensor:
        """(n, C) from live embeddings z (n, d)."""
        return self.task.logits(self.images(z), self.class_texts())

    def confusion(self, data: Split, z: Tensor | None = None) -> dict[str, np.ndarray]:
        """Attribute -> counts (G, C, C): perceived group, true class, predicted class.

        z: the live embeddings (n, d) of `data`, where they are known already.
        """
        predicted = self.logits(self.live(data) if z is None else z).argmax(1)
        n_classes = len(self.task.classes)
        out = {}
        for name, groups in self.task.groups.items():
            shape = (len(groups), n_classes, n_classes)
            cell = (data.g[name] * n_classes + data.y) * n_classes + predicted
            counts = torch.bincount(cell, minlength=math.prod(shape))
            out[name] = counts.reshape(shape).cpu().numpy()
        return out


@torch.no_grad()
def embed_live(data: Split, task: Task, vision: Tensor | None) -> Tensor:
    """The examples' embeddings (n, d) with V (L_v, n_v, width_v); None: those of the frozen tower.

    Raises:
        InputError: the examples came without pictures.
    """
    if vision is None:
        return data.z
    if data.pixels is None or task.image is None:
        raise InputError("vision prompts need pictures: call prepare(cfg) with vision_ctx")
    vision = vision.to(data.z.device)
    parts = [task.image.encode(data.pixels[rows], vision) for rows in torch.arange(len(data)).split(BATCH)]
    return torch.cat([*parts, data.z[:0]])
