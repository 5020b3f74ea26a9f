"""What a config file states of the weights beside it: the architecture and the image transform.

What this module does not do: it looks up no name; see `fvlfp.clip.lookup`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvlfp.clip import huggingface
from fvlfp.clip.preprocess import Preprocess
from fvlfp.errors import InputError, first_line

#: Keys of a model config that change no output of a frozen model.
_NO_OUTPUT = (
    *("timm_model_pretrained", "hf_model_pretrained", "timm_drop", "timm_drop_path", "patch_dropout"),
    *("output_tokens", "hf_tokenizer_name", "tokenizer_kwargs"),
)


#: open_clip's description of a model, as its JSON files hold it: embed_dim, vision_cfg, text_cfg, ...
ModelConfig = dict[str, Any]


@dataclass(frozen=True)
class Beside:
    """What a config file in a weights file's folder states. config or preprocess None: nothing of it."""

    config: ModelConfig | None = None
    preprocess: Preprocess | None = None
    origin: str = ""


def read_beside(folder: Path) -> Beside:
    """What a folder says of the weights in it: open_clip_config.json, or the files of transformers.

    Raises:
        InputError: a config that is there cannot be read.
    """
    if (folder / "open_clip_config.json").is_file():
        return read_open_clip_config(folder / "open_clip_config.json")
    config, steps, files = None, None, []
    stated = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if stated.get("model_type") == "clip":
        config = huggingface.model_config(stated)
        files.append("config.json")
        if (folder / "preprocessor_config.json").is_file():
            found = huggingface.preprocess_steps(read_json(folder / "preprocessor_config.json"))
            steps = Preprocess.stated(found, "preprocessor_config.json beside the weights")
    return Beside(config, steps, "config.json beside the weights" if files else "")


def read_open_clip_config(path: Path) -> Beside:
    """A model config alone, or `open_clip_config.json` with `model_cfg` and `preprocess_cfg`.

    Raises:
        InputError: no such file, or not JSON of this kind.
    """
    data = read_json(path)
    config, steps = data.get("model_cfg", data), data.get("preprocess_cfg")
    whole = isinstance(config, dict) and all(k in config for k in ("embed_dim", "vision_cfg", "text_cfg"))
    origin = "the model config"
    if path.name == "open_clip_config.json":
        origin = "open_clip_config.json beside the weights"
    preprocess = Preprocess.stated(steps, origin) if isinstance(steps, dict) else None
    return Beside(config if whole else None, preprocess, origin)


def read_json(path: Path) -> ModelConfig:
    """A JSON file that holds one object; InputError otherwise."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no such model config: {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not an open_clip model config: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} is not an open_clip model config: it is a {type(data).__name__}")
    return data


def check_agreement(model: str, config: ModelConfig, beside: Beside, where: str) -> None:
    """Activation, heads and pooling are in no tensor's shape, so a wrong config loads without an error."""
    assert beside.config is not None
    ours, theirs = _flat(model, config), _flat(beside.origin, beside.config)
    unlike = [k for k in sorted({*ours, *theirs}) if ours.get(k) != theirs.get(k)]
    if unlike:
        k = unlike[0]
        more = f" (and {len(unlike) - 1} more differences)" if unlike[1:] else ""
        raise InputError(
            f"{where}{beside.origin} says {k} = {theirs.get(k)}, but {model} has {ours.get(k)}{more}. Use "
            "the folder as model = local-dir:FOLDER, or another model name"
        )


def _flat(name: str, config: ModelConfig) -> Mapping[str, object]:
    """Every key that changes an output, with open_clip's defaults filled in."""
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    flat = {"embed_dim": config["embed_dim"], "quick_gelu": bool(config.get("quick_gelu", False))}
    try:
        for part, kind in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
            full = dataclasses.asdict(kind(**config[part]))
            flat |= {f"{part}.{k}": v for k, v in full.items() if k not in _NO_OUTPUT}
    except TypeError as error:
        raise InputError(f"{name} is not an open_clip model config: {first_line(error)}") from None
    return flat


def config_sha256(config: Mapping[str, Any]) -> str:
    """Changes with the architecture: heads and activation too, which no weight tells."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
