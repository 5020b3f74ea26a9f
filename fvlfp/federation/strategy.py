"""FPF as a Flower Strategy: FedAvg whose weights come from performance and fairness.

With a = 1 and beta = gamma = 0 every weight is n_k, and the class is FedAvg bit for bit.

What this module does not do: it takes no reply unread, see `fvlfp.federation.trust`; but a plausible lie
passes, see there and `fvlfp.fpf`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum

from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.federation.privacy import add_noise, noise_seed, noise_std
from fvlfp.federation.protocol import arrays_of, number, on_wire, payload_bytes, read_arrays
from fvlfp.federation.replies import expects, report_of
from fvlfp.federation.trust import accept, answers, enough, too_long
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


def robust_rule(cfg: Config, clients: int) -> FedAvg | None:
    """Flower's own strategy for `cfg.robust`, whose `aggregate_train` sums one round's good replies.

    `krum` takes the one update closest to the others, `multi-krum` the weighted mean of the closest clients -
    liars ones; `trimmed-mean` drops the liars largest and smallest values of every number, `median` takes its
    median. The last two know no weights, so FPF does not act through them.

    Raises:
        InputError: too many liars among so many clients.
    """
    liars = cfg.liars
    if cfg.robust != "none" and clients <= 2 * liars:
        raise InputError(f"robust = {cfg.robust!r} with liars = {liars} needs more than {2 * liars} clients")
    match cfg.robust:
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

    shared: records every train message carries besides prompts and config (projection, directions).
    first_round: rounds done before this start, when a run is resumed.
    means: last round's (perf, disp), broadcast so that a client can compute its own weight.
    more: name -> how many further numbers a rule asks for in a reply (0: one, no list).

    Messages to clients: `arrays` (prompts of the text tower, and of the image tower where it has any),
    `config` (round, means), and `shared`. Replies: `arrays`, and `metrics` with num-examples, weight, perf,
    disp, loss, client. Replies are summed in the order of client numbers, whatever order they arrive in.
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
        more: Mapping[str, int] = MappingProxyType({}),
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
        self.more = more
        self.first_round = first_round
        self.means = means
        self.previous = previous or {}
        self.history: list[dict[str, Any]] = []
        self.sent = ArrayRecord()
        self.asked: list[int] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The same message to every node."""
        perf, disp = self.means
        config = ConfigRecord(
            {
                "server-round": self.first_round + server_round,
                "perf-mean": on_wire(perf),
                "disp-mean": on_wire(disp),
            }
        )
        content = RecordDict({"arrays": arrays, "config": config, **self.shared})
        self.sent, self.asked = arrays, sorted(grid.get_node_ids())
        return [Message(content, dst_node_id=node, message_type=MessageType.TRAIN) for node in self.asked]

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
        reports = [reply.content.metric_records["metrics"] for reply in good]
        clients = [int(number(r, "client")) for r in reports]
        self._weigh(clients, reports)
        self.previous = {k: number(r, "weight") for k, r in zip(clients, reports, strict=True)}
        perf = [defined(number(r, "perf")) for r in reports]
        disp = [defined(number(r, "disp")) for r in reports]
        self.means = mean_known(perf), mean_known(disp)
        n = [int(number(r, "num-examples")) for r in reports]
        uplink = sum(payload_bytes(reply.content) for reply in good)
        arrays = self._fuse(server_round, good)
        total = sum(self.previous.values())
        self.history.append(
            {
                "round": self.first_round + server_round,
                "clients": len(good),
                "failed": sorted(refused),
                "reasons": [f"node {node} {reason}" for node, reason in sorted(refused.items())],
                "loss": sum(number(r, "loss") * k for r, k in zip(reports, n, strict=True)) / sum(n),
                "balanced_accuracy": self.means[0],
                "odds_gap": self.means[1],
                "largest_weight": max(self.previous.values()) / total,
                "uplink_bytes": uplink,
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

    def _usable(self, replies: list[Message]) -> tuple[list[Message], dict[int, str]]:
        """The replies this round counts with, and why the others are left out."""
        cfg, sent = self.cfg, {name: array.numpy() for name, array in self.sent.items()}
        shape = expects({name: (array.shape, str(array.dtype)) for name, array in sent.items()})
        by_client = cfg.fpf_by == "client"

        def check(content: RecordDict) -> str | None:
            return shape(content) or report_of(
                content, self.fusion, own_weight=by_client, most=cfg.max_examples, more=self.more
            )

        replies, late = answers(self.asked, replies, cfg.deadline)
        good, refused = accept(replies, check)
        clip = cfg.dp_clip if cfg.dp_noise > 0 else None
        good, too_far = too_long(good, sent, bound=cfg.norm_bound, clip=clip)
        refused = late | refused | too_far
        enough(good, refused, cfg.min_available)
        return good, refused

    def _fuse(self, server_round: int, good: list[Message]) -> ArrayRecord | None:
        """By weight, or by the robust rule; with noise under differential privacy."""
        rule = robust_rule(self.cfg, len(good))
        if rule is not None:
            return rule.aggregate_train(server_round, good)[0]
        arrays, _ = super().aggregate_train(server_round, good)
        if arrays is not None and self.cfg.dp_noise > 0:
            prompts = read_arrays(arrays)["prompts"]
            weights = [number(r.content.metric_records["metrics"], "weight") for r in good]
            std = noise_std(weights, clip=self.cfg.dp_clip, multiplier=self.cfg.dp_noise)
            name = f"noise/round/{self.first_round + server_round}"
            arrays = arrays_of({"prompts": add_noise(prompts, std, seed=noise_seed(self.cfg, name))})
        return arrays
