"""A whole run in this process: data to features, clients, training, predictions on the test rows.

`prepare` encodes every image once, and keeps pixels for vision prompts, which encode anew; `train` sees the
clients only, never a test row; `predict` is the only function that reads them.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from flwr.app import Context
from torch import Tensor

from fvlfp.clip.cache import default_cache, features
from fvlfp.clip.encoder import Encoder
from fvlfp.clip.pixels import read_pixels
from fvlfp.config import Config
from fvlfp.data.table import Dataset
from fvlfp.dsop import Projection, no_projection
from fvlfp.errors import InputError
from fvlfp.training.after import After, fit_after
from fvlfp.training.alone import history_row, merged, train_alone
from fvlfp.federation.app import make_client_app, serve
from fvlfp.federation.checkpoint import Checkpoints, State
from fvlfp.training.local import ClientData
from fvlfp.runs.predict import predict as predict
from fvlfp.federation.local_grid import LocalGrid, in_this_process
from fvlfp.training.loss import Split
from fvlfp.training.examples import codes, own_rows, owners, which_test, with_groups
from fvlfp.federation.together import TrainTogether
from fvlfp.federation.subspace import final_projection
from fvlfp.training.task import Task


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs. `test` and `test_frame` are for `predict` alone.

    seconds: what encoding the images took (near 0 when they came from the cache).
    """

    cfg: Config
    task: Task
    clients: list[ClientData]
    test: Split
    test_frame: pd.DataFrame
    provenance: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Trained:
    """prompts: (L, n_ctx, width). projection: what to apply at inference. history: one row a round.

    candidates: the (rank, lambda) pairs tried on validation data. seconds: wall time of training.
    after: what a post-hoc baseline does on top. With `pooling = "local"` prompts are (K, L, n_ctx,
    width), one of each of K clients, and `sizes` their training rows; with `tune = "adapter"` they are
    FedCLIP's adapter. vision: (L_v, n_v, width_v), prompts of the image tower, or None.
    """

    cfg: Config
    prompts: Tensor
    projection: Projection
    history: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    seconds: float
    after: After | None = None
    sizes: tuple[int, ...] = ()
    vision: Tensor | None = None


#: What `prepare` builds in and `train` can no longer change. A seed may differ: same clients, new training.
_PREPARED_WITH = ("data", "label", "groups", "model", "n_ctx", "vision_ctx")


def load_data(cfg: Config, *, skip_bad: bool = False) -> Dataset:
    """The built-in drawn faces, or the table that `cfg.data` names.

    skip_bad: leave unreadable images out (they are counted and named) instead of stopping at the first.
    """
    if cfg.data == "toyfaces":
        from fvlfp.data import toyfaces

        _check_columns(pd.DataFrame(columns=[*toyfaces.LABELS, *toyfaces.GROUPS]), cfg)
        return toyfaces.make(cfg.n, seed=cfg.seed, label=cfg.label)
    from fvlfp.data.table import read_table

    return read_table(
        cfg.data, label=cfg.label, groups=cfg.groups, prompts=cfg.prompts or None, skip_bad=skip_bad
    )


def prepare(
    cfg: Config,
    *,
    dataset: Dataset | None = None,
    encoder: Encoder | None = None,
    cache: str | Path | None = None,
    quiet: bool = True,
) -> Prepared:
    """Load, check, encode (from the cache where possible) and spread the rows over clients.

    Rows with `split` "train" (and "val", if the table has it) belong to clients, "test" rows to nobody.
    Without a `split` column a third of the rows, drawn by the named seed `split`, is test.

    Raises:
        InputError: a column is missing, a value has no words on the data card, or no client has data.
    """
    dataset = load_data(cfg) if dataset is None else dataset
    frame = dataset.frame.reset_index(drop=True)
    _check_columns(frame, cfg)
    if encoder is None:
        encoder = Encoder.load(
            cfg.model, pretrained=cfg.pretrained, model_config=cfg.model_config, device=cfg.device
        )
    task = Task.make(encoder, dataset.card, cfg)
    y = codes(frame, cfg.label, task.classes)
    g = {name: codes(frame, name, groups) for name, groups in task.groups.items()}

    started = time.perf_counter()
    z = features(encoder, dataset.images, cache=cache or default_cache(), quiet=quiet)
    pixels = read_pixels(encoder, dataset.images, cache=cache or default_cache()) if cfg.vision_ctx else None
    seconds = time.perf_counter() - started

    where = encoder.device
    everything = Split(
        torch.from_numpy(z).to(where),
        torch.from_numpy(y).to(where),
        {name: torch.from_numpy(codes).to(where) for name, codes in g.items()},
        pixels,
    )
    is_test = which_test(frame, cfg)
    rows = np.flatnonzero(~is_test)
    if not len(rows):
        raise InputError("no client has data: every row's split is 'test'")
    owner = owners(frame.iloc[rows], cfg)
    clients = [own_rows(everything, rows[owner == k], k, frame, cfg) for k in range(owner.max() + 1)]
    test = np.flatnonzero(is_test)
    provenance = {
        **encoder.provenance,
        **dataset.facts,
        "split": f"{len(rows)} rows with clients, {len(test)} test rows",
        "prompts": {"templates": dataset.card.templates, "classes": dataset.card.classes[cfg.label]},
        "config": cfg.to_dict(),
    }
    return Prepared(cfg, task, clients, everything.take(test), frame.iloc[test], provenance, seconds)


