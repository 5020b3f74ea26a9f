"""The lies of the page pass what the server checks, and the page names its misses."""

import numpy as np
import pytest
import torch
from flwr.app import MetricRecord, RecordDict

from benchmarks.liars import RULES, along_the_classes, cases, for_the_last, opposite, page, turned
from benchmarks.machine import machine
from fvlfp.federation.protocol import arrays_of
from fvlfp.federation.replies import check_counts, check_judgement, check_moments


def shapes(arrays):
    return {name: (tuple(t.shape), str(t.numpy().dtype)) for name, t in arrays.items()}


def content(arrays):
    return RecordDict({"arrays": arrays_of(arrays), "metrics": MetricRecord({"client": 0})})


def test_lies_pass_the_checks(planted):
    d = planted.task.frozen_texts.shape[1]
    moments = {"sums/prompted/shape": torch.zeros(2, 2, d), "counts/prompted/shape": torch.full((2, 2), 30.0)}
    lie = along_the_classes(moments, planted.task)
    assert check_moments(shapes(moments), min_cell=5)(content(lie)) is None
    tables = {f"{i}/shape": torch.full((2, 2, 2), 10) for i in range(7)}
    lie = for_the_last(tables)
    assert check_counts(shapes(tables), min_cell=5)(content(lie)) is None
    assert (
        int(lie["3/shape"].diagonal(dim1=1, dim2=2).sum()) == 400_000
    )  # "off", ranks 1 to 3 with lambda 1, then with 1/2
    assert int(lie["0/shape"].diagonal(dim1=1, dim2=2).sum()) == 0
    judged = {"total/shape": torch.full((2, 2), 40), "right/shape": torch.full((3, 2, 2), 30)}
    lie = turned(judged)
    assert check_judgement(shapes(judged), min_cell=5)(content(lie)) is None
    assert int(lie["right/shape"][0, 0, 0]) == 25_000


def test_the_opposite_update_is_nine_times_as_long_and_in_one_layer():
    start, prompts = torch.zeros(2, 4, 8), torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    lie = opposite(prompts, start)
    assert float(lie.norm() / prompts.norm()) == pytest.approx(9.0, rel=1e-5)
    assert not lie[1].any()
    assert float((lie[0] * prompts[0]).sum()) < 0


def test_the_page_names_what_was_missed():
    def run(accuracy, gap):
        return {
            "balanced_accuracy": {"value": accuracy},
            "equalized_odds_difference_worst": {"value": gap},
            "refused": 0,
            "refused honest": 0,
        }

    runs = {f"{n}|{bad}|{rule}|0": run(0.9, 0.1) for n, bad, _ in cases(single=False) for rule in RULES}
    good = page({"machine": machine(), "runs": runs})
    assert "## Missed\n\nNothing." in good
    runs["every phase|1|fvlfp|0"] = run(0.88, 0.2)
    runs["every phase|3|fvlfp|0"] = run(0.5, 0.0)
    missed = page({"machine": machine(), "runs": runs})
    assert "fvlfp, 1 of 10 in every phase: 2.0 points, more than 1" in missed
    assert "fvlfp, 1 of 10 in every phase: an odds gap of 0.200, over 0.100" in missed
    assert "fvlfp, 3 of 10 in every phase: 40.0 points, more than 3" in missed
    assert np.all([f"| {rule} |" in missed for rule in RULES])
