"""What a run trains and sends: prompts of the two towers, or FedCLIP's adapter; or one model a client.

What this module does not do: it classifies nothing, see `fvlfp.training.readout`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fvlfp.config import Config
from fvlfp.training.task import Task


@dataclass(frozen=True)
class Prompts:
    """text: P (L, n_ctx, width). vision: V (L_v, n_v, width_v) of the image tower, where it is prompted."""

    text: Tensor
    vision: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, as they travel and as they are saved."""
        return {"prompts": self.text} | ({} if self.vision is None else {"vision": self.vision})


@dataclass(frozen=True)
class Adapter:
    """weights: FedCLIP's A (2, d, d + 1); classes are the frozen texts."""

    weights: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, as they travel and as they are saved."""
        return {"adapter": self.weights}


@dataclass(frozen=True)
class ClientPrompts:
    """Text prompts of each of K clients, (K, L, n_ctx, width) or several a client, (K, m, L, n_ctx, width).

    sizes: training rows.
    """

    text: Tensor
    sizes: tuple[int, ...]

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, as they are saved."""
        return {"prompts": self.text}

    def class_texts(self, task: Task) -> Tensor:
        """T (K, C, d): each client's classifier; of several prompts the mean, which gives mean logits."""
        with torch.no_grad():
            each = [task.class_texts(prompts.to(task.frozen_texts.device)) for prompts in self.text]
        return torch.stack([texts if texts.dim() == 2 else texts.mean(0) for texts in each])


#: what one client trains and sends
Model = Prompts | Adapter


def model_of(tensors: dict[str, Tensor]) -> Model:
    """The inverse of `tensors()`; other names are left alone.

    Raises:
        KeyError: neither prompts nor an adapter are there.
    """
    if "adapter" in tensors:
        return Adapter(tensors["adapter"])
    return Prompts(tensors["prompts"], tensors.get("vision"))


def on_device(model: Model, device: torch.device) -> Model:
    """The same model on another device."""
    return model_of({name: tensor.to(device) for name, tensor in model.tensors().items()})


def initial_model(task: Task, cfg: Config) -> Model:
    """Where training starts: the card's first template as prompts, or an adapter that changes no embedding.

    With W2 = 0 and b2 = 0 the adapter's attention is even, so round 0 is the zero-shot classifier either way.
    """
    if cfg.tune == "prompts":
        vision = None
        if cfg.vision_ctx:
            assert task.initial_vision is not None  # `train` has compared the config with what was prepared
            vision = task.initial_vision[: cfg.vision_depth]
        return Prompts(task.initial[: cfg.depth], vision)
    d = task.frozen_texts.shape[1]
    generator = torch.Generator().manual_seed(cfg.seed_for("adapter"))
    adapter = torch.zeros(2, d, d + 1)
    adapter[0, :, :d] = torch.randn(d, d, generator=generator) / d**0.5
    return Adapter(adapter.to(task.frozen_texts.device))
