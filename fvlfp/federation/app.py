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

import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import Tensor

from fvlfp import dsop
from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.federation.checkpoint import Checkpoints, State
from fvlfp.federation.client import ClientData, client_moments, confusion, local_train, suppress
from fvlfp.federation.messages import arrays_of, number, on_wire, read_arrays, reply_with
from fvlfp.federation.strategy import FairFusion, fusion_of
from fvlfp.federation.subspace import ask_subspace, choose_projection
from fvlfp.federation.task import Task
from fvlfp.fpf import GAP_PRIOR, balanced_accuracy, client_weight, defined, recall_gap


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
        return reply_with(message, arrays, {"client": data.client})

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
        return reply_with(message, arrays, {"client": data.client})

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
        perf = balanced_accuracy(next(iter(counts.values())), min_cell=cfg.min_cell)
        gaps = [recall_gap(c, min_cell=cfg.min_cell, prior=GAP_PRIOR) for c in counts.values()]
        disp = max((gap for gap in gaps if gap is not None), default=None)
        weight = client_weight(
            len(data.train),
            perf,
            disp,
            perf_mean=defined(number(config, "perf-mean")),
            disp_mean=defined(number(config, "disp-mean")),
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
        return reply_with(message, {"prompts": prompts}, report)

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
