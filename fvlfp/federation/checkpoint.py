"""The server's state after every round, on disk: prompts, subspace, fusion means, history.

One safetensors file a round, the rest of the state as JSON in its header, and a sha256 beside it. A
file is written beside its place and renamed, so that a kill at any moment leaves the previous one whole;
a damaged file is noticed and the one before it is used.

What this module does not do: it holds no client's data and no optimiser state (clients start Adam anew
in every round, as FedAvg has it).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from fvlfp.errors import InputError, RunStopped

log = logging.getLogger("fvlfp")


@dataclass
class State:
    """tensors: `prompts`, and where used `vision`, `basis`, `mu`, `directions/<attribute>`; facts: JSON."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> dict[str, Tensor]:
        """What clients train and send: `prompts`, and `vision` where the image tower is prompted."""
        return {name: self.tensors[name] for name in ("prompts", "vision") if name in self.tensors}


class Checkpoints:
    """The checkpoints of one run, in one folder. `keep` newest ones stay."""

    def __init__(self, folder: Path, digest: str, *, keep: int = 2) -> None:
        self.folder, self.digest, self.keep = folder, digest, keep

    def save(self, round_: int, state: State) -> None:
        """Write round `round_` and drop files older than the `keep` newest.

        Raises:
            RunStopped: there is no room, or the folder cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = {**state.facts, "round": round_, "digest": self.digest}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in state.tensors.items()}
        body = save(tensors, metadata={"facts": json.dumps(facts)})
        path = self._path(round_)
        try:
            write_atomically(path, body)
            write_atomically(_sum_of(path), hashlib.sha256(body).hexdigest().encode())
        except OSError as error:
            raise RunStopped(
                f"cannot save round {round_} to {self.folder}: {error.strerror}; the checkpoints before it "
                "are whole: make room and resume"
            ) from error
        for old in self._all()[: -self.keep]:
            old.unlink(missing_ok=True)
            _sum_of(old).unlink(missing_ok=True)

    def load(self) -> State | None:
        """The newest whole checkpoint, or None where there is none.

        Raises:
            InputError: it belongs to a run with another config, model or data.
        """
        for path in reversed(self._all()):
            try:
                body = path.read_bytes()
                if hashlib.sha256(body).hexdigest() != _sum_of(path).read_text():
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
            return State(tensors, facts)
        return None

    def _path(self, round_: int) -> Path:
        return self.folder / f"round-{round_:06d}.safetensors"

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("round-*.safetensors"))


def write_atomically(path: Path, body: bytes) -> None:
    """Write beside `path`, flush to disk, rename: readers see the old file or the new one, never a half."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _sum_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _header(body: bytes) -> dict[str, Any]:
    size = int.from_bytes(body[:8], "little")
    return dict(json.loads(body[8 : 8 + size]))
