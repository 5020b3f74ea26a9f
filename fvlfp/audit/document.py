"""`Result`: a document with tables as views of it; `Audit`, that of one model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, cast

import pandas as pd

from fvlfp.audit.schema import SCHEMA, AuditDocument, ComparisonDocument
from fvlfp.errors import InputError
from fvlfp.values import value_name

D = TypeVar("D", AuditDocument, ComparisonDocument)
KEYS = ("n", "classes", "settings", "attributes", "overall", "warnings", "provenance")


def read_document(path: str | Path) -> Mapping[str, Any]:
    """The content of an ``audit.json``, or of the one in a folder.

    Raises:
        InputError: there is none, or it is not complete.
    """
    path = Path(path)
    path = path / "audit.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no audit at {path}") from None
    except ValueError as error:
        raise InputError(f"{path} is not an audit: {error}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"{path} is not an audit of schema {SCHEMA}")
    missing = [key for key in KEYS if key not in document]
    if missing:
        raise InputError(f"{path} is not a complete audit: {missing[0]!r} is missing")
    return document


@dataclass(frozen=True)
class Result(Generic[D]):
    """One finished audit or comparison. `document` is the content of its ``audit.json``."""

    document: D

    def to_json(self) -> D:
        """The whole document: only dict, list, str, int, float, bool and None."""
        return self.document

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read an ``audit.json`` or the folder that holds one. Raises InputError as `read_document`."""
        return cls(cast(D, read_document(path)))

    @property
    def remarks(self) -> list[str]:
        """What to look at before any number: constant predictions, groups that are too fine, and so on."""
        return list(self.document.get("remarks", []))

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before the numbers."""
        return list(self.document["warnings"])


class Audit(Result[AuditDocument]):
    """One finished audit."""

    @property
    def groups(self) -> pd.DataFrame:
        """One row per attribute, group, class and rate: value, low, high, counts, reason."""
        rows = []
        for attribute, part in self.document["attributes"].items():
            for group, entry in part["groups"].items():
                blocks = [(None, entry), *entry.get("classes", {}).items()]
                for judged, block in blocks:
                    for rate, cell in block["rates"].items():
                        rows.append(
                            {
                                "attribute": attribute,
                                "group": group,
                                "class": judged or self.document["positive"],
                                "rate": rate,
                                "value": cell["value"],
                                "low": cell["low"],
                                "high": cell["high"],
                                "n": entry["n"],
                                "positives": block["positives"],
                                "negatives": block["negatives"],
                                "numerator": cell["numerator"],
                                "denominator": cell["denominator"],
                                "small": cell["small"],
                                "reason": cell["reason"],
                            }
                        )
        return pd.DataFrame(rows)

    @property
    def gaps(self) -> pd.DataFrame:
        """One row per attribute and gap: value, interval, null expectation, excess, p-values, pair."""
        rows = []
        for attribute, part in self.document["attributes"].items():
            blocks = [(None, part["gaps"]), *((c, b["gaps"]) for c, b in part.get("classes", {}).items())]
            for judged, gaps in blocks:
                for gap, entry in gaps.items():
                    pair = entry.get("pair")
                    rows.append(
                        {
                            "attribute": attribute,
                            "class": judged,
                            "gap": gap,
                            **{k: v for k, v in entry.items() if k != "pair"},
                            "highest": pair["groups"][0] if pair else None,
                            "lowest": pair["groups"][1] if pair else None,
                            "pair_rate": pair["rate"] if pair else None,
                            "pair_difference": pair["difference"] if pair else None,
                            "pair_low": pair["low"] if pair else None,
                            "pair_high": pair["high"] if pair else None,
                        }
                    )
        return pd.DataFrame(rows)

    @property
    def left_out(self) -> list[dict[str, object]]:
        """Groups that could not be judged, with the rate and the reason."""
        return [
            {"attribute": attribute, **entry}
            for attribute, part in self.document["attributes"].items()
            for entry in part["left_out"]
        ]


def common_key(audits: Iterable[AuditDocument]) -> str | None:
    """The key column that all the audits name, if they do."""
    keys = {document["settings"].get("key") for document in audits}
    return keys.pop() if len(keys) == 1 else None


def refuse_other_choices(
    audits: Mapping[Path, AuditDocument], *, positive: str | None, weight: str | None
) -> None:
    """Refuse to compare the rows of audits that were weighted otherwise, or decided about another class.

    Args:
        audits: folder -> its audit.
        positive: the class of the comparison.
        weight: the column of weights that was named for it.

    Raises:
        InputError: such an audit, named.
    """
    weights = {path: document["settings"].get("weight") for path, document in audits.items()}
    if weight is None and len(set(weights.values())) > 1:
        told = ", ".join(f"{path} with weight {name!r}" for path, name in weights.items())
        raise InputError(f"not audited alike: {told}")
    for path, document in audits.items():
        decided, threshold = document["positive"], document["settings"].get("threshold")
        alone = threshold is not None and document["classes"][0] == f"not {decided}"
        if alone and (positive is None or value_name(positive) != decided):
            raise InputError(
                f"{path} was audited with a threshold: it says of a row whether it is {decided!r}, and not "
                f"whether it is {positive!r}; compare it with audits of {decided!r}"
            )
