"""The server's state after every round, on disk: prompts, subspace, fusion means, history.

One safetensors file a round, the rest of the state as JSON in its header, and a sha256 beside it. A
file is written beside its place and renamed, so that a kill at any moment leaves the previous one whole;
a damaged file is noticed and the one before it is used.

What this module does not do: it holds no client's data and no optimiser state (clients start Adam anew
in every round, as FedAvg has it).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load, save
from torch import Tensor

from fvlfp.dsop import Projection
from fvlfp.errors import InputError, RunStopped
from fvlfp.federation.trust import Roll
from fvlfp.files import sha256, write_atomically
from fvlfp.training.model import Model, Prompts, model_of
from fvlfp.training.reports import RoundReport
from fvlfp.training.select import Candidate

log = logging.getLogger("fvlfp")


class Means(NamedTuple):
    """The last round's mean performance and gap over the clients, None where undefined."""

    perf: float | None = None
    disp: float | None = None


@dataclass
class ServerState:
    """What the server carries from round to round.

    model: the global one. projection: of full rank until rank and lambda are chosen. directions: attribute ->
    CDFP's D (G, d). round: rounds done. candidates: what was tried on validation data. means: the last
    round's. weights: client -> its last weight. best: the model of the round that was best on validation,
    where the run wants to end with it. class_means: (C, d) of the clients' features, known until the
    projection is chosen. roll: who is which client, known to this process alone.
    """

    model: Model
    projection: Projection
    directions: dict[str, Tensor] = field(default_factory=dict)
    round: int = 0
    history: list[RoundReport] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    means: Means = field(default_factory=Means)
    weights: dict[int, float] = field(default_factory=dict)
    best: Model | None = None
    class_means: Tensor | None = None
    roll: Roll = field(default_factory=Roll)

    @property
    def prompts(self) -> Tensor:
        """P (L, n_ctx, width).

        Raises:
            InputError: the run trains an adapter.
        """
        if not isinstance(self.model, Prompts):
            raise InputError("this run trains an adapter: it has no prompts")
        return self.model.text

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        directions = {f"directions/{name}": tensor for name, tensor in self.directions.items()}
        best = {} if self.best is None else self.best.tensors()
        return {
            **self.model.tensors(),
            **{f"best/{name}": tensor.clone() for name, tensor in best.items()},
            "basis": self.projection.basis,
            "mu": self.projection.mu,
            **directions,
        }

    def facts(self) -> dict[str, object]:
        """All else, as JSON types."""
        return {
            "round": self.round,
            "history": [asdict(report) for report in self.history],
            "lambda": self.projection.lam,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "means": list(self.means),
            "weights": self.weights,
        }

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> ServerState:
        """The inverse of `tensors` and `facts`."""
        best = {k.removeprefix("best/"): t for k, t in tensors.items() if k.startswith("best/")}
        return cls(
            model_of(tensors),
            Projection(tensors["basis"], tensors["mu"], facts["lambda"]),
            {k.removeprefix("directions/"): t for k, t in tensors.items() if k.startswith("directions/")},
            facts["round"],
            [RoundReport(**row) for row in facts["history"]],
            [Candidate.from_dict(row) for row in facts["candidates"]],
            Means(*facts["means"]),
            {int(client): weight for client, weight in facts["weights"].items()},
            model_of(best) if best else None,
        )


class Checkpoints:
    """The checkpoints of one run, in one folder. `keep` newest ones stay."""

    def __init__(self, folder: Path, digest: str, *, keep: int = 2) -> None:
        self.folder, self.digest, self.keep = folder, digest, keep

    def save(self, state: ServerState) -> None:
        """Write the state after its last round, and drop files older than the `keep` newest.

        Raises:
            RunStopped: there is no room, or the folder cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = {**state.facts(), "digest": self.digest}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in state.tensors().items()}
        body = save(tensors, metadata={"facts": json.dumps(facts)})
        path = self._path(state.round)
        try:
            write_atomically(path, body)
            write_atomically(_sum_of(path), sha256(body).encode())
        except OSError as error:
            raise RunStopped(
                f"cannot save round {state.round} to {self.folder}: {error.strerror}; the checkpoints before "
                "it are whole: make room and resume"
            ) from error
        for old in self._all()[: -self.keep]:
            old.unlink(missing_ok=True)
            _sum_of(old).unlink(missing_ok=True)

    def load(self) -> ServerState | None:
        """The newest whole checkpoint, or None where there is none.

        Raises:
            InputError: it belongs to a run with another config, model or data.
        """
        for path in reversed(self._all()):
            try:
                body = path.read_bytes()
                if sha256(body) != _sum_of(path).read_text():
                    raise ValueError("its sha256 does not match")
                facts = json.loads(_header(body)["__metadata__"]["facts"])
                tensors = load(body)
            except (OSError, ValueError, KeyError) as error:
                log.warning("checkpoint %s is damaged (%s); using the one before it", path, error)
                continue
            if facts["digest"] != self.digest:
                raise InputError(
                    f"{self.folder} holds a run with another config, model or data: choose another --out, "
                    "or resume with what started it"
                )
            return ServerState.restore(tensors, facts)
        return None

    def _path(self, round_: int) -> Path:
        return self.folder / f"round-{round_:06d}.safetensors"

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("round-*.safetensors"))


def _sum_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _header(body: bytes) -> Mapping[str, Any]:
    size = int.from_bytes(body[:8], "little")
    return dict(json.loads(body[8 : 8 + size]))
