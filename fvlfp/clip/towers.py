"""Which kind of text tower a model has, and what can be done with one that takes no prompts.

What this module does not do: it encodes nothing.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from fvlfp.clip.causal_text import CausalTextTower
from fvlfp.clip.text_tower import TextTower, inner_tower
from fvlfp.clip.whole_text import WholeTextTower
from fvlfp.errors import InputError


def open_text_tower(model: nn.Module, tokenizer: Any) -> TextTower:
    """The text tower of an open_clip model, as one that takes prompts; no weight is looked at.

    Raises:
        InputError: a tower of another library, with a class token of its own, or of other blocks.
    """
    for kind in (CausalTextTower, WholeTextTower):
        if kind.fits(model, tokenizer):
            return kind(model, tokenizer)
    tower = inner_tower(model)
    why = f"it is a {type(tower).__name__} with other parts than open_clip's plain transformer"
    if getattr(tower, "cls_emb", None) is not None:
        why = "it is read at a class token of its own, as CoCa's"
    elif hasattr(tower, "pooler"):
        why = "it is a tower of the library transformers"
    raise InputError(
        f"this model's text tower cannot take prompts: {why}. The model can be audited with "
        "`fvlfp audit clip`, and its image embeddings can be used"
    )
