"""Audit anybody's predictions by perceived group: numbers that can be defended.

Needs no torch and no flwr. `audit` judges one model, `compare` two models on the same rows;
`write_audit` and `write_comparison` leave a folder with JSON, CSV and one offline report. These two load
figures and templates when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fvlfp.audit.assess import audit
from fvlfp.audit.compare import Comparison, compare
from fvlfp.audit.document import Audit

if TYPE_CHECKING:
    from fvlfp.audit.report.write import write_audit, write_comparison

__all__ = ["Audit", "Comparison", "audit", "compare", "write_audit", "write_comparison"]


def __getattr__(name: str) -> Any:
    if name not in ("write_audit", "write_comparison"):
        raise AttributeError(f"module 'fvlfp.audit' has no attribute {name!r}")
    from fvlfp.audit.report import write

    return getattr(write, name)
