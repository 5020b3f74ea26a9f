"""Train the small CLIPs of the tasks on CelebA and HAM10000.

    FVLFP_SHARED=DIR python -m benchmarks.small_clips [--only NAME ...]

Each starts from FaceCLIP-64 where tensors fit and learns the words of its data card, on people or lesions
that no client and no test row shows. Weights go to `runs/benchmarks/models` and stay out of the repository;
recipe, seed, sha256 and processor time go to `results/small_clips.json`. A run that is stopped goes on from
its checkpoint; a model whose weights are there with today's recipe is not trained again.

How well each model knows its words is in the zero-shot cells of the grid, not here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import RESULTS
from benchmarks.machine import machine
from benchmarks.sets import convert
from benchmarks.shared import command, shared_folder
from data_prep.contrastive import Checkpoint
from data_prep.table_clip import Recipe, train, write
from fvlfp.data.table import read_table
from fvlfp.files import file_sha256

#: name -> (set, recipe)
RECIPES = {
    "CelebCLIP-64": ("celeba", Recipe(epochs=8)),
    "SkinCLIP-64": ("ham10000", Recipe(epochs=10, decay=0.1, turns=True, balance="malignant")),
    "CelebViT-64": ("celeba", Recipe(tower="vit", epochs=40)),
}
RESULT = RESULTS / "small_clips.json"


def made(name: str, folder: Path) -> dict[str, Any] | None:
    """What is known of a model that is there with today's recipe and unchanged weights; else None."""
    facts, weights = folder / f"{name}.recipe.json", folder / f"{name}.safetensors"
    if not facts.is_file() or not weights.is_file():
        return None
    told: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
    same = told["recipe"] == asdict(RECIPES[name][1]) and told["weights_sha256"] == file_sha256(weights)
    return told if same else None


def make(name: str, work: Path) -> dict[str, Any]:
    """Train one model, or go on with it, and write it."""
    source, recipe = RECIPES[name]
    folder, cpu = work / "models", time.process_time()
    table, _ = convert(source, work)
    start = shared_folder() / "models" / "faceclip64" / "faceclip64_fp16.safetensors"
    data = read_table(table)
    model = train(data, recipe, start=start, checkpoint=Checkpoint(folder / f"{name}.checkpoint"))
    told = {
        "rows": len(data),
        "table_sha256": file_sha256(table),
        "card_sha256": file_sha256(table.with_suffix(".card.toml")),
        "start_sha256": file_sha256(start),
        "processor_minutes": round((time.process_time() - cpu) / 60, 1),
    }
    write(model, recipe, folder, name, told)
    found = made(name, folder)
    assert found is not None
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=RECIPES, action="append")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    for name in args.only or RECIPES:
        found = made(name, args.work / "models") or make(name, args.work)
        known[name] = found | {"cpu": machine()["cpu"]}
        RESULT.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        print(name, found["weights_sha256"], f"{found['processor_minutes']} processor minutes", flush=True)


if __name__ == "__main__":
    sys.exit(command(main))
