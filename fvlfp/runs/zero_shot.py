"""`fvlfp audit clip`: what a pretrained CLIP predicts zero-shot, once for every prompt template.

What this module does not do: it tunes nothing. The first template of the data card is the one that is
audited; the others give every number its band.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fvlfp.arrays import default_cache
from fvlfp.audit import Audit, write_audit
from fvlfp.audit.assess import judge
from fvlfp.audit.clip.clip_options import ClipAuditOptions
from fvlfp.audit.clip.embedding_audit import Words, audit_embedding
from fvlfp.audit.clip.probes import CLIP_PAPER
from fvlfp.audit.report.write import check_free
from fvlfp.audit.stats.columns import encode
from fvlfp.clip.cache import features
from fvlfp.clip.encoder import Encoder
from fvlfp.data.card import Card, fill_template
from fvlfp.data.collected import as_dataset
from fvlfp.data.table import Dataset
from fvlfp.errors import InputError


def zero_shot(encoder: Encoder, dataset: Dataset, label: str, *, cache: Path | None = None) -> pd.DataFrame:
    """The table with `prediction` and (two classes) `score` under the card's first template.

    Also `prediction: TEMPLATE` and `score: TEMPLATE` under every template. score: softmax probability of the
    second class in the card's order.

    Raises:
        InputError: the card lacks words for `label`.
    """
    texts = class_texts(encoder, dataset.card, label)
    z = features(encoder, dataset.images, cache=cache or default_cache(), quiet=False)
    return predicted(encoder, dataset, label, z, texts)


def is_own_column(name: str) -> bool:
    """Whether a column is written by `predicted`."""
    return name in ("prediction", "score") or name.startswith(("prediction: ", "score: "))


def refuse_own_columns(names: Iterable[str]) -> None:
    """Raises InputError when a label or group column would be overwritten."""
    for name in filter(is_own_column, names):
        raise InputError(f"the column {name!r} has the name of one that this audit writes: rename it")


def class_texts(encoder: Encoder, card: Card, label: str) -> np.ndarray:
    """Unit embeddings of the class texts under every template, (templates, C, d)."""
    return np.stack([_encode(encoder, card.class_texts(label, t)) for t in card.templates])


def predicted(
    encoder: Encoder, dataset: Dataset, label: str, z: np.ndarray, texts: np.ndarray
) -> pd.DataFrame:
    """`zero_shot` from image features (n, d) and class texts (templates, C, d)."""
    card = dataset.card
    return _predict(dataset.frame, z, texts, card.class_values(label), card.templates, encoder.scale)


def _predict(
    frame: pd.DataFrame,
    z: np.ndarray,
    texts: np.ndarray,
    values: Sequence[str],
    templates: Sequence[str],
    scale: float,
) -> pd.DataFrame:
    own = {name: f"table: {name}" for name in frame if is_own_column(str(name))}
    out, names = frame.rename(columns=own), np.array(values)  # a table may bring predictions of its own
    for template, t in zip(templates, texts, strict=True):
        logits = scale * z @ t.T
        out[f"prediction: {template}"] = names[logits.argmax(1)]
        if len(values) == 2:
            out[f"score: {template}"] = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    for column in ("prediction", "score") if len(values) == 2 else ("prediction",):
        out[column] = out[f"{column}: {templates[0]}"]
    return out


@dataclass(frozen=True)
class ClipAudit:
    """What an audit of a CLIP gives: the audit, the table with predictions, the gaps under every template."""

    audit: Audit
    predictions: pd.DataFrame
    by_template: pd.DataFrame


def audit_clip(
    encoder: Encoder,
    data: Any,
    out: Path,
    *,
    card: Card | None = None,
    harmful: bool = False,
    command: str | None = None,
    **options: Any,
) -> Path:
    """Audit the zero-shot classifier and its embedding; returns the report's path.

    Writes what `write_audit` writes, `predictions.csv`, and `templates.csv`: the gaps under every template.

    Args:
        data: a `Dataset` of `read_table`; or, with `card`, a split of a Hugging Face data set, or a torch
            data set of (image, label, group), see `as_dataset`.
        harmful: also offer the word lists of the CLIP paper's experiment to the model. They hurt.
        command: what the report prints as the way to compute every number again.
        options: fields of `ClipAuditOptions`: label, groups, cross, k, target, draws, seed.

    Raises:
        InputError: bad input, named.
    """
    if out.is_file():
        raise InputError(f"{out} is a file, not a folder")
    check_free(out, "audit")
    facts = {"command": command} if command else {}
    result = zero_shot_audit(encoder, data, card=card, harmful=harmful, provenance=facts, **options)
    title = f"{encoder.provenance['model']}: zero-shot {options['label']}"
    rows, by_template = result.predictions, result.by_template
    return write_audit(result.audit, out, title=title, notebook=True, rows=rows, by_template=by_template)


def zero_shot_audit(
    encoder: Encoder,
    data: Any,
    *,
    card: Card | None = None,
    harmful: bool = False,
    cache: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    **options: Any,
) -> ClipAudit:
    """The audit of `audit_clip`, not written; same arguments."""
    o = _options(options)
    refuse_own_columns([o.label, *o.groups])
    dataset = as_dataset(data, card, label=o.label, groups=o.groups)
    card = dataset.card
    o.of_embedding().depth(len(dataset.frame))  # refused before anything is encoded
    words = Words(
        queries=card.class_texts(o.label),
        classes=class_texts(encoder, card, o.label),
        groups={
            a: {g: _encode(encoder, texts) for g, texts in card.group_texts(a).items()}
            for a in o.groups
            if a in card.groups
        },
        offered={a: _offered(encoder, card, o.label, a) for a in o.groups} if harmful else {},
    )
    z = _unit("images", features(encoder, dataset.images, cache=cache or default_cache(), quiet=False), 2)
    facts = {
        **encoder.provenance,
        **dataset.facts,
        "prompts": {"templates": card.templates, "classes": card.classes[o.label]},
        "training": "none: zero-shot with the first template",
        "seed": o.seed,
        **(provenance or {}),
    }
    values = card.class_values(o.label)
    predictions = _predict(dataset.frame, z, words.classes, values, card.templates, encoder.scale)
    return _audit(predictions, z, words, values, card.templates, o, facts)


def audit_embeddings(
    images: ArrayLike,
    frame: pd.DataFrame,
    words: Words | ArrayLike,
    *,
    classes: Sequence[str],
    templates: Sequence[str] = ("class texts",),
    scale: float = 100.0,
    provenance: Mapping[str, Any] | None = None,
    **options: Any,
) -> ClipAudit:
    """`zero_shot_audit` of any model's embeddings, computed anywhere.

    Args:
        images: (n, d). frame: n rows with the columns `label` and `groups`. words: class texts (C, d) or
            (templates, C, d) in the order of `classes` and `templates`, or `Words`. Rows are made unit rows.
        scale: the factor between cosine and logit, `exp(logit_scale)`; scores depend on it, predictions do
            not.
        options: fields of `ClipAuditOptions`: label, groups, cross, k, target, draws, seed.

    Raises:
        InputError: shapes that do not fit, values that are not finite, a zero row, or a missing column.
    """
    o = _options(options)
    refuse_own_columns([o.label, *o.groups])
    z = _unit("images", images, 2)
    if not isinstance(words, Words):
        texts = _unit("texts", words, np.ndim(words))
        words = Words(list(classes), texts[None] if texts.ndim == 2 else texts)
    wanted = (len(templates), len(classes), z.shape[1])
    if words.classes.shape != wanted or len(z) != len(frame):
        raise InputError(
            f"{len(z)} images of {z.shape[1]} numbers for {len(frame)} rows, and texts of the shape "
            f"{words.classes.shape}, not {wanted} (templates, classes, numbers)"
        )
    for column in (o.label, *o.groups):
        if column not in frame.columns:
            raise InputError(f"no column {column!r} in the frame")
    predictions = _predict(frame, z, words.classes, classes, templates, scale)
    return _audit(predictions, z, words, classes, templates, o, provenance or {})


def _options(given: Mapping[str, Any]) -> ClipAuditOptions:
    try:
        return ClipAuditOptions(**given)
    except TypeError as error:  # an unknown option, or one that is missing
        raise InputError(str(error).replace("ClipAuditOptions.__init__()", "the audit of a CLIP")) from None


def _audit(
    predictions: pd.DataFrame,
    z: np.ndarray,
    words: Words,
    classes: Sequence[str],
    templates: Sequence[str],
    options: ClipAuditOptions,
    provenance: Mapping[str, Any],
) -> ClipAudit:
    """Decisions and embedding, from unit rows z (n, d) and `predictions` under every template."""
    binary = len(classes) == 2
    first = options.of_predictions(classes[1] if binary else None)
    by_template = []
    for template in templates:
        alone = replace(first, prediction=f"prediction: {template}", draws=100)
        gaps = judge(encode(predictions, alone), alone).gaps
        by_template.append(gaps[["attribute", "class", "gap", "value"]].assign(template=template))
    chosen = replace(first, templates={t: f"prediction: {t}" for t in templates})
    if binary:
        scores = {t: f"score: {t}" for t in templates}
        chosen = replace(chosen, score="score", template_scores=scores)
    result = judge(encode(predictions, chosen), chosen, provenance)
    result.document["remarks"] += [*provenance.get("remarks", []), *same_embeddings(z)]
    result.document["embedding"] = audit_embedding(
        z,
        predictions[options.label].tolist(),
        {name: predictions[name].tolist() for name in options.groups},
        words,
        options.of_embedding(),
    )
    return ClipAudit(result, predictions, pd.concat(by_template))


def _unit(what: str, rows: ArrayLike, ndim: int) -> np.ndarray:
    """Rows of length 1, float; unit rows stay as they are."""
    x = np.asarray(rows)
    if x.ndim != ndim or ndim not in (2, 3) or x.dtype.kind not in "fiu":
        raise InputError(f"{what}: an array of numbers (rows, d) is needed, not {x.dtype} {x.shape}")
    size = np.linalg.norm(x, axis=-1, keepdims=True)
    if not np.isfinite(size).all() or not (size > 0).all():
        bad = np.argwhere(~((size > 0) & np.isfinite(size)))[0][:-1].tolist()
        raise InputError(f"{what}: row {bad[0] if len(bad) == 1 else bad} is zero or not finite")
    return x if np.allclose(size, 1, atol=1e-5) else x / size


def same_embeddings(z: np.ndarray) -> list[str]:
    """A remark where many pictures have one embedding (n, d): the model saw the same thing in them."""
    _, count = np.unique(np.round(z, 5), axis=0, return_counts=True)
    alike = int(count[count > 1].sum())
    if alike < max(2, len(z) / 20):
        return []
    return [
        f"{alike:,} of {len(z):,} pictures have the same embedding as another one (to five decimals). Are "
        "they copies, or blank after reading?"
    ]


def _offered(encoder: Encoder, card: Card, label: str, attribute: str) -> tuple[list[str], np.ndarray]:
    """The harmful words of the CLIP paper beside the groups' words, as there; or beside the classes'."""
    if attribute in card.groups:
        a = card.groups[attribute]
        plain = [a.phrase.format(word=words[0]) for words in a.words.values()]
    else:
        plain = list(card.classes[label].values())
    offered = plain + [word for listed in CLIP_PAPER.values() for word in listed]
    templates = [[fill_template(t, word) for word in offered] for t in card.templates]
    return offered, np.stack([_encode(encoder, texts) for texts in templates])


def _encode(encoder: Encoder, texts: list[str]) -> np.ndarray:
    return np.asarray(encoder.encode_texts(texts).cpu().numpy())
