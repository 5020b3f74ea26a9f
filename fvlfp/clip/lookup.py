"""What a model's name stands for: its config, its weights, its image transform, and who states them.

Everything that can be refused without the weights is refused here. What this module does not do: it builds
no model and reads no weights; see `fvlfp.clip.weights`.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvlfp.clip.preprocess import NOBODY, Preprocess
from fvlfp.clip.stated import (
    Beside,
    ModelConfig,
    check_agreement,
    config_sha256,
    read_beside,
    read_json,
    read_open_clip_config,
)
from fvlfp.errors import InputError, did_you_mean, first_line
from fvlfp.files import is_hidden

#: The built-in model, trained on drawn faces by data_prep/tiny_clip.py.
TOYCLIP = Path(__file__).parent / "toyclip"

#: Names that stand for a place. What lies there decides alone: `pretrained` and `model_config` are refused.
PLACES = ("local-dir:", "hf-hub:")

#: Weights files in a folder: the first of these that is there, or the only one.
_USUAL = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("model.safetensors", "pytorch_model.bin"),
)
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Source:
    """A model that was looked up.

    name, pretrained: what reports call it; no path of a machine. config: open_clip's model config.
    fetch: gives the path of the weights; downloads them where a tag or a hub name asks for that.
    preprocess: the stated image transform. activation_origin: who states the activation.
    tokenizer_files: the folder of a Hugging Face tokenizer, or None for the place its config names.
    """

    name: str
    pretrained: str
    config: ModelConfig
    fetch: Callable[[], Path]
    preprocess: Preprocess
    activation_origin: str
    tokenizer_files: Path | None = None

    def provenance(self) -> dict[str, str]:
        """What is known of the model before its weights are read."""
        return {
            "model": self.name,
            "pretrained": self.pretrained,
            "config_sha256": config_sha256(self.config),
            "activation_origin": self.activation_origin,
        }


def look_up(model: str, pretrained: str = "", model_config: str | Path = "") -> Source:
    """Find out what a name, a tag or weights file, and a config stand for.

    Raises:
        InputError: unknown, contradictory or missing parts; an option that would not be used.
    """
    unused = {"pretrained": pretrained, "model_config": model_config}
    if model == "toyclip" or model.startswith(PLACES):
        for key, value in unused.items():
            if str(value):
                raise InputError(
                    f"{key} = {str(value)!r} would not be used: {model!r} brings its own weights and config. "
                    "Leave it out, or name the model that it belongs to as `model`"
                )
    if model == "toyclip":
        return _built_in()
    schema, colon, place = model.partition(":")
    if colon and f"{schema}:" in PLACES:
        if not place:
            raise InputError(f"model = {model!r} names no place")
        return _folder(Path(place)) if schema == "local-dir" else _hub(model, place)
    return _named(model, pretrained, model_config)


def _built_in() -> Source:
    return Source(
        name="ToyCLIP-64",
        pretrained="toyclip64_fp16.safetensors",
        config=read_json(TOYCLIP / "ToyCLIP-64.json"),
        fetch=lambda: TOYCLIP / "toyclip64_fp16.safetensors",
        preprocess=dataclasses.replace(Preprocess(), origin="that of the built-in model"),
        activation_origin="the built-in model",
    )


def _folder(folder: Path) -> Source:
    """`local-dir:`, a folder with weights and open_clip's config, or with those of transformers."""
    if not folder.is_dir():
        raise InputError(f"local-dir: no folder {folder}")
    beside = read_beside(folder)
    if beside.config is None:
        raise InputError(
            f"{folder} holds neither open_clip_config.json with a model_cfg nor config.json of a CLIPModel"
        )
    usual = [folder / name for name in _USUAL if (folder / name).is_file()]
    weights = usual[:1] or sorted(
        p for p in folder.iterdir() if p.suffix in _SUFFIXES and not is_hidden(p.name)
    )
    if len(weights) != 1:
        found = ", ".join(p.name for p in weights) or "none"
        raise InputError(f"{folder} must hold one weights file, but found: {found}")
    name = f"local-dir:{folder.resolve().name}"
    return _beside_source(name, weights[0].name, beside, lambda: weights[0], folder)


def _hub(model: str, repository: str) -> Source:
    """`hf-hub:`, a repository of open_clip's on the Hugging Face hub, or its copy in the local cache."""
    from open_clip.pretrained import download_pretrained_from_hf as download

    try:
        file = Path(download(repository, filename="open_clip_config.json"))
    except Exception as error:  # the hub's client has a dozen kinds, and its own for being offline
        raise InputError(
            f"cannot read open_clip_config.json of {model}: {first_line(error)}. Offline, or no model of "
            "open_clip's? Download the repository once, then use local-dir:FOLDER"
        ) from None
    beside = read_open_clip_config(file)
    if beside.config is None:
        raise InputError(f"{model}: open_clip_config.json has no model_cfg")
    return _beside_source(model, repository, beside, fetching(model, lambda: download(repository)), None)


