"""A finished run on disk: prompts and projection as safetensors, everything else as JSON in the header.

Two equal runs write equal bytes: wall time stays out.

What this module does not do: it is no checkpoint; a run goes on from `fvlfp.federation.checkpoint`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fvlfp.baselines.posthoc import PostHoc
from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.errors import InputError
from fvlfp.files import write_atomically
from fvlfp.runs.train import Trained
from fvlfp.training.model import ClientPrompts, model_of
from fvlfp.training.reports import RoundReport
from fvlfp.training.select import Candidate

#: The file of a finished run, and the data card beside it or one folder up.
RESULT = "prompts.safetensors"
WORDS = "words.toml"


def write_result(folder: Path, trained: Trained, provenance: Mapping[str, Any]) -> Path:
    """Write `folder/prompts.safetensors`; returns its path."""
    facts = {
        "config": trained.cfg.to_dict(),
        "provenance": provenance,
        "lambda": trained.projection.lam,
        "history": [asdict(report) for report in trained.history],
        "candidates": [candidate.to_dict() for candidate in trained.candidates],
        "posthoc": None if trained.posthoc is None else trained.posthoc.facts(),
        "sizes": trained.model.sizes if isinstance(trained.model, ClientPrompts) else None,
    }
    tensors = {
        **trained.model.tensors(),
        "basis": trained.projection.basis,
        "mu": trained.projection.mu,
        **({} if trained.posthoc is None else trained.posthoc.tensors()),
    }
    folder.mkdir(parents=True, exist_ok=True)  # where nothing was sent there are no checkpoints
    path = folder / RESULT
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(tensors, metadata={"facts": json.dumps(facts)}))
    return path


def read_result(path: Path) -> Trained:
    """The inverse of `write_result`.

    Raises:
        InputError: no such file, or not one of ours.
    """
    tensors, facts = _open(path)
    try:
        one = facts["sizes"] is None
        model = model_of(tensors) if one else ClientPrompts(tensors["prompts"], tuple(facts["sizes"]))
        posthoc = None if facts["posthoc"] is None else PostHoc.restore(tensors, facts["posthoc"])
        return Trained(
            cfg=Config.make(**facts["config"]),
            model=model,
            projection=Projection(tensors["basis"], tensors["mu"], facts["lambda"]),
            history=[RoundReport(**row) for row in facts["history"]],
            candidates=[Candidate.from_dict(row) for row in facts["candidates"]],
            seconds=math.nan,
            posthoc=posthoc,
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is a run of another version of fvlfp: {error} is missing or new") from None


def read_provenance(path: Path) -> Mapping[str, Any]:
    """What `write_result` was told about model and data.

    Raises:
        InputError: no such file, or not one of ours.
    """
    return dict(_open(path)[1]["provenance"])


def _open(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no finished run: {error}") from None
