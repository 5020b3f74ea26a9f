"""FPF as a Flower Strategy: FedAvg whose weights come from performance and fairness.

With a = 1 and beta = gamma = 0 every weight is n_k, and the class is FedAvg bit for bit.

What this module does not do: it trusts the reports it gets; see `fvlfp.fpf`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fvlfp.config import Config
from fvlfp.federation.messages import number, on_wire, payload_bytes, sort_replies
from fvlfp.fpf import Fusion, defined, fusion_weights, mean_known


def fusion_of(cfg: Config, n_classes: int) -> Fusion:
    """The rule's constants, as the config states them."""
    return Fusion(
        a=cfg.fpf_a,
        beta=cfg.beta,
        gamma=cfg.gamma,
        cap=cfg.fpf_cap,
        floor=cfg.fpf_floor,
        chance=1 / n_classes,
        margin=cfg.fpf_margin,
    )


class FairFusion(FedAvg):
    """Fair-aware Prompt Fusion.

    shared: records every train message carries besides prompts and config (projection, directions).
    first_round: rounds done before this start, when a run is resumed.
    means: last round's (perf, disp), broadcast so that a client can compute its own weight.

    Messages to clients: `arrays` (prompts), `config` (round, means), and `shared`. Replies: `arrays`, and
    `metrics` with num-examples, weight, perf, disp, loss, client. Replies are summed in the order of client
    numbers, whatever order they arrive in.
    """

    def __init__(
        self,
        cfg: Config,
        n_classes: int,
        shared: RecordDict,
        *,
        first_round: int = 0,
        means: tuple[float | None, float | None] = (None, None),
        previous: dict[int, float] | None = None,
    ) -> None:
        super().__init__(
            fraction_evaluate=1.0,
            min_train_nodes=1,
            min_evaluate_nodes=1,
            min_available_nodes=1,
            weighted_by_key="weight",
        )
        self.cfg = cfg
        self.fusion = fusion_of(cfg, n_classes)
        self.shared = shared
        self.first_round = first_round
        self.means = means
        self.previous = previous or {}
        self.history: list[dict[str, Any]] = []
        self.sent = ArrayRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The same message to every node."""
        self.sent = arrays
        perf, disp = self.means
        config = ConfigRecord(
            {
                "server-round": self.first_round + server_round,
                "perf-mean": on_wire(perf),
                "disp-mean": on_wire(disp),
            }
        )
        content = RecordDict({"arrays": arrays, "config": config, **self.shared})
        return [
            Message(content, dst_node_id=node, message_type=MessageType.TRAIN)
            for node in sorted(grid.get_node_ids())
        ]

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
            RuntimeError: no client answered; its message holds the first client's error.
        """
        good, failed = sort_replies(replies)
        reports = [reply.content.metric_records["metrics"] for reply in good]
        clients = [int(number(r, "client")) for r in reports]
        self._weigh(clients, reports)
        self.previous = {k: number(r, "weight") for k, r in zip(clients, reports, strict=True)}
        perf = [defined(number(r, "perf")) for r in reports]
        disp = [defined(number(r, "disp")) for r in reports]
        self.means = mean_known(perf), mean_known(disp)
        arrays = self._fuse(server_round, good)
        n = [int(number(r, "num-examples")) for r in reports]
        total = sum(self.previous.values())
        self.history.append(
            {
                "round": self.first_round + server_round,
                "clients": len(good),
                "failed": failed,
                "loss": sum(number(r, "loss") * k for r, k in zip(reports, n, strict=True)) / sum(n),
                "balanced_accuracy": self.means[0],
                "odds_gap": self.means[1],
                "largest_weight": max(self.previous.values()) / total,
                "uplink_bytes": sum(payload_bytes(reply.content) for reply in good),
            }
        )
        return arrays, MetricRecord()

    def _weigh(self, clients: list[int], reports: list[MetricRecord]) -> None:
        """Set every report's `weight`, where the clients have not set it themselves."""
        if self.cfg.fpf_by == "client":
            return
        before = [self.previous.get(k) for k in clients]
        weights = fusion_weights(
            [int(number(r, "num-examples")) for r in reports],
            [defined(number(r, "perf")) for r in reports],
            [defined(number(r, "disp")) for r in reports],
            fusion=self.fusion,
            previous=None if None in before else [float(w or 0.0) for w in before],
            momentum=self.cfg.fpf_momentum,
        )
        for report, weight in zip(reports, weights, strict=True):
            report["weight"] = weight

    def _fuse(self, server_round: int, replies: list[Message]) -> ArrayRecord | None:
        """The mean of the replies' arrays by `weight`."""
        return super().aggregate_train(server_round, replies)[0]
