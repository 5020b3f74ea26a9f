"""The two Flower apps: what a client answers, and what the server asks, in order.

1. `query.moments` (only if a subspace or counterfactual directions must come from images): class-by-group
   feature sums and counts, no image embedding.
2. `evaluate`: validation counts for each candidate (rank, lambda) of DSOP, "off" among them.
3. `train`, once a round: prompts out; prompts, a fusion weight and a report back.

What leaves a client is exactly what the replies below hold. The server never sees an image, a feature of a
single image, or a label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    Context,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import Tensor

from fvlfp import dsop
from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.federation.checkpoint import Checkpoints, State
from fvlfp.federation.client import (
    ClientData,
    client_moments,
    confusion,
    local_train,
    suppress,
)
from fvlfp.federation.strategy import FairFusion, fusion_of, known, number, on_wire, sort_replies
from fvlfp.federation.task import Task
from fvlfp.fpf import balanced_accuracy, cell_recalls, client_weight, recall_gap

MOMENTS = f"{MessageType.QUERY}.moments"

#: lambdas that validation may choose from; every rank goes with each.
LAMBDAS = (1.0, 0.5)
#: examples worth of shrinkage of a client's reported gap towards zero, see fpf.recall_gap.
GAP_PRIOR = 10.0


def make_client_app(load: Callable[[Context], ClientData], task: Task, cfg: Config) -> ClientApp:
    """A ClientApp for whoever can `load` one client's data from Flower's Context."""
    app = ClientApp()
    n_groups = {name: len(groups) for name, groups in task.groups.items()}
    fusion = fusion_of(cfg, len(task.classes))

    @app.query("moments")
    def moments(message: Message, context: Context) -> Message:
        data = load(context)
        prompts = read_arrays(message.content, "arrays").get("prompts")
        found = client_moments(data.train, task, cfg, prompts)
        arrays = {
            f"{part}/{name}": tensor
            for name, pair in found.items()
            for part, tensor in zip(("sums", "counts"), pair, strict=True)
        }
        return _reply(message, arrays, {"client": data.client})

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        data, content = load(context), message.content
        texts = task.class_texts(read_arrays(content, "arrays")["prompts"]).detach()
        projection = _projection(read_arrays(content, "subspace"), task)
        arrays: dict[str, Tensor] = {}
        for i, (rank, lam) in enumerate(read_arrays(content, "candidates")["rank-lambda"].tolist()):
            val = data.val.project(projection.to_rank(int(rank), lam))
            for name, counts in confusion(val, texts, n_groups).items():
                arrays[f"{i}/{name}"] = torch.from_numpy(suppress(counts, cfg.min_cell))
        return _reply(message, arrays, {"client": data.client})

    @app.train()
    def train(message: Message, context: Context) -> Message:
        data, content = load(context), message.content
        config = content.config_records["config"]
        round_ = int(number(config, "server-round"))
        shared = read_arrays(content, "subspace")
        projection = _projection(shared, task)
        prompts, loss = local_train(
            read_arrays(content, "arrays")["prompts"],
            data.train.project(projection),
            task,
            cfg,
            directions={name: shared[f"directions/{name}"] for name in _directed(cfg, task)},
            seed_name=f"client/{data.client}/round/{round_}",
        )
        texts = task.class_texts(prompts).detach()
        counts = confusion(data.val.project(projection), texts, n_groups)
        perf = balanced_accuracy(next(iter(counts.values())))
        gaps = [recall_gap(c, min_cell=cfg.min_cell, prior=GAP_PRIOR) for c in counts.values()]
        disp = max((gap for gap in gaps if gap is not None), default=None)
        weight = client_weight(
            len(data.train),
            perf,
            disp,
            perf_mean=known(number(config, "perf-mean")),
            disp_mean=known(number(config, "disp-mean")),
            fusion=fusion,
        )
        report: dict[str, int | float] = {
            "num-examples": len(data.train),
            "weight": weight,
            "perf": on_wire(perf),
            "disp": on_wire(disp),
            "loss": loss,
            "client": data.client,
        }
        return _reply(message, {"prompts": prompts}, report)

    return app


def serve(
    grid: Grid,
    task: Task,
    cfg: Config,
    *,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    on_round: Callable[[dict[str, Any]], None] = lambda row: None,
) -> State:
    """The ServerApp's work: the whole run, from hand-written prompts to the final state.

    on_round: called with each round's history row.

    Returns:
        State: tensors `prompts`, `basis` (d, r), `mu` (d,) and `directions/<attribute>`; facts `history`,
        `rank`, `lambda`, `candidates` (every (rank, lambda) tried on validation, with its numbers).

    Raises:
        RuntimeError: no client answered. InputError: the checkpoints are of another config.
    """
    state = checkpoints.load() if checkpoints and resume else None
    if state is None:
        state = State({"prompts": task.initial}, {"round": 0, "history": []})
        ask_subspace(grid, task, cfg, state)
        if cfg.dsop_at == "training":
            choose_projection(grid, task, cfg, state)
    state.tensors = {name: tensor.to(task.initial.device) for name, tensor in state.tensors.items()}

    done = int(state.facts["round"])
    strategy = FairFusion(
        cfg,
        len(task.classes),
        RecordDict({"subspace": arrays_of(_shared(state, in_training=cfg.dsop_at == "training"))}),
        first_round=done,
        means=tuple(state.facts.get("means", (None, None))),
        previous={int(k): v for k, v in state.facts.get("weights", {}).items()},
    )

    def after_round(round_: int, arrays: ArrayRecord) -> None:
        if round_ == 0:
            return  # Flower calls once before the first round
        state.tensors["prompts"] = read_arrays(arrays)["prompts"].to(task.initial.device)
        row = strategy.history[-1]
        facts = {"history": [*state.facts["history"], row], "means": list(strategy.means)}
        state.facts |= {**facts, "weights": strategy.previous, "round": done + round_}
        if checkpoints:
            checkpoints.save(done + round_, state)
        on_round(row)

    if done < cfg.rounds:
        strategy.start(
            grid,
            arrays_of({"prompts": state.tensors["prompts"]}),
            num_rounds=cfg.rounds - done,
            evaluate_fn=after_round,
        )
    if cfg.dsop_at == "inference":
        if cfg.dsop_words == "fair":
            ask_subspace(grid, task, cfg, state)
        choose_projection(grid, task, cfg, state)
    return state


def ask_subspace(grid: Grid, task: Task, cfg: Config, state: State) -> None:
    """Put the full-rank `basis`, `mu` and CDFP's `directions/...` into the state.

    A collapsed fair subspace (CDFP shrinks the very differences it needs) falls back to hand-written words.
    """
    use_dsop, use_cf = cfg.lambda_dsop != 0, cfg.lambda_cf > 0 and cfg.pairing == "image"
    d = task.frozen_texts.shape[1]
    tensors = {"basis": torch.zeros(d, 0), "mu": torch.zeros(d)}
    if use_dsop or use_cf:
        fair = state.tensors["prompts"] if cfg.dsop_words == "fair" else None
        summed = _ask_moments(grid, cfg, use_dsop, use_cf, fair)
        texts = task.group_texts if fair is None else task.fair_group_texts(fair)
        if use_dsop:
            stacked = torch.cat([_directions(cfg.dsop, name, texts, summed) for name in texts])
            tensors["basis"] = dsop.subspace(stacked.cpu())[0]
            if cfg.recentre:
                kind = "image" if cfg.dsop == "image" else "prompted"
                means = [
                    dsop.overall_mean(*summed[f"{kind}/{name}"], by_group=kind == "image") for name in texts
                ]
                tensors["mu"] = torch.stack(means).mean(0)
        if use_cf:
            for name in texts:
                found = _directions(cfg.cf_directions, name, task.group_texts, summed)
                tensors[f"directions/{name}"] = found.cpu()
    state.tensors |= tensors


def _ask_moments(
    grid: Grid, cfg: Config, use_dsop: bool, use_cf: bool, prompts: Tensor | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Sums and counts added up over all clients; {} if words alone are enough."""
    by_dsop = use_dsop and (cfg.dsop in ("prompted", "image") or cfg.recentre)
    by_cf = use_cf and cfg.cf_directions in ("prompted", "image")
    if not (by_dsop or by_cf):
        return {}
    arrays = arrays_of({} if prompts is None else {"prompts": prompts})
    total: dict[str, Tensor] = {}
    for reply in _ask(grid, MOMENTS, RecordDict({"arrays": arrays})):
        for name, tensor in read_arrays(reply.content, "arrays").items():
            total[name] = total[name] + tensor if name in total else tensor
    names = [name.removeprefix("sums/") for name in total if name.startswith("sums/")]
    return {name: (total[f"sums/{name}"], total[f"counts/{name}"]) for name in names}


