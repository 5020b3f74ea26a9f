"""Audit anybody's predictions by perceived group: numbers that can be defended.

Needs no torch and no flwr. `audit` judges one model, `compare` two models on the same rows;
`write_audit` and `write_comparison` leave a folder with JSON, CSV and one offline report.
"""

from fvlfp.audit.assess import audit
from fvlfp.audit.compare import Comparison, compare
from fvlfp.audit.document import Audit
from fvlfp.audit.report.write import write_audit, write_comparison

__all__ = ["Audit", "Comparison", "audit", "compare", "write_audit", "write_comparison"]
