"""`fvlfp audit clip`: what a pretrained CLIP predicts zero-shot, once for every prompt template.

What this module does not do: it tunes nothing. The first template of the data card is the one that is
audited; the others show how much the answer depends on the wording.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fvlfp.audit import audit, write_audit
from fvlfp.clip.encoder import Encoder, default_cache, features
from fvlfp.data.table import Dataset
from fvlfp.errors import InputError


def zero_shot(encoder: Encoder, dataset: Dataset, label: str, *, cache: Path | None = None) -> pd.DataFrame:
    """The table with `prediction` and (two classes) `score` under the card's first template, and
    `prediction: TEMPLATE` under every template.

    score: softmax probability of the second class in the card's order.

    Raises:
        InputError: the card lacks words for `label`.
    """
    card = dataset.card
    values = np.array(card.class_values(label))
    z = features(encoder, dataset.images, cache=cache or default_cache(), quiet=False)
    out = dataset.frame.copy()
    for i, template in enumerate(card.templates):
        texts = encoder.encode_texts(card.class_texts(label, template)).cpu().numpy()
        logits = encoder.scale * z @ texts.T
        predicted = values[logits.argmax(1)]
        if i == 0:
            out["prediction"] = predicted
            if len(values) == 2:
                out["score"] = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        out[f"prediction: {template}"] = predicted
    return out


def audit_clip(
    encoder: Encoder,
    dataset: Dataset,
    out: Path,
    *,
    label: str,
    groups: Sequence[str],
    cross: bool = False,
    draws: int = 2000,
    seed: int = 0,
) -> Path:
    """Audit the zero-shot classifier; returns the report's path.

    Writes what `write_audit` writes, `predictions.csv`, and `templates.csv`: the gaps under every template.

    Raises:
        InputError: bad input, named.
    """
    if out.is_file():
        raise InputError(f"{out} is a file, not a folder")
    frame = zero_shot(encoder, dataset, label)
    card = dataset.card
    common: dict[str, Any] = {
        "label": label,
        "groups": list(groups),
        "cross": cross,
        "seed": seed,
        "positive": card.class_values(label)[1] if len(card.class_values(label)) == 2 else None,
    }
    provenance = {
        **encoder.provenance,
        **dataset.facts,
        "prompts": {"templates": card.templates, "classes": card.classes[label]},
        "training": "none: zero-shot with the first template",
        "seed": seed,
    }
    by_template = []
    for template in card.templates:
        found = audit(frame, prediction=f"prediction: {template}", draws=100, **common).gaps
        by_template.append(found[["attribute", "class", "gap", "value"]].assign(template=template))
    result = audit(
        frame,
        prediction="prediction",
        score="score" if "score" in frame else None,
        draws=draws,
        provenance=provenance,
        **common,
    )
    report = write_audit(result, out, title=f"{encoder.provenance['model']}: zero-shot {label}")
    frame.to_csv(out / "predictions.csv", index=False)
    pd.concat(by_template).to_csv(out / "templates.csv", index=False)
    return report