def _directions(
    mode: str, name: str, texts: dict[str, Tensor], summed: dict[str, tuple[Tensor, Tensor]]
) -> Tensor:
    return dsop.group_directions(mode, texts[name].cpu(), *summed.get(f"{mode}/{name}", (None, None)))


def choose_projection(grid: Grid, task: Task, cfg: Config, state: State) -> None:
    """Cut `basis` to the rank, and set the lambda, that do best on the clients' validation data.

    Of all candidates whose cell accuracy (mean recall over class-by-group cells) is within `tolerance` of
    "off", the one with the smallest odds gap (the largest over attributes, counts pooled over clients). Cell
    accuracy, because clients' data may be biased: there, balanced accuracy would pay for using the group. A
    rank or lambda that the config fixes is not searched; lambda_dsop = 0 means off and asks nobody.
    """
    full = state.tensors["basis"].shape[1]
    lambdas = LAMBDAS if cfg.lambda_dsop < 0 else (cfg.lambda_dsop,)
    ranks = range(1, full + 1) if cfg.rank == 0 else (min(cfg.rank, full),)
    candidates = [(0, 0.0)] if cfg.rank == 0 and cfg.lambda_dsop < 0 else []
    candidates += [(rank, lam) for lam in lambdas for rank in ranks if rank > 0 and lam > 0]
    rank, lam = candidates[0] if candidates else (0, 0.0)
    tried: list[dict[str, Any]] = []
    if len(candidates) > 1:
        tried = _try_on_validation(grid, cfg, state, candidates)
        enough = tried[0]["cell_accuracy"] - cfg.tolerance
        fit = [row for row in tried if row["odds_gap"] is not None and row["cell_accuracy"] >= enough]
        if fit:
            best = min(fit, key=lambda row: (row["odds_gap"], row["rank"]))
            rank, lam = best["rank"], best["lambda"]
    state.tensors["basis"] = state.tensors["basis"][:, :rank].contiguous()
    state.facts |= {"rank": rank, "lambda": lam, "candidates": tried}


