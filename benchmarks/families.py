"""Which families of open_clip can be audited, and which can be trained, each with random weights.

    python -m benchmarks.families                  all
    python -m benchmarks.families RN50             the named ones; the other rows of the page stay

Of every family one model is written as a user would find it (a folder with weights and a config), loaded by
this project, and compared with open_clip's own model: image and text embeddings for an audit; for
training, prompts that say "a photo of a" in front of the words against open_clip's `encode_text` of the whole
sentence, and gradients that must reach every prompt. Writes benchmarks/results/families.json and .md.

What this does not show: that released weights of the family are read (their names are those of the config);
and, for families with a tokenizer of Hugging Face, that tokenizer. Its files are not here, so open_clip's own
stands in, with its vocabulary of 49,408.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from benchmarks.machine import machine, named
from benchmarks.markdown import table
from fvlfp.clip.encoder import Encoder
from fvlfp.errors import InputError

RESULTS = Path(__file__).parent / "results"
LARGEST = 1e-5  # of an absolute difference between unit embeddings
VOCABULARY = 49408

#: Blocks of open_clip's own transformers that are kept, so that all families fit a laptop's patience. Towers
#: of timm keep all of theirs.
BLOCKS = 3

#: Family -> a model of it.
FAMILIES = {
    "CLIP, ResNet": "RN50",
    "CLIP, ViT": "ViT-B-32",
    "CLIP, ViT, QuickGELU": "ViT-B-32-quickgelu",
    "CLIP, ConvNeXt": "convnext_tiny",
    "CLIP, Swin": "swin_base_patch4_window7_224",
    "CLIP, ViT without class token": "vit_medium_patch16_gap_256",
    "SigLIP": "ViT-B-16-SigLIP",
    "SigLIP 2": "ViT-B-32-SigLIP2-256",
    "MobileCLIP": "MobileCLIP-S1",
    "MobileCLIP 2": "MobileCLIP2-S0",
    "EVA-02": "EVA02-B-16",
    "PE-Core": "PE-Core-T-16-384",
    "ViTamin": "ViTamin-S",
    "CLIPA": "ViT-L-14-CLIPA",
    "MetaCLIP 2, worldwide": "ViT-H-14-worldwide",
    "CoCa": "coca_ViT-B-32",
    "RoBERTa text tower": "roberta-ViT-B-32",
    "mT5 text tower": "mt5-base-ViT-B-32",
}
WORDS = ["smiling face", "dog", "very old round face with a hat"]


@dataclass(frozen=True)
class Row:
    """One line of the table. audit, training: the largest difference in words, or the refusal's.

    made_on: the machine and the versions of the libraries.
    """

    family: str
    model: str
    millions: float
    audit: str
    training: str
    made_on: str = ""


def config_of(name: str) -> dict[str, Any]:
    """open_clip's config with few blocks, and open_clip's tokenizer in the place of a Hugging Face one."""
    config = copy.deepcopy(open_clip.get_model_config(name))
    text = config["text_cfg"]
    for part in (text, config["vision_cfg"], config.get("multimodal_cfg", {})):
        if isinstance(part.get("layers"), int):
            part["layers"] = min(BLOCKS, part["layers"])
    if text.pop("hf_tokenizer_name", None):
        text.pop("tokenizer_kwargs", None)
        text["vocab_size"] = VOCABULARY
        if text.get("pool_type") == "eos":
            text["eos_id"] = VOCABULARY - 1
    return config


def write_model(folder: Path, config: dict[str, Any]) -> Any:
    """open_clip's model with random weights, and its folder as a user would find it."""
    stated = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(stated))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    for key, value in model.named_parameters():  # biases start at 0, which would hide a mistake
        if key.endswith("bias"):
            torch.nn.init.normal_(value, std=0.02)
    state = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return model.eval()


