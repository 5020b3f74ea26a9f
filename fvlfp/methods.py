"""The names that `method=` takes: the full method, its components, and every baseline (METHOD.md: Baselines).

A method is a setting of config keys and nothing else. What this module does not do: hold defaults (that is
`fvlfp.config`) or any code of a method.
"""

from __future__ import annotations

from typing import Any

#: every component off: standard federated averaging of deep prompts
_FEDAVG: dict[str, Any] = {"lambda_cf": 0.0, "lambda_dsop": 0.0, "beta": 0.0, "gamma": 0.0}

METHODS: dict[str, dict[str, Any]] = {
    "fedavg": _FEDAVG,
    # the three components, each alone and together
    "cdfp": {"lambda_dsop": 0.0, "beta": 0.0, "gamma": 0.0},
    "dsop": {"lambda_cf": 0.0, "beta": 0.0, "gamma": 0.0},
    "fpf": {"lambda_cf": 0.0, "lambda_dsop": 0.0},
    "fvlfp": {},
    # the same without any group label, and with labels wherever they can be used
    "fvlfp-label-free": {"groups_from": "model"},
    "fvlfp-labels": {"cf_directions": "image", "dsop": "image"},
    # no training, no federation, or no clients
    "zero-shot": _FEDAVG | {"rounds": 0},
    "local": _FEDAVG | {"pooling": "local"},
    "centralised": _FEDAVG | {"pooling": "central"},
    # federated training without a thought of groups
    "promptfl": _FEDAVG | {"depth": 1},
    "fedprox": _FEDAVG | {"lambda_prox": 0.1},
    "qfedavg": _FEDAVG | {"fusion": "qfedavg"},
    "fedclip": _FEDAVG | {"tune": "adapter"},
    # federated training that mitigates
    "fairfed": _FEDAVG | {"fusion": "fairfed"},
    "gaploss": _FEDAVG | {"lambda_gap": 1.0},
    "ffdvp": _FEDAVG | {"lambda_uniform": 1.0},
    "reweight": _FEDAVG | {"cell_balanced": True},
    # done to the trained FedAvg model, for free
    "text-projection": _FEDAVG | {"posthoc": "text"},
    "text-projection-calibrated": _FEDAVG | {"posthoc": "text-calibrated"},
    "difference-projection": _FEDAVG | {"posthoc": "difference"},
    "probe-projection": _FEDAVG | {"posthoc": "probe"},
    "leace": _FEDAVG | {"posthoc": "leace"},
    "leace-prompted": _FEDAVG | {"posthoc": "leace-prompted"},
    "thresholds": _FEDAVG | {"posthoc": "thresholds"},
}
