"""A finished run on disk: prompts and projection as safetensors, everything else as JSON in the header.

Two equal runs write equal bytes: wall time stays out.

What this module does not do: it is no checkpoint; a run goes on from `fvlfp.federation.checkpoint`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.errors import InputError
from fvlfp.files import write_atomically
from fvlfp.runs.train import Trained
from fvlfp.training.model import model_of
from fvlfp.training.reports import RoundReport
from fvlfp.training.select import Candidate


def write_result(folder: Path, trained: Trained, provenance: dict[str, Any]) -> Path:
    """Write `folder/prompts.safetensors`; returns its path."""
    facts = {
        "config": trained.cfg.to_dict(),
        "provenance": provenance,
        "lambda": trained.projection.lam,
        "history": [asdict(report) for report in trained.history],
        "candidates": [candidate.to_dict() for candidate in trained.candidates],
    }
    tensors = {
        **trained.model.tensors(),
        "basis": trained.projection.basis,
        "mu": trained.projection.mu,
        **({} if trained.posthoc is None else trained.posthoc.tensors()),
    }
    folder.mkdir(parents=True, exist_ok=True)  # where nothing was sent there are no checkpoints
    path = folder / "prompts.safetensors"
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(tensors, metadata={"facts": json.dumps(facts)}))
    return path


def read_result(path: Path) -> Trained:
    """The inverse of `write_result`.

    Raises:
        InputError: no such file, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            model = model_of(tensors)
            projection = Projection(tensors["basis"], tensors["mu"], facts["lambda"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no finished run: {error}") from None
    return Trained(
        cfg=Config.make(**facts["config"]),
        model=model,
        projection=projection,
        history=[RoundReport(**row) for row in facts["history"]],
        candidates=[Candidate.from_dict(row) for row in facts["candidates"]],
        seconds=math.nan,
    )
