"""The two Flower apps: what a client answers, and what the server asks, in order.

1. `query.moments` (only if a subspace or counterfactual directions must come from images): class-by-group
   feature sums and counts, no image embedding.
2. `evaluate`: validation counts for each candidate (rank, lambda) of DSOP, "off" among them.
3. `train`, once a round: prompts out (of the text tower, and of the image tower where it has any); prompts, a
   fusion weight and a report back.

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
from fvlfp.federation.privacy import clip_update
from fvlfp.federation.protocol import arrays_of, number, on_wire, read_arrays, reply_with
from fvlfp.federation.rules import extra_report, strategy_for
from fvlfp.federation.strategy import fusion_of
from fvlfp.federation.subspace import ask_subspace, choose_projection
from fvlfp.fpf import GAP_PRIOR, balanced_accuracy, client_weight, defined, recall_gap
from fvlfp.training.adapter import adapt, adapter_train, initial
from fvlfp.training.local import ClientData, Job, client_moments, confusion, local_train, suppress
from fvlfp.training.loss import Split
from fvlfp.training.task import Task
from fvlfp.training.vision import initial_vision, seen, vision_train

#: A train message's content and the client's data -> what was trained by name (`prompts`, and `vision` where
#: the image tower is prompted), the class texts, the mean training loss.
Trainer = Callable[[RecordDict, ClientData], tuple[dict[str, Tensor], Tensor, float]]


def make_client_app(
    load: Callable[[Context], ClientData], task: Task, cfg: Config, *, trainer: Trainer | None = None
) -> ClientApp:
    """A ClientApp for whoever can `load` one client's data from Flower's Context.

    trainer: how a client trains; None is `local_train` on its own, see also `fvlfp.training.stacked`.
    """
    trainer = trainer or one_by_one(task, cfg)
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
        received = read_arrays(content, "arrays")
        texts = task.class_texts(received["prompts"]).detach()
        own = seen(data.val, task, received.get("vision"))
        projection = _projection(read_arrays(content, "subspace"), task)
        arrays: dict[str, Tensor] = {}
        for i, (rank, lam) in enumerate(read_arrays(content, "candidates")["rank-lambda"].tolist()):
            val = own.project(projection.to_rank(int(rank), lam))
            for name, counts in confusion(val, texts, n_groups).items():
                arrays[f"{i}/{name}"] = torch.from_numpy(suppress(counts, cfg.min_cell))
        return reply_with(message, arrays, {"client": data.client})

    @app.train()
    def train(message: Message, context: Context) -> Message:
        data, content = load(context), message.content
        config = content.config_records["config"]
        received = read_arrays(content, "arrays")["prompts"]
        projection = _projection(read_arrays(content, "subspace"), task)
        trained, texts, loss = trainer(content, data)
        if cfg.dp_noise > 0:
            trained["prompts"] = clip_update(trained["prompts"], received, cfg.dp_clip)
            texts = task.class_texts(trained["prompts"]).detach() if cfg.tune == "prompts" else texts
        val = seen(data.val, task, trained.get("vision")).project(projection)
        z = adapt(val.z, trained["prompts"]).detach() if cfg.tune == "adapter" else val.z
        counts = confusion(Split(z, val.y, val.g), texts, n_groups)
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
        report: dict[str, Any] = {
            "num-examples": len(data.train),
            "weight": weight,
            "perf": on_wire(perf),
            "disp": on_wire(disp),
            "loss": loss,
            "client": data.client,
            **extra_report(cfg, task, data, received),
        }
        return reply_with(message, trained, report)

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
        State: tensors `prompts`, `vision` (where the image tower is prompted), `basis` (d, r), `mu` (d,) and
        `directions/<attribute>`; facts `history`, `rank`, `lambda`, `candidates` (every (rank, lambda) tried
        on validation, with its numbers).

    Raises:
        RuntimeError: fewer than `min_available` clients gave a usable answer.
        InputError: the checkpoints are of another config.
    """
    state = checkpoints.load() if checkpoints and resume else None
    if state is None:
        start = {"prompts": initial(task, cfg), **initial_vision(task, cfg)}
        state = State(start, {"round": 0, "history": []})
        ask_subspace(grid, task, cfg, state)
        if cfg.dsop_at == "training":
            choose_projection(grid, task, cfg, state)
    state.tensors = {name: tensor.to(task.initial.device) for name, tensor in state.tensors.items()}

    done = int(state.facts["round"])
    strategy = strategy_for(
        cfg,
        task,
        RecordDict({"subspace": arrays_of(_shared(state, in_training=cfg.dsop_at == "training"))}),
        first_round=done,
        means=tuple(state.facts.get("means", (None, None))),
        previous={int(k): v for k, v in state.facts.get("weights", {}).items()},
    )

    def after_round(round_: int, arrays: ArrayRecord) -> None:
        if round_ == 0:
            return  # Flower calls once before the first round
        state.tensors |= {name: t.to(task.initial.device) for name, t in read_arrays(arrays).items()}
        row = strategy.history[-1]
        facts = {"history": [*state.facts["history"], row], "means": list(strategy.means)}
        state.facts |= {**facts, "weights": strategy.previous, "round": done + round_}
        if checkpoints:
            checkpoints.save(done + round_, state)
        on_round(row)

    if done < cfg.rounds:
        strategy.start(
            grid,
            arrays_of(state.trained),
            num_rounds=cfg.rounds - done,
            timeout=cfg.deadline,
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


def one_by_one(task: Task, cfg: Config) -> Trainer:
    """The trainer of a client on its own."""

    def train(content: RecordDict, data: ClientData) -> tuple[dict[str, Tensor], Tensor, float]:
        prompts, examples, directions, seed_name = job_of(content, data, task, cfg)
        if cfg.vision_ctx:
            trained, vision, loss = vision_train(
                prompts,
                read_arrays(content, "arrays")["vision"],
                examples,
                task,
                cfg,
                projection=_projection(read_arrays(content, "subspace"), task),
                directions=directions,
                seed_name=seed_name,
            )
            return {"prompts": trained, "vision": vision}, task.class_texts(trained), loss
        tune = local_train if cfg.tune == "prompts" else adapter_train
        trained, loss = tune(prompts, examples, task, cfg, directions=directions, seed_name=seed_name)
        texts = task.class_texts(trained) if cfg.tune == "prompts" else task.frozen_texts
        return {"prompts": trained}, texts, loss

    return train


def job_of(content: RecordDict, data: ClientData, task: Task, cfg: Config) -> Job:
    """What a train message asks of one client."""
    round_ = int(number(content.config_records["config"], "server-round"))
    shared, where = read_arrays(content, "subspace"), task.initial.device
    return Job(
        read_arrays(content, "arrays")["prompts"].to(where),
        data.train.project(_projection(shared, task)),
        {name: shared[f"directions/{name}"].to(where) for name in _directed(cfg, task)},
        f"client/{data.client}/round/{round_}",
    )


def _projection(shared: dict[str, Tensor], task: Task) -> Projection:
    device = task.frozen_texts.device
    if "basis" not in shared:
        return dsop.no_projection(task.frozen_texts.shape[1])
    return Projection(shared["basis"].to(device), shared["mu"].to(device), float(shared["lambda"][0]))


def _directed(cfg: Config, task: Task) -> list[str]:
    return list(task.groups) if cfg.lambda_cf > 0 and cfg.pairing == "image" else []
