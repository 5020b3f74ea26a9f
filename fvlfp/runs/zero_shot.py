"""`fvlfp audit clip`: what a pretrained CLIP predicts zero-shot, once for every prompt template.

What this module does not do: it tunes nothing. The first template of the data card is the one that is
audited; the others give every number its band.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fvlfp.audit import Audit, audit, write_audit
from fvlfp.audit.clip.embedding_audit import Words, audit_embedding
from fvlfp.audit.clip.probes import CLIP_PAPER
from fvlfp.clip.cache import default_cache, features
from fvlfp.clip.encoder import Encoder
from fvlfp.data.card import Card, say
from fvlfp.data.table import Dataset
from fvlfp.errors import InputError


def zero_shot(encoder: Encoder, dataset: Dataset, label: str, *, cache: Path | None = None) -> pd.DataFrame:
    """The table with `prediction` and (two classes) `score` under the card's first template, and
    `prediction: TEMPLATE`, `score: TEMPLATE` under every template.

    score: softmax probability of the second class in the card's order.

    Raises:
        InputError: the card lacks words for `label`.
    """
    texts = class_texts(encoder, dataset.card, label)
    z = features(encoder, dataset.images, cache=cache or default_cache(), quiet=False)
    return predicted(encoder, dataset, label, z, texts)


def class_texts(encoder: Encoder, card: Card, label: str) -> np.ndarray:
    """Unit embeddings of the class texts under every template, (templates, C, d)."""
    return np.stack([_encode(encoder, card.class_texts(label, t)) for t in card.templates])


def predicted(
    encoder: Encoder, dataset: Dataset, label: str, z: np.ndarray, texts: np.ndarray
) -> pd.DataFrame:
    """`zero_shot` from image features (n, d) and class texts (templates, C, d)."""
    values = np.array(dataset.card.class_values(label))
    out = dataset.frame.copy()
    for template, t in zip(dataset.card.templates, texts, strict=True):
        logits = encoder.scale * z @ t.T
        out[f"prediction: {template}"] = values[logits.argmax(1)]
        if len(values) == 2:
            out[f"score: {template}"] = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    for column in ("prediction", "score") if len(values) == 2 else ("prediction",):
        out[column] = out[f"{column}: {dataset.card.templates[0]}"]
    return out


def audit_clip(
    encoder: Encoder,
    dataset: Dataset,
    out: Path,
    *,
    label: str,
    groups: Sequence[str],
    cross: bool = False,
    k: int | None = None,
    target: str = "population",
    harmful: bool = False,
    draws: int = 2000,
    seed: int = 0,
    command: str | None = None,
) -> Path:
    """Audit the zero-shot classifier and its embedding; returns the report's path.

    Writes what `write_audit` writes, `predictions.csv`, and `templates.csv`: the gaps under every template.

    Args:
        k, target: depth and target distribution of the retrieval audit, see ``embedding_audit``.
        harmful: also offer the word lists of the CLIP paper's experiment to the model. They hurt.
        command: what the report prints as the way to compute every number again.

    Raises:
        InputError: bad input, named.
    """
    if out.is_file():
        raise InputError(f"{out} is a file, not a folder")
    result, frame, by_template = zero_shot_audit(
        encoder,
        dataset,
        label=label,
        groups=groups,
        cross=cross,
        k=k,
        target=target,
        harmful=harmful,
        draws=draws,
        seed=seed,
        provenance={"command": command} if command else {},
    )
    report = write_audit(
        result, out, title=f"{encoder.provenance['model']}: zero-shot {label}", notebook=True
    )
    frame.to_csv(out / "predictions.csv", index=False)
    by_template.to_csv(out / "templates.csv", index=False)
    return report


def zero_shot_audit(
    encoder: Encoder,
    dataset: Dataset,
    *,
    label: str,
    groups: Sequence[str],
    cross: bool = False,
    k: int | None = None,
    target: str = "population",
    harmful: bool = False,
    draws: int = 2000,
    seed: int = 0,
    cache: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[Audit, pd.DataFrame, pd.DataFrame]:
    """The audit of `audit_clip`, the table with predictions, and the gaps under every template."""
    card, n = dataset.card, len(dataset.frame)
    if k is not None and not 1 <= k < n:  # before anything is encoded
        raise InputError(f"k={k} of n={n} images: MaxSkew@k sees the model only for 1 <= k < n")
    texts = class_texts(encoder, card, label)
    z = features(encoder, dataset.images, cache=cache or default_cache(), quiet=False)
    frame = predicted(encoder, dataset, label, z, texts)
    values = card.class_values(label)
    binary = len(values) == 2
    common: dict[str, Any] = {
        "label": label,
        "groups": list(groups),
        "cross": cross,
        "seed": seed,
        "positive": values[1] if binary else None,
    }
    by_template = []
    for template in card.templates:
        found = audit(frame, prediction=f"prediction: {template}", draws=100, **common).gaps
        by_template.append(found[["attribute", "class", "gap", "value"]].assign(template=template))
    result = audit(
        frame,
        prediction="prediction",
        score="score" if binary else None,
        templates={t: f"prediction: {t}" for t in card.templates},
        template_scores={t: f"score: {t}" for t in card.templates} if binary else None,
        draws=draws,
        provenance={
            **encoder.provenance,
            **dataset.facts,
            "prompts": {"templates": card.templates, "classes": card.classes[label]},
            "training": "none: zero-shot with the first template",
            "seed": seed,
            **(provenance or {}),
        },
        **common,
    )
    words = Words(
        queries=card.class_texts(label),
        classes=texts,
        groups={
            a: {g: _encode(encoder, said) for g, said in card.group_texts(a).items()}
            for a in groups
            if a in card.groups
        },
        offered={a: _offered(encoder, card, label, a) for a in groups} if harmful else {},
    )
    result.document["embedding"] = audit_embedding(
        z,
        frame[label].tolist(),
        {a: frame[a].tolist() for a in groups},
        words,
        k=k,
        target=target,
        draws=min(draws, 1000),
        seed=seed,
    )
    return result, frame, pd.concat(by_template)


def _offered(encoder: Encoder, card: Card, label: str, attribute: str) -> tuple[list[str], np.ndarray]:
    """The harmful words of the CLIP paper beside the groups' words, as there; or beside the classes'."""
    if attribute in card.groups:
        a = card.groups[attribute]
        plain = [a.phrase.format(word=words[0]) for words in a.words.values()]
    else:
        plain = list(card.classes[label].values())
    offered = plain + [word for listed in CLIP_PAPER.values() for word in listed]
    return offered, np.stack([_encode(encoder, [say(t, word) for word in offered]) for t in card.templates])


def _encode(encoder: Encoder, texts: list[str]) -> np.ndarray:
    found: np.ndarray = encoder.encode_texts(texts).cpu().numpy()
    return found
