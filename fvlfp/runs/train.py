"""A whole run in this process: data to features, clients, training, predictions on the test rows.

`prepare` encodes every image once, and keeps pixels for vision prompts, which encode anew; `train` sees the
clients only, never a test row; `predict` is the only function that reads them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from fvlfp.arrays import default_cache
from fvlfp.baselines.posthoc import PostHoc
from fvlfp.clip.encoder import Encoder
from fvlfp.config import Config
from fvlfp.data.table import Dataset
from fvlfp.dsop import Projection, no_projection
from fvlfp.errors import InputError
from fvlfp.training.alone import merged, train_alone
from fvlfp.training.examples import (
    ClientData,
    Split,
    check_columns,
    encode_table,
    own_rows,
    owners,
    which_test,
    with_groups,
)
from fvlfp.training.fit_posthoc import fit_posthoc
from fvlfp.training.model import Adapter, ClientPrompts, Prompts
from fvlfp.training.parts import Parts
from fvlfp.training.personal import train_personal
from fvlfp.training.reports import RoundReport
from fvlfp.training.select import Candidate
from fvlfp.training.task import Task

if TYPE_CHECKING:
    from fvlfp.federation.checkpoint import ServerState


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs. `test` and `test_frame` are for `predict` alone.

    seconds: what encoding the images took (near 0 when they came from the cache). test_rows: what messages
    call each test row, where the table comes from a file.
    """

    cfg: Config
    task: Task
    clients: list[ClientData]
    test: Split
    test_frame: pd.DataFrame
    provenance: Mapping[str, Any]
    seconds: float
    test_rows: Sequence[int | str] = ()


@dataclass(frozen=True)
class Trained:
    """A finished run.

    model: prompts, FedCLIP's adapter, or prompts for each client (`pooling` is "local" or "personal").
    projection: what to apply at inference. history: one report a round. candidates: the (rank, lambda) pairs
    tried on validation data. seconds: wall time of training. posthoc: what a post-hoc baseline does on top.
    clients: how the model does on each client's own validation rows, one line each.
    """

    cfg: Config
    model: Prompts | Adapter | ClientPrompts
    projection: Projection
    history: list[RoundReport] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    seconds: float = 0.0
    posthoc: PostHoc | None = None
    clients: tuple[str, ...] = ()

    @property
    def prompts(self) -> Tensor:
        """P (L, n_ctx, width) of the one global model.

        Raises:
            InputError: the run trained something else.
        """
        if not isinstance(self.model, Prompts):
            raise InputError(f"method = {self.cfg.method!r} trains no global prompts: see Trained.model")
        return self.model.text

    @property
    def vision(self) -> Tensor | None:
        """V (L_v, n_v, width_v), prompts of the image tower, or None."""
        return self.model.vision if isinstance(self.model, Prompts) else None


#: What `prepare` builds in and `train` can no longer change. A seed may differ: same clients, new training.
_PREPARED_WITH = ("data", "label", "groups", "model", "precision", "n_ctx", "vision_ctx")


def load_data(cfg: Config, *, skip_bad: bool = False, images: Path | None = None) -> Dataset:
    """The built-in drawn faces, or the table that `cfg.data` names.

    skip_bad: leave unreadable images out (they are counted and named) instead of stopping at the first.
    images: the folder that the pictures' paths start from; by default the table's own.

    Raises:
        InputError: a folder of images for drawn faces; or any problem that `read_table` finds.
    """
    if cfg.data == "toyfaces":
        if images is not None:
            raise InputError(f"images = {str(images)!r} would not be used: it needs a table as data")
        from fvlfp.data import toyfaces

        check_columns(pd.DataFrame(columns=[*toyfaces.LABELS, *toyfaces.GROUPS]), cfg)
        return toyfaces.make(cfg.n, seed=cfg.seed, label=cfg.label)
    from fvlfp.data.table import read_table

    return read_table(
        cfg.data,
        label=cfg.label,
        groups=cfg.groups,
        prompts=cfg.prompts or None,
        images=images,
        skip_bad=skip_bad,
    )


