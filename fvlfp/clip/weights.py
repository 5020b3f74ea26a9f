"""What stands between a model's name and its weights: configs, tags, activations, checksums.

What this module does not do: it loads no weights, see `fvlfp.clip.encoder`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from fvlfp.errors import InputError


def register(open_clip: Any, model: str, config: str | Path) -> tuple[str, dict[str, Any]]:
    """Make `config` known to open_clip (if given); return the model's name and its config."""
    if config:
        path = Path(config)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            for key in ("embed_dim", "vision_cfg", "text_cfg"):
                data[key]
        except FileNotFoundError:
            raise InputError(f"no such model config: {path}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not an open_clip model config: {error}") from None
        open_clip.add_model_config(path)
        return path.stem, data
    data = open_clip.get_model_config(model)
    if data is None:
        near = difflib.get_close_matches(model, open_clip.list_models(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"open_clip knows no model {model!r}{hint}")
    return model, data


def check_tag(open_clip: Any, name: str, tag: str, config: dict[str, Any]) -> None:
    """Refuse a tag that open_clip does not know for this model, or that needs the other activation."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise InputError(
            f"pretrained = {tag!r} is neither a file nor a tag of {name} ({', '.join(tags) or 'none known'})"
        )
    trained_quick = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
    if bool(trained_quick) != bool(config.get("quick_gelu", False)):
        raise InputError(
            f"{tag} was trained with quick_gelu={bool(trained_quick)}, but {name} has "
            f"quick_gelu={not trained_quick}: use the model name "
            + (f"'{name}-quickgelu'" if trained_quick else f"'{name.removesuffix('-quickgelu')}'")
        )


def has_quick_gelu(model: torch.nn.Module) -> bool:
    """Whether any activation of the model is QuickGELU."""
    return any(type(module).__name__ == "QuickGELU" for module in model.modules())


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(model: torch.nn.Module) -> str:
    """Hex sha256 over names and values of all weights."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
