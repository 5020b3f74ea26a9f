"""Prompts, and frozen text towers opened up so that prompts can be put into them.

A prompt is one tensor `P` (L, n_ctx, width). `P[0]` are context vectors in front of the class words
(CoOp, Zhou et al. 2022); `P[1:]` act on the context positions at the input of deeper blocks (MaPLe,
VPT-deep). Nothing else is trained, nothing else travels.

What this module does not do: it trains nothing, and it holds no image. The two kinds of tower are in
`fvlfp.clip.causal_text` and `fvlfp.clip.whole_text`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvlfp.clip.block import Block
from fvlfp.errors import InputError


@dataclass(frozen=True)
class Tokens:
    """Token ids of C texts.

    ids: (C, T) int64; the `n_ctx` places of the context are filled with zeros.
    last: (C,) int64, the place of each text where the tower's output is read.
    n_ctx: context places that a prompt will fill; 0 for plain texts.
    """

    ids: Tensor
    last: Tensor
    n_ctx: int

    def to(self, device: torch.device) -> Tokens:
        """The same tokens on another device."""
        return Tokens(self.ids.to(device), self.last.to(device), self.n_ctx)

    @staticmethod
    def join(parts: list[Tokens]) -> Tokens:
        """The texts of all `parts` behind each other; their n_ctx must be one."""
        total = max(part.ids.shape[1] for part in parts)
        ids = [F.pad(part.ids, (0, total - part.ids.shape[1])) for part in parts]
        return Tokens(torch.cat(ids), torch.cat([part.last for part in parts]), parts[0].n_ctx)


class TextTower(ABC):
    """The text tower `h` of an open_clip model, frozen, with places for prompts.

    Attributes:
        tokenizer, context_length: those of the model. blocks: its transformer blocks, taken apart.
        width: numbers in a token's state.
    """

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        tower = inner_tower(model)
        self.tokenizer = tokenizer
        self.context_length: int = tower.context_length
        self.blocks = [Block(block) for block in tower.transformer.resblocks]
        self.width: int = tower.token_embedding.weight.shape[1]
        self._embedding: nn.Embedding = tower.token_embedding
        self._position: Tensor = tower.positional_embedding.detach()
        self._mask: Tensor | None = tower.attn_mask
        self._norm: nn.Module = tower.ln_final
        self._project: Any = tower.text_projection

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._position.device

    @abstractmethod
    def tokenize(self, texts: list[str], n_ctx: int = 0) -> Tokens:
        """The texts with `n_ctx` free places in front of their words.

        Raises:
            InputError: naming the text that is longer than the tower's context.
        """

    @abstractmethod
    def encode_layers(self, tokens: Tokens, prompts: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """`encode`, and the state (..., C, width) after each block where the output is read.

        CDFP's `layers` compares these states.
        """

    def encode(self, tokens: Tokens, prompts: Tensor | None = None) -> Tensor:
        """Unit text embeddings (..., C, d) float32.

        prompts: (..., L, n_ctx, width), any number of prompts at once, or None for plain texts (C, d).
        """
        return self.encode_layers(tokens, prompts)[0]

    @abstractmethod
    def initial_prompts(self, phrase: str, *, n_ctx: int, depth: int, generator: torch.Generator) -> Tensor:
        """Prompts (depth, n_ctx, width) with which the tower still says exactly `phrase`.

        Layer 0 holds the word embeddings of `phrase` (e.g. "a photo of a"), and deeper layers change
        nothing. Training therefore starts at the hand-written prompt, not near it. If the phrase is
        shorter than `n_ctx`, small random vectors (sd 0.02) stand in front of it.

        Raises:
            InputError: depth beyond the tower's blocks, or a phrase longer than `n_ctx` tokens.
        """

    def _first_prompt(self, words: list[int], phrase: str, n_ctx: int, generator: torch.Generator) -> Tensor:
        """Layer 0 (n_ctx, width): small random vectors, then the embeddings of the phrase's tokens."""
        if len(words) > n_ctx:
            raise InputError(f"n_ctx = {n_ctx} is less than the {len(words)} tokens of {phrase!r}")
        first = 0.02 * torch.randn(n_ctx, self.width, generator=generator).to(self.device)
        if words:
            first[n_ctx - len(words) :] = self._embedding(torch.tensor(words, device=self.device))
        return first

    def _check_depth(self, depth: int) -> None:
        if depth > len(self.blocks):
            raise InputError(f"depth = {depth}: this text tower has {len(self.blocks)} layers")

    def _out(self, x: Tensor) -> Tensor:
        out = self._norm(x)
        if self._project is not None:
            out = self._project(out) if callable(self._project) else out @ self._project
        return F.normalize(out.float(), dim=-1)


def inner_tower(model: nn.Module) -> Any:
    """The module with the text tower's parts: open_clip's CLIP keeps them on the model itself."""
    return getattr(model, "text", model)


def pool_of(tower: Any) -> str | None:
    """Where a tower's output is read, as open_clip calls it."""
    return getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))


def of_open_clip(tower: Any) -> bool:
    """Whether a tower is open_clip's own transformer, of whole blocks, without a class token of its own."""
    return (
        getattr(tower, "cls_emb", None) is None
        and hasattr(tower, "positional_embedding")
        and not getattr(tower, "use_pad_mask", False)
        and getattr(getattr(tower, "transformer", None), "batch_first", False)
        and all(isinstance(block.attn, nn.MultiheadAttention) for block in tower.transformer.resblocks)
    )
