"""Everything that travels: the name of every record, array and number, and the shapes that are expected.

| message | server -> client | client -> server |
|---|---|---|
| `query.moments` | `MomentsQuestion` | class-by-group feature sums and counts, no image embedding |
| `evaluate` | `CandidatesQuestion` | validation counts for each candidate (rank, lambda) of DSOP |
| `query.judge`, under `peers` and F3 | `JudgeQuestion` | right answers by class and group |
| `train`, each round | `TrainQuestion` | the trained model, and a `ClientReport` |

Every reply holds a record of arrays and a record of numbers, the client's own number among them.

What this module does not do: it decides nothing about what may travel; see `fvlfp.federation.client_app`. It
checks nothing either; see `fvlfp.federation.trust`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from torch import Tensor

from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.fpf import defined
from fvlfp.training.model import Model, model_of
from fvlfp.training.task import Task

log = logging.getLogger("fvlfp")

#: message types
MOMENTS, CANDIDATES, TRAIN = f"{MessageType.QUERY}.moments", MessageType.EVALUATE, MessageType.TRAIN
JUDGE = f"{MessageType.QUERY}.judge"

#: the numbers of a message, by name, as Flower takes them
Numbers = dict[str, int | float | list[int] | list[float]]

#: Array name -> (shape, dtype) that a reply must have.
Shapes = dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class MomentsQuestion:
    """Asks for feature sums. prompts: group words are said with these; None: by the card's sentences."""

    prompts: Tensor | None = None

    def content(self) -> RecordDict:
        """As it travels."""
        return RecordDict({"arrays": arrays_of({} if self.prompts is None else {"prompts": self.prompts})})

    @classmethod
    def read(cls, content: RecordDict) -> MomentsQuestion:
        """The inverse of `content`."""
        return cls(read_arrays(content, "arrays").get("prompts"))


@dataclass(frozen=True)
class CandidatesQuestion:
    """Asks for validation counts of a model under each candidate (rank, lambda) of the projection."""

    model: Model
    projection: Projection
    candidates: Sequence[tuple[int, float]]

    def content(self) -> RecordDict:
        """As it travels."""
        pairs = torch.tensor([[float(rank), lam] for rank, lam in self.candidates])
        return RecordDict(
            {
                "arrays": arrays_of(self.model.tensors()),
                "subspace": arrays_of(_subspace(self.projection)),
                "candidates": arrays_of({"rank-lambda": pairs}),
            }
        )

    @classmethod
    def read(cls, content: RecordDict) -> CandidatesQuestion:
        """The inverse of `content`."""
        pairs = read_arrays(content, "candidates")["rank-lambda"].tolist()
        projection = _projection(read_arrays(content, "subspace"))
        assert projection is not None
        model = model_of(read_arrays(content, "arrays"))
        return cls(model, projection, [(int(rank), lam) for rank, lam in pairs])


@dataclass(frozen=True)
class JudgeQuestion:
    """Asks how many validation rows each of A candidates gets right. texts: (A, C, d), its class texts."""

    texts: Tensor
    projection: Projection | None = None

    def content(self) -> RecordDict:
        """As it travels."""
        shared = arrays_of({} if self.projection is None else _subspace(self.projection))
        return RecordDict({"arrays": arrays_of({"texts": self.texts}), "subspace": shared})

    @classmethod
    def read(cls, content: RecordDict) -> JudgeQuestion:
        """The inverse of `content`."""
        return cls(read_arrays(content, "arrays")["texts"], _projection(read_arrays(content, "subspace")))


@dataclass(frozen=True)
class TrainQuestion:
    """Asks for a round of local training.

    projection: None where DSOP acts at inference only. directions: attribute -> CDFP's D (G, d).
    """

    model: Model
    round: int
    projection: Projection | None = None
    directions: dict[str, Tensor] = field(default_factory=dict)

    def content(self) -> RecordDict:
        """As it travels."""
        config = ConfigRecord({"server-round": self.round})
        shared = {f"directions/{name}": tensor for name, tensor in self.directions.items()}
        shared |= {} if self.projection is None else _subspace(self.projection)
        return RecordDict(
            {
                "arrays": arrays_of(self.model.tensors()),
                "config": config,
                "subspace": arrays_of(shared),
            }
        )

    @classmethod
    def read(cls, content: RecordDict) -> TrainQuestion:
        """The inverse of `content`."""
        config, shared = content.config_records["config"], read_arrays(content, "subspace")
        return cls(
            model_of(read_arrays(content, "arrays")),
            int(number(config, "server-round")),
            _projection(shared),
            {
                name.removeprefix("directions/"): tensor
                for name, tensor in shared.items()
                if name.startswith("directions/")
            },
        )


