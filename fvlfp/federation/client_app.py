"""The ClientApp: what a client answers to each of the server's three questions.

What leaves a client is exactly what `fvlfp.federation.protocol` names. The server never sees an image, a
feature of a single image, or a label.

What this module does not do: it trains nothing itself, see `fvlfp.training.client`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from fvlfp.config import Config
from fvlfp.federation.privacy import clip_update
from fvlfp.federation.protocol import (
    CandidatesQuestion,
    ClientReport,
    JudgeQuestion,
    MomentsQuestion,
    TrainQuestion,
    count_name,
    moment_arrays,
    reply_with,
)
from fvlfp.options import ClientOptions, PrivacyOptions
from fvlfp.training.client import train_client
from fvlfp.training.examples import ClientData
from fvlfp.training.local import Job, LocalResult
from fvlfp.training.loss import row_weights
from fvlfp.training.model import Model, model_of, on_device
from fvlfp.training.readout import Readout
from fvlfp.training.reports import client_moments, countable_rows, performance_and_gap
from fvlfp.training.task import Task

#: The server's question and the client's data -> what was trained.
Trainer = Callable[[TrainQuestion, ClientData], LocalResult]


def make_client_app(
    load: Callable[[Context], ClientData], task: Task, cfg: Config, *, trainer: Trainer | None = None
) -> ClientApp:
    """A ClientApp for whoever can `load` one client's data from Flower's Context.

    trainer: how a client trains; None is `one_by_one`, see also `fvlfp.federation.together`.
    """
    trainer = trainer or one_by_one(task, cfg)
    app = ClientApp()

    @app.query("moments")
    def moments(message: Message, context: Context) -> Message:
        question, data = MomentsQuestion.read(message.content), load(context)
        found = client_moments(data.train, task, cfg, question.prompts)
        return reply_with(message, moment_arrays(found), {"client": data.client})

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        question, data = CandidatesQuestion.read(message.content), load(context)
        return reply_with(message, validation_counts(question, data, task, cfg), {"client": data.client})

    @app.query("judge")
    def judge(message: Message, context: Context) -> Message:
        question, data = JudgeQuestion.read(message.content), load(context)
        return reply_with(message, right_answers(question, data, task, cfg), {"client": data.client})

    @app.train()
    def train(message: Message, context: Context) -> Message:
        question, data = TrainQuestion.read(message.content), load(context)
        result = clipped(trainer(question, data), question, task, cfg)
        report = report_on(result, question, data, task, cfg)
        return reply_with(message, result.model.tensors(), report.metrics())

    return app


def one_by_one(task: Task, cfg: Config) -> Trainer:
    """The trainer of a client on its own."""

    def train(question: TrainQuestion, data: ClientData) -> LocalResult:
        return train_client(job_for(question, data, task), task, cfg)

    return train


def job_for(question: TrainQuestion, data: ClientData, task: Task) -> Job:
    """What a train message asks of one client."""
    device = task.initial.device
    projection = question.projection and task.parts.applied(question.projection.to(device))
    return Job(
        on_device(question.model, device),
        data.train if projection is None else data.train.project(projection),
        {name: directions.to(device) for name, directions in question.directions.items()},
        f"client/{data.client}/round/{question.round}",
        projection,
        question.round,
    )


def clipped(result: LocalResult, question: TrainQuestion, task: Task, options: PrivacyOptions) -> LocalResult:
    """The result under differential privacy: the update shortened to `dp_clip`."""
    if options.dp_noise == 0:
        return result
    # One tensor: differential privacy refuses vision prompts, whose length would have to be counted in.
    ((name, start),) = question.model.tensors().items()
    model = model_of({name: clip_update(result.model.tensors()[name], start, options.dp_clip)})
    return LocalResult(model, Readout.of(task, model).texts, result.loss)


def report_on(
    result: LocalResult, question: TrainQuestion, data: ClientData, task: Task, cfg: Config
) -> ClientReport:
    """What a client says about the model it has trained, on its own validation data."""
    readout = Readout.of(task, result.model, projection=question.projection, texts=result.texts)
    counts = list(readout.confusion(data.val).values())
    perf, disp = performance_and_gap(counts, min_cell=cfg.min_cell)
    return ClientReport(
        client=data.client,
        n=len(data.train),
        perf=perf,
        disp=disp,
        loss=result.loss,
        start_loss=start_loss(question.model, data, task, cfg) if cfg.fusion == "qfedavg" else None,
        counts=start_counts(question.model, data, task, cfg) if cfg.fusion == "fairfed" else {},
    )


def validation_counts(
    question: CandidatesQuestion, data: ClientData, task: Task, cfg: Config
) -> dict[str, Tensor]:
    """Validation counts (G, C, C) for each candidate and attribute, of the rows in no small cell."""
    model, val = Readout.of(task, question.model), countable_rows(data.val, cfg.min_cell)
    z = model.live(val)
    arrays: dict[str, Tensor] = {}
    for i, (rank, lam) in enumerate(question.candidates):
        readout = Readout.of(
            task, question.model, projection=question.projection.to_rank(rank, lam), texts=model.texts
        )
        for name, counts in readout.confusion(val, z).items():
            arrays[count_name(i, name)] = torch.from_numpy(counts)
    return arrays


@torch.no_grad()
def right_answers(
    question: JudgeQuestion, data: ClientData, task: Task, options: ClientOptions
) -> dict[str, Tensor]:
    """A judge's counts: `total/<attribute>` (C, G), and `right/<attribute>` (A, C, G) for each candidate."""
    val, c = countable_rows(data.val, options.min_cell), len(task.classes)
    sent = question.projection
    z = val.z if sent is None else task.parts.applied(sent.to(val.z.device))(val.z)
    texts = question.texts.to(z.device)  # (A, C, d)
    scores = (z @ texts.flatten(0, 1).T).unflatten(1, texts.shape[:2])  # (n, A, C): one product for all
    # Counted on the CPU: not every device has float64.
    right = (scores.argmax(2) == val.y[:, None]).cpu().double()  # (n, A)
    arrays = {}
    for name, g in task.n_groups.items():
        cell = F.one_hot(val.y * g + val.g[name], c * g).cpu().double()  # (n, C G)
        arrays[f"total/{name}"] = cell.sum(0).long().reshape(c, g)
        arrays[f"right/{name}"] = (right.T @ cell).round().long().reshape(-1, c, g)
    return arrays


@torch.no_grad()
def start_loss(model: Model, data: ClientData, task: Task, cfg: Config) -> float:
    """The training loss of a model as it arrived, for q-FedAvg."""
    logits = Readout.of(task, model).logits(data.train.z)
    weight = row_weights(data.train, task, cfg)
    each = F.cross_entropy(logits, data.train.y, reduction="none")
    return float((weight * each).sum() / weight.sum())


def start_counts(model: Model, data: ClientData, task: Task, cfg: Config) -> dict[str, np.ndarray]:
    """Attribute -> validation counts (G, C, C) of a model as it arrived, for FairFed; no small cells."""
    return Readout.of(task, model).confusion(countable_rows(data.val, cfg.min_cell))