def _try_on_validation(
    grid: Grid, cfg: Config, state: State, candidates: list[tuple[int, float]]
) -> list[dict[str, Any]]:
    content = RecordDict(
        {
            "arrays": arrays_of({"prompts": state.tensors["prompts"]}),
            "subspace": arrays_of(
                {"basis": state.tensors["basis"], "mu": state.tensors["mu"], "lambda": torch.ones(1)}
            ),
            "candidates": arrays_of({"rank-lambda": torch.tensor(candidates)}),
        }
    )
    pooled: dict[str, np.ndarray] = {}
    for reply in _ask(grid, MessageType.EVALUATE, content):
        for name, counts in read_arrays(reply.content, "arrays").items():
            pooled[name] = pooled.get(name, 0) + counts.numpy()
    rows = []
    for i, (rank, lam) in enumerate(candidates):
        tables = [pooled[f"{i}/{name}"] for name in cfg.groups]
        gaps = [g for t in tables if (g := recall_gap(t, min_cell=cfg.min_cell)) is not None]
        recalls = np.concatenate([cell_recalls(t, min_cell=cfg.min_cell) for t in tables])
        rows.append(
            {
                "rank": rank,
                "lambda": lam,
                "cell_accuracy": float(recalls.mean()) if len(recalls) else 0.0,
                "worst_cell_recall": float(recalls.min()) if len(recalls) else 0.0,
                "odds_gap": max(gaps, default=None),
            }
        )
    return rows


def _ask(grid: Grid, message_type: str, content: RecordDict) -> list[Message]:
    """The same message to every node; good replies in the order of client numbers."""
    messages = [
        Message(content, dst_node_id=node, message_type=message_type) for node in sorted(grid.get_node_ids())
    ]
    return sort_replies(grid.send_and_receive(messages))[0]


def final_projection(state: State) -> Projection:
    """The projection a finished run uses at inference."""
    return Projection(state.tensors["basis"], state.tensors["mu"], float(state.facts["lambda"]))


def _shared(state: State, *, in_training: bool) -> dict[str, Tensor]:
    """What every train message carries; outside training the projection stays off."""
    shared = {name: t for name, t in state.tensors.items() if name.startswith("directions/")}
    if in_training:
        lam = torch.tensor([float(state.facts["lambda"])])
        shared |= {"basis": state.tensors["basis"], "mu": state.tensors["mu"], "lambda": lam}
    return shared


def _projection(shared: dict[str, Tensor], task: Task) -> Projection:
    if "basis" not in shared:
        return dsop.no_projection(task.frozen_texts.shape[1])
    device = task.frozen_texts.device
    lam = float(shared["lambda"][0])
    return Projection(shared["basis"].to(device), shared["mu"].to(device), lam)


def _directed(cfg: Config, task: Task) -> list[str]:
    return list(task.groups) if cfg.lambda_cf > 0 and cfg.pairing == "image" else []


def _reply(message: Message, arrays: dict[str, Tensor], metrics: dict[str, Any]) -> Message:
    return Message(
        RecordDict({"arrays": arrays_of(arrays), "metrics": MetricRecord(metrics)}), reply_to=message
    )


def arrays_of(tensors: dict[str, Tensor]) -> ArrayRecord:
    """Tensors as a Flower record."""
    return ArrayRecord({k: Array(t.detach().cpu().numpy()) for k, t in tensors.items()})


def read_arrays(content: RecordDict | ArrayRecord, key: str | None = None) -> dict[str, Tensor]:
    """The inverse of `arrays_of`, on the CPU."""
    record: Any = content if key is None else content[key]
    return {name: torch.from_numpy(array.numpy().copy()) for name, array in record.items()}
