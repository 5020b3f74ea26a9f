"""Local training of many clients as one batch: for clients that share a device.

The frozen text tower sees the prompts (K, L, n_ctx, width) of K clients at once, and one Adam updates them
all: its state is elementwise, so every client has its own. Batches, draws and loss are those of
`fvlfp.training.loss`; short batches are filled up with rows that count for nothing. Each result
equals that of `local_train`, the readable reference, within the tolerance of float32 sums (tested).

What this module does not do: it changes no result beyond that tolerance, nothing travels through it, and it
takes text prompts only: clients with vision prompts train one after another (`fvlfp.training.vision`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fvlfp.baselines.losses import proximal
from fvlfp.clip.device import free_bytes
from fvlfp.config import Config
from fvlfp.training.graphs import replayed
from fvlfp.training.local import Job, LocalResult, adam
from fvlfp.training.loss import Batch, batch_loss, plan, row_weights
from fvlfp.training.model import Prompts
from fvlfp.training.task import Task

#: bytes of activations that one stack of clients may hold at once on a CPU.
MOST_BYTES = 2**30
#: The share of a GPU's free memory that it may hold there.
GPU_SHARE = 0.5


def train_stacked(jobs: list[Job], task: Task, cfg: Config) -> list[LocalResult]:
    """For each job what `train_client` makes of it; every job starts from text prompts.

    Clients are trained in stacks that fit into memory (`clients_at_once`). The jobs are those of one round:
    all hold the same `directions`.
    """
    cfg = cfg.at_round(jobs[0].round) if jobs else cfg
    out: dict[int, LocalResult] = {}
    for chosen in stacks(jobs, cfg, clients_at_once(task, cfg)):
        out |= zip(chosen, _train_stack([jobs[k] for k in chosen], task, cfg), strict=True)
    return [out[k] for k in range(len(jobs))]


def stacks(jobs: list[Job], cfg: Config, size: int) -> list[list[int]]:
    """The jobs' places in stacks of at most `size`, in the order that `optimise_stack` needs."""
    # Most steps first: the clients still at work are then always the first ones of a stack.
    order = sorted(range(len(jobs)), key=lambda k: (-n_steps(jobs[k], cfg), jobs[k].seed_name))
    return [order[start : start + size] for start in range(0, len(order), size)]


