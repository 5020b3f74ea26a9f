"""One frozen transformer block of open_clip, taken apart: keys of many tokens, queries of a few.

A causal text tower needs the output of a token only where somebody reads it. With keys and queries apart,
the context of a prompt is computed once for all its class texts, and the last block at one token a text.

What this module does not do: it trains nothing, and it knows nothing of prompts; see `fvlfp.clip.text_tower`.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


class Block:
    """A pre-norm `ResidualAttentionBlock` with H heads of e numbers; its weights stay where they are."""

    def __init__(self, block: Any) -> None:
        self._block = block
        self._width: int = block.attn.embed_dim
        self._heads: int = block.attn.num_heads

    def keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each (N, H, T, e), of the tokens x (N, T, width)."""
        k, v = self._project(x, slice(self._width, None)).chunk(2, -1)
        return self._split(k), self._split(v)

    def __call__(self, x: Tensor, seen: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """The block's output (N, Q, width) at the tokens x (M, Q, width).

        seen: keys and values (N, H, T, e) these tokens see; N is a multiple of M, and x is repeated to it.
        mask: added to the attention logits, broadcast to (N, H, Q, T); -inf hides. None: all is seen.
        """
        block, (k, v) = self._block, seen
        q = self._split(self._project(x, slice(self._width)))
        if len(k) > len(x):
            q, x = (t.repeat(len(k) // len(x), *[1] * (t.ndim - 1)) for t in (q, x))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = x + block.ls_1(block.attn.out_proj(out))
        return x + block.ls_2(block.mlp(block.ln_2(x)))

    def _project(self, x: Tensor, part: slice) -> Tensor:
        attn = self._block.attn
        return F.linear(self._block.ln_1(x), attn.in_proj_weight[part], attn.in_proj_bias[part])

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self._heads, -1)).transpose(1, 2)
