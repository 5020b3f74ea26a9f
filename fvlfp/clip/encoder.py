"""A frozen open_clip model: unit image features, their provenance, and a cache that survives a kill.

What this module does not do: it never trains the model and never downloads silently (open_clip downloads
only when a `pretrained` *tag* is asked for).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from fvlfp.clip.text_tower import TextTower
from fvlfp.errors import InputError

#: The built-in model, trained on drawn faces by data_prep/tiny_clip.py.
TOYCLIP = Path(__file__).parent / "toyclip"

#: Images in one pass of the tower: benchmarks/speed.py finds no CPU gain beyond some tens.
BATCH = 64


def pick_device(name: str = "auto") -> torch.device:
    """cuda, then mps, then cpu.

    Raises:
        InputError: a device was named that is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    if not there.get(name, False):
        raise InputError(f"device = {name!r} is not available on this machine")
    return torch.device(name)


class Encoder:
    """The frozen towers of one open_clip model.

    Attributes:
        text: the text tower, which takes prompts.
        scale: `s = exp(logit_scale)`, the factor between cosine and logit.
        provenance: name, weights sha256, activation, image transform, dtype, device, versions.
    """

    def __init__(
        self, model: Any, transform: Callable[[Any], Tensor], tokenizer: Any, provenance: dict[str, Any]
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        # A ResNet of convolutions runs faster so, a vision transformer does not (benchmarks/speed.py).
        resnet = hasattr(model.visual, "layer4")
        self._layout = torch.channels_last if resnet else torch.contiguous_format
        self.model.visual.to(memory_format=self._layout)
        self.transform = transform
        self.text = TextTower(model, tokenizer)
        self.scale = float(model.logit_scale.exp())
        self.device = self.text.device
        self.provenance = provenance

    @classmethod
    def load(
        cls,
        model: str = "toyclip",
        *,
        pretrained: str = "",
        model_config: str | Path = "",
        device: str = "auto",
    ) -> Encoder:
        """Load a frozen CLIP.

        model: "toyclip" (built in, no download), or a name open_clip knows, or the name that
            `model_config` defines.
        pretrained: a tag open_clip knows for `model`, or the path of a weights file.
        model_config: an open_clip config JSON, for a model open_clip does not know by name.

        Raises:
            InputError: unknown model or tag, missing file, weights of another model, or an activation
                (quick_gelu) that is not the one the weights were trained with.
        """
        if model == "toyclip":
            model_config = TOYCLIP / "ToyCLIP-64.json"
            pretrained = str(TOYCLIP / "toyclip64_fp16.safetensors")
        import open_clip  # takes seconds, and config errors should not wait for it

        name, config = _register(open_clip, model, model_config)
        if not pretrained:
            raise InputError(f"model {name!r} needs weights: give a tag or a file as `pretrained`")
        is_file = Path(pretrained).is_file()
        if not is_file:
            _check_tag(open_clip, name, pretrained, config)
        where = pick_device(device)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                # weights_only is open_clip's default for .pt files; .safetensors cannot hold code.
                made, _, transform = open_clip.create_model_and_transforms(
                    name, pretrained=pretrained, device=where
                )
        except (RuntimeError, OSError, ValueError, KeyError, AssertionError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{pretrained} does not hold the weights of {name}: {first}") from error
        for warning in caught:
            if "QuickGELU" in str(warning.message):
                raise InputError(f"wrong activation for {name}, {pretrained}: {warning.message}")
        tokenizer = open_clip.get_tokenizer(name)
        provenance = {
            "model": name,
            "pretrained": Path(pretrained).name if is_file else pretrained,
            "weights_sha256": _file_sha256(Path(pretrained)) if is_file else _state_sha256(made),
            "activation": "quick_gelu" if _has_quick_gelu(made) else "gelu",
            "transform": " ".join(str(transform).split()),
            "dtype": "float32",
            "device": str(where),
            "versions": {"torch": torch.__version__, "open_clip": open_clip.__version__},
        }
        return cls(made, transform, tokenizer, provenance)

    def encode_images(self, images: Sequence[Any], *, batch: int = BATCH) -> np.ndarray:
        """Unit image embeddings `z = f(x)/|f(x)|` (n, d) float32 of a sequence of PIL images."""
        rows = list(self.encode_batches(images, [range(len(images))], batch=batch))
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

    @torch.no_grad()
    def encode_batches(
        self, images: Sequence[Any], parts: Iterable[range], *, batch: int = BATCH
    ) -> Iterator[np.ndarray]:
        """Unit embeddings (at most `batch`, d) of the images in `parts`, in order; no batch spans two parts.

        The next batch is opened and transformed in threads while the tower works on this one (Pillow
        decodes and resizes outside Python's lock). On a GPU the tower runs in bfloat16; the norm is always
        taken in float32.
        """
        half = self.device.type == "cuda"
        cuts = (part[i : i + batch] for part in parts for i in range(0, len(part), batch))
        with ThreadPoolExecutor() as pool:

            def ask() -> list[Future[Tensor]]:
                return [pool.submit(_pixels, self.transform, images, i) for i in next(cuts, range(0))]

            coming = ask()
            while coming:
                asked, coming = coming, ask()
                pixels = torch.stack([future.result() for future in asked]).to(
                    self.device, memory_format=self._layout
                )
                with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                    out = self.model.encode_image(pixels)
                yield F.normalize(out.float(), dim=-1).cpu().numpy()

    @torch.no_grad()
    def encode_texts(self, texts: list[str], *, batch: int = 512) -> Tensor:
        """Unit text embeddings (len(texts), d) float32, on the encoder's device."""
        parts = [
            self.text.encode(self.text.tokenize(texts[i : i + batch])) for i in range(0, len(texts), batch)
        ]
        return torch.cat(parts)


def _pixels(transform: Callable[[Any], Tensor], images: Sequence[Any], i: int) -> Tensor:
    return transform(images[i])  # in a thread: opening the file is part of the work


def features(
    encoder: Encoder, images: Sequence[Any], *, cache: str | Path | None = None, quiet: bool = True
) -> np.ndarray:
    """Image features (n, d) float32, read from `cache` where they are there already.

    Images are taken in blocks of 2048. The key of a block is the sha256 of the weights, of the image
    transform and of every image in it, so neither a new model nor a changed picture can meet an old
    feature. A block's file is written beside its place and then renamed: a killed run leaves no half
    file, and the next one goes on where it stopped. Blocks found are mapped, not read, until they are put
    together.
    """
    parts = [range(i, min(i + _BLOCK, len(images))) for i in range(0, len(images), _BLOCK)]
    paths = [_cache_file(encoder, images, part, Path(cache)) if cache else None for part in parts]
    found = [_read(path, len(part)) for path, part in zip(paths, parts, strict=True)]
    missing = [part for part, z in zip(parts, found, strict=True) if z is None]
    encoded = encoder.encode_batches(images, missing)
    blocks = []
    with _bar(len(images), quiet) as tick:
        for part, path, z in zip(parts, paths, found, strict=True):
            if z is None:
                rows: list[np.ndarray] = []
                while sum(map(len, rows)) < len(part):
                    rows.append(next(encoded))
                    tick(len(rows[-1]))
                z = np.concatenate(rows)
                if path:
                    _write(path, z)
            else:
                tick(len(part))
            blocks.append(z)
    return np.concatenate(blocks)


#: Images in one cache file.
_BLOCK = 2048


def _cache_file(encoder: Encoder, images: Sequence[Any], part: range, cache: Path) -> Path:
    made_of = encoder.provenance
    key = hashlib.sha256(f"{made_of['weights_sha256']}{made_of['transform']}{encoder.device.type}".encode())
    for i in part:
        key.update(picture_digest(images, i))
    return cache / f"{key.hexdigest()}.npy"


def picture_digest(images: Sequence[Any], i: int) -> bytes:
    """Changes with picture i: a sha256 of it as it is stored, or its pixels."""
    return images.digest(i) if hasattr(images, "digest") else images[i].tobytes()


def _read(path: Path | None, n: int) -> np.ndarray | None:
    """The block in `path`, mapped into memory, or None where it is absent or damaged."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False) if path else None
        return found if found is not None and len(found) == n else None
    except (OSError, ValueError, EOFError):
        return None


def _write(path: Path, z: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.save(file, z, allow_pickle=False)
    part.replace(path)


def default_cache() -> Path:
    """Where features are kept between runs: `FVLFP_CACHE`, or `~/.cache/fvlfp`."""
    return Path(os.environ.get("FVLFP_CACHE") or Path.home() / ".cache" / "fvlfp")


@contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[int], object]]:
    """A progress bar where somebody can see it; nothing where nobody does."""
    with tqdm(total=total, desc="encoding images", unit="image", disable=quiet or None) as bar:
        yield bar.update


def _register(open_clip: Any, model: str, config: str | Path) -> tuple[str, dict[str, Any]]:
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


def _check_tag(open_clip: Any, name: str, tag: str, config: dict[str, Any]) -> None:
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


def _has_quick_gelu(model: torch.nn.Module) -> bool:
    return any(type(module).__name__ == "QuickGELU" for module in model.modules())


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state_sha256(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
