"""What a curious server could have of single images: each attack before and after its remedy.

    python -m benchmarks.attacks

Built-in data, lesson profile, seed 0, minutes of one core at most. "Before" counts as fvlfp 0.1.0 did: small
cells left out of their own table only, noise that follows from the run's seed, splits of a server's choice;
for membership, with no cell held back. Writes `benchmarks/results/attacks.md`.

What this module does not do: it attacks no training. Prompts and their updates are what differential privacy
is for (`private.md`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks import RESULTS
from benchmarks.machine import code_state, machine, named
from fvlfp import dsop
from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.federation.privacy import add_noise, noise_std
from fvlfp.runs.ledger import Ledger, OwnLimits, split_of
from fvlfp.runs.train import Prepared, prepare
from fvlfp.training.examples import Split
from fvlfp.training.reports import client_moments

#: rows of the page: attack, before, after, tries
Row = tuple[str, str, str, int]


def cosine(found: Tensor, secret: Tensor) -> float:
    """Of two directions; 0 where nothing was found (float32 sums of some thousand rows differ by 1e-4)."""
    if float(found.norm()) < 1e-2:
        return 0.0
    return float(torch.cosine_similarity(found.ravel(), secret.ravel(), dim=0))


def subtraction(prepared: Prepared, cfg: Config) -> Row:
    """One honest message with two tables of the same rows: the class total less the kept cells."""
    before, after = [], []
    (name,) = prepared.task.groups
    for client in prepared.clients:
        data, found = client.train, client_moments(client.train, prepared.task, cfg, None)
        onehot = F.one_hot(data.g[name], len(prepared.task.groups[name]))
        sums, counts = dsop.moments(data.z, data.y, onehot, len(prepared.task.classes))
        for c, g in ((counts > 0) & (counts < cfg.min_cell)).nonzero().tolist():
            kept = sums[c, counts[c] >= cfg.min_cell].sum(0)
            before.append(cosine(sums[c].sum(0) - kept, sums[c, counts[c] < cfg.min_cell].sum(0)))
            told, other = (found[f"{kind}/{name}"][0][c].sum(0) for kind in ("prompted", "image"))
            after.append(cosine(told - other, sums[c, g]))
    return (
        "cells under `min_cell`, by subtracting two tables of one message",
        worst(before),
        worst(after),
        len(before),
    )


def two_splits(prepared: Prepared, cfg: Config) -> Row:
    """`val_fraction` 0.2, then 0.2 + 1/n: the difference of the sums is one embedding."""
    before, refused = [], 0
    for client in prepared.clients:
        data, n = client.train, len(client.train) + len(client.val)
        everything, less = (
            client_moments(part, prepared.task, cfg.replace(min_cell=0), None)
            for part in (data, data.take(np.arange(1, len(data))))
        )
        (key,) = [key for key in everything if key.startswith("prompted/")]
        before.append(cosine((everything[key][0] - less[key][0]).sum((0, 1)), data.z[0]))
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "faces.csv"
            table.write_text("path,smiling\n" + "a.png,yes\n" * n)
            ledger = Ledger(Path(folder) / "answers.json", OwnLimits())
            ledger.admit(split_of(table, client.client, cfg))
            try:
                ledger.admit(split_of(table, client.client, cfg.replace(val_fraction=0.2 + 1 / n)))
            except InputError:
                refused += 1
    return (
        "one image, by two runs whose splits differ by it",
        worst(before),
        f"refused {refused} times",
        len(before),
    )


def repeated_noise(prepared: Prepared, seeds: int = 20) -> Row:
    """Two private runs that differ in one client's update: subtract what they release."""
    before, after = [], []
    for seed in range(seeds):
        drawn = torch.Generator().manual_seed(seed)
        updates = torch.randn(10, *prepared.task.initial.shape, generator=drawn)
        std = noise_std([1.0] * 10, clip=float(updates[0].norm()), multiplier=1.0)
        noise = std * torch.randn(updates[0].shape, generator=torch.Generator().manual_seed(seed))
        full, without = updates.mean(0), updates[1:].sum(0) / 10
        before.append(cosine((full + noise) - (without + noise), updates[0]))
        released = add_noise(full, std, name="noise/round/1") - add_noise(without, std, name="noise/round/1")
        after.append(cosine(released, updates[0]))
    return "one client's update, by two private runs with one seed", worst(before), worst(after), seeds


def membership(prepared: Prepared, cfg: Config) -> Row:
    """Was this image among a client's training rows, or held back? Both kinds come from the same client."""
    (name,) = prepared.task.groups
    classes, groups = len(prepared.task.classes), len(prepared.task.groups[name])
    truth: list[int] = []
    scores: dict[str, list[float]] = {"before": [], "after": []}
    for client in prepared.clients:
        data = client.train
        onehot = F.one_hot(data.g[name], groups)
        tables = {
            "before": dsop.moments(data.z, data.y, onehot, classes),
            "after": client_moments(data, prepared.task, cfg, None)[f"image/{name}"],
        }
        for split, member in ((client.train, 1), (client.val, 0)):
            truth += [member] * len(split)
            for when, table in tables.items():
                scores[when] += nearness(split, *table, split.g[name])
    before, after = (f"AUC {roc_auc_score(truth, scores[when]):.3f}" for when in ("before", "after"))
    what = "membership of an image, from moments by label; before: no cell held back (0.5 is chance)"
    return what, before, after, len(truth)


def nearness(split: Split, sums: Tensor, counts: Tensor, g: Tensor) -> list[float]:
    """Each row's product with the mean of its class and group; with its class's mean where no cell came."""
    by_class = sums.sum(1) / counts.sum(1).clamp_min(1)[:, None]
    means = torch.where(counts[..., None] > 0, sums / counts.clamp_min(1)[..., None], by_class[:, None])
    return [float(x) for x in (split.z * means[split.y, g]).sum(1)]


def worst(values: list[float]) -> str:
    """The largest cosine, in absolute value."""
    return f"cosine {max(map(abs, values)):.4f}" if values else "no such cell"


def rows() -> Iterator[Row]:
    """Every attack."""
    prepared = prepare(Config.make("lesson", seed=0, device="cpu"))
    labels = Config.make("lesson", "fvlfp-labels", seed=0, device="cpu")
    yield subtraction(prepared, labels)
    yield two_splits(prepared, labels.with_method("fvlfp"))
    yield repeated_noise(prepared)
    yield membership(prepared, labels)


def main() -> None:
    """Attack, write the page."""
    found = list(rows())
    lines = [
        "# Attacks on single images",
        "",
        "Written by `python -m benchmarks.attacks`; do not edit. Built-in data, lesson profile, seed 0. The "
        "largest cosine between what an attack recovers and the secret, over all tries. Before: the same "
        "attack, measured in the same run, against sums and noise without the remedy, as fvlfp 0.1.0 had "
        "them. Not protected: a count of 1 in a validation table's split by prediction; two data "
        "sets of the same people in two folders; whatever updates tell without differential privacy "
        "(`private.md`).",
        "",
        f"Machine: {named(machine())}. Code: {code_state()}.",
        "",
        "| what is recovered, how | before | after | tries |",
        "|---|---|---|--:|",
        *(f"| {what} | {before} | {after} | {tries:,} |" for what, before, after, tries in found),
    ]
    (RESULTS / "attacks.md").write_text("\n".join(lines) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
