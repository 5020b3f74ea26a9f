"""How long a grid with some model takes, and how much memory, measured before it starts.

One batch of images and one step of prompt training are timed; the rest is multiplication. What this module
does not do: it knows no post-hoc method and no vision prompts, so it is a guess of size, not a promise.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.grid import TASKS, Sources, config_of
from fvlfp.clip.encoder import Encoder
from fvlfp.config import Config
from fvlfp.data.card import Card

BATCH = 16  # images timed at once


@dataclass(frozen=True)
class Estimate:
    """images: to encode once. steps: of one run. Seconds are of one image and of one step."""

    images: int
    image_seconds: float
    steps: int
    step_seconds: float
    cells: int
    peak_gb: float

    def describe(self) -> str:
        """A sentence for each of the three."""
        encode, cell = self.images * self.image_seconds, self.steps * self.step_seconds
        return (
            f"encoding {self.images:,} images once, {self.image_seconds:.3f} s each: about "
            f"{encode / 60:.0f} min\n"
            f"{self.cells} cells, each about {self.steps:,} steps of {self.step_seconds:.3f} s: about "
            f"{cell / 60:.1f} min a cell, {self.cells * cell / 3600:.1f} h in all\n"
            f"memory so far: {self.peak_gb:.1f} GB; a run needs little more"
        )


def estimate(sources: Sources, tasks: Iterable[str], cells: int, **settings: Any) -> Estimate:
    """Measure with the first task's model and words; `settings` as in `config_of`."""
    names = list(tasks)
    encoder, seen, rows = sources.encoder(names[0]), {}, []
    for task in names:
        cfg = config_of(task, "fedavg", 0, **settings)
        dataset = sources.dataset(task, cfg)
        seen[TASKS[task].source] = len(dataset)
        rows.append(int((dataset.frame["split"] != "test").sum()))
    first = config_of(names[0], "fedavg", 0, **settings)
    steps = round(first.rounds * first.local_epochs * float(np.mean(rows)) / first.batch)
    image = time_images(encoder)
    step = time_step(encoder, sources.dataset(names[0], first).card, first)
    return Estimate(sum(seen.values()), image, steps, step, cells, peak_gb(encoder))


def time_images(encoder: Encoder) -> float:
    """Seconds an image, of a batch after a first one."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (224, 224, 3), dtype=np.uint8)) for _ in range(BATCH)]
    encoder.encode_images(images[:2])
    started = time.perf_counter()
    encoder.encode_images(images)
    return (time.perf_counter() - started) / BATCH


def time_step(encoder: Encoder, card: Card, cfg: Config) -> float:
    """Seconds of one pass forward and back through all sentences that a loss may need."""
    pairs = card.pair_text(cfg.label, cfg.groups[0])
    texts = [*card.class_texts(cfg.label), *(t for said in pairs.values() for t in said)]
    tokens = encoder.text.tokenize(texts, cfg.n_ctx)
    depth = min(cfg.depth, len(encoder.text.blocks))
    prompts = torch.zeros(depth, cfg.n_ctx, encoder.text.width, device=encoder.device, requires_grad=True)
    for _ in range(2):
        started = time.perf_counter()
        encoder.text.encode(tokens, prompts).square().sum().backward()
        if encoder.device.type == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_gb(encoder: Encoder) -> float:
    """Largest memory of this process so far, on the GPU where the model is there."""
    if encoder.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
