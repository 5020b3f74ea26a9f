"""A second proof of the device rules, by PyTorch itself: FakeTensorMode knows shapes and devices, no values.

It reaches the loss of one stacked step, and Adam, on "cuda" on a machine without one. It does not reach
the backward pass (autograd asks the driver for a context: "hasPrimaryContext expects a valid device index")
and no whole run (losses, counts and reports are read as numbers, and a fake tensor has none). Both run on
the pretended device of `pretended.py`. That and a fake GPU do not fit into one process, so
`test_fake_cuda.py` starts this file as another.
"""

import io
from functools import partial

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fvlfp.config import Config
from fvlfp.runs.train import load_encoder
from fvlfp.training.loss import Batch, batch_loss
from fvlfp.training.task import Task
from tests.conftest import plant

N, CLIENTS = 6, 3


def a_batch(task: Task, device: str) -> Batch:
    d, shape = task.frozen_texts.shape[1], (CLIENTS, N)
    whole = partial(torch.zeros, shape, dtype=torch.long, device=device)
    groups = {name: whole() for name in task.groups}
    ones = torch.ones(shape, device=device)
    return Batch(torch.randn(*shape, d, device=device), whole(), groups, ones, ones, groups, groups)


def step(task: Task, start: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of all clients at once, as `fvlfp.training.stacked` makes them, and prompts after Adam."""
    cfg = Config.make("smoke", method="fvlfp", batch=N)
    prompts = start.expand(CLIENTS, *start.shape).clone()
    directions = {name: texts - texts.mean(0) for name, texts in task.group_texts.items()}
    loss = torch.func.vmap(partial(batch_loss, task=task, options=cfg, directions=directions))
    texts = task.encode_texts(prompts, pairs=cfg.uses_texts_of_pairs, group_words=cfg.uses_group_words)
    losses: torch.Tensor = loss(texts, batch)
    prompts.grad = torch.ones_like(prompts)
    torch.optim.Adam([prompts], 0.1, fused=True).step()
    return losses, prompts


def main() -> None:
    """Both rules, or an exception."""
    file = io.BytesIO()
    torch.save(plant(load_encoder(Config.make("smoke", device="cpu"))).task, file)
    file.seek(0)
    with FakeTensorMode():
        task: Task = torch.load(file, map_location="cuda", weights_only=False)
        # a message brings prompts on the CPU: this is how the default method once ended on every GPU
        for start in (task.initial, task.initial.cpu()):
            losses, prompts = step(task, start, a_batch(task, "cuda"))
            assert losses.shape == (CLIENTS,)
            assert losses.device.type == "cuda"
            assert prompts.device == start.device
        try:
            step(task, task.initial, a_batch(task, "cpu"))
        except RuntimeError as error:
            assert "device" in str(error)
        else:
            raise AssertionError("a batch on the CPU was not found")


if __name__ == "__main__":
    main()