def _beside_source(
    name: str, pretrained: str, beside: Beside, fetch: Callable[[], Path], folder: Path | None
) -> Source:
    assert beside.config is not None
    return Source(
        name=name,
        pretrained=pretrained,
        config=beside.config,
        fetch=fetch,
        preprocess=beside.preprocess or Preprocess(),
        activation_origin=beside.origin,
        tokenizer_files=folder,
    )


def _named(model: str, pretrained: str, model_config: str | Path) -> Source:
    """A name of open_clip's, or the one that `model_config` defines, with a tag or a weights file."""
    import open_clip

    config, preprocess = _config_of(open_clip, model, model_config)
    if not pretrained:
        raise InputError(f"model {model!r} needs weights: give a tag or a file as `pretrained`")
    tags = [] if model_config else open_clip.list_pretrained_tags_by_model(model)
    if not os.path.isfile(pretrained):
        if model_config:
            raise InputError(f"no weights file {pretrained}")
        return _tagged(open_clip, model, pretrained, config, tags)
    if pretrained in tags:
        raise InputError(
            f"{pretrained!r} is a tag of {model} and a file here: write ./{pretrained} for the file"
        )
    weights = Path(pretrained)
    beside = read_beside(weights.parent)
    if beside.config is not None:
        check_agreement(model, config, beside, f"{pretrained}: ")
    stated = preprocess or beside.preprocess or _of_all_tags(open_clip, model, tags)
    said = beside.config or (config if model_config else None)
    origin = beside.origin if beside.config else "the model config"
    return Source(
        name=model,
        pretrained=weights.name,
        config=config,
        fetch=lambda: weights,
        preprocess=stated or Preprocess(),
        activation_origin=origin if said else f"{NOBODY}: the weights do not say, {model} has it",
    )


def _config_of(open_clip: Any, model: str, file: str | Path) -> tuple[ModelConfig, Preprocess | None]:
    """The config of a name, and the transform where a config file states one as well."""
    if not str(file):
        config = open_clip.get_model_config(model)
        if config is None:
            hint = did_you_mean(model.replace("/", "-"), open_clip.list_models())
            raise InputError(f"open_clip knows no model {model!r}{hint}")
        return config, None
    path = Path(file)
    if path.name == "open_clip_config.json":
        beside = read_open_clip_config(path)
    else:
        beside = read_open_clip_config(path)
        if model != path.stem:
            raise InputError(
                f"model = {model!r}, but {path.name} defines the model {path.stem!r}: which one?"
            )
    if beside.config is None:
        raise InputError(
            f"{path} is not an open_clip model config: it lacks embed_dim, vision_cfg or text_cfg"
        )
    return beside.config, beside.preprocess


def _tagged(open_clip: Any, name: str, tag: str, config: ModelConfig, tags: list[str]) -> Source:
    """Weights that open_clip downloads. Refuses a tag of another model or of the other activation."""
    if tag not in tags:
        raise InputError(_no_such_weights(name, tag, tags))
    entry = open_clip.get_pretrained_cfg(name, tag)
    quick = bool(entry.get("quick_gelu", False))
    if quick != bool(config.get("quick_gelu", False)):
        raise InputError(
            f"{tag} was trained with quick_gelu={quick}, but {name} has quick_gelu={not quick}: "
            f"use the model name '{f'{name}-quickgelu' if quick else name.removesuffix('-quickgelu')}'"
        )
    origin = f"open_clip's entry for the tag {tag}"
    return Source(
        name=name,
        pretrained=tag,
        config=config,
        fetch=fetching(f"{tag} of {name}", lambda: open_clip.download_pretrained(entry)),
        preprocess=Preprocess.stated(entry, origin),
        activation_origin=origin,
    )


def _no_such_weights(name: str, tag: str, tags: list[str]) -> str:
    """A path that is not there, a folder, or a misspelt tag: what to do differs."""
    if os.path.isdir(tag):
        return f"pretrained = {tag!r} is a folder: give a file in it, or all of it as model = local-dir:{tag}"
    if os.sep in tag or tag.endswith((*_SUFFIXES, ".npz")):
        return f"no weights file {tag}"
    near = difflib.get_close_matches(tag, tags, n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; it has {len(tags)} tags"
    return f"pretrained = {tag!r} is neither a file nor a tag of {name}{hint}"


def fetching(what: str, download: Callable[[], str]) -> Callable[[], Path]:
    """`download`, with one message for the many ways in which it fails."""

    def fetch() -> Path:
        try:
            path = Path(download())
        except Exception as error:  # urllib's, the hub's, open_clip's own
            raise InputError(
                f"cannot download the weights of {what}: {first_line(error)}. Offline? Give a local file"
            ) from None
        if not path.is_file():
            raise InputError(f"open_clip has no weights of {what} to download")
        return path

    return fetch


def _of_all_tags(open_clip: Any, model: str, tags: list[str]) -> Preprocess | None:
    """The transform of every set of weights that open_clip knows for this model, if they agree."""
    origin = f"that of all weights that open_clip knows for {model}"
    found: list[Mapping[str, Any]] = [open_clip.get_pretrained_cfg(model, tag) for tag in tags]
    stated = {Preprocess.stated(entry, origin) for entry in found}
    return stated.pop() if len(stated) == 1 else None
