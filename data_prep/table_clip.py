"""Train a small CLIP from any table of images, with captions made from its data card.

    python -m data_prep.table_clip TABLE --out DIR --name NAME [--prompts CARD] [--start WEIGHTS] ...

A caption says one label, one group, or both together, in the card's own words and templates, so a model
learns every sentence that prompts, projections and audits will use. Writes NAME.json (open_clip config),
NAME.safetensors (float16) and NAME.recipe.json: every setting, the sha256 of table, card and weights,
processor time and versions. A run that is stopped goes on from its checkpoint to the same bits.

What it does not do: it makes no split. TABLE must hold pretraining rows alone, of people or lesions that no
client and no test row shows.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision import transforms

from data_prep.contrastive import Checkpoint, Schedule, fit, normalise, true_pairs
from fvlfp.data.card import Card, fill_template
from fvlfp.data.table import Dataset, read_table
from fvlfp.errors import InputError
from fvlfp.files import file_sha256

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2}
#: image towers for 64 pixels; each is 128 wide where it meets the text tower
TOWERS: dict[str, dict[str, Any]] = {
    "resnet": {"layers": [1, 1, 2, 1], "width": 24, "image_size": 64, "head_width": 32},
    "vit": {"layers": 4, "width": 128, "head_width": 32, "image_size": 64, "patch_size": 16},
}
PAD = 4  # pixels that a crop may move


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, beside the rows.

    tower: key of `TOWERS`. turns: also quarter turns of the pictures, where up and down mean nothing.
    balance: a label whose classes an epoch shows about equally often.
    """

    tower: str = "resnet"
    epochs: float = 8
    batch: int = 256
    rate: float = 1e-3
    decay: float = 0.05
    warmup: int = 30
    turns: bool = False
    balance: str = ""
    seed: int = 0

    @property
    def config(self) -> dict[str, object]:
        """open_clip's model config."""
        return {
            "embed_dim": 128,
            "quick_gelu": False,
            "vision_cfg": TOWERS[self.tower],
            "text_cfg": TEXT,
        }


def caption(card: Card, row: dict[str, str], rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """A sentence about one image, and the facts that it states: a label, a group, or one of each.

    row: column -> value, of at least one label or attribute of the card.
    """
    labels = [c for c in card.classes if c in row]
    groups = [c for c in card.groups if c in row]
    label = str(rng.choice(labels)) if labels and (not groups or rng.random() < 0.8) else ""
    group = str(rng.choice(groups)) if groups and (not label or rng.random() < 0.4) else ""
    facts = {c: row[c] for c in (label, group) if c}
    phrase = card.classes[label][row[label]] if label else ""
    if group:
        attribute = card.groups[group]
        word = str(rng.choice(attribute.words[row[group]]))
        say_group = attribute.with_label if label else attribute.phrase
        phrase = say_group.format(word=word, label=phrase) if label else say_group.format(word=word)
    return fill_template(str(rng.choice(card.templates)), phrase), facts


def pixels_of(images: Sequence[Image.Image], size: int) -> np.ndarray:
    """uint8 (n, size, size, 3): the shorter side resized, the middle kept, as open_clip's own transform."""
    keep = transforms.Compose(
        [transforms.Resize(size, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size)]
    )
    return np.stack([np.asarray(keep(image)) for image in images])


def jitter(pixels: np.ndarray, rng: np.random.Generator, *, turns: bool) -> np.ndarray:
    """(n, h, w, 3): each picture moved by up to `PAD`, mirrored every second time, perhaps turned."""
    n, size = len(pixels), pixels.shape[1]
    padded = np.pad(pixels, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)), mode="edge")
    moves, mirror, quarter = rng.integers(0, 2 * PAD + 1, (n, 2)), rng.random(n) < 0.5, rng.integers(0, 4, n)
    out = np.empty_like(pixels)
    for i, (y, x) in enumerate(moves):
        one = padded[i, y : y + size, x : x + size]
        one = one[:, ::-1] if mirror[i] else one
        out[i] = np.rot90(one, quarter[i]) if turns else one
    return out


def epoch_rows(frame_column: np.ndarray | None, n: int) -> np.ndarray:
    """(m,) rows of one epoch: each once, or as often as makes the classes of a label about equal."""
    if frame_column is None:
        return np.arange(n)
    classes, code, counts = np.unique(frame_column, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"every row has {classes[0]!r}: there is nothing to balance")
    return np.repeat(np.arange(n), np.round(counts.max() / counts).astype(int)[code])


