"""The text tower of OpenAI's CLIP and its kin, with prompts: causal, read at the end-of-text token.

What this module does not do: it takes no other tower; see `fvlfp.clip.whole_text`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fvlfp.clip.text_tower import TextTower, Tokens, inner_tower, of_open_clip, pool_of
from fvlfp.errors import InputError


class CausalTextTower(TextTower):
    """A causal tower, cut open.

    Four things follow from causality and from reading at end-of-text, all exact (tests compare with
    open_clip's own `encode_text`): nothing after that token matters, so texts are cut to the
    longest of the batch instead of being padded to 77 tokens; start-of-text sees only itself, so its states
    are computed once, ever; the context in front of the class words is the same for all classes, so it is
    computed once a prompt; and the last block is computed at end-of-text only.

    Deeper prompts *replace* the states at the context positions.
    """

    _mask: Tensor

    @staticmethod
    def fits(model: nn.Module, tokenizer: Any) -> bool:
        """Whether a model's text tower is of this kind."""
        tower = inner_tower(model)
        return (
            pool_of(tower) in ("argmax", "eos")
            and getattr(tower, "attn_mask", None) is not None
            and of_open_clip(tower)
            and hasattr(tokenizer, "sot_token_id")
        )

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
        """See `TextTower.encode`."""
        return self._out(self._layers(tokens, prompts)[-1])

    def encode_layers(self, tokens: Tokens, prompts: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """`encode`, and the end-of-text state (..., C, width) after each block, for CDFP's `layers`."""
        *inner, final = self._layers(tokens, prompts)
        rows = torch.arange(len(tokens.last), device=self.device)
        at_end = tokens.last - tokens.n_ctx - 1
        return self._out(final), [*(x[..., rows, at_end, :] for x in inner), final]

    def _layers(self, tokens: Tokens, prompts: Tensor | None) -> list[Tensor]:
        """States of the words after each block (..., C, S, width).

        After the last one, where only the end-of-text is read: (..., C, width).

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

    @cached_property
    def _start(self) -> Tensor:
        """Start-of-text at the input of each block (layers, width): it sees only itself."""
        with torch.no_grad():
            x = self._embedding.weight[self.tokenizer.sot_token_id][None, None] + self._position[:1]
            states = []
            for block in self.blocks:
                states.append(x[0, 0])
                x = block(x, block.keys(x), None)
            return torch.stack(states)

    @torch.no_grad()
    def initial_prompts(self, phrase: str, *, n_ctx: int, depth: int, generator: torch.Generator) -> Tensor:
        """See `TextTower.initial_prompts`.

        Deeper layers hold the states that the phrase has there anyway: the tower is causal, so they do not
        depend on the class words behind them.
        """
        self._check_depth(depth)
        first = self._first_prompt(list(self.tokenizer.encode(phrase)), phrase, n_ctx, generator)
        x = torch.cat([self._start[0][None], first + self._position[1 : 1 + n_ctx]])[None]
        layers = [first]
        for block in self.blocks[: depth - 1]:
            x = block(x, block.keys(x), self._mask[: 1 + n_ctx, : 1 + n_ctx])
            layers.append(x[0, 1:])
        return torch.stack(layers).float().clone()
