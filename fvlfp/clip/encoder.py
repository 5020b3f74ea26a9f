"""A frozen open_clip model: unit image features, their provenance, and a cache that survives a kill.

What this module does not do: it never trains the model and never downloads silently (open_clip downloads
only when a `pretrained` *tag* is asked for).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp.clip.text_tower import TextTower
from fvlfp.clip.weights import check_tag, file_sha256, has_quick_gelu, register, state_sha256
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

        name, config = register(open_clip, model, model_config)
        if not pretrained:
            raise InputError(f"model {name!r} needs weights: give a tag or a file as `pretrained`")
        is_file = Path(pretrained).is_file()
        if not is_file:
            check_tag(open_clip, name, pretrained, config)
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
            "weights_sha256": file_sha256(Path(pretrained)) if is_file else state_sha256(made),
            "activation": "quick_gelu" if has_quick_gelu(made) else "gelu",
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
