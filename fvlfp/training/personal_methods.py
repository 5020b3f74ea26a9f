"""Three published methods that leave each client a model of its own: what is trained, what is shared.

Parameters are lists of tensors of K clients, (K, ...). What this module does not do: the rounds are in
`fvlfp.training.personal`, the papers' own formulas in `fvlfp.baselines`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fvlfp.baselines import fedmgp, fedpgp
from fvlfp.baselines.losses import proximal
from fvlfp.config import Config
from fvlfp.training.loss import Batch, batch_loss
from fvlfp.training.task import Task, TextEmbeddings


class PersonalMethod(ABC):
    """What a personalised method is, for one run. sets: prompts whose class texts a client's loss needs."""

    sets = 1

    def __init__(self, task: Task, cfg: Config) -> None:
        self.task, self.cfg = task, cfg

    @abstractmethod
    def start(self) -> list[Tensor]:
        """The parameters that every client starts from, the shared ones first."""

    @property
    def sent(self) -> int:
        """How many numbers a client sends in a round."""
        return self.start()[0].numel()

    @property
    def trained(self) -> int:
        """How many numbers a client trains."""
        return sum(tensor.numel() for tensor in self.start())

    @abstractmethod
    def prompts(self, params: list[Tensor]) -> Tensor:
        """(K, sets, L, n_ctx, width): the prompts whose class texts `losses` gets."""

    @abstractmethod
    def losses(self, texts: Tensor, params: list[Tensor], start: list[Tensor], batch: Batch) -> Tensor:
        """(K,) from class texts (K, sets, C, d), parameters, those of the round's start, and batches."""

    @abstractmethod
    def fuse(
        self, trained: list[Tensor], shares: Tensor, clients: Sequence[int], round_: int
    ) -> list[Tensor]:
        """What clients start the next round from. shares: (K,), n_k / sum n. clients: their numbers."""

    @abstractmethod
    def own(self, trained: list[Tensor], fused: list[Tensor]) -> Tensor:
        """Each client's prompts (K, ..., L, n_ctx, width) at the end, by the last fusion if need be."""

    def task_losses(self, texts: Tensor, batch: Batch) -> Tensor:
        """(K,) the loss of `fvlfp.training.loss` of class texts (K, C, d)."""
        each: Tensor = torch.func.vmap(self._task_loss)(texts, batch)
        return each

    def _task_loss(self, texts: Tensor, batch: Batch) -> Tensor:
        return batch_loss(TextEmbeddings(texts, {}, {}, {}), batch, self.task, self.cfg, {})


class PFedFair(PersonalMethod):
    """pFedFair (Lei et al., arXiv 2503.14925): every client keeps fair prompts v near the shared ones w.

    Client k minimises `L_k(v) + eta rho_k(v) + lam/2 |v - w|^2`, with `lambda_gap` for eta, the batch's odds
    gap for the paper's measures of dependence, and `lambda_prox` for lam. w takes a step of size 1 / lam
    along the Moreau envelope's gradient `lam sum_k p_k (w - v_k)`: to the mean of v_k.
    """

    def start(self) -> list[Tensor]:
        """w."""
        return [self.task.initial[: self.cfg.depth]]

    def prompts(self, params: list[Tensor]) -> Tensor:
        """v."""
        return params[0][:, None]

    def losses(self, texts: Tensor, params: list[Tensor], start: list[Tensor], batch: Batch) -> Tensor:
        """L + eta rho + lam/2 |v - w|^2."""
        return self.task_losses(texts[:, 0], batch) + self.cfg.lambda_prox * proximal(params[0], start[0])

    def fuse(
        self, trained: list[Tensor], shares: Tensor, clients: Sequence[int], round_: int
    ) -> list[Tensor]:
        """Everybody starts from the new w."""
        return [_mean(trained[0], shares)]

    def own(self, trained: list[Tensor], fused: list[Tensor]) -> Tensor:
        """v_k of the last round."""
        return trained[0]


