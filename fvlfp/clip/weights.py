"""Weights out of a file and into a model: only tensors are read, never code.

A checkpoint may hold more than a model: an optimiser, a second copy, a wrapper's prefix. The CLIP in it is
found by its `logit_scale`, which every CLIP has once. What this module does not do: it resizes nothing to
fit (weights for another image size are refused), and it unpickles nothing.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fvlfp.clip import huggingface
from fvlfp.errors import InputError, first_line

#: What OpenAI's archives carry beside the weights, and an index that old checkpoints saved.
_NO_WEIGHTS = (
    *("input_resolution", "context_length", "vocab_size"),
    "text.transformer.embeddings.position_ids",
)

#: The way to convert, for a shell; `load` and `state` are Python.
_CONVERT = (
    'If you trust its origin, save the weights alone: python -c "import torch; from safetensors.torch '
    "import save_file; m = {load}; save_file({{k: v.contiguous() for k, v in {state}.items()}}, "
    "'weights.safetensors')\""
)


def load_weights(model: nn.Module, name: str, path: Path) -> list[str]:
    """Fill `model` with the weights in `path`; returns what was done to them, in words.

    name: what messages call the model.

    Raises:
        InputError: damaged, of another model, not finite, or not readable without running code.
    """
    state, done = read_state(path)
    try:
        fit = _as_the_model_names_them(model, state)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    wrong = _differences(model.state_dict(), fit)
    if wrong:
        raise InputError(f"{path} does not hold the weights of {name}: {wrong}")
    own = model.state_dict()
    cut = [key for key, value in fit.items() if own[key].is_floating_point() > value.is_floating_point()]
    if cut:
        raise InputError(f"{path}: {cut[0]} is {fit[cut[0]].dtype}: quantised weights are not read")
    bad = [key for key, value in fit.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise InputError(f"{path}: {bad[0]} holds values that are not finite: the file is damaged")
    model.load_state_dict(fit)
    return done


def read_state(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the CLIP in a safetensors or PyTorch file, and what was left out or stripped.

    Raises:
        InputError: damaged, a program instead of weights, no CLIP or several.
    """
    loaded = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    where, state = _find_clip(path, loaded)
    keys = [key for key in state if isinstance(key, str) and key.split(".")[-1] == "logit_scale"]
    prefixes = sorted({key.removesuffix("logit_scale") for key in keys})
    if len(prefixes) > 1:
        raise InputError(
            f"{path} holds several CLIPs, under {', '.join(map(repr, prefixes))}: save one alone"
        )
    prefix = prefixes[0]
    own = {k.removeprefix(prefix): v for k, v in state.items() if str(k).startswith(prefix)}
    done = [f"taken from {where!r}"] if where else []
    if prefix:
        left = len(state) - len(own)
        done.append(
            f"prefix {prefix!r} stripped" + (f", {left} tensors of other parts left out" if left else "")
        )
    if huggingface.is_transformers(own):
        done.append("names of transformers' CLIPModel converted")
    return {k: v for k, v in own.items() if k not in _NO_WEIGHTS}, done


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise InputError(f"{path} is no whole safetensors file: {first_line(error)}") from None


def _torch(path: Path) -> Any:
    """What `torch.save` wrote, as far as it is tensors, numbers and text.

    Raises:
        InputError: a TorchScript archive, pickled objects, or a damaged file.
    """
    if path.suffix in (".npz", ".npy", ".msgpack", ".h5"):
        raise InputError(f"{path}: {path.suffix} is not read; give a safetensors or PyTorch file")
    if _is_torchscript(path):
        how = _CONVERT.format(load=f"torch.jit.load('{path.name}', 'cpu')", state="m.state_dict()")
        raise InputError(f"{path} is a TorchScript archive: a program, and only weights are loaded. {how}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        extras = _pickled(path)
        if not extras:
            raise InputError(f"{path} is no whole PyTorch file: {first_line(error)}") from None
    how = _CONVERT.format(
        load=f"torch.load('{path.name}', 'cpu', weights_only=False)",
        state="(m.state_dict() if hasattr(m, 'state_dict') else m.get('state_dict', m))",
    )
    raise InputError(
        f"{path} holds more than weights ({', '.join(extras)}), and reading that could run code. {how}"
    )


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _pickled(path: Path) -> list[str]:
    """The Python objects that a checkpoint asks for beyond tensors."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # the old format, or damage
        return []


def _find_clip(path: Path, loaded: Any) -> tuple[str, dict[Any, Any]]:
    """The dict in a checkpoint that holds a CLIP, and the key it is under ("" for the file itself)."""
    inner = loaded.items() if isinstance(loaded, Mapping) else ()
    parts = {"": loaded, **{str(key): value for key, value in inner}}
    found = {
        where: dict(part)
        for where, part in parts.items()
        if isinstance(part, Mapping) and any(str(key).split(".")[-1] == "logit_scale" for key in part)
    }
    if len(found) > 1:
        raise InputError(f"{path} holds several CLIPs, under {', '.join(sorted(found))}: save one alone")
    for where, part in found.items():
        return where, {k: v for k, v in part.items() if isinstance(v, Tensor)}
    raise InputError(f"{path} does not hold the weights of a CLIP: no tensor in it is called logit_scale")


def _as_the_model_names_them(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other libraries' and older names as this model's; scalars in the model's shape."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    if huggingface.is_transformers(state):
        state = huggingface.to_open_clip(state)
    try:
        state = convert_state_dict(model, state)  # Apple's MobileCLIP
    except Exception as error:  # it looks for names that a damaged file lacks
        raise InputError(f"cannot convert the names of MobileCLIP: {first_line(error)}") from None
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    state = dict(state)
    for key in ("logit_scale", "logit_bias"):
        own = getattr(model, key, None)
        if own is None:
            continue
        if key == "logit_bias":
            state.setdefault(key, torch.zeros_like(own))  # no prediction depends on it
        if state[key].numel() == own.numel():
            state[key] = state[key].reshape(own.shape)
    return state


def _differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """The first way in which `state` does not fit, in words; "" where it fits."""
    shapes = {k: (tuple(v.shape), tuple(own[k].shape)) for k, v in state.items() if k in own}
    unlike = {k: pair for k, pair in shapes.items() if pair[0] != pair[1]}
    lists = {
        "missing": [k for k in own if k not in state],
        "not known there": [k for k in state if k not in own],
    }
    said = [f"{keys[0]} is {what}" + _more(keys) for what, keys in lists.items() if keys]
    if unlike:
        key, (theirs, ours) = next(iter(unlike.items()))
        said.insert(0, f"{key} has the shape {theirs}, not {ours}" + _more(list(unlike)))
    if unlike and not any(lists.values()) and all("positional_embedding" in k for k in unlike):
        said.append("they were trained for another image size or text length, which the config must state")
    return "; ".join(said)


def _more(keys: list[str]) -> str:
    return f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""


def has_quick_gelu(model: nn.Module) -> bool:
    """Whether any activation of the model is QuickGELU."""
    return any(type(module).__name__ == "QuickGELU" for module in model.modules())
