"""An open_clip model and its tokenizer from a config, without weights and without global state.

What this module does not do: it keeps no registry of models (two configs of one name do not meet), and it
downloads no weights of single towers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fvlfp.errors import InputError, first_line


def build_model(name: str, config: Mapping[str, Any]) -> Any:
    """The model that `config` describes, with random weights.

    Raises:
        InputError: a key or value that open_clip cannot use, or a library that the model needs and that
            is not installed.
    """
    import open_clip

    parts = copy.deepcopy(dict(config))
    try:
        text, vision = parts["text_cfg"], parts["vision_cfg"]
        in_parts = parts.pop("custom_text", False) or "hf_model_name" in text
        kind: Any = open_clip.CLIP
        if in_parts:
            kind = open_clip.CoCa if "multimodal_cfg" in parts else open_clip.CustomTextCLIP
        if "timm_model_name" in vision:
            vision["timm_model_pretrained"] = False
        if "hf_model_name" in text:
            text["hf_model_pretrained"] = False
        if kind is not open_clip.CoCa:  # CoCa reads the tokens; of the others only the embedding is wanted
            vision["output_tokens"] = text["output_tokens"] = False
        if "hf_model_name" in text:
            _need_transformers(name)
        made = kind(**parts)
    except InputError:
        raise
    except Exception as error:  # a wrong value fails anywhere in open_clip, timm or transformers
        raise InputError(f"cannot build {name} from its config: {first_line(error)}") from error
    return made.eval()


def build_tokenizer(name: str, config: Mapping[str, Any], files: Path | None) -> Any:
    """The tokenizer of the text tower: open_clip's own, or a Hugging Face one.

    files: a folder with the Hugging Face tokenizer; None: what the config names, from the hub or its cache.

    Raises:
        InputError: transformers or the tokenizer's files are missing.
    """
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    text = config["text_cfg"]
    options = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
    wanted = text.get("hf_tokenizer_name")
    if wanted:
        _need_transformers(name)
    try:
        if not wanted:
            return SimpleTokenizer(**options)
        return HFTokenizer(str(files or wanted), tokenizer_mode=text.get("tokenizer_mode"), **options)
    except Exception as error:  # the hub's client has many kinds
        raise InputError(
            f"cannot load the tokenizer {files or wanted} of {name}: {first_line(error)}. Offline? Put its "
            "files beside weights and open_clip_config.json, and use local-dir:FOLDER"
        ) from None


def _need_transformers(name: str) -> None:
    if find_spec("transformers") is None:
        raise InputError(f"{name} needs the library transformers: pip install 'fvlfp[transformers]'")


def versions() -> dict[str, str]:
    """Versions of what computes an embedding."""
    import open_clip
    import torch

    return {"torch": torch.__version__, "open_clip": open_clip.__version__}