def train(
    cfg: Config,
    prepared: Prepared,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    stacked: bool = True,
    progress: Callable[[str], None] | None = print,
) -> Trained:
    """Federated training on the clients of `prepared`, through the Flower apps, in this process.

    cfg: may differ from `prepared.cfg` in method, components and rounds, not in data, model or clients.
    out: a folder for a checkpoint after every round; with `resume` the run goes on from the newest one and
    ends with the same bits as a straight run. stacked: all clients as one batch (`fvlfp.training.stacked`),
    or one after another, as vision prompts always are: the same up to float32 sums. progress: gets one line a
    round.
    Clients alone (`pooling = "local"`) keep no checkpoint.

    Raises:
        InputError: `out` holds a run with another config, model or data, or `cfg` asks for another task
            than `prepared` holds. RuntimeError: no client answered.
    """
    for key in _PREPARED_WITH:
        if getattr(cfg, key) != getattr(prepared.cfg, key):
            raise InputError(f"{key} differs from what was prepared: call prepare(cfg) again")
    if cfg.depth > len(prepared.task.initial):
        raise InputError("depth differs from what was prepared: call prepare(cfg) again")
    if cfg.vision_ctx and cfg.vision_depth > prepared.cfg.vision_depth:
        raise InputError("vision_depth differs from what was prepared: call prepare(cfg) again")
    by_partition = [with_groups(client, prepared.task, cfg) for client in prepared.clients]
    if cfg.pooling == "central":
        by_partition = [merged(by_partition)]
    prepared = dataclasses.replace(prepared, clients=by_partition)
    if cfg.pooling == "local":
        return _train_alone(cfg, prepared, stacked=stacked, progress=progress)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    task = prepared.task
    checkpoints = Checkpoints(Path(out) / "checkpoints", _run_key(cfg, prepared)) if out else None

    def load(context: Context) -> ClientData:
        return by_partition[int(context.node_config["partition-id"])]

    together = (
        TrainTogether(load, task, cfg) if stacked and cfg.tune == "prompts" and not cfg.vision_ctx else None
    )
    app = make_client_app(load, task, cfg, trainer=together.trainer if together else None)
    started = last = time.perf_counter()

    def on_round(row: dict[str, Any]) -> None:
        nonlocal last
        now = time.perf_counter()
        if progress:
            progress(describe(row, cfg.rounds, now - last))
        last = now

    with in_this_process():
        state = serve(
            LocalGrid(app, len(by_partition), together=together),
            task,
            cfg,
            checkpoints=checkpoints,
            resume=resume,
            on_round=on_round,
        )
    trained = trained_of(cfg, state, time.perf_counter() - started)
    return trained if cfg.posthoc == "none" else with_posthoc(cfg, prepared, trained)


def trained_of(cfg: Config, state: State, seconds: float) -> Trained:
    """What `serve` ends with, as a finished run."""
    return Trained(
        cfg=cfg,
        prompts=state.tensors["prompts"],
        vision=state.tensors.get("vision"),
        projection=final_projection(state),
        history=state.facts["history"],
        candidates=state.facts["candidates"],
        seconds=seconds,
    )


def with_posthoc(cfg: Config, prepared: Prepared, trained: Trained) -> Trained:
    """`trained` (FedAvg's) with what `cfg.posthoc` names on top; nothing is trained again."""
    started = time.perf_counter()
    clients = [with_groups(client, prepared.task, cfg) for client in prepared.clients]
    after = fit_after(cfg, prepared.task, clients, trained.prompts.to(prepared.task.initial.device))
    seconds = trained.seconds + time.perf_counter() - started
    tried = after.facts.get("candidates", [])
    return dataclasses.replace(trained, cfg=cfg, after=after, candidates=tried, seconds=seconds)


def _train_alone(
    cfg: Config, prepared: Prepared, *, stacked: bool, progress: Callable[[str], None] | None
) -> Trained:
    history: list[dict[str, Any]] = []
    clients, task = prepared.clients, prepared.task
    started = last = time.perf_counter()

    def on_round(loss: float) -> None:
        nonlocal last
        now = time.perf_counter()
        history.append(history_row(len(history) + 1, loss, len(clients)))
        if progress:
            progress(describe(history[-1], cfg.rounds, now - last))
        last = now

    prompts = train_alone(clients, task, cfg, stacked=stacked, on_round=on_round)
    nothing, seconds = no_projection(task.frozen_texts.shape[1]), time.perf_counter() - started
    sizes = tuple(len(client.train) for client in clients)
    return Trained(cfg, prompts, nothing, history, [], seconds, sizes=sizes)


def _run_key(cfg: Config, prepared: Prepared) -> str:
    """Changes with any option, the weights, the words, and any client's example."""
    key = hashlib.sha256(f"{cfg.digest()} {prepared.provenance['weights_sha256']}".encode())
    key.update(prepared.task.frozen_texts.cpu().numpy().tobytes())
    for client in prepared.clients:
        for split in (client.train, client.val):
            for tensor in (split.z, split.y, *split.g.values()):
                key.update(tensor.cpu().numpy().tobytes())
    return key.hexdigest()[:32]


def describe(row: dict[str, Any], rounds: int, seconds: float) -> str:
    """One line a round; accuracy and gap are means over the clients' own validation data."""

    def show(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.3f}"

    line = (
        f"round {row['round']:>3}/{rounds}  loss {row['loss']:.4f}  balanced accuracy "
        f"{show(row['balanced_accuracy'])}  odds gap {show(row['odds_gap'])} (validation)  {seconds:.1f} s"
    )
    return line + (f"  FAILED clients: {row['failed']}" if row["failed"] else "")


def _check_columns(frame: pd.DataFrame, cfg: Config) -> None:
    for column in (cfg.label, *cfg.groups):
        if column not in frame:
            near = difflib.get_close_matches(column, list(frame.columns), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"the table has no column {column!r}{hint}")
