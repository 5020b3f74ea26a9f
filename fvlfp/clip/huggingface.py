"""CLIP as the transformers library saves it (`CLIPModel`), read as open_clip's.

The arithmetic is the same, the names are not: q, k and v stand apart, projections are transposed. What this
module does not do: it needs no transformers, and it reads no SigLIP (open_clip has weights of its own).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fvlfp.errors import InputError

#: What transformers calls a part -> what open_clip calls it. `.` stands for itself.
_NAMES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_projection.weight": "text_projection",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    ".self_attn.out_proj.": ".attn.out_proj.",
}
_QKV = re.compile(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)")


def is_transformers(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the names of transformers."""
    return any(key.startswith(("vision_model.", "text_model.")) for key in state)


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a `CLIPModel` under open_clip's names.

    Raises:
        InputError: another model of transformers, such as SiglipModel.
    """
    if "visual_projection.weight" not in state:
        raise InputError(
            "these are weights of transformers, but not of its CLIPModel (SigLIP?), and only CLIPModel is "
            "converted: use open_clip's own weights of the model, by a tag or as hf-hub:timm/..."
        )
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith("embeddings.position_ids"):  # 0, 1, 2, ..., saved by old versions
            continue
        if _QKV.fullmatch(key):
            continue
        name = _renamed(key)
        out[name] = value.T if key in ("visual_projection.weight", "text_projection.weight") else value
    for block, kind in {(m[1], m[3]) for m in map(_QKV.fullmatch, state) if m}:
        parts = [state.get(f"{block}.self_attn.{one}_proj.{kind}") for one in "qkv"]
        whole = [part for part in parts if part is not None]
        out[f"{_renamed(block + '.')}attn.in_proj_{kind}"] = torch.cat(whole)
    return out


def _renamed(key: str) -> str:
    for theirs, ours in _NAMES.items():
        key = key.replace(theirs, ours)
    return key


def model_config(stated: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's model config from a `config.json` of model_type "clip".

    What the file leaves out has the default of transformers' CLIPConfig, that of ViT-B/32.

    Raises:
        InputError: a value that is not of its kind, or an activation that open_clip's blocks do not have.
    """
    both: dict[str, Any] = {"num_hidden_layers": 12, "hidden_act": "quick_gelu"}
    vision = both | {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    vision |= {"patch_size": 32, "image_size": 224}
    text = both | {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    text |= {"max_position_embeddings": 77, "vocab_size": 49408}
    for ours, key in ((vision, "vision_config"), (text, "text_config")):
        theirs = stated.get(key) or stated.get(f"{key}_dict") or {}
        ours.update({k: v for k, v in theirs.items() if k in ours})
    acts = {vision["hidden_act"], text["hidden_act"]}
    if acts not in ({"gelu"}, {"quick_gelu"}):
        raise InputError(f"config.json: activation {', '.join(sorted(map(str, acts)))} is not open_clip's")
    try:
        return {
            "embed_dim": stated.get("projection_dim", 512),
            "quick_gelu": acts == {"quick_gelu"},
            "vision_cfg": {
                "image_size": vision["image_size"],
                "layers": vision["num_hidden_layers"],
                "width": vision["hidden_size"],
                "head_width": vision["hidden_size"] // vision["num_attention_heads"],
                "mlp_ratio": vision["intermediate_size"] / vision["hidden_size"],
                "patch_size": vision["patch_size"],
            },
            "text_cfg": {
                "context_length": text["max_position_embeddings"],
                "vocab_size": text["vocab_size"],
                "width": text["hidden_size"],
                "heads": text["num_attention_heads"],
                "layers": text["num_hidden_layers"],
                "mlp_ratio": text["intermediate_size"] / text["hidden_size"],
            },
        }
    except (TypeError, ZeroDivisionError) as error:
        raise InputError(f"config.json is not a CLIPConfig: {error}") from None


def preprocess_steps(stated: Mapping[str, Any]) -> Mapping[str, object]:
    """open_clip's `preprocess_cfg` from a `preprocessor_config.json`.

    Raises:
        InputError: steps that open_clip's transform cannot repeat, such as a crop smaller than the resize.
    """
    size, crop = stated.get("size", 224), stated.get("crop_size")
    edge = size.get("shortest_edge") if isinstance(size, dict) else size
    cut = crop.get("height") if isinstance(crop, dict) else crop
    squash = isinstance(size, dict) and "height" in size
    if stated.get("do_center_crop", not squash) and not squash and cut not in (None, edge):
        raise InputError(
            f"preprocessor_config.json resizes to {edge} and cuts out {cut}: such a crop cannot be repeated"
        )
    by_number = {2: "bilinear", 3: "bicubic"}
    plain = stated.get("do_normalize", True) is False
    return {
        "mean": 0.0 if plain else stated.get("image_mean"),
        "std": 1.0 if plain else stated.get("image_std"),
        "interpolation": by_number.get(stated.get("resample", 3), str(stated.get("resample"))),
        "resize_mode": "squash" if squash else "shortest",
    }