class FedPGP(PersonalMethod):
    """FedPGP (Cui et al., ICML 2024): shared prompts p, and for each client a correction of low rank, U V.

    As published: U and V start from normal numbers of sd 0.02 and stay with the client, the contrastive term
    counts 1 with temperature 0.5, and the rank is a quarter of n_ctx (theirs: 4 of 16).
    """

    sets = 2

    def start(self) -> list[Tensor]:
        """p, U, V."""
        p = self.task.initial[: self.cfg.depth]
        depth, n_ctx, width = p.shape
        rank = max(1, n_ctx // 4)
        drawn = torch.Generator().manual_seed(self.cfg.seed_for("init/low-rank"))
        down = 0.02 * torch.randn(depth, n_ctx, rank, generator=drawn)
        up = 0.02 * torch.randn(depth, rank, width, generator=drawn)
        return [p, down.to(p.device), up.to(p.device)]

    def prompts(self, params: list[Tensor]) -> Tensor:
        """A client's own, and the shared ones as they are with it."""
        return torch.stack([fedpgp.personal_prompt(*params), params[0]], 1)

    def losses(self, texts: Tensor, params: list[Tensor], start: list[Tensor], batch: Batch) -> Tensor:
        """L of the client's own prompts, and the contrast of the frozen, shared and own texts."""
        own, shared = texts.unbind(1)
        return self.task_losses(own, batch) + fedpgp.contrast(
            self.task.frozen_texts, shared, own, temperature=0.5
        )

    def fuse(
        self, trained: list[Tensor], shares: Tensor, clients: Sequence[int], round_: int
    ) -> list[Tensor]:
        """The mean of p; U and V stay."""
        return [_mean(trained[0], shares), *trained[1:]]

    def own(self, trained: list[Tensor], fused: list[Tensor]) -> Tensor:
        """The fused p with the client's U V, as published."""
        return fedpgp.personal_prompt(*fused)


class FedMGP(PersonalMethod):
    """FedMGP (Bo et al., NeurIPS 2025): clients keep 5 groups of prompts and share 2 in a round.

    Text prompts only: the image tower is frozen here. As published: groups start from the hand-written prompt
    with noise of sd 0.01, the cross-entropy is the mean over groups, diversity counts 1, groups are drawn
    with temperature 1 (evenly in the first round), the r-th drawn ones of all clients are averaged without
    weights and put back in their places. Predictions are by mean logits.
    """

    sets = 5
    shared_sets = 2

    def __init__(self, task: Task, cfg: Config) -> None:
        super().__init__(task, cfg)
        self._shared: Tensor | None = None

    @property
    def sent(self) -> int:
        """Two groups."""
        return self.start()[0][0].numel() * self.shared_sets

    def start(self) -> list[Tensor]:
        """All groups (5, L, n_ctx, width)."""
        p = self.task.initial[: self.cfg.depth]
        drawn = torch.Generator().manual_seed(self.cfg.seed_for("init/groups"))
        return [p + 0.01 * torch.randn(self.sets, *p.shape, generator=drawn).to(p.device)]

    def prompts(self, params: list[Tensor]) -> Tensor:
        """All groups."""
        return params[0]

    def losses(self, texts: Tensor, params: list[Tensor], start: list[Tensor], batch: Batch) -> Tensor:
        """The mean of L over the groups, and how alike their texts are."""
        each = torch.stack([self.task_losses(group, batch) for group in texts.unbind(1)])
        return each.mean(0) + fedmgp.alike(texts)

    def fuse(
        self, trained: list[Tensor], shares: Tensor, clients: Sequence[int], round_: int
    ) -> list[Tensor]:
        """Each client's drawn groups become the mean of all clients' drawn ones."""
        (own,) = trained  # (K, 5, L, n_ctx, width)
        drawn = torch.tensor(
            [
                self._draw(groups, f"client/{k}/round/{round_}/groups")
                for groups, k in zip(own, clients, strict=True)
            ],
            device=own.device,
        )
        client = torch.arange(len(own), device=own.device)[:, None]
        self._shared = own[client, drawn].mean(0)  # (2, L, n_ctx, width)
        fused = own.clone()
        fused[client, drawn] = self._shared
        return [fused]

    def _draw(self, groups: Tensor, seed_name: str) -> list[int]:
        """Which groups (5, ...) a client shares: more often those like what was shared last."""
        shared = self._shared
        alike = torch.zeros(len(groups)) if shared is None else fedmgp.similarity(groups, shared)
        rng = np.random.default_rng(self.cfg.seed_for(seed_name))
        return fedmgp.draw(alike, self.shared_sets, temperature=1.0, rng=rng)

    def own(self, trained: list[Tensor], fused: list[Tensor]) -> Tensor:
        """All groups, the shared ones among them."""
        return fused[0]


def method_of(task: Task, cfg: Config) -> PersonalMethod:
    """The method that `tune` names, under `pooling = "personal"`."""
    kinds: dict[str, type[PersonalMethod]] = {"prompts": PFedFair, "low-rank": FedPGP, "groups": FedMGP}
    return kinds[cfg.tune](task, cfg)


def _mean(values: Tensor, shares: Tensor) -> Tensor:
    """sum_k p_k x_k for each of the K clients, (K, ...)."""
    return torch.einsum("k,k...->...", shares, values).expand_as(values)