def try_family(family: str, name: str) -> Row:
    """Load, encode, prompt."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name
        folder.mkdir()
        config = config_of(name)
        if config["text_cfg"].get("hf_model_name") and _text_tower_of_transformers(config, Path(place)):
            return Row(family, name, 0.0, *_refusals(folder, config))
        theirs = write_model(folder, config)
        mine = Encoder.load(f"local-dir:{folder}", device="cpu")
        millions = sum(v.numel() for v in theirs.parameters()) / 1e6
        return Row(family, name, millions, _audit(mine, theirs), _training(mine, theirs))


def _text_tower_of_transformers(config: dict[str, Any], place: Path) -> bool:
    """Random weights of a small text tower of transformers; True where the library is missing."""
    try:
        import transformers
    except ImportError:
        return True
    is_t5 = "mt5" in config["text_cfg"]["hf_model_name"]
    kind: Any = transformers.MT5Config if is_t5 else transformers.RobertaConfig
    own = kind(vocab_size=VOCABULARY, num_layers=BLOCKS) if is_t5 else kind(num_hidden_layers=BLOCKS)
    own.save_pretrained(place / "text")
    config["text_cfg"]["hf_model_name"] = str(place / "text")
    return False


def _refusals(folder: Path, config: dict[str, Any]) -> tuple[str, str]:
    """What is said where the library transformers is missing."""
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    (folder / "open_clip_model.safetensors").write_bytes(b"")
    said = []
    for prompts in (False, True):
        try:
            Encoder.load(f"local-dir:{folder}", device="cpu", text_prompts=prompts)
        except InputError as error:
            said.append(f"refused: {error}")
    return said[0], said[1]


@torch.no_grad()
def _audit(mine: Encoder, reference: Any) -> str:
    transform = image_transform_v2(PreprocessCfg(**reference.visual.preprocess_cfg), is_train=False)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (90, 120, 3), np.uint8)) for _ in range(3)]
    pixels = torch.stack([transform(image) for image in images])
    texts = [f"a photo of a {words}" for words in WORDS]
    theirs = F.normalize(reference.encode_image(pixels), dim=-1)
    image = float((torch.from_numpy(mine.encode_images(images)) - theirs).abs().max())
    text = float((mine.encode_texts(texts) - _texts(reference, mine, texts)).abs().max())
    return _verdict(f"image {image:.0e}, text {text:.0e}", max(image, text))


def _training(mine: Encoder, reference: Any) -> str:
    try:
        tower = mine.text
    except InputError as error:
        return f"refused: {error}"
    start = tower.initial_prompts("a photo of a", n_ctx=4, depth=2, generator=torch.Generator())
    prompts = start.requires_grad_()
    found = tower.encode(tower.tokenize(WORDS, 4), prompts)
    theirs = _texts(reference, mine, [f"a photo of a {words}" for words in WORDS])
    apart = float((found.detach() - theirs).abs().max())
    found[:, ::2].sum().backward()
    reached = bool((prompts.grad.abs().amax((1, 2)) > 0).all()) if prompts.grad is not None else False
    kind = type(tower).__name__.removesuffix("TextTower").lower()
    return _verdict(f"{kind} tower, {apart:.0e}", apart if reached else float("nan"))


@torch.no_grad()
def _texts(reference: Any, mine: Encoder, texts: list[str]) -> torch.Tensor:
    return F.normalize(reference.encode_text(mine.tokenizer(texts)), dim=-1)


def _verdict(said: str, apart: float) -> str:
    return f"works ({said})" if apart <= LARGEST else f"DIFFERS ({said})"


def libraries() -> str:
    """The machine and the versions that a row depends on."""
    try:
        import transformers

        library = f"transformers {transformers.__version__}"
    except ImportError:
        library = "without transformers"
    return f"{named(machine())}; open_clip {open_clip.__version__}, {library}"


def page(rows: list[Row]) -> str:
    """The table in Markdown; families without a row are named as not run."""
    works = [sum(getattr(row, key).startswith("works") for row in rows) for key in ("audit", "training")]
    lines = [
        "# Families of open_clip: audit and training",
        "",
        "Made by `python -m benchmarks.families`; random weights, seed 0; "
        + "; and ".join(dict.fromkeys(row.made_on for row in rows))
        + ".",
        "",
        f"Of {len(rows)} families {works[0]} can be audited and {works[1]} can be trained. *Works* means:",
        "no number of a unit embedding differs from open_clip's own `encode_image` or `encode_text` by more",
        f"than {LARGEST:.0e} (the largest difference is given), and gradients reach every prompt. Families",
        "with a tokenizer of Hugging Face were tried with open_clip's own in its place; of open_clip's",
        f"own transformers {BLOCKS} blocks were kept, the first.",
        "",
        *table(
            ["family", "model", "million weights", "audit", "training"],
            [
                (r.family, r.model, f"{r.millions:.0f}" if r.millions else "", r.audit, r.training)
                for r in rows
            ],
        ),
    ]
    left = [family for family in FAMILIES if family not in {row.family for row in rows}]
    if left:
        lines += ["", f"Not run for this page: {', '.join(left)}."]
    return "\n".join(lines) + "\n"


def kept(folder: Path) -> dict[str, Row]:
    """The rows that `folder` holds already, by family."""
    file = folder / "families.json"
    rows = [Row(**row) for row in json.loads(file.read_text())] if file.is_file() else []
    return {row.family: row for row in rows}


def main(names: list[str], folder: Path = RESULTS) -> None:
    """All families, or those whose model is named, beside the rows that are there."""
    rows, made_on = kept(folder), libraries()
    for family, name in FAMILIES.items():
        if not names or name in names:
            rows[family] = dataclasses.replace(try_family(family, name), made_on=made_on)
            print(rows[family], flush=True)
    table = [rows[family] for family in FAMILIES if family in rows]
    lines = ",\n ".join(json.dumps(dataclasses.asdict(row)) for row in table)
    (folder / "families.json").write_text(f"[{lines}]\n")
    (folder / "families.md").write_text(page(table))


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # open_clip tells that weights are random
    main(sys.argv[1:])
