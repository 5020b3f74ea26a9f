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

from fvlfp.clip.block import Block
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

    @staticmethod
    def join(parts: list[Tokens]) -> Tokens:
        """The texts of all `parts` behind each other; their n_ctx must be one."""
        total = max(part.ids.shape[1] for part in parts)
        ids = [F.pad(part.ids, (0, total - part.ids.shape[1])) for part in parts]
        return Tokens(torch.cat(ids), torch.cat([part.last for part in parts]), parts[0].n_ctx)


class TextTower:
    """The text tower `h` of an open_clip model, frozen.

    The tower is causal and its output is read at the end-of-text token. Four things follow, all exact (tests
    compare with open_clip's own `encode_text`): nothing after that token matters, so texts are cut to the
    longest of the batch instead of being padded to 77 tokens; start-of-text sees only itself, so its states
    are computed once, ever; the context in front of the class words is the same for all classes, so it is
    computed once a prompt; and the last block is computed at end-of-text only.

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
            and all(isinstance(block.attn, nn.MultiheadAttention) for block in tower.transformer.resblocks)
            and hasattr(tokenizer, "sot_token_id")
        )
        if not fits:
            raise InputError(
                "this model's text tower cannot take prompts: it must be causal, read its output at "
                "end-of-text, and use open_clip's own blocks and tokenizer"
            )
        self.tokenizer = tokenizer
        self.context_length: int = tower.context_length
        self.blocks = [Block(block) for block in tower.transformer.resblocks]
        self.width: int = tower.token_embedding.weight.shape[1]
        self._embedding: nn.Embedding = tower.token_embedding
        self._position: Tensor = tower.positional_embedding.detach()
        self._mask: Tensor = tower.attn_mask
        self._norm: nn.Module = tower.ln_final
        self._project: Any = tower.text_projection
        self._start = self._states_of_start()

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
        """Unit text embeddings (..., C, d) float32.

        prompts: (..., L, n_ctx, width), any number of prompts at once, or None for plain texts (C, d).
        """
        return self._out(self._layers(tokens, prompts)[-1])

    def encode_layers(self, tokens: Tokens, prompts: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """`encode`, and the end-of-text state (..., C, width) after each block, for CDFP's `layers`."""
        *inner, final = self._layers(tokens, prompts)
        rows = torch.arange(len(tokens.last), device=self.device)
        at_end = tokens.last - tokens.n_ctx - 1
        return self._out(final), [*(x[..., rows, at_end, :] for x in inner), final]

    def _out(self, x: Tensor) -> Tensor:
        out = self._norm(x)
        if self._project is not None:
            out = self._project(out) if callable(self._project) else out @ self._project
        return F.normalize(out.float(), dim=-1)

    def _layers(self, tokens: Tokens, prompts: Tensor | None) -> list[Tensor]:
        """States of the words after each block (..., C, S, width); after the last one, where only the
        end-of-text is read, (..., C, width).

        Inside, `before` is start-of-text and context (K, 1 + n_ctx, width), one for all C texts of each of
        K prompts; `words` is what follows (K C, S, width), in front of the first block still (C, S, width).
        """
        if prompts is None:  # no context, in no layer
            prompts = self._position.new_zeros(len(self.blocks), 0, self.width)
        lead = prompts.shape[:-3]
        # Prompts out of a message lie on the CPU: they follow the tower, device and dtype alike.
        deep = prompts.reshape(lead.numel(), *prompts.shape[-3:]).to(self._position)
        n_prompts, depth, n_before = len(deep), deep.shape[1], 1 + deep.shape[2]
        n_texts, total = tokens.ids.shape
        rows = torch.arange(n_texts, device=self.device).repeat(n_prompts)
        places, mask = self._position[:total], self._mask[:total, :total]
        words = (self._embedding(tokens.ids[:, n_before:]) + places[n_before:]).detach()
        states = []
        for layer, block in enumerate(self.blocks):
            if layer < depth:
                context = deep[:, layer] + places[1:n_before] if layer == 0 else deep[:, layer]
                before = torch.cat([self._start[layer].expand(n_prompts, 1, -1), context], 1)
            keys = block.keys(before)
            k, v = (
                torch.cat(
                    [
                        shared[:, None].expand(-1, n_texts, -1, -1, -1),
                        own.unflatten(0, (-1, n_texts)).expand(n_prompts, -1, -1, -1, -1),
                    ],
                    dim=3,
                ).flatten(0, 1)
                for shared, own in zip(keys, block.keys(words), strict=True)
            )
            if layer + 1 < len(self.blocks):
                if layer + 1 >= depth and n_before > 1:
                    before = block(before, keys, mask[:n_before, :n_before])
                words = block(words, (k, v), mask[n_before:])
                states.append(words)
            else:
                at_end = tokens.last[rows] - n_before
                ends = words[torch.arange(len(words), device=self.device), at_end[: len(words)], None]
                states.append(block(ends, (k, v), mask[tokens.last[rows], None, None])[:, 0])
        return [x.unflatten(0, (*lead, n_texts)) for x in states]

    @torch.no_grad()
    def _states_of_start(self) -> Tensor:
        """Start-of-text at the input of each block (layers, width): it sees only itself."""
        x = self._embedding.weight[self.tokenizer.sot_token_id][None, None] + self._position[:1]
        states = []
        for block in self.blocks:
            states.append(x[0, 0])
            x = block(x, block.keys(x), None)
        return torch.stack(states)

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
        x = torch.cat([self._start[0][None], first + self._position[1 : 1 + n_ctx]])[None]
        layers = [first]
        for block in self.blocks[: depth - 1]:
            x = block(x, block.keys(x), self._mask[: 1 + n_ctx, : 1 + n_ctx])
            layers.append(x[0, 1:])
        return torch.stack(layers).float().clone()
