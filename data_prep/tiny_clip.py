"""Train the built-in model ToyCLIP-64 from scratch on captions of toy faces.

    python -m data_prep.tiny_clip                     # writes fvlfp/clip/toyclip/

It draws its own faces (from a seed that no lesson uses), writes captions that state some of each
face's properties, and trains a plain open_clip model with a contrastive loss. Many captions
coincide or are true of several faces, so every true pair counts as a positive. Like captions found
on the web, the training set is biased on purpose: round beings smile more often than square ones,
and square ones are harder to see. The zero-shot disparity this causes is measured on another set
of faces, whose test split is unbiased, and written to README.md beside the model.
"""

import argparse
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file

from data_prep.contrastive import Schedule, fit, normalise, true_pairs
from fvlfp.data import toyfaces
from fvlfp.data.card import fill_template

CONFIG = {
    "embed_dim": 64,
    "quick_gelu": False,
    "vision_cfg": {"layers": [1, 1, 2, 1], "width": 8, "image_size": 64, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
}
NAME, WEIGHTS = "ToyCLIP-64", "toyclip64_fp16.safetensors"
SEED = 640_064  # of the faces, the captions and the weights; lessons draw theirs from small seeds
BIAS = {"shape": 0.7, "tint": 0.2}  # differences in P(smiling); see toyfaces.make
DIFFICULTY = {"square": 0.5}
WORDS = {
    ("smiling", "yes"): ["smiling", "happy", "cheerful"],
    ("smiling", "no"): ["serious", "unsmiling", "grumpy"],
    ("glasses", "yes"): ["with glasses"],
    ("glasses", "no"): ["without glasses"],
    ("hat", "yes"): ["with a hat"],
    ("hat", "no"): ["without a hat"],
    **{(a, g): w for a, at in toyfaces.CARD.groups.items() for g, w in at.words.items()},
}
TEMPLATES = [*toyfaces.CARD.templates, "{}", "a {}", "a photo of a {}"]
FACTS = (*toyfaces.LABELS, *toyfaces.GROUPS)


def caption(row: dict[str, str], rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """A sentence about one face, and the facts that it states."""
    # a third of the captions state one fact, so that each word is understood alone as well
    number = 1 if rng.random() < 0.35 else int(rng.integers(2, len(FACTS) + 1))
    first = "smiling" if rng.random() < 0.4 else str(rng.choice(FACTS))
    others = [f for f in rng.permutation(FACTS) if f != first]
    facts = {str(f): row[f] for f in [first, *others][:number]}
    words = {f: WORDS[f, value] for f, value in facts.items()}
    # the first word of a list is the card's own; say it as often as all the others together
    said = {
        f: w[0] if len(w) == 1 or rng.random() < 0.5 else str(rng.choice(w[1:])) for f, w in words.items()
    }
    before = [said[f] for f in rng.permutation(["smiling", "shape", "tint"]) if f in said]
    after = " and ".join(said[f] for f in ("glasses", "hat") if f in said)
    template = TEMPLATES[int(rng.integers(len(TEMPLATES)))]
    return fill_template(template, " ".join([*before, "face", after]).strip()), facts


def train(n: int, epochs: float, batch: int, rate: float, config: dict[str, Any] = CONFIG) -> torch.nn.Module:
    """Draw, caption, train a model of `config`; returns the float32 model in eval mode."""
    torch.manual_seed(SEED)
    model = open_clip.CLIP(**config)
    model.visual.to(memory_format=torch.channels_last)  # a third faster on a CPU
    data = toyfaces.make(n, seed=SEED, correlation=BIAS, test_correlation=BIAS, difficulty=DIFFICULTY)
    drawn = data.images
    assert isinstance(drawn, toyfaces.Pictures)
    rows = data.frame.to_dict("records")
    # every fact as a number, so that "is caption j true of face i" is one comparison
    codes = {f: sorted(set(data.frame[f])) for f in FACTS}
    faces = torch.tensor([[codes[f].index(r[f]) for f in FACTS] for r in rows])
    rng = np.random.default_rng(SEED)

    def make_batch(pick: np.ndarray) -> tuple[torch.Tensor, list[str], torch.Tensor]:
        said = [caption(rows[i], rng) for i in pick]
        stated = torch.tensor([[codes[f].index(s[f]) if f in s else -1 for f in FACTS] for _, s in said])
        pixels = normalise(drawn.array[pick])
        return pixels, [text for text, _ in said], true_pairs(faces[pick], stated)

    return fit(model, np.arange(n), make_batch, Schedule(epochs, batch, rate), rng)


def wilson(k: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z = 1.959964
    middle, half = k + z * z / 2, z * math.sqrt(k * (n - k) / n + z * z / 4)
    return (middle - half) / (n + z * z), (middle + half) / (n + z * z)


@torch.no_grad()
def zero_shot(folder: Path, seed: int = 0) -> str:
    """Load the written files the plain open_clip way; rates on the default test split as Markdown."""
    open_clip.add_model_config(folder / f"{NAME}.json")
    model, _, transform = open_clip.create_model_and_transforms(NAME, pretrained=str(folder / WEIGHTS))
    tokenizer = open_clip.get_tokenizer(NAME)
    model.eval()
    data = toyfaces.make(seed=seed)
    data = data.take((data.frame.split == "test").to_numpy())
    z = torch.cat([
        model.encode_image(torch.stack([transform(x) for x in data.images[i : i + 250]]), normalize=True)
        for i in range(0, len(data), 250)
    ])  # fmt: skip
    lines = []
    for label in toyfaces.LABELS:
        texts = data.card.class_texts(label)
        said = (z @ model.encode_text(tokenizer(texts), normalize=True).T).argmax(dim=1).numpy() == 1
        truth = (data.frame[label] == "yes").to_numpy()
        recall = [np.mean(said[truth]), np.mean(~said[~truth])]
        lines += [f"\n{label}: {texts[0]!r} against {texts[1]!r}; balanced accuracy {np.mean(recall):.3f}\n"]
        lines += ["| group | n | selection rate | TPR | FPR |", "|---|---|---|---|---|"]
        for attribute, groups in toyfaces.GROUPS.items():
            rates = []
            for g in groups:
                of = (data.frame[attribute] == g).to_numpy()
                cells, values = [], []
                for among in (of, of & truth, of & ~truth):
                    k, n = int(said[among].sum()), int(among.sum())
                    low, high = wilson(k, n)
                    cells.append(f"{k / n:.3f} [{low:.3f}, {high:.3f}], n = {n}")
                    values.append(k / n)
                rates.append(values)
                lines.append(f"| {attribute} = {g} | {of.sum()} | {' | '.join(cells)} |")
            gap = np.ptp(np.array(rates), axis=0)
            lines.append(
                f"| **gap over {attribute}** | | {gap[0]:.3f} (demographic parity) | {gap[1]:.3f} "
                f"| {gap[2]:.3f}; odds gap (worst) {max(gap[1:]):.3f} |"
            )
    for attribute, groups in toyfaces.GROUPS.items():
        texts = [data.card.group_texts(attribute)[g][0] for g in groups]
        said = (z @ model.encode_text(tokenizer(texts), normalize=True).T).argmax(dim=1).numpy()
        right = said == data.frame[attribute].map(groups.index).to_numpy(dtype=int)
        lines.append(f"\n{attribute} itself, zero-shot accuracy: {right.mean():.3f}")
    return "\n".join(lines)


def write(folder: Path, model: torch.nn.Module, how: str) -> None:
    """Write config and weights, load them the plain open_clip way, measure, write README.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, folder / WEIGHTS)
    sha256 = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    numbers = sum(v.numel() for v in state.values()) / 1e6
    text = README.format(
        name=NAME, weights=WEIGHTS, sha256=sha256, numbers=numbers, how=how, table=zero_shot(folder),
        torch=torch.__version__, open_clip=open_clip.__version__, numpy=np.__version__,
        bias=BIAS, difficulty=DIFFICULTY, seed=SEED,
    )  # fmt: skip
    (folder / "README.md").write_text(text)
    print(text)


README = """# {name}

A small CLIP ({numbers:.1f} M numbers: a ResNet image tower for 64 pixels, a 2-layer text tower, width 64),
trained from scratch on captions of drawn toy faces. It has never seen a photograph or a person. Apache-2.0,
like the code.

- `{name}.json`: open_clip model config; `quick_gelu` is false; images 64 x 64, OpenAI mean and standard
  deviation.
- `{weights}`: state dict in float16, sha256 `{sha256}`.

```python
open_clip.add_model_config("{name}.json")
model, _, transform = open_clip.create_model_and_transforms(
    "{name}", pretrained="{weights}"
)
```

It knows the words of the toy faces' data card and a few synonyms (happy, cheerful, unsmiling, grumpy); other
words give noise. Text positions beyond about 20 tokens were never trained: keep texts short.

## How it was made
`python -m data_prep.tiny_clip`: {how}; seed {seed}; torch {torch}, open_clip {open_clip},
numpy {numpy}. The same machine and versions give the same bits; another processor may round differently.

**It is biased on purpose.** In its training faces P(smiling) differs between groups by {bias}, and
some are harder to see ({difficulty}; both as in `toyfaces.make`). The table shows what came of it: serious
round faces are called smiling more often than serious square ones, and smiles of square faces are missed
more often.

## Zero-shot, measured on the test split of `toyfaces.make()` (seed 0; unbiased; not seen in training)
Wilson 95 % intervals.
{table}
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("fvlfp/clip/toyclip"))
    parser.add_argument("--examples", type=int, default=12_000)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3)
    args = parser.parse_args()
    # one thread: the result does not depend on the number of cores, and such small layers gain little
    torch.set_num_threads(1)
    start = time.time()
    model = train(args.examples, args.epochs, args.batch, args.rate)
    minutes = (time.time() - start) / 60
    how = f"{args.examples:,} faces, {args.epochs:g} epochs, {minutes:.1f} minutes on one core"
    write(args.out, model, how)


if __name__ == "__main__":
    main()