def n_steps(job: Job, cfg: Config) -> int:
    """Optimiser steps of one client in one round."""
    return cfg.local_epochs * -(-len(job.data) // cfg.batch)


def clients_at_once(task: Task, cfg: Config) -> int:
    """How many clients fit into `MOST_BYTES`, or on a GPU into half of what is free now.

    A block keeps some 20 numbers a token and unit of width.
    """
    free = free_bytes(task.initial.device)
    most = MOST_BYTES if free is None else int(GPU_SHARE * free)
    texts = [task.class_tokens]
    if cfg.uses_texts_of_pairs:
        texts += [tokens for tokens, _ in task.pair_tokens.values()]
    tokens = 1 + cfg.n_ctx + sum(t.ids.shape[0] * (t.ids.shape[1] - 1 - t.n_ctx) for t in texts)
    tower = 20 * tokens * task.text.width * len(task.text.blocks)
    images = 10 * cfg.batch * task.frozen_texts.shape[1]
    return max(1, most // (4 * (tower + images)))


def _train_stack(jobs: list[Job], task: Task, cfg: Config) -> list[LocalResult]:
    start = torch.stack([_text_prompts(job) for job in jobs]).detach()  # (K, L, n_ctx, width)
    loss_of_each = torch.func.vmap(partial(batch_loss, task=task, options=cfg, directions=jobs[0].directions))

    def losses_of(params: list[Tensor], batch: Batch) -> Tensor:
        (prompts,) = params
        texts = task.encode_texts(prompts, pairs=cfg.uses_texts_of_pairs, group_words=cfg.uses_group_words)
        losses: Tensor = loss_of_each(texts, batch)
        if cfg.lambda_prox > 0:
            losses = losses + cfg.lambda_prox * proximal(prompts, start[: len(prompts)])
        return losses

    (prompts,), means = optimise_stack([start], jobs, task, cfg, losses_of=losses_of)
    with torch.no_grad():
        class_texts = task.class_texts(prompts)  # (K, C, d)
    return [LocalResult(Prompts(p), t, loss) for p, t, loss in zip(prompts, class_texts, means, strict=True)]


def optimise_stack(
    start: list[Tensor],
    jobs: list[Job],
    task: Task,
    cfg: Config,
    *,
    losses_of: Callable[[list[Tensor], Batch], Tensor],
) -> tuple[list[Tensor], list[float]]:
    """`fvlfp.training.local.optimise` for K clients at once: new parameters (K, ...), and K mean losses.

    start: parameters, each (K, ...). jobs: most steps first. losses_of: the parameters (n, ...) of the first
    n clients and their batches -> the losses (n,).
    """
    params = [t.detach().clone().requires_grad_() for t in start]
    optimiser = adam(params, cfg.lr)

    def step(batch: Batch) -> tuple[Tensor, list[Tensor]]:
        losses = losses_of([p[: len(batch.y)] for p in params], batch)  # (n,)
        return losses.detach(), list(torch.autograd.grad(losses.sum(), params))

    losses_and_gradients = replayed(step, start[0].device)
    batch_at = _stack_batches(jobs, task, cfg)
    left = [n_steps(job, cfg) for job in jobs]
    totals = torch.zeros(len(jobs), device=start[0].device)
    finished: list[list[Tensor]] = []  # the last client first
    for t in range(left[0]):
        at_work = len(jobs) - len(finished)
        batch = batch_at(t, at_work)
        losses, gradients = losses_and_gradients(batch)
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient
        optimiser.step()
        totals[:at_work] += losses * batch.real.sum(1)
        # A finished client drifts on in the stack by its momentum; what counts is taken here.
        while len(finished) < len(jobs) and left[at_work - 1] == t + 1:
            finished.append([p[at_work - 1].detach().clone() for p in params])
            at_work -= 1
    means = [x / (len(job.data) * cfg.local_epochs) for x, job in zip(totals.tolist(), jobs, strict=True)]
    return [torch.stack(parts) for parts in zip(*finished[::-1], strict=True)], means


def _text_prompts(job: Job) -> Tensor:
    assert isinstance(job.model, Prompts) and job.model.vision is None, "only text prompts are stacked"
    return job.model.text


def _stack_batches(jobs: list[Job], task: Task, cfg: Config) -> Callable[[int, int], Batch]:
    """All clients' batches: a function of the step t and of n, which gives step t of the first n clients.

    Examples lie behind each other in one pool and are fetched by row number when their step comes.
    """
    sizes = [len(job.data) for job in jobs]
    width = min(cfg.batch, max(sizes))
    plans = [plan(job.data, task, cfg, job.seed_name) for job in jobs]

    def in_steps(epochs: Iterable[Tensor]) -> Tensor:
        """One (E, n_k) a client -> (K, S, width): epochs cut into steps, filled up with 0."""
        parts = [F.pad(x, (0, -x.shape[1] % width)).reshape(-1, width) for x in epochs]
        return pad_sequence(parts, batch_first=True)

    offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0).to(plans[0].rows.device)
    rows = in_steps(p.rows for p in plans) + offsets[:, None, None]
    real = in_steps(torch.ones_like(p.rows, dtype=torch.float32) for p in plans)
    source = {name: in_steps(p.source[name] for p in plans) for name in plans[0].source}
    target = {name: in_steps(p.target[name] for p in plans) for name in plans[0].target}
    z, y = torch.cat([job.data.z for job in jobs]), torch.cat([job.data.y for job in jobs])
    g = {name: torch.cat([job.data.g[name] for job in jobs]) for name in jobs[0].data.g}
    weights = torch.cat([row_weights(job.data, task, cfg) for job in jobs])

    def batch_at(t: int, n: int) -> Batch:
        at, there = rows[:n, t], real[:n, t]
        return Batch(
            z[at],
            y[at],
            {name: groups[at] for name, groups in g.items()},
            weights[at] * there,
            there,
            {name: groups[:n, t] for name, groups in source.items()},
            {name: groups[:n, t] for name, groups in target.items()},
        )

    return batch_at
