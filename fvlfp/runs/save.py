"""A finished run on disk: prompts and projection as safetensors, everything else as JSON in the header.

Two equal runs write equal bytes: wall time stays out.

What this module does not do: it is no checkpoint; a run goes on from `fvlfp.federation.checkpoint`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.errors import InputError
from fvlfp.federation.checkpoint import write_atomically
from fvlfp.runs.train import Trained


def write_result(folder: Path, trained: Trained, provenance: dict[str, Any]) -> Path:
    """Write `folder/prompts.safetensors`; returns its path."""
    facts = {
        "config": trained.cfg.to_dict(),
        "provenance": provenance,
        "lambda": trained.projection.lam,
        "history": trained.history,
        "candidates": trained.candidates,
    }
    tensors = {
        "prompts": trained.prompts.cpu().contiguous(),
        "basis": trained.projection.basis.cpu().contiguous(),
        "mu": trained.projection.mu.cpu().contiguous(),
        **({} if trained.vision is None else {"vision": trained.vision.cpu().contiguous()}),
        **({} if trained.after is None else trained.after.tensors()),
    }
    folder.mkdir(parents=True, exist_ok=True)  # where nothing was sent there are no checkpoints
    path = folder / "prompts.safetensors"
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
            tensors = {key: file.get_tensor(key) for key in ("prompts", "basis", "mu")}
            vision = file.get_tensor("vision") if "vision" in file.keys() else None  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no finished run: {error}") from None
    return Trained(
        cfg=Config.make(**facts["config"]),
        prompts=tensors["prompts"],
        projection=Projection(tensors["basis"], tensors["mu"], facts["lambda"]),
        history=facts["history"],
        candidates=facts["candidates"],
        seconds=math.nan,
        vision=vision,
    )
