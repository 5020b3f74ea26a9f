"""Text towers that see the whole text at once (SigLIP, SigLIP2, MobileCLIP2, CLIPA), with prompts.

Such a tower is not causal, or is read at a place that depends on the tokenizer, so a text keeps its whole
length, padding included, as in training. What this module does not do: it shares nothing between texts, so
a step costs some ten times the tokens of a causal tower; and it takes no tower with a class token of its own
(CoCa) or of another library.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fvlfp.clip.text_tower import TextTower, Tokens, inner_tower, of_open_clip, pool_of
from fvlfp.errors import InputError

#: One token in every vocabulary. Class words are tokenised behind it, as they stand behind the context.
_WORD = "a"


def count_tokens(tokenizer: Any, text: str) -> int:
    """Tokens of a text with start and end, before anything is cut off."""
    if hasattr(tokenizer, "sot_token_id"):  # open_clip's own
        return len(tokenizer.encode(text)) + 2
    n = len(tokenizer.tokenizer(tokenizer.clean_fn(text)).input_ids)
    return n + 1 if tokenizer.tokenizer_mode == "clips" else n  # a class token stands at the end


def whole_tokens(tokenizer: Any, texts: list[str], free: int = 0) -> Tensor:
    """Ids (C, T) of whole texts, padded to the tower's length T; `free` places at the end must stay free.

    Raises:
        InputError: naming the text that would be cut off.
    """
    longest = tokenizer.context_length - free
    for text in texts:
        n = count_tokens(tokenizer, text)
        if n > longest:
            raise InputError(f"text of {n} tokens with start and end, at most {longest} fit: {text!r}")
    ids: Tensor = tokenizer(texts)
    return ids


class WholeTextTower(TextTower):
    """A tower of open_clip's blocks that is run at whole length.

    Deeper prompts are *added* to the states at the context positions, from zero on: where nothing is causal
    these states depend on the class words, so none could replace them and still say the same.
    """

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        tower = inner_tower(model)
        self._pool = pool_of(tower)
        self._eos: int = getattr(tower, "text_eos_id", getattr(tower, "eos_id", 2))
        self._before, self._word = self._place_of_words()

    @staticmethod
    def fits(model: nn.Module, tokenizer: Any) -> bool:
        """Whether a model's text tower is of this kind."""
        tower = inner_tower(model)
        return (
            pool_of(tower) in ("first", "last", "argmax", "eos")
            and of_open_clip(tower)
            and getattr(tokenizer, "tokenizer_mode", "") != "clips"
        )

    def _place_of_words(self) -> tuple[int, int]:
        """How many special tokens stand in front of the words, and the id of `_WORD`."""
        if hasattr(self.tokenizer, "sot_token_id"):
            (word,) = self.tokenizer.encode(_WORD)
            return 1, word
        plain = self._words(_WORD)
        special = self.tokenizer.tokenizer(_WORD, return_special_tokens_mask=True).special_tokens_mask
        if len(plain) != 1:
            raise InputError(f"this text tower cannot take prompts: {_WORD!r} is not one token of it")
        return special.index(0), plain[0]

    def _words(self, phrase: str) -> list[int]:
        """Tokens of a phrase alone."""
        if hasattr(self.tokenizer, "sot_token_id"):
            return list(self.tokenizer.encode(phrase))
        hf = self.tokenizer
        return list(hf.tokenizer(hf.clean_fn(phrase), add_special_tokens=False).input_ids) if phrase else []

    def tokenize(self, texts: list[str], n_ctx: int = 0) -> Tokens:
        """Whole texts; with a context, the words are tokenised as behind another word, which then goes."""
        if not n_ctx:
            ids = whole_tokens(self.tokenizer, texts)
        else:
            before, behind = self._before, [f"{_WORD} {text}" for text in texts]
            ids = whole_tokens(self.tokenizer, behind, free=n_ctx - 1)
            if not (ids[:, before] == self._word).all():
                raise InputError(f"this tokenizer joins {_WORD!r} to the next word: no place for prompts")
            free = ids.new_zeros(len(ids), n_ctx)
            ids = torch.cat([ids[:, :before], free, ids[:, before + 1 :]], 1)[:, : ids.shape[1]]
        return Tokens(ids, self._read_at(ids), n_ctx).to(self.device)

    def _read_at(self, ids: Tensor) -> Tensor:
        """(C,) the place where open_clip reads the output of texts (C, T)."""
        if self._pool == "argmax":
            return ids.argmax(1)
        if self._pool == "eos":
            return (ids == self._eos).int().argmax(1)
        return torch.full((len(ids),), 0 if self._pool == "first" else ids.shape[1] - 1)

    def encode_layers(self, tokens: Tokens, prompts: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """See `TextTower.encode_layers`."""
        if prompts is None:  # no context, in no layer
            prompts = self._position.new_zeros(1, 0, self.width)
        lead = prompts.shape[:-3]
        # Prompts out of a message lie on the CPU: they follow the tower, device and dtype alike.
        deep = prompts.reshape(lead.numel(), *prompts.shape[-3:]).to(self._position)
        (n_texts, total), n_prompts = tokens.ids.shape, len(deep)
        words = self._embedding(tokens.ids).detach()
        x = torch.cat([words[None]] * n_prompts)  # (K, C, T, width)
        first = deep[:, 0, None].expand(-1, n_texts, -1, -1)
        x = (self._replace(x, first) + self._position[:total]).flatten(0, 1)  # (K C, T, width)
        at = tokens.last.repeat(n_prompts)
        rows = torch.arange(len(at), device=self.device)
        mask = None if self._mask is None else self._mask[:total, :total]
        states = []
        for layer, block in enumerate(self.blocks):
            if 0 < layer < deep.shape[1]:
                x = self._add(x, deep[:, layer].repeat_interleave(n_texts, 0))
            keys = block.keys(x)
            if layer + 1 < len(self.blocks):
                x = block(x, keys, mask)
                states.append(x[rows, at])
            else:
                seen = None if mask is None else mask[at][:, None, None]
                states.append(block(x[rows, at][:, None], keys, seen)[:, 0])
        states = [state.unflatten(0, (*lead, n_texts)) for state in states]
        return self._out(states[-1]), states

    def _replace(self, x: Tensor, context: Tensor) -> Tensor:
        """x (..., T, width) with `context` (..., n_ctx, width) in its places."""
        start, stop = self._before, self._before + context.shape[-2]
        return torch.cat([x[..., :start, :], context, x[..., stop:, :]], -2)

    def _add(self, x: Tensor, context: Tensor) -> Tensor:
        """x (N, T, width) with `context` (N, n_ctx, width) added in its places."""
        start, stop = self._before, self._before + context.shape[-2]
        return self._replace(x, x[..., start:stop, :] + context)

    @torch.no_grad()
    def initial_prompts(self, phrase: str, *, n_ctx: int, depth: int, generator: torch.Generator) -> Tensor:
        """See `TextTower.initial_prompts`; deeper layers hold zeros, for they are added."""
        self._check_depth(depth)
        first = self._first_prompt(self._words(phrase), phrase, n_ctx, generator)
        return torch.stack([first, *[torch.zeros_like(first)] * (depth - 1)]).float().clone()
