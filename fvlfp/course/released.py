"""Counts of what released CLIPs answered on FairFace val, for lessons that audit them without a download.

The counts were made by `benchmarks/released.py` from answers published by others; that page
(`benchmarks/results/released.md`) states the source and what it leaves open. What this module does not do: it
holds no image, no embedding and no row of an image, so two checkpoints cannot be compared on the same images.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fvlfp.errors import InputError

COUNTS = Path(__file__).parent / "released_clips.csv"
SOURCE = (
    "answers: github.com/groovy-lizard/vlms_bias_explore, clip-bias-explore, clip-face-attribs; labels: "
    "FairFace (K. Karkkainen and J. Joo, WACV 2021), CC BY 4.0, perceived, given by annotators"
)


def released_counts() -> pd.DataFrame:
    """One row for each answer: n faces of a group with a label that a checkpoint answered so.

    Columns: asked ("gender" or "race"), prompts (A, B, C: lists of prompts that may not be compared with each
    other), checkpoint, attribute ("race", "age" or "gender"), group, label, answer, n.
    """
    return pd.read_csv(COUNTS)


def released_answers(
    checkpoint: str, *, asked: str, attribute: str, prompts: str | None = None
) -> pd.DataFrame:
    """One row an image, in no order: `label`, `answer` and the perceived group, as `fvlfp.audit` takes it.

    prompts: needed where the source asked the same checkpoint with two lists of prompts.

    Raises:
        InputError: nothing is known of this checkpoint, or two lists of prompts and none was named.
    """
    table = released_counts()
    found = table[
        (table["checkpoint"] == checkpoint)
        & (table["asked"] == asked)
        & (table["attribute"] == attribute)
        & (table["prompts"].eq(prompts) if prompts else True)
    ]
    if found.empty:
        known = ", ".join(sorted(set(table.loc[table["asked"] == asked, "checkpoint"])))
        raise InputError(
            f"no counts of {checkpoint!r} asked for {asked!r} by {attribute!r}; there are: {known or 'none'}"
        )
    if found["prompts"].nunique() > 1:
        raise InputError(
            f"{checkpoint!r} was asked with prompts {' and '.join(found['prompts'].unique())}: name one"
        )
    rows = found.loc[found.index.repeat(found["n"]), ["label", "answer", "group"]]
    return rows.rename(columns={"group": attribute}).reset_index(drop=True)
