"""A frozen open_clip model: unit image features, their provenance, and a cache that survives a kill.

What this module does not do: it never trains the model and never downloads silently (open_clip downloads
only when a `pretrained` *tag* is asked for).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp.clip.build import build_model, build_tokenizer, versions
from fvlfp.clip.causal_text import CausalTextTower
from fvlfp.clip.decode import Pictures, batches_of, workers_with_room
from fvlfp.clip.device import is_cuda, keep_freed_memory, pick_device, tower_dtype
from fvlfp.clip.image_tower import ImageTower
from fvlfp.clip.lookup import look_up
from fvlfp.clip.preprocess import NOBODY, Normalise, normalisation
from fvlfp.clip.text_tower import TextTower
from fvlfp.clip.towers import open_text_tower
from fvlfp.clip.weights import has_quick_gelu, load_weights
from fvlfp.clip.whole_text import whole_tokens
from fvlfp.files import file_sha256

#: Images in one pass of the tower: benchmarks/speed.py finds no CPU gain beyond some tens.
BATCH = 64
#: The same on a GPU.
GPU_BATCH = 256


class Encoder:
    """The frozen towers of one open_clip model.

    Attributes:
        text: the text tower, which takes prompts; InputError for a tower that takes none.
        scale: `s = exp(logit_scale)`, the factor between cosine and logit.
        dtype: what the image tower computes in. workers: processes that open images; 0 means threads.
        provenance: name, sha256 of weights and config, what was done to the weights, activation and image
            transform with who states them, dtype, device, versions.
    """

    def __init__(
        self,
        model: Any,
        transform: Callable[[Any], Tensor],
        tokenizer: Any,
        provenance: Mapping[str, Any],
        *,
        precision: str = "auto",
        workers: int | None = None,
        batch: int | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        # A ResNet of convolutions runs faster so, a vision transformer does not (benchmarks/speed.py).
        resnet = hasattr(model.visual, "layer4")
        self._layout = torch.channels_last if resnet else torch.contiguous_format
        self.model.visual.to(memory_format=self._layout)
        self.transform = transform
        self.tokenizer = tokenizer
        self.scale = float(model.logit_scale.exp())
        self.device = model.logit_scale.device
        self.dtype = tower_dtype(self.device, precision)
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            keep_freed_memory()
        self.batch = batch or (BATCH if on_cpu else GPU_BATCH)
        self.workers = (0 if on_cpu else min(os.cpu_count() or 1, 16)) if workers is None else workers
        self.provenance = {**provenance, "dtype": str(self.dtype).removeprefix("torch.")}

    def unstated(self) -> dict[str, str]:
        """What neither the user nor a file states, "transform" or "activation", and what was taken."""
        origins = {what: str(self.provenance.get(f"{what}_origin")) for what in ("transform", "activation")}
        return {what: origin for what, origin in origins.items() if origin.startswith(NOBODY)}

    @cached_property
    def text(self) -> TextTower:
        """The text tower, opened when first asked for: an audit needs none that takes prompts."""
        return open_text_tower(self.model, self.tokenizer)

    @classmethod
    def load(
        cls,
        model: str = "toyclip",
        *,
        pretrained: str = "",
        model_config: str | Path = "",
        device: str = "auto",
        precision: str = "auto",
        workers: int | None = None,
        batch: int | None = None,
        preprocess: Mapping[str, Any] | None = None,
        text_prompts: bool = False,
        vision_prompts: bool = False,
    ) -> Encoder:
        """Load a frozen CLIP.

        model: "toyclip" (built in, no download), a name open_clip knows, the name that `model_config`
            defines, "local-dir:FOLDER" (weights beside open_clip_config.json, or a saved CLIPModel of
            transformers), or "hf-hub:OWNER/NAME".
        pretrained: a tag open_clip knows for `model`, or the path of a weights file.
        model_config: an open_clip config JSON, for a model open_clip does not know by name.
        precision: of the image tower: auto, float32 or bf16 (`fvlfp.clip.device.tower_dtype`).
        workers: processes that open and resize images; 0 means threads, None threads on a CPU and processes
            on a GPU. batch: images in one pass of the tower; None is 64 on a CPU, 256 on a GPU.
        preprocess: steps of the image transform that are given here: mean, std, interpolation, resize; see
            `Preprocess`. The others are those of a config beside the weights, of the tag, or OpenAI's.
        text_prompts, vision_prompts: prompts are to be put into this tower; a tower that cannot take them
            is refused before the weights are loaded.

        Raises:
            InputError: unknown model or tag, missing, damaged or contradictory files, weights of another
                model, an option that would not be used, or an activation (quick_gelu) that is not the one
                the weights were trained with.
        """
        where = pick_device(device)
        tower_dtype(where, precision)  # a wrong word is refused before anything is loaded
        source = look_up(model, pretrained, model_config)
        steps = source.preprocess.override(preprocess or {})
        made = build_model(source.name, source.config)
        transform = steps.transform(made.visual.image_size)
        tokenizer = build_tokenizer(source.name, source.config, source.tokenizer_files)
        if text_prompts:
            open_text_tower(made, tokenizer)
        if vision_prompts:
            ImageTower(made, transform)
        weights = source.fetch()
        done = load_weights(made, source.name, weights)
        provenance = source.provenance() | {
            "weights_sha256": file_sha256(weights),
            "weights_read": "; ".join(done) or "as they are",
            "activation": "quick_gelu" if has_quick_gelu(made) else "gelu",
            "transform": " ".join(str(transform).split()),
            "transform_origin": steps.origin,
            "device": str(where),
            "versions": versions(),
        }
        tower = made.to(where)
        return cls(tower, transform, tokenizer, provenance, precision=precision, workers=workers, batch=batch)

    def encode_images(self, images: Sequence[Any], *, batch: int | None = None) -> np.ndarray:
        """Unit image embeddings `z = f(x)/|f(x)|` (n, d) float32 of a sequence of PIL images."""
        rows = list(self.encode_batches(images, [range(len(images))], batch=batch))
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

    def encode_batches(
        self, images: Sequence[Any], parts: Iterable[range], *, batch: int | None = None
    ) -> Generator[np.ndarray]:
        """Unit embeddings (at most `batch`, d) of the images in `parts`, in order; no batch spans two parts.

        The next batches are opened and resized (`fvlfp.clip.decode`) while the tower works on this one, and a
        GPU gets its next batch before the result of this one is asked for.
        """
        size = batch or self.batch
        cuts = [part[i : i + size] for part in parts for i in range(0, len(part), size)]
        # Who opens pictures for a CPU's tower normalises them too; a GPU does so itself, and uint8 travels.
        on_cpu, pin = self.device.type == "cpu", is_cuda(self.device)
        pictures = Pictures(images, self.transform, finished=on_cpu, layout=self._layout)
        side = self.model.visual.image_size
        height, width = side if isinstance(side, tuple) else (side, side)
        workers = workers_with_room(self.workers, size * 3 * height * width * pictures.value_bytes)
        at_work: Tensor | None = None
        with closing(batches_of(pictures, cuts, workers=workers, pin=pin)) as batches:
            for pixels in batches:
                made = self._encode(pixels.to(self.device, non_blocking=pin))
                if at_work is not None:
                    yield at_work.cpu().numpy()
                at_work = made
        if at_work is not None:
            yield at_work.cpu().numpy()

    def _ready(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, H, W), normalised and in the layout of the tower."""
        if pixels.dtype == torch.uint8 and self._normalise is not None:
            pixels = self._normalise(pixels)
        return pixels.contiguous(memory_format=self._layout)

    @cached_property
    def _normalise(self) -> Normalise | None:
        """What remains to be done to uint8; None for a transform that does it itself."""
        step = normalisation(self.transform)
        return step and Normalise(step, self.device)

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> Tensor:
        """Unit embeddings (n, d) float32 of pixels (n, 3, H, W); the norm is always taken in float32."""
        pixels = self._ready(pixels)
        half = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype if half else None, enabled=half):
            out = self.model.encode_image(pixels)
        return F.normalize(out.float(), dim=-1)

    @torch.no_grad()
    def encode_texts(self, texts: list[str], *, batch: int = 512) -> Tensor:
        """Unit text embeddings (len(texts), d) float32, on the encoder's device.

        Raises:
            InputError: naming the text that is longer than the tower's context.
        """
        parts = [texts[i : i + batch] for i in range(0, len(texts), batch)]
        if CausalTextTower.fits(self.model, self.tokenizer):  # the same numbers, several times faster
            return torch.cat([self.text.encode(self.text.tokenize(part)) for part in parts])
        ids = (whole_tokens(self.tokenizer, part).to(self.device) for part in parts)
        return torch.cat([F.normalize(self.model.encode_text(one).float(), dim=-1) for one in ids])
