"""Fair federated prompt tuning of CLIP: three components, federated training, and an audit.

The three components, one module each: `fvlfp.cdfp` (Cross-Layer Demographic Fair Prompting),
`fvlfp.dsop` (Demographic Subspace Orthogonal Projection), `fvlfp.fpf` (Fair-aware Prompt Fusion).

Names are loaded when first used, so that `import fvlfp` and `fvlfp --help` do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

#: Public name -> the module that holds it.
_HOME = {
    "Config": "fvlfp.config",
    "InputError": "fvlfp.errors",
    "Card": "fvlfp.data.card",
    "Dataset": "fvlfp.data.table",
    "read_table": "fvlfp.data.table",
    "split_clients": "fvlfp.data.partition",
    "Encoder": "fvlfp.clip.encoder",
    "features": "fvlfp.clip.cache",
    "Projection": "fvlfp.dsop",
    "fusion_weights": "fvlfp.fpf",
    "Parts": "fvlfp.training.parts",
    "Prepared": "fvlfp.runs.train",
    "Trained": "fvlfp.runs.train",
    "load_run": "fvlfp.runs.loaded_run",
    "prepare": "fvlfp.runs.train",
    "train": "fvlfp.runs.train",
    "predict": "fvlfp.runs.predict",
    "check": "fvlfp.course.lesson",
    "record": "fvlfp.course.lesson",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fvlfp' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
