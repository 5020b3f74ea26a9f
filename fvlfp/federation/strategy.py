"""FPF as a Flower Strategy: FedAvg whose weights come from performance and fairness.

With a = 1 and beta = gamma = 0 every weight is n_k, and the class is FedAvg bit for bit.

What this module does not do: it takes no reply unread, see `fvlfp.federation.trust`; but a plausible lie
passes, see there and `fvlfp.fpf`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum
from torch import Tensor

from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.federation.checkpoint import Means, ServerState
from fvlfp.federation.privacy import add_noise, noise_std
from fvlfp.federation.protocol import (
    TRAIN,
    ClientReport,
    TrainQuestion,
    arrays_of,
    payload_bytes,
    read_arrays,
    shapes_of,
)
from fvlfp.federation.replies import check_report
from fvlfp.federation.trust import accept, answers, enough, tell, too_long
from fvlfp.fpf import client_weight, fusion_weights, mean_known
from fvlfp.options import TrustOptions
from fvlfp.training.model import model_of
from fvlfp.training.parts import Parts, checked_weights
from fvlfp.training.reports import RoundReport, fusion_rule


def robust_rule(options: TrustOptions, clients: int) -> FedAvg | None:
    """Flower's own strategy for `options.robust`, whose `aggregate_train` sums one round's good replies.

    `krum` takes the one update closest to the others, `multi-krum` the weighted mean of the closest clients -
    liars ones; `trimmed-mean` drops the liars largest and smallest values of every number, `median` takes its
    median. The last two know no weights, so FPF does not act through them.

    Raises:
        InputError: too many liars among so many clients.
    """
    liars = options.liars
    if options.robust != "none" and clients <= 2 * liars:
        raise InputError(
            f"robust = {options.robust!r} with liars = {liars} needs more than {2 * liars} clients"
        )
    match options.robust:
        case "krum":
            return Krum(num_malicious_nodes=liars, weighted_by_key="weight")
        case "multi-krum":
            return MultiKrum(
                num_malicious_nodes=liars, num_nodes_to_select=clients - liars, weighted_by_key="weight"
            )
        case "trimmed-mean":
            return FedTrimmedAvg(beta=(liars + 0.25) / clients, weighted_by_key="weight")
        case "median":
            return FedMedian(weighted_by_key="weight")
    return None


class FairFusion(FedAvg):
    """Fair-aware Prompt Fusion.

    state: what the rounds start from; a resumed run goes on after its last round. Replies are summed in the
    order of client numbers, whatever order they arrive in. more: name -> how many further numbers a rule asks
    for in a reply (0: one, no list). parts: functions that replace the rule's own.
    """

    def __init__(
        self,
        cfg: Config,
        n_classes: int,
        state: ServerState,
        *,
        more: Mapping[str, int] = MappingProxyType({}),
        parts: Parts | None = None,
    ) -> None:
        super().__init__(
            fraction_evaluate=1.0,
            min_train_nodes=1,
            min_evaluate_nodes=1,
            min_available_nodes=1,
            weighted_by_key="weight",
        )
        self.more, self.parts = more, parts or Parts()
        self.cfg, self.n_classes, self.fusion = cfg, n_classes, fusion_rule(cfg, n_classes)
        self.first_round, self.means, self.previous = state.round, state.means, state.weights
        self.projection = state.projection if cfg.dsop_at == "training" else None
        self.directions, self.roll = state.directions, state.roll
        self.history: list[RoundReport] = []
        self.sent = ArrayRecord()
        self.asked: list[int] = []
        #: of the round that is being fused: who is left out and why, and bytes besides training's
        self.remarks: list[str] = []
        self.more_bytes = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The same message to every node that takes part."""
        question = TrainQuestion(
            model_of(read_arrays(arrays)),
            self.first_round + server_round,
            self.projection,
            self.directions,
        )
        content = question.content()
        self.sent, self.asked = arrays, self._drawn(self.roll.in_order(grid.get_node_ids()), question.round)
        return [Message(content, dst_node_id=node, message_type=TRAIN) for node in self.asked]

    def _drawn(self, nodes: list[int], round_: int) -> list[int]:
        """The nodes that take part in a round: all, or `fraction` of them, drawn by a named seed.

        nodes: in the order of clients, so that a deployment draws the clients that one process draws.
        """
        if self.cfg.fraction == 1:
            return nodes
        wanted = max(self.cfg.min_available, math.ceil(self.cfg.fraction * len(nodes)))
        rng = np.random.default_rng(self.cfg.seed_for(f"fraction/round/{round_}"))
        places = rng.choice(len(nodes), size=min(wanted, len(nodes)), replace=False)
        return [nodes[place] for place in sorted(places)]

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """No separate evaluation: a train reply already carries the client's validation report."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        """Nothing to aggregate, see `configure_evaluate`."""
        return None

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Weigh, sum, and keep this round's means for the next one.

        Raises:
            RuntimeError: fewer than `min_available` answers are usable; with the first reason.
        """
        good, refused = self._usable(list(replies))
        reports = [ClientReport.read(reply.content, classes=self.n_classes) for reply in good]
        self.more_bytes = 0
        weights = self._weights(server_round, good, reports)
        self.previous = {report.client: w for report, w in zip(reports, weights, strict=True)}
        self.means = Means(mean_known([r.perf for r in reports]), mean_known([r.disp for r in reports]))
        uplink = sum(payload_bytes(reply.content) for reply in good)
        arrays = self._fuse(server_round, good, reports)
        self.history.append(
            RoundReport(
                round=self.first_round + server_round,
                clients=len(good),
                failed=[self.roll.name(node) for node in sorted(refused)],
                reasons=self.remarks,
                loss=sum(r.loss * r.n for r in reports) / sum(r.n for r in reports),
                balanced_accuracy=self.means.perf,
                odds_gap=self.means.disp,
                largest_weight=max(weights) / sum(weights),
                uplink_bytes=uplink + self.more_bytes,
            )
        )
        return arrays, MetricRecord()

    def _weights(self, server_round: int, good: list[Message], reports: list[ClientReport]) -> list[float]:
        """w_k of every report, up to a common factor, by the means of the last round or of this one."""
        if self.parts.weights is not None:
            n, perf, disp = [r.n for r in reports], [r.perf for r in reports], [r.disp for r in reports]
            return checked_weights(self.parts.weights(n, perf, disp), len(reports))
        if self.cfg.fpf_by == "client":
            perf_mean, disp_mean = self.means
            return [
                client_weight(
                    r.n, r.perf, r.disp, perf_mean=perf_mean, disp_mean=disp_mean, fusion=self.fusion
                )
                for r in reports
            ]
        before = [self.previous.get(report.client) for report in reports]
        return fusion_weights(
            [report.n for report in reports],
            [report.perf for report in reports],
            [report.disp for report in reports],
            fusion=self.fusion,
            previous=None if None in before else [float(w or 0.0) for w in before],
            momentum=self.cfg.fpf_momentum,
        )

    def _usable(self, replies: list[Message]) -> tuple[list[Message], dict[int, str]]:
        """The replies this round counts with, and why the others are left out; told before a run stops."""
        cfg = self.cfg
        check = check_report(
            shapes_of(self.sent),
            most=cfg.max_examples,
            more=self.more,
        )
        replies, late = answers(self.asked, replies, cfg.deadline)
        good, refused = accept(replies, check, self.roll)
        clip = cfg.dp_clip if cfg.dp_noise > 0 else None
        sent = {name: array.numpy() for name, array in self.sent.items()}
        good, too_far = too_long(good, sent, bound=cfg.norm_bound, clip=clip)
        refused = late | refused | too_far
        self.remarks = tell(refused, self.roll)
        enough(good, refused, cfg.min_available)
        return good, refused

    def _fuse(
        self, server_round: int, good: list[Message], reports: list[ClientReport]
    ) -> ArrayRecord | None:
        """By weight, or by the robust rule; with noise under differential privacy."""
        weights = [self.previous[report.client] for report in reports]
        if self.parts.fuse is not None:
            prompts = torch.stack([read_arrays(reply.content, "arrays")["prompts"] for reply in good])
            return arrays_of({"prompts": fused_by(self.parts.fuse, prompts, weights)})
        weighted = [_weighted(reply, weight) for reply, weight in zip(good, weights, strict=True)]
        rule = robust_rule(self.cfg, len(good))
        if rule is not None:
            return rule.aggregate_train(server_round, weighted)[0]
        arrays, _ = super().aggregate_train(server_round, weighted)
        if arrays is not None and self.cfg.dp_noise > 0:
            std = noise_std(weights, clip=self.cfg.dp_clip, multiplier=self.cfg.dp_noise)
            round_ = f"noise/round/{self.first_round + server_round}"
            arrays = arrays_of(
                {name: add_noise(tensor, std, name=round_) for name, tensor in read_arrays(arrays).items()}
            )
        return arrays


def _weighted(reply: Message, weight: float) -> Message:
    """A reply as Flower's rules read it: the arrays and one weight; what the client sent stays as it came."""
    content = RecordDict(
        {"arrays": reply.content.array_records["arrays"], "metrics": MetricRecord({"weight": weight})}
    )
    return Message(content, dst_node_id=reply.metadata.src_node_id, message_type=TRAIN)


def fused_by(
    fuse: Callable[[Tensor, Tensor], Tensor], prompts: Tensor, weights: Sequence[float] | np.ndarray
) -> Tensor:
    """Prompts (K, L, n_ctx, width), fused by somebody's own function; it gets weights that sum to 1.

    Raises:
        InputError: it returns something other than one set of prompts.
    """
    share = torch.as_tensor(weights, dtype=prompts.dtype) / float(sum(weights))
    fused = fuse(prompts, share)
    if not isinstance(fused, Tensor) or fused.shape != prompts.shape[1:]:
        found = tuple(fused.shape) if isinstance(fused, Tensor) else type(fused).__name__
        raise InputError(f"parts: fuse must return prompts {tuple(prompts.shape[1:])}, got {found}")
    return fused.to(prompts.dtype)
