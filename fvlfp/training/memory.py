"""How much memory one client's training needs, before it starts: how many clients fit on one GPU.

The numbers that autograd keeps for the backward pass are counted, not guessed: one forward pass of one batch
runs on whatever device is there (a CPU will do), and every tensor it saves is added up once.

What this module does not do: it measures no GPU. The CUDA context and the allocator's rounding come on top;
they are in `overhead`, a figure to be replaced by what `nvidia-smi` shows for one idle process. Encoding the
images, once and before training, needs a batch of pixels and activations more. A prompted image tower is
counted from one picture, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp.clip.encoder import Encoder
from fvlfp.config import Config
from fvlfp.training.task import Task

#: bytes of a CUDA context with its kernels, and of what a caching allocator rounds up: an assumption.
OVERHEAD = 700 * 2**20


@dataclass(frozen=True)
class Memory:
    """Bytes of one client: the frozen model, its encoded rows, what is saved for the backward pass."""

    weights: int
    features: int
    saved: int
    overhead: int = OVERHEAD

    @property
    def total(self) -> int:
        """All of them; gradients and Adam's state of the prompts are too small to count."""
        return self.weights + self.features + self.saved + self.overhead

    def clients_on(self, gpu_bytes: int) -> int:
        """How many clients, each a process with its own weights, fit on a GPU with a tenth to spare."""
        return int(0.9 * gpu_bytes // self.total)

    def describe(self) -> str:
        """One line."""
        parts = {"weights": self.weights, "features": self.features, "backward pass": self.saved}
        told = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in parts.items())
        return f"memory of one client: {told}, context {self.overhead / 2**20:.0f} MiB (assumed on a GPU)"


def estimate(encoder: Encoder, task: Task, cfg: Config, rows: int) -> Memory:
    """The memory of a client with `rows` examples: one batch of one step, with the class texts it needs."""
    d, device = task.frozen_texts.shape[1], task.initial.device
    weights: dict[int, int] = {}
    for parameter in (*encoder.model.parameters(), *encoder.model.buffers()):
        storage = parameter.untyped_storage()
        weights[storage.data_ptr()] = storage.nbytes()

    def saved_by(forward: Callable[[], Tensor]) -> int:
        seen: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            forward()
        return sum(size for place, size in seen.items() if place not in weights)

    prompts = task.initial.detach().clone().requires_grad_()
    z = F.normalize(torch.ones(min(cfg.batch, rows), d, device=device), dim=-1)

    def loss_of_texts() -> Tensor:
        texts = task.encode_texts(prompts, pairs=cfg.uses_texts_of_pairs)
        y = torch.zeros(len(z), dtype=torch.long, device=device)
        loss = F.cross_entropy(task.logits(z, texts.classes), y)
        return loss + sum(states[-1].sum() for states in texts.states.values())

    saved = saved_by(loss_of_texts)
    if (image := task.image) is not None and task.initial_vision is not None:
        # A picture's input of every block, and what one block saves when it is computed again.
        vision = task.initial_vision.detach().clone().requires_grad_()
        picture = torch.zeros(1, 3, *image.image_size, dtype=torch.uint8)
        tower = saved_by(lambda: image.encode(picture, vision, recompute=False))
        inputs = 4 * (image.tokens + cfg.vision_ctx) * image.width * len(image.blocks)
        saved += len(z) * (inputs + tower // len(image.blocks))
    return Memory(weights=sum(weights.values()), features=4 * rows * d, saved=saved)
