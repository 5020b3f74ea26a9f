"""The names that `method=` takes (METHOD.md: Baselines), and what each reads, sends and refuses.

A method is a setting of config keys and nothing else. What this module does not do: hold defaults (that is
`fvlfp.options`) or any code of a method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: config keys and their values
Settings = dict[str, Any]

#: every component off: standard federated averaging of deep prompts
_FEDAVG: Settings = {"lambda_cf": 0.0, "lambda_dsop": 0.0, "beta": 0.0, "gamma": 0.0}

#: federated training that leaves each client a model of its own
_PERSONAL = _FEDAVG | {"pooling": "personal"}

METHODS: dict[str, Settings] = {
    "fedavg": _FEDAVG,
    # the three components, each alone and together
    "cdfp": {"lambda_dsop": 0.0, "beta": 0.0, "gamma": 0.0},
    "dsop": {"lambda_cf": 0.0, "beta": 0.0, "gamma": 0.0},
    "fpf": {"lambda_cf": 0.0, "lambda_dsop": 0.0},
    "fvlfp": {},
    # FPF from what other clients say, instead of what a client says of itself
    "fpf-peers": _FEDAVG | {"fusion": "peers"},
    "fvlfp-peers": {"fusion": "peers", "beta": 0.0, "gamma": 0.0},
    # the same without any group label, and with labels wherever they can be used
    "fvlfp-label-free": {"groups_from": "model"},
    "fvlfp-peers-label-free": {"fusion": "peers", "beta": 0.0, "gamma": 0.0, "groups_from": "model"},
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
    "fedpgp": _PERSONAL | {"tune": "low-rank", "lambda_anchor": 0.0},
    "fedmgp": _PERSONAL | {"tune": "groups", "lambda_anchor": 0.0},
    # federated training that mitigates
    "fairfed": _FEDAVG | {"fusion": "fairfed"},
    "f3": _FEDAVG | {"fusion": "f3", "peers_share": 0.5},
    "f3-acc": _FEDAVG | {"fusion": "f3-acc", "peers_share": 0.5},
    "pfedfair": _PERSONAL | {"lambda_gap": 1.0, "lambda_prox": 0.1},
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

#: what makes a run the method that it is called by; other keys may be changed freely
IDENTITY = ("depth", "rounds", "pooling", "fusion", "tune", "posthoc", "cell_balanced", "groups_from")


@dataclass(frozen=True)
class Trait:
    """What one value of one key entails.

    reads: where perceived-group labels are read, of `training`, `validation`, `inference`. sends: what a
    client sends besides a model and a report. needs: key -> the value that it must have beside this one,
    because any other would do nothing, or break.
    """

    reads: tuple[str, ...] = ()
    sends: str = ""
    needs: Mapping[str, Any] = field(default_factory=dict)


#: no projection, and one global model of text prompts: what a post-hoc map is fitted to
_PLAIN = {"lambda_dsop": 0.0, "tune": "prompts", "pooling": "federated"}
_SUMS = "feature sums and second moments by class and group, once"
_NO_FPF = {"beta": 0.0, "gamma": 0.0}
#: clients report nothing
_NO_REPORTS = {
    **{"lambda_dsop": 0.0, "fusion": "fpf", "robust": "none", "dp_noise": 0.0, "beta": 0.0, "gamma": 0.0},
    **{"fraction": 1.0, "patience": 0, "best_round": False},
}
#: a personal model with a term of its own in place of the proximal one
_OWN_TERM = {"pooling": "personal", "lambda_prox": 0.0}
_JUDGED = "validation rows, and right ones for every candidate, by class and group"
_JUDGES = _NO_FPF | {"tune": "prompts", "pooling": "federated", "dp_noise": 0.0}

TRAITS: dict[tuple[str, Any], Trait] = {
    ("cell_balanced", True): Trait(reads=("training",)),
    ("tune", "adapter"): Trait(
        needs={
            **{"lambda_cf": 0.0, "lambda_dsop": 0.0, "lambda_gap": 0.0, "lambda_prox": 0.0},
            **{"lambda_uniform": 0.0, "pooling": "federated"},
        },
    ),
    ("pooling", "local"): Trait(needs=_NO_REPORTS),
    ("pooling", "personal"): Trait(
        needs=_NO_REPORTS | {"lambda_cf": 0.0, "lambda_uniform": 0.0, "fpf_a": 1.0}
    ),
    ("tune", "low-rank"): Trait(needs=_OWN_TERM),
    ("tune", "groups"): Trait(needs=_OWN_TERM),
    ("personalise", True): Trait(
        needs={"tune": "prompts", "posthoc": "none", "pooling": "federated", "vision_ctx": 0}
    ),
    ("fusion", "qfedavg"): Trait(sends="the training loss of the prompts as they arrived", needs=_NO_FPF),
    ("fusion", "fairfed"): Trait(
        ("validation",), "validation counts by class, prediction and group in each round", _NO_FPF
    ),
    ("fusion", "peers"): Trait(("validation",), f"{_JUDGED}, twice in each round", _JUDGES),
    ("fusion", "f3"): Trait(("validation",), f"{_JUDGED}, in each round", _JUDGES | {"robust": "none"}),
    ("fusion", "f3-acc"): Trait(("validation",), f"{_JUDGED}, in each round", _JUDGES | {"robust": "none"}),
    ("posthoc", "text"): Trait(needs=_PLAIN),
    ("posthoc", "text-calibrated"): Trait(needs=_PLAIN),
    ("posthoc", "difference"): Trait(sends=_SUMS, needs=_PLAIN),
    ("posthoc", "probe"): Trait(("training", "validation"), _SUMS, _PLAIN),
    ("posthoc", "leace"): Trait(("training", "validation"), _SUMS, _PLAIN),
    ("posthoc", "leace-prompted"): Trait(sends=_SUMS, needs=_PLAIN),
    ("posthoc", "thresholds"): Trait(("validation", "inference"), "a histogram of validation scores", _PLAIN),
}
