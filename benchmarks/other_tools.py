"""What other audit tools say about a group in which nobody has the property (a rate of 0 of 0).

    pip install aif360 aequitas          (in an environment of its own; the project needs neither)
    python -m benchmarks.other_tools

Writes `benchmarks/results/other_tools.md`. Groups a and b have the same rates; nobody in c is positive.
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.markdown import table

PAGE = Path(__file__).resolve().parent / "results" / "other_tools.md"
Y = np.array([1] * 5 + [0] * 5 + [1] * 5 + [0] * 5 + [0] * 5)
SAID = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1] * 2 + [0, 0, 0, 0, 1])
GROUP = np.repeat(["a", "b", "c"], [10, 10, 5])


def ours() -> tuple[str, str]:
    """Rate of c, and the gap over all groups, as this project says it."""
    from fvlfp import metrics

    counts = metrics.confusion(Y, SAID, GROUP)
    gap = metrics.gaps(counts)["equalized_odds_difference_worst"]
    return str(metrics.rates(counts)["tpr"][2]), f"equalized odds, worst: {float(gap):.2f}"


def fairlearn() -> tuple[str, str]:
    """The same by fairlearn."""
    from fairlearn.metrics import MetricFrame, equalized_odds_difference, true_positive_rate

    frame = MetricFrame(metrics=true_positive_rate, y_true=Y, y_pred=SAID, sensitive_features=GROUP)
    gap = equalized_odds_difference(Y, SAID, sensitive_features=GROUP)
    return str(frame.by_group["c"]), f"equalized_odds_difference: {gap:.2f}"


def aif360() -> tuple[str, str]:
    """The same by AIF360, which compares c with the others."""
    from aif360.datasets import BinaryLabelDataset
    from aif360.metrics import ClassificationMetric

    frame = pd.DataFrame({"y": Y, "in_c": (GROUP == "c").astype(float)})
    true = BinaryLabelDataset(df=frame, label_names=["y"], protected_attribute_names=["in_c"])
    said = true.copy()
    said.labels = SAID.reshape(-1, 1).astype(float)
    groups = {"unprivileged_groups": [{"in_c": 1.0}], "privileged_groups": [{"in_c": 0.0}]}
    metric = ClassificationMetric(true, said, **groups)
    rate = metric.true_positive_rate(privileged=False)
    return str(rate), f"equal_opportunity_difference: {metric.equal_opportunity_difference()}"


def aequitas() -> tuple[str, str]:
    """The same by Aequitas."""
    from aequitas.group import Group

    frame = pd.DataFrame({"score": SAID, "label_value": Y, "g": pd.Series(GROUP, dtype=object)})
    table, _ = Group().get_crosstabs(frame)
    return str(table.set_index("attribute_value").loc["c", "tpr"]), "not computed here"


def main() -> None:
    """Ask every tool and write the page."""
    warnings.simplefilter("ignore")
    lines = [
        "# A group in which nobody has the property",
        "",
        "Made by `python -m benchmarks.other_tools`. Groups a and b: true positive rate 4 of 5 and false",
        "positive rate 1 of 5 each. Group c: nobody is positive, 1 of 5 false positives. So c has no true",
        "positive rate, and all rates that exist are equal.",
        "",
    ]
    rows = []
    for ask in (ours, fairlearn, aif360, aequitas):
        name = "fvlfp" if ask is ours else ask.__name__
        rows.append((name, version(name), *ask()))
    heads = ["tool", "version", "true positive rate of c", "gap"]
    PAGE.write_text("\n".join([*lines, *table(heads, rows), ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