def load_encoder(cfg: Config) -> Encoder:
    """The frozen model of a run.

    Raises:
        InputError: see `Encoder.load`; a tower that the run must prompt and that takes no prompts.
    """
    return Encoder.load(
        cfg.model,
        pretrained=cfg.pretrained,
        model_config=cfg.model_config,
        device=cfg.device,
        precision=cfg.precision,
        text_prompts=True,
        vision_prompts=cfg.vision_ctx > 0,
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
    check_columns(frame, cfg)
    if encoder is None:
        encoder = load_encoder(cfg)
    task = Task.make(encoder, dataset.card, cfg)
    started = time.perf_counter()
    everything = encode_table(dataset, encoder, task, cfg, cache=cache or default_cache(), quiet=quiet)
    seconds = time.perf_counter() - started
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
    called = [dataset.rows[int(i)] for i in test] if dataset.rows else ()
    return Prepared(cfg, task, clients, everything.take(test), frame.iloc[test], provenance, seconds, called)


def train(
    cfg: Config,
    prepared: Prepared,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    stacked: bool = True,
    progress: Callable[[str], None] | None = print,
    on_round: Callable[[RoundReport], None] | None = None,
    parts: Parts | None = None,
) -> Trained:
    """Federated training on the clients of `prepared`, through the Flower apps, in this process.

    cfg: may differ from `prepared.cfg` in method, components and rounds, not in data, model or clients.
    out: a folder for a checkpoint after every round; with `resume` the run goes on from the newest one and
    ends with the same bits as a straight run. stacked: all clients as one batch (`fvlfp.training.stacked`),
    or one after another, as vision prompts always are: the same up to float32 sums. progress: gets one line a
    round; on_round: its report, as soon as the round is saved. parts: functions of your own in place of the
    library's (`fvlfp.training.parts`).
    A run that leaves each client its own model keeps no checkpoint.

    Raises:
        InputError: `out` holds a run with another config, model or data, or `cfg` asks for another task
            than `prepared` holds; `parts` with `out`, or that this run would never call. RuntimeError: no
            client answered.
    """
    _check_prepared(cfg, prepared)
    prepared = with_parts(cfg, prepared, parts or Parts(), keeps=out is not None)
    key = _run_key(cfg, prepared) if out else ""
    clients = [with_groups(client, prepared.task, cfg) for client in prepared.clients]
    if cfg.pooling == "central":
        clients = [merged(clients)]
    prepared = dataclasses.replace(prepared, clients=clients)
    watch = Stopwatch(cfg.rounds, progress, on_round)
    if not cfg.one_model:
        return _train_own_models(cfg, prepared, stacked, watch)
    from fvlfp.runs.in_process import federate  # Flower: half a second that `prepare` does not need

    folder = Path(out) / "checkpoints" if out else None
    state = federate(
        cfg,
        prepared.task,
        clients,
        stacked=stacked,
        on_round=watch.on_round,
        folder=folder,
        key=key,
        resume=resume,
    )
    state.projection = prepared.task.parts.applied(state.projection)
    trained = trained_of(cfg, state, watch.seconds())
    return trained if cfg.posthoc == "none" else with_posthoc(cfg, prepared, trained)


def with_parts(cfg: Config, prepared: Prepared, parts: Parts, *, keeps: bool) -> Prepared:
    """`prepared` with these parts in its task. keeps: whether the run is to keep checkpoints.

    Raises:
        InputError: a part that this run would never call; parts in a run that keeps checkpoints.
    """
    parts.check(cfg)
    if parts.named and keeps:
        raise InputError("parts: a run with functions of your own keeps no checkpoint; leave `out` away")
    return dataclasses.replace(prepared, task=dataclasses.replace(prepared.task, parts=parts))


def _check_prepared(cfg: Config, prepared: Prepared) -> None:
    differs = [key for key in _PREPARED_WITH if getattr(cfg, key) != getattr(prepared.cfg, key)]
    if cfg.depth > len(prepared.task.initial):
        differs.append("depth")
    if cfg.vision_ctx and cfg.vision_depth > prepared.cfg.vision_depth:
        differs.append("vision_depth")
    if differs:
        raise InputError(f"{differs[0]} differs from what was prepared: call prepare(cfg) again")


class Stopwatch:
    """Seconds since its making; each round's report, with its seconds, goes to `say` as one line.

    hook: gets the report itself.
    """

    def __init__(
        self,
        rounds: int,
        say: Callable[[str], None] | None,
        hook: Callable[[RoundReport], None] | None = None,
    ) -> None:
        self.rounds, self.say, self.hook = rounds, say, hook
        self._started = self._last = time.perf_counter()

    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._started

    def on_round(self, report: RoundReport) -> None:
        """A round is over."""
        now = time.perf_counter()
        if self.say:
            self.say(report.describe(self.rounds, now - self._last))
        self._last = now
        if self.hook:
            self.hook(report)


def _train_own_models(cfg: Config, prepared: Prepared, stacked: bool, watch: Stopwatch) -> Trained:
    """A model for every client: alone, or with a shared part."""
    history: list[RoundReport] = []

    def on_round(report: RoundReport) -> None:
        history.append(report)
        watch.on_round(report)

    train_each = train_alone if cfg.pooling == "local" else train_personal
    model = train_each(prepared.clients, prepared.task, cfg, stacked=stacked, on_round=on_round)
    nothing = no_projection(prepared.task.frozen_texts.shape[1])
    return Trained(cfg, model, nothing, history, seconds=watch.seconds())


def trained_of(cfg: Config, state: ServerState, seconds: float = 0.0) -> Trained:
    """What `serve` ends with, as a finished run."""
    return Trained(cfg, state.model, state.projection, state.history, state.candidates, seconds)


def with_posthoc(cfg: Config, prepared: Prepared, trained: Trained) -> Trained:
    """`trained` (FedAvg's) with what `cfg.posthoc` names on top; nothing is trained again."""
    started = time.perf_counter()
    clients = [with_groups(client, prepared.task, cfg) for client in prepared.clients]
    posthoc, tried = fit_posthoc(
        cfg, prepared.task, clients, trained.prompts.to(prepared.task.initial.device)
    )
    seconds = trained.seconds + time.perf_counter() - started
    return dataclasses.replace(trained, cfg=cfg, posthoc=posthoc, candidates=tried, seconds=seconds)


def _run_key(cfg: Config, prepared: Prepared) -> str:
    """Changes with the weights, the words, any client's example, and any option that a resumed run must keep.

    Rounds, draws, device and patience may change. So nothing goes in that another device would compute with
    other last bits: tokens instead of texts, and pictures instead of features, where they are known.
    """
    rounds = cfg.rounds if cfg.lr_schedule == "cosine" else 0  # its last round is where the rate ends
    same = cfg.replace(rounds=rounds, draws=100, device="auto", patience=0).digest()
    key = hashlib.sha256(f"{same} {prepared.provenance['weights_sha256']}".encode())
    key.update(json.dumps(prepared.provenance.get("prompts")).encode())
    task = prepared.task
    of_groups = [tokens for tokens, _ in (*task.word_tokens.values(), *task.pair_tokens.values())]
    for client in prepared.clients:
        for split in (client.train, client.val):
            pictures = split.z if split.digests is None else split.digests
            for part in (pictures, split.y, *split.g.values()):
                key.update(_bytes_of(part))
    for tokens in (task.class_tokens, *of_groups):
        key.update(_bytes_of(tokens.ids))
    return key.hexdigest()[:32]


def _bytes_of(array: Tensor | np.ndarray) -> bytes:
    return (array.cpu().numpy() if isinstance(array, Tensor) else array).tobytes()
