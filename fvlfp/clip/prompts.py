"""Prompts, and the frozen text tower opened up so that prompts can be put into it.

A prompt is one tensor `P` (L, n_ctx, width). `P[0]` are context vectors in front of the class words
(CoOp, Zhou et al. 2022); `P[1:]` replace the context positions at the input of deeper blocks (MaPLe,
VPT-deep). Nothing else is trained, nothing else travels.

What this module does not do: it trains nothing, and it holds no image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fvlfp.errors import InputError


@dataclass(frozen=True)
class Tokens:
    """Token ids of C texts, cut to the longest of them.

    ids: (C, T) int64, `T = 1 + n_ctx + longest phrase + 1`; the `n_ctx` places are filled with zeros.
    last: (C,) int64, the place of the end-of-text token of each.
    n_ctx: context places that a prompt will fill; 0 for plain texts.
    """

    ids: Tensor
    last: Tensor
    n_ctx: int

    def to(self, device: torch.device) -> Tokens:
        """The same tokens on another device."""
        return Tokens(self.ids.to(device), self.last.to(device), self.n_ctx)


class TextTower:
    """The text tower `h` of an open_clip model, frozen.

    The tower is causal and its output is read at the end-of-text token, so nothing after that token can
    matter: texts are cut to the longest of the batch instead of being padded to 77 tokens. This is
    exact (a test compares it with open_clip's own `encode_text`).

    Raises:
        InputError: for a tower that is not causal or does not read its output at end-of-text
            (SigLIP, Hugging Face towers): prompts would need other mechanics there.
    """

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        tower: Any = getattr(model, "text", model)  # CLIP keeps the parts on the model itself
        pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
        fits = (
            pool in ("argmax", "eos")
            and getattr(tower, "attn_mask", None) is not None
            and getattr(tower, "cls_emb", None) is None
            and getattr(getattr(tower, "transformer", None), "batch_first", False)
            and hasattr(tokenizer, "sot_token_id")
        )
        if not fits:
            raise InputError(
                "this model's text tower cannot take prompts: it must be causal, read its output at "
                "end-of-text, and use open_clip's own tokenizer"
            )
        self.tokenizer = tokenizer
        self.context_length: int = tower.context_length
        self.blocks: list[nn.Module] = list(tower.transformer.resblocks)
        self.width: int = tower.token_embedding.weight.shape[1]
        self._embedding: nn.Embedding = tower.token_embedding
        self._position: Tensor = tower.positional_embedding
        self._mask: Tensor = tower.attn_mask
        self._norm: nn.Module = tower.ln_final
        self._project: Any = tower.text_projection

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._position.device

    def tokenize(self, texts: list[str], n_ctx: int = 0) -> Tokens:
        """Start-of-text, `n_ctx` free places, the text, end-of-text.

        Raises:
            InputError: naming the text that is longer than the tower's context.
        """
        rows = [list(self.tokenizer.encode(text)) for text in texts]
        longest = self.context_length - 2 - n_ctx
        for text, row in zip(texts, rows, strict=True):
            if len(row) > longest:
                raise InputError(f"text of {len(row)} tokens, at most {longest} fit: {text!r}")
        width = max(len(row) for row in rows)
        start, end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        ids = torch.zeros(len(rows), 2 + n_ctx + width, dtype=torch.long)
        ids[:, 0] = start
        for i, row in enumerate(rows):
            ids[i, 1 + n_ctx : 1 + n_ctx + len(row)] = torch.tensor(row, dtype=torch.long)
            ids[i, 1 + n_ctx + len(row)] = end
        last = torch.tensor([1 + n_ctx + len(row) for row in rows])
        return Tokens(ids, last, n_ctx).to(self.device)

    def encode(self, tokens: Tokens, prompts: Tensor | None = None) -> Tensor:
        """Unit text embeddings (C, d) float32; `prompts` (L, n_ctx, width) or None for plain texts."""
        return self.encode_layers(tokens, prompts)[0]

    def encode_layers(self, tokens: Tokens, prompts: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """`encode`, and the end-of-text state (C, width) after each block: what CDFP's `layers` compares."""
        x, rows = self._embed(tokens, prompts), torch.arange(len(tokens.last), device=self.device)
        states = []
        for layer, block in enumerate(self.blocks):
            if prompts is not None and 0 < layer < len(prompts):
                x = _put(x, prompts[layer])
            x = block(x, attn_mask=self._mask[: x.shape[1], : x.shape[1]])
            states.append(x[rows, tokens.last])
        out = self._norm(states[-1])
        if self._project is not None:
            out = self._project(out) if callable(self._project) else out @ self._project
        return F.normalize(out.float(), dim=-1), states

    def _embed(self, tokens: Tokens, prompts: Tensor | None) -> Tensor:
        x = self._embedding(tokens.ids)
        if prompts is not None:
            x = _put(x, prompts[0])
        return x + self._position[: x.shape[1]]

    @torch.no_grad()
    def initial_prompts(self, phrase: str, *, n_ctx: int, depth: int, generator: torch.Generator) -> Tensor:
        """Prompts (depth, n_ctx, width) with which the tower still says exactly `phrase`.

        Layer 0 holds the word embeddings of `phrase` (e.g. "a photo of a"). Deeper layers hold the
        states these words have there anyway: the tower is causal, so they do not depend on the class
        words behind them. Training therefore starts at the hand-written prompt, not near it. If the
        phrase is shorter than `n_ctx`, small random vectors (sd 0.02) stand in front of it.

        Raises:
            InputError: depth beyond the tower's blocks, or a phrase longer than `n_ctx` tokens.
        """
        if depth > len(self.blocks):
            raise InputError(f"depth = {depth}: this text tower has {len(self.blocks)} layers")
        words = list(self.tokenizer.encode(phrase))
        if len(words) > n_ctx:
            raise InputError(f"n_ctx = {n_ctx} is less than the {len(words)} tokens of {phrase!r}")
        first = 0.02 * torch.randn(n_ctx, self.width, generator=generator).to(self.device)
        if words:
            ids = torch.tensor(words, device=self.device)
            first[n_ctx - len(words) :] = self._embedding(ids)
        tokens = self.tokenize([""], n_ctx)
        x, layers = self._embed(tokens, first[None]), [first]
        for block in self.blocks[: depth - 1]:
            x = block(x, attn_mask=self._mask[: x.shape[1], : x.shape[1]])
            layers.append(x[0, 1 : 1 + n_ctx])
        return torch.stack(layers).float().clone()


def _put(x: Tensor, prompt: Tensor) -> Tensor:
    """`x` (C, T, width) with the context places behind start-of-text replaced by `prompt` (n_ctx, width)."""
    prompt = prompt.to(x.dtype).expand(len(x), -1, -1)
    return torch.cat([x[:, :1], prompt, x[:, 1 + prompt.shape[1] :]], dim=1)