@dataclass(frozen=True)
class ClientReport:
    """The numbers that come with a trained model. n: training examples.

    perf, disp: balanced accuracy and odds gap on the client's validation data, None where undefined.
    start_loss: training loss of the prompts as they arrived, for q-FedAvg. counts: attribute -> validation
    counts (G, C, C) under them, for FairFed.
    """

    client: int
    n: int
    perf: float | None
    disp: float | None
    loss: float
    start_loss: float | None = None
    counts: dict[str, np.ndarray] = field(default_factory=dict)

    #: names of the numbers that every report holds; NaN means undefined in `perf` and `disp`
    ALWAYS = ("num-examples", "perf", "disp", "loss", "client")
    #: how the names of further numbers begin
    START_LOSS, COUNTS = "start-loss", "counts/"

    def metrics(self) -> Numbers:
        """As it travels."""
        found: Numbers = {
            "num-examples": self.n,
            "perf": on_wire(self.perf),
            "disp": on_wire(self.disp),
            "loss": self.loss,
            "client": self.client,
        }
        if self.start_loss is not None:
            found[self.START_LOSS] = self.start_loss
        return found | {f"{self.COUNTS}{name}": table.ravel().tolist() for name, table in self.counts.items()}

    @classmethod
    def read(cls, content: RecordDict, *, classes: int) -> ClientReport:
        """The inverse of `metrics`. classes: C, to give the counts their shape."""
        record = content.metric_records["metrics"]
        counts = {
            name.removeprefix(cls.COUNTS): np.array(values).reshape(-1, classes, classes)
            for name, values in record.items()
            if name.startswith(cls.COUNTS)
        }
        return cls(
            client=int(number(record, "client")),
            n=int(number(record, "num-examples")),
            perf=defined(number(record, "perf")),
            disp=defined(number(record, "disp")),
            loss=number(record, "loss"),
            start_loss=number(record, cls.START_LOSS) if cls.START_LOSS in record else None,
            counts=counts,
        )


def moment_arrays(moments: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The arrays of a reply. moments: name -> (sums (C, G, d), counts (C, G)), as `client_moments` has it."""
    return {
        f"{part}/{name}": tensor
        for name, pair in moments.items()
        for part, tensor in zip(("sums", "counts"), pair, strict=True)
    }


def read_moments(arrays: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The inverse of `moment_arrays`."""
    names = [name.removeprefix("sums/") for name in arrays if name.startswith("sums/")]
    return {name: (arrays[f"sums/{name}"], arrays[f"counts/{name}"]) for name in names}


def moment_shapes(task: Task, cfg: Config) -> Shapes:
    """What a reply with moments must hold."""
    kinds = ["prompted", "image"] if cfg.moments_by_label else ["prompted"]
    shapes: Shapes = {}
    for name, n_groups in task.n_groups.items():
        cells = (len(task.classes), n_groups)
        for kind in kinds:
            shapes[f"sums/{kind}/{name}"] = ((*cells, task.frozen_texts.shape[1]), "float32")
            shapes[f"counts/{kind}/{name}"] = (cells, "float32")
    return shapes


def count_name(candidate: int, attribute: str) -> str:
    """The array of validation counts (G, C, C) of one candidate, by its place in the question."""
    return f"{candidate}/{attribute}"


def count_shapes(task: Task, candidates: int) -> Shapes:
    """What a reply with validation counts must hold."""
    n = len(task.classes)
    return {
        count_name(i, name): ((n_groups, n, n), "int64")
        for i in range(candidates)
        for name, n_groups in task.n_groups.items()
    }


def judge_shapes(task: Task, candidates: int) -> Shapes:
    """What a judge's reply must hold: rows by class and group, and those that each candidate gets right."""
    shapes: Shapes = {}
    for name, n_groups in task.n_groups.items():
        shapes[f"total/{name}"] = ((len(task.classes), n_groups), "int64")
        shapes[f"right/{name}"] = ((candidates, len(task.classes), n_groups), "int64")
    return shapes


def shapes_of(arrays: ArrayRecord) -> Shapes:
    """What a reply with a trained model must hold: the same as was sent."""
    return {name: (tuple(array.shape), str(array.dtype)) for name, array in arrays.items()}


def _subspace(projection: Projection) -> dict[str, Tensor]:
    lam = torch.tensor([projection.lam])
    return {"basis": projection.basis, "mu": projection.mu, "lambda": lam}


def _projection(arrays: dict[str, Tensor]) -> Projection | None:
    if "basis" not in arrays:
        return None
    return Projection(arrays["basis"], arrays["mu"], float(arrays["lambda"][0]))


def arrays_of(tensors: dict[str, Tensor]) -> ArrayRecord:
    """Tensors as a Flower record."""
    return ArrayRecord({k: Array(t.detach().cpu().numpy()) for k, t in tensors.items()})


def read_arrays(content: RecordDict | ArrayRecord, key: str | None = None) -> dict[str, Tensor]:
    """The inverse of `arrays_of`, on the CPU."""
    record: Any = content if key is None else content[key]
    return {name: torch.from_numpy(array.numpy().copy()) for name, array in record.items()}


def reply_with(message: Message, arrays: dict[str, Tensor], metrics: Numbers) -> Message:
    """A client's answer: one record of arrays, one of numbers."""
    return Message(
        RecordDict({"arrays": arrays_of(arrays), "metrics": MetricRecord(metrics)}), reply_to=message
    )


def client_number(content: RecordDict) -> Any:
    """The number by which a reply names its client; unchecked."""
    return content.metric_records["metrics"].get("client")


def on_wire(value: float | None) -> float:
    """Undefined is NaN in a message; `fvlfp.fpf.defined` undoes it."""
    return math.nan if value is None else value


def number(record: MetricRecord | ConfigRecord, key: str) -> float:
    """One number of a record.

    Raises:
        TypeError: the entry is no number.
    """
    value = record[key]
    if not isinstance(value, (int, float)):
        raise TypeError(f"{key} is {type(value).__name__}, not a number")
    return value


def payload_bytes(content: RecordDict) -> int:
    """Bytes of all arrays in a message."""
    return sum(len(a.data) for record in content.array_records.values() for a in record.values())
