"""FPF judged by peers as a Flower Strategy: `fusion = "peers"`.

A round: clients train; the server makes class texts of everybody's prompts and sends them to `judges` clients
(0: all), drawn by the seed; judges answer with right rows by class and group; weights follow
(`fvlfp.peers`). Several ways to fuse are then tried on the judges again: the weights found, sizes alone, and
under `robust = "trimmed-mean"` the trimmed means of both. The fairest that is accurate enough is taken.

Class texts travel, not prompts: they are all that a judge needs, one matrix product away from an answer, and
tell less of the client that they come from, which is not named. Nobody judges itself: a node's own prompts
are known by its node id, which is bound to its key. What goes to a judge twice a round is 4 A C d bytes for A
candidates. It learns what other clients' prompts make of the class words; with `dp_noise` the rule is
refused, because these texts carry no noise.

What this module does not do: its arithmetic is in `fvlfp.peers`. A majority of lying judges is believed.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from torch import Tensor

from fvlfp.config import Config
from fvlfp.federation.checkpoint import ServerState
from fvlfp.federation.protocol import (
    JUDGE,
    ClientReport,
    JudgeQuestion,
    arrays_of,
    judge_shapes,
    payload_bytes,
    read_arrays,
)
from fvlfp.federation.replies import check_judgement
from fvlfp.federation.strategy import FairFusion, fused_by
from fvlfp.federation.trust import accept, answers, tell
from fvlfp.peers import Judgement, choose, peer_weights, recalls
from fvlfp.robust import trimmed_mean
from fvlfp.training.parts import checked_weights
from fvlfp.training.task import Task


class JudgedFusion(FairFusion):
    """A fusion rule that asks clients how prompts do on their validation rows; how it weighs is left open."""

    def __init__(self, cfg: Config, task: Task, state: ServerState) -> None:
        super().__init__(cfg, len(task.classes), state, parts=task.parts)
        self.task = task
        self.grid: Grid | None = None
        self.liars = cfg.liars if cfg.robust == "trimmed-mean" else 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The same message to every node; the grid is kept for the judges' questions."""
        self.grid = grid
        return super().configure_train(server_round, arrays, config, grid)

    def _judge(self, server_round: int, prompts: Tensor, authors: list[int]) -> Judgement:
        """What judges say of prompts (A, L, n_ctx, width). authors: node ids that must not judge theirs.

        Unknown throughout where no judge gives a usable answer; weights are then sizes, capped.
        """
        assert self.grid is not None
        cfg, nodes = self.cfg, self._judges(server_round)
        texts = self.task.class_texts(prompts.to(self.task.initial.device)).detach()
        content = JudgeQuestion(texts, self.projection).content()
        messages = [Message(content, dst_node_id=node, message_type=JUDGE) for node in nodes]
        replies = self.grid.send_and_receive(messages, timeout=cfg.deadline)
        mine, late = answers(nodes, replies, cfg.deadline)
        shapes = judge_shapes(self.task, len(prompts))
        check = check_judgement(shapes, min_cell=cfg.min_cell, most=cfg.max_examples)
        good, refused = accept(mine, check, self.roll)
        self.remarks += tell(late | refused, self.roll, role="judge")
        self.more_bytes += sum(payload_bytes(reply.content) for reply in good)
        if not good:
            unknown = [
                np.full((len(prompts), self.n_classes, g), np.nan) for g in self.task.n_groups.values()
            ]
            return Judgement(unknown)
        judges = [reply.metadata.src_node_id for reply in good]
        nobody = np.array([[author == judge for author in authors or [0] * len(prompts)] for judge in judges])
        arrays = [read_arrays(reply.content, "arrays") for reply in good]
        return Judgement(
            [
                self._recalls(
                    np.stack([part[f"right/{name}"].numpy() for part in arrays]),
                    np.stack([part[f"total/{name}"].numpy() for part in arrays]),
                    nobody,
                )
                for name in self.task.n_groups
            ]
        )

    def _judges(self, server_round: int) -> list[int]:
        """The node ids that judge in this round: all, or `judges` of them drawn by the run's seed."""
        if not 0 < self.cfg.judges < len(self.asked):
            return self.asked
        rng = np.random.default_rng(self.cfg.seed_for(f"judges/round/{self.first_round + server_round}"))
        places = rng.choice(len(self.asked), self.cfg.judges, replace=False)
        return [self.asked[place] for place in sorted(places)]

    def _recalls(self, right: np.ndarray, total: np.ndarray, nobody: np.ndarray) -> np.ndarray:
        """R (A, C, G) from right (J, A, C, G), total (J, C, G) and nobody (J, A); no judge rules it alone."""
        return recalls(right, total, nobody=nobody, liars=self.liars)


class PeerFusion(JudgedFusion):
    """Weights from other clients' judgement; what is fused is judged before it is accepted."""

    def __init__(self, cfg: Config, task: Task, state: ServerState) -> None:
        super().__init__(cfg, task, state)
        self._fused = torch.empty(0)

    def _weights(self, server_round: int, good: list[Message], reports: list[ClientReport]) -> list[float]:
        """w_k by the judges; the fused prompts that were taken are kept for `_fuse`."""
        prompts = torch.stack([read_arrays(reply.content, "arrays")["prompts"] for reply in good])
        sizes = np.array([float(report.n) for report in reports])
        authors = [reply.metadata.src_node_id for reply in good]
        judged = self._judge(server_round, prompts, authors)
        weights = [self._weigh(sizes, judged), self._by_programme(sizes, judged, 1.0)]
        fused = self._alternatives(prompts, weights)
        taken = choose(self._judge(server_round, fused, []), tolerance=self.cfg.tolerance)
        self._fused = fused[taken]
        return [float(w) for w in weights[taken % len(weights)]]

    def _weigh(self, sizes: np.ndarray, judged: Judgement) -> np.ndarray:
        """w (K,), summing to 1: by somebody's own function, else by the programme."""
        if self.parts.peer_weights is None:
            return self._by_programme(sizes, judged, self.cfg.peers_share)
        own = np.array(checked_weights(self.parts.peer_weights(sizes, judged), len(sizes)))
        return np.asarray(own / own.sum())

    def _by_programme(self, sizes: np.ndarray, judged: Judgement, share: float) -> np.ndarray:
        return peer_weights(sizes, judged, share=share, tolerance=self.cfg.tolerance)

    def _alternatives(self, prompts: Tensor, weights: list[np.ndarray]) -> Tensor:
        """(A, L, n_ctx, width): prompts (K, L, n_ctx, width) fused by each w, and as robust as asked for."""
        if (fuse := self.parts.fuse) is not None:
            return torch.stack([fused_by(fuse, prompts, w) for w in weights])
        each = prompts.double().numpy()
        trims = [self.liars, 0] if self.liars else [0]
        fused = [trimmed_mean(each, w[:, None, None, None], trim) for trim in trims for w in weights]
        return torch.from_numpy(np.stack(fused)).to(prompts.dtype)

    def _fuse(
        self, server_round: int, good: list[Message], reports: list[ClientReport]
    ) -> ArrayRecord | None:
        """What the judges took."""
        return arrays_of({"prompts": self._fused})
