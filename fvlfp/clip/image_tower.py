"""The frozen image tower opened up so that prompts can be put into it.

A vision prompt is one tensor `V` (L_v, n_v, width_v), as in VPT-deep (Jia et al. 2022) and MaPLe (Khattak et
al. 2023): `V[0]` joins class token and patches in front of the first block, `V[1:]` replace these tokens at
the input of deeper blocks.

What this module does not do: it trains nothing; V is not computed from the text prompts, as MaPLe's is; and
what it encodes cannot be cached, for a new V makes new embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fvlfp.clip.block import Block
from fvlfp.clip.device import send
from fvlfp.clip.preprocess import Normalise, normalisation
from fvlfp.errors import InputError


class ImageTower:
    """The image tower `f` of an open_clip vision transformer, frozen.

    It takes pixels as uint8 and begins with the last step of the model's transform, the normalisation. Its
    output is read at the class token, so the last block is computed there only.

    Raises:
        InputError: for a tower that is no such transformer (a ResNet, a timm tower), or that reads its output
            elsewhere: prompts would need other mechanics there.
    """

    def __init__(
        self, model: Any, transform: Callable[[Any], Tensor], dtype: torch.dtype = torch.float32
    ) -> None:
        visual = model.visual
        last = normalisation(transform)
        fits = (
            getattr(visual, "pool_type", None) == "tok"
            and getattr(visual, "attn_pool", None) is None
            and all(
                isinstance(getattr(block, "attn", None), nn.MultiheadAttention)
                for block in visual.transformer.resblocks
            )
            and last is not None
        )
        if not fits:
            raise InputError(
                "this model's image tower cannot take prompts (vision_ctx): it must be open_clip's own "
                "vision transformer, read at the class token; a ResNet such as toyclip's is none"
            )
        self._visual = visual
        self.blocks = [Block(block) for block in visual.transformer.resblocks]
        self.tokens, self.width = visual.positional_embedding.shape  # class token and patches
        self.image_size: tuple[int, int] = visual.image_size
        self._normalise, self._dtype = Normalise(last, visual.class_embedding.device), dtype

    def encode(self, pixels: Tensor, prompts: Tensor | None = None, *, recompute: bool = True) -> Tensor:
        """Unit image embeddings (n, d) float32 of pixels (n, 3, H, W) uint8.

        prompts: V (L_v, n_v, width_v), or None for the bare tower. recompute: where gradients are needed,
        each block keeps its input only and is computed again in the backward pass. The tower runs in the
        encoder's `dtype`; the norm is always taken in float32.
        """
        with torch.no_grad():
            normal = self._normalise(send(pixels, self._visual.class_embedding.device))
        return self.encode_normal(normal, prompts, recompute=recompute)

    def encode_normal(
        self, pixels: Tensor, prompts: Tensor | None = None, *, recompute: bool = False
    ) -> Tensor:
        """`encode` of pixels (n, 3, H, W) float32 on the tower's device that are normalised already."""
        device, half = pixels.device, self._dtype != torch.float32
        with torch.autocast(device.type, self._dtype if half else None, enabled=half):
            x = self._tokens(pixels)
            n_own = x.shape[1]
            save = recompute and torch.is_grad_enabled() and prompts is not None and prompts.requires_grad
            for layer, block in enumerate(self.blocks):
                if prompts is not None and layer < len(prompts):
                    x = torch.cat([x[:, :n_own], prompts[layer].to(x.dtype).expand(x.shape[0], -1, -1)], 1)
                read = 1 if layer + 1 == len(self.blocks) else x.shape[1]
                if save:
                    x = checkpoint(_through, block, x, read, use_reentrant=False, preserve_rng_state=False)
                else:
                    x = _through(block, x, read)
            out = self._visual.ln_post(x[:, 0])
            if self._visual.proj is not None:
                out = out @ self._visual.proj
        return F.normalize(out.float(), dim=-1)

    @torch.no_grad()
    def _tokens(self, pixels: Tensor) -> Tensor:
        """Class token and patches (n, 1 + N, width_v) at the input of the first block."""
        visual = self._visual
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
        start = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        return visual.ln_pre(torch.cat([start, patches], 1) + visual.positional_embedding.to(patches.dtype))

    def initial_prompts(self, *, n_ctx: int, depth: int, generator: torch.Generator) -> Tensor:
        """Small random V (depth, n_ctx, width_v), sd 0.02.

        Unlike text prompts these start near nothing: any token more draws some attention, so round 0 is not
        exactly the zero-shot classifier.

        Raises:
            InputError: depth beyond the tower's blocks.
        """
        if depth > len(self.blocks):
            raise InputError(f"vision_depth = {depth}: this image tower has {len(self.blocks)} layers")
        drawn = 0.02 * torch.randn(depth, n_ctx, self.width, generator=generator)
        return drawn.to(self._visual.class_embedding.device)


def _through(block: Block, x: Tensor, read: int) -> Tensor:
    """One block's output at the first `read` of the tokens x."""
    return block(x[:, :read], block.keys(x), None)
