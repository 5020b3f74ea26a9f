"""What server and clients share before training starts: the frozen text tower and the words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp.clip.encoder import Encoder
from fvlfp.clip.image_tower import ImageTower
from fvlfp.clip.text_tower import TextTower, Tokens
from fvlfp.config import Config
from fvlfp.data.card import Attribute, Card
from fvlfp.training.parts import Parts


class TextEmbeddings(NamedTuple):
    """What prompts make of the words.

    classes: T (..., C, d), the classifier. Where asked for, attribute -> named: the texts that name a class
    and a group (..., C, G, d); states: their end-of-text states in each layer (..., C, G, width);
    group_words: E (..., G, d).
    """

    classes: Tensor
    named: dict[str, Tensor]
    states: dict[str, list[Tensor]]
    group_words: dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """One classification task in words.

    classes: C values of the label, in the card's order. groups: attribute -> its G perceived groups.
    initial: prompts (L, n_ctx, width) that say the card's first template.
    frozen_texts: (C, d) class embeddings under `initial`: the zero-shot classifier, and the anchor.
    group_texts: attribute -> E (G, d), unit mean embedding of each group's hand-written sentences.
    image: the frozen image tower, and initial_vision: V (L_v, n_v, width_v) that training starts from; both
    None without vision prompts. parts: functions that replace the library's own in this process.
    """

    text: TextTower
    scale: float
    classes: list[str]
    groups: dict[str, list[str]]
    initial: Tensor
    frozen_texts: Tensor
    group_texts: dict[str, Tensor]
    class_tokens: Tokens
    word_tokens: dict[str, tuple[Tokens, Tensor]]
    pair_tokens: dict[str, tuple[Tokens, Tensor]]
    image: ImageTower | None = None
    initial_vision: Tensor | None = None
    parts: Parts = field(default_factory=Parts)

    @property
    def n_groups(self) -> dict[str, int]:
        """Attribute -> G."""
        return {name: len(groups) for name, groups in self.groups.items()}

    @classmethod
    def make(cls, encoder: Encoder, card: Card, cfg: Config) -> Task:
        """Tokenise and embed all words once.

        Raises:
            InputError: the card lacks words for the label or an attribute, or a text is too long; with vision
                prompts, the image tower cannot take them, or not in so many layers.
        """
        text, image, vision = encoder.text, None, None
        if cfg.vision_ctx:
            image = ImageTower(encoder.model, encoder.transform, encoder.dtype)
            drawn = torch.Generator().manual_seed(cfg.seed_for("init/vision"))
            vision = image.initial_prompts(n_ctx=cfg.vision_ctx, depth=cfg.vision_depth, generator=drawn)
        head, _, tail = card.templates[0].partition("{}")
        generator = torch.Generator().manual_seed(cfg.seed_for("init"))
        initial = text.initial_prompts(head.strip(), n_ctx=cfg.n_ctx, depth=cfg.depth, generator=generator)

        def behind_context(phrases: list[str]) -> Tokens:
            return text.tokenize([phrase + tail for phrase in phrases], cfg.n_ctx)

        def of_each(phrases: Iterable[Iterable[str]]) -> tuple[Tokens, Tensor]:
            """Several phrases for each of n things: their tokens, and (m,) which thing each phrase is for."""
            told = [(i, phrase) for i, several in enumerate(phrases) for phrase in several]
            index = torch.tensor([i for i, _ in told], device=encoder.device)
            return behind_context([phrase for _, phrase in told]), index

        classes = card.class_values(cfg.label)
        class_tokens = behind_context([card.classes[cfg.label][value] for value in classes])
        sentences = {name: card.group_texts(name) for name in cfg.groups}
        return cls(
            text=text,
            scale=encoder.scale,
            classes=classes,
            groups={name: list(by_group) for name, by_group in sentences.items()},
            initial=initial,
            frozen_texts=text.encode(class_tokens, initial).detach(),
            group_texts={name: _mean_texts(encoder, by_group) for name, by_group in sentences.items()},
            class_tokens=class_tokens,
            word_tokens={name: of_each(_phrases(card.groups[name])) for name in cfg.groups},
            pair_tokens={name: of_each(card.pair_text(cfg.label, name).values()) for name in cfg.groups},
            image=image,
            initial_vision=vision,
        )

    def class_texts(self, prompts: Tensor) -> Tensor:
        """T (..., C, d): the classifiers that prompts (..., L, n_ctx, width) make."""
        return self.text.encode(self.class_tokens, prompts)

    def logits(self, z: Tensor, texts: Tensor) -> Tensor:
        """`s z T^T` (n, C) of unit rows z (n, d); texts: T (C, d), or (n, C, d), one classifier a row."""
        if texts.dim() == 3:
            return self.scale * torch.einsum("nd,ncd->nc", z, texts)
        return self.scale * z @ texts.T

    def encode_texts(self, prompts: Tensor, *, pairs: bool, group_words: bool = False) -> TextEmbeddings:
        """What prompts (..., L, n_ctx, width) make of the words, in one pass of the tower.

        pairs: also the texts that name a group, which CDFP's `words` and `layers` compare. group_words: also
        the group words alone.
        """
        words = self.fair_group_texts(prompts) if group_words else {}
        if not pairs:
            return TextEmbeddings(self.class_texts(prompts), {}, {}, words)
        tokens = Tokens.join([self.class_tokens, *(tokens for tokens, _ in self.pair_tokens.values())])
        texts, states = self.text.encode_layers(tokens, prompts)
        start, named, by_layer = len(self.classes), {}, {}
        for name, (of_name, cell) in self.pair_tokens.items():
            rows = slice(start, start + len(of_name.last))
            start = rows.stop
            shape = (len(self.classes), len(self.groups[name]))
            n_cells = shape[0] * shape[1]
            named[name] = F.normalize(_means(texts[..., rows, :], cell, n_cells), dim=-1).unflatten(-2, shape)
            by_layer[name] = [_means(s[..., rows, :], cell, n_cells).unflatten(-2, shape) for s in states]
        return TextEmbeddings(texts[..., : len(self.classes), :], named, by_layer, words)

    def read_groups(self, z: Tensor) -> dict[str, Tensor]:
        """Attribute -> (n,) the group that the frozen model reads off each embedding: `argmax_g z E^T`."""
        return {name: (z @ texts.T).argmax(1) for name, texts in self.group_texts.items()}

    def fair_group_texts(self, prompts: Tensor) -> dict[str, Tensor]:
        """`group_texts`, but said by the learned prompts instead of the hand-written templates."""
        out = {}
        for name, (tokens, group) in self.word_tokens.items():
            means = _means(self.text.encode(tokens, prompts), group, len(self.groups[name]))
            out[name] = F.normalize(means, dim=-1)
        return out


def _phrases(attribute: Attribute) -> list[list[str]]:
    """Each group named alone, in all its words."""
    return [[attribute.phrase.format(word=word) for word in words] for words in attribute.words.values()]


def _mean_texts(encoder: Encoder, sentences: dict[str, list[str]]) -> Tensor:
    """E (G, d): the unit mean embedding of each group's sentences."""
    means = [encoder.encode_texts(of_group).mean(0) for of_group in sentences.values()]
    return F.normalize(torch.stack(means), dim=-1)


def _means(rows: Tensor, index: Tensor, n: int) -> Tensor:
    """Means (..., n, d) of the rows (..., m, d) that share an index (m,)."""
    member = F.one_hot(index, n).float()
    return (member / member.sum(0)).T @ rows.float()
