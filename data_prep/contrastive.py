"""Train a small open_clip model with a contrastive loss: the loop that every small model here shares.

Many captions coincide or are true of several images, so every true pair counts as a positive. A run can be
stopped at any time: with a checkpoint it goes on to the same bits.

What this module does not do: it knows no data set and writes no caption, see `tiny_clip` and `table_clip`.
"""

import io
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

#: picks of one batch (b,) -> pixels (b, 3, h, w), b captions, and which caption j is true of image i (b, b)
MakeBatch = Callable[[np.ndarray], tuple[torch.Tensor, list[str], torch.Tensor]]


@dataclass(frozen=True)
class Schedule:
    """AdamW, a warm-up in steps, then a cosine to 0. decay: weight decay of matrices only."""

    epochs: float
    batch: int
    rate: float
    decay: float = 0.05
    warmup: int = 100


class Checkpoint:
    """Everything a run needs to go on, in one file that is there wholly or not at all.

    every: seconds between two writings.
    """

    def __init__(self, path: Path, *, every: float = 60) -> None:
        self.path, self.every, self._last = path, every, time.time()

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.time() - self._last >= self.every

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file."""
        part = self.path.with_suffix(f".{os.getpid()}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, part)
        part.replace(self.path)
        self._last = time.time()

    def read(self) -> dict[str, Any] | None:
        """What was written, or None where nothing was. The file can hold no code."""
        if not self.path.is_file():
            return None
        return torch.load(io.BytesIO(self.path.read_bytes()), weights_only=True)


def encode_text(model: open_clip.CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """As the model's own encode_text, without the padding behind the longest text (causal mask)."""
    length = int(tokens.argmax(dim=-1).max()) + 1
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection


def normalise(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w), as open_clip's own transform where no resizing is needed."""
    mean, std = (torch.tensor(v) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    # astype copies: torch warns of an array that is mapped from a cache and cannot be written
    return ((torch.from_numpy(pixels.astype(np.float32)) / 255 - mean) / std).permute(0, 3, 1, 2)


def contrastive(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Cross-entropy against equal shares for all true pairs of each row; true: bool, as logits."""
    share = true / true.sum(dim=1, keepdim=True)
    return -(share * logits.log_softmax(dim=1)).sum(dim=1).mean()


def true_pairs(facts: torch.Tensor, stated: torch.Tensor) -> torch.Tensor:
    """(n, m) bool: whether caption j is true of image i.

    facts: (n, k) codes of each image's facts; stated: (m, k) codes, -1 where the caption says nothing.
    """
    return ((stated[None] == facts[:, None]) | (stated[None] == -1)).all(dim=-1)


def fit(
    model: open_clip.CLIP,
    rows: np.ndarray,
    make_batch: MakeBatch,
    schedule: Schedule,
    rng: np.random.Generator,
    *,
    checkpoint: Checkpoint | None = None,
) -> torch.nn.Module:
    """Train `model` in place; returns it in eval mode.

    rows: (n,) what an epoch goes through; a row may stand there several times. rng: draws the order, and
        whatever `make_batch` draws from the same generator; its state is part of a checkpoint.
    """
    tokenizer = open_clip.SimpleTokenizer(context_length=77)
    known: dict[str, torch.Tensor] = {}
    optimizer = _optimizer(model, schedule)
    steps = int(schedule.epochs * len(rows) / schedule.batch)
    slope = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1, (s + 1) / schedule.warmup) * (0.5 + 0.5 * math.cos(math.pi * s / steps))
    )
    begin, order = 0, np.empty(0, dtype=int)
    if checkpoint and (saved := checkpoint.read()):
        begin, order = _restore(saved, model, optimizer, slope, rng)
        print(f"going on at step {begin}", flush=True)
    start, cpu = time.time(), time.process_time()
    model.train()
    for step in range(begin, steps):
        if len(order) < schedule.batch:
            order = np.concatenate([order, rng.permutation(rows)])
        pick, order = order[: schedule.batch], order[schedule.batch :]
        pixels, said, true = make_batch(pick)
        for text in said:
            if text not in known:
                known[text] = tokenizer([text])[0]
        z = torch.nn.functional.normalize(model.encode_image(pixels), dim=-1)
        t = encode_text(model, torch.stack([known[text] for text in said]))
        logits = model.logit_scale.exp() * z @ torch.nn.functional.normalize(t, dim=-1).T
        loss = (contrastive(logits, true) + contrastive(logits.T, true.T)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slope.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 100 == 0 or step == steps - 1:
            took = f"{time.time() - start:.0f} s, {time.process_time() - cpu:.0f} s of processor time"
            print(f"step {step}/{steps} loss {loss.item():.3f} {took}", flush=True)
        if checkpoint and (checkpoint.due() or step == steps - 1):
            checkpoint.write(_state(step + 1, order, model, optimizer, slope, rng))
    return model.eval()


def _optimizer(model: torch.nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decay, "weight_decay": schedule.decay}, {"params": plain, "weight_decay": 0.0}],
        lr=schedule.rate, betas=(0.9, 0.98),
    )  # fmt: skip


def _state(
    step: int,
    order: np.ndarray,
    model: open_clip.CLIP,
    optimizer: torch.optim.Optimizer,
    slope: torch.optim.lr_scheduler.LRScheduler,
    rng: np.random.Generator,
) -> dict[str, Any]:
    return {
        "step": step,
        "order": torch.from_numpy(order.astype(np.int64)),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "slope": slope.state_dict(),
        "rng": json.dumps(rng.bit_generator.state),  # numbers of 128 bits
        "torch_rng": torch.get_rng_state(),
    }


def _restore(
    saved: dict[str, Any],
    model: open_clip.CLIP,
    optimizer: torch.optim.Optimizer,
    slope: torch.optim.lr_scheduler.LRScheduler,
    rng: np.random.Generator,
) -> tuple[int, np.ndarray]:
    for part, name in ((model, "model"), (optimizer, "optimizer"), (slope, "slope")):
        part.load_state_dict(saved[name])
    rng.bit_generator.state = json.loads(saved["rng"])
    torch.set_rng_state(saved["torch_rng"])
    return saved["step"], saved["order"].numpy()