def start_from(model: torch.nn.Module, weights: Path) -> list[str]:
    """Take every tensor of the same name and shape; returns the names taken.

    Raises:
        InputError: not one fits.
    """
    own, other = model.state_dict(), load_file(weights)
    fits = {k: v.to(own[k].dtype) for k, v in other.items() if k in own and v.shape == own[k].shape}
    if not fits:
        raise InputError(f"{weights} has no tensor that fits this model")
    model.load_state_dict(own | fits)
    return sorted(fits)


def train(
    data: Dataset, recipe: Recipe, *, start: Path | None = None, checkpoint: Checkpoint | None = None
) -> torch.nn.Module:
    """A model of `recipe` in eval mode, trained on all rows of `data`.

    Raises:
        InputError: an unknown tower or label to balance, or a batch larger than the table.
    """
    if recipe.tower not in TOWERS:
        raise InputError(f"tower {recipe.tower!r} is not one of {', '.join(TOWERS)}")
    if recipe.batch > len(data):
        raise InputError(f"batch = {recipe.batch}, but the table has {len(data)} rows")
    if recipe.balance and recipe.balance not in data.card.classes:
        raise InputError(f"balance: {recipe.balance!r} is not a label of the data card")
    torch.manual_seed(recipe.seed)
    model = open_clip.CLIP(**recipe.config)
    if recipe.tower == "resnet":
        model.visual.to(memory_format=torch.channels_last)  # a third faster on a CPU
    if start:
        start_from(model, start)
    rows = data.frame.to_dict("records")
    columns = [c for c in (*data.card.classes, *data.card.groups) if c in data.frame]
    words: dict[str, Iterable[str]] = {
        **data.card.classes,
        **{a: at.words for a, at in data.card.groups.items()},
    }
    place = {c: {value: i for i, value in enumerate(words[c])} for c in columns}
    facts = torch.tensor([[place[c][r[c]] for c in columns] for r in rows])
    pixels = pixels_of(data.images, TOWERS[recipe.tower]["image_size"])
    rng = np.random.default_rng(recipe.seed)

    def make_batch(pick: np.ndarray) -> tuple[torch.Tensor, list[str], torch.Tensor]:
        said = [caption(data.card, {c: rows[i][c] for c in columns}, rng) for i in pick]
        stated = torch.tensor([[place[c][s[c]] if c in s else -1 for c in columns] for _, s in said])
        seen = normalise(jitter(pixels[pick], rng, turns=recipe.turns))
        return seen, [text for text, _ in said], true_pairs(facts[pick], stated)

    balance = data.frame[recipe.balance].to_numpy() if recipe.balance else None
    schedule = Schedule(recipe.epochs, recipe.batch, recipe.rate, recipe.decay, recipe.warmup)
    return fit(model, epoch_rows(balance, len(data)), make_batch, schedule, rng, checkpoint=checkpoint)


def write(model: torch.nn.Module, recipe: Recipe, out: Path, name: str, told: dict[str, object]) -> Path:
    """Config, weights and recipe under `out`; returns the weights' file."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(recipe.config, indent=1) + "\n", encoding="utf-8")
    weights = out / f"{name}.safetensors"
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, weights)
    facts = {
        "name": name,
        "weights_sha256": file_sha256(weights),
        "numbers": sum(v.numel() for v in state.values()),
        "recipe": asdict(recipe),
        **told,
        "versions": {"torch": torch.__version__, "open_clip": open_clip.__version__, "numpy": np.__version__},
    }
    (out / f"{name}.recipe.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return weights


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="pretraining rows: a table as fvlfp reads it")
    parser.add_argument("--prompts", type=Path, help="the data card; default: beside the table")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", required=True, help="of the model and its files")
    parser.add_argument("--start", type=Path, help="weights (safetensors) to take what fits from")
    for name, default in asdict(Recipe()).items():
        kind = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        parser.add_argument(f"--{name}", **kind)
    args = parser.parse_args(arguments)
    recipe = Recipe(**{name: getattr(args, name) for name in asdict(Recipe())})
    torch.set_num_threads(1)  # the result does not depend on the number of cores
    cpu = time.process_time()
    try:
        data = read_table(args.table, prompts=args.prompts)
        card = args.prompts or args.table.with_suffix(".card.toml")
        checkpoint = Checkpoint(args.out / f"{args.name}.checkpoint")
        model = train(data, recipe, start=args.start, checkpoint=checkpoint)
    except InputError as e:
        print(e, file=sys.stderr)
        return 2
    told = {
        "rows": len(data),
        "table_sha256": file_sha256(args.table),
        "card_sha256": file_sha256(card),
        "start_sha256": file_sha256(args.start) if args.start else "",
        "processor_minutes": round((time.process_time() - cpu) / 60, 1),
    }
    print(write(model, recipe, args.out, args.name, told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
