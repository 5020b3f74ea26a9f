"""Many classes: the same values, nearly the same draws, and no square of the number of classes."""

import numpy as np
import pandas as pd
import pytest

from fvlfp import metrics
from fvlfp.audit import audit, compare, write_audit, write_comparison
from fvlfp.audit.audit_options import AuditOptions
from fvlfp.audit.stats import families as sampling
from fvlfp.audit.stats.columns import encode
from fvlfp.audit.stats.resampling import infer

NAMED = AuditOptions(label="y", prediction="p", groups=["g"])
KW = {"label": "y", "prediction": "p", "groups": ["g"], "draws": 200}


def predictions(classes, n=3000, seed=0):
    rng = np.random.default_rng(seed)
    y, g = rng.integers(0, classes, n), rng.integers(0, 3, n)
    right = rng.random(n) < 0.8 - 0.2 * (g == 0)
    return pd.DataFrame({"y": y, "p": np.where(right, y, rng.integers(0, classes, n)), "g": g})


def test_one_vs_rest_tables_by_hand():
    table = np.array([[[3, 1, 0], [2, 4, 0], [0, 5, 6]]])
    got = metrics.one_vs_rest(table)[0, 1]
    assert got.tolist() == [[3 + 0 + 0 + 6, 1 + 5], [2 + 0, 4]]
    for k in range(3):
        binary, whole = metrics.parts(metrics.one_vs_rest(table)[:, k]), metrics.parts(table, k)
        assert all(np.array_equal(binary[name], whole[name]) for name in whole)


@pytest.mark.parametrize("classes", [3, 8])
def test_drawing_each_class_for_itself_gives_nearly_the_same_inference(classes, monkeypatch):
    columns = encode(predictions(classes), NAMED)
    counts = columns.count("g")

    def inferred():
        got = {}
        for family in sampling.families(counts):
            got |= infer(family, draws=2000, rng=np.random.default_rng(0))
        return got

    together = inferred()
    monkeypatch.setattr(sampling, "FEW", 2)
    apart = inferred()
    assert together.keys() == apart.keys()
    for name in (n for n in together if "[" not in n and "ratio" not in n):
        a, b = together[name], apart[name]
        assert b.expected_null == pytest.approx(a.expected_null, rel=0.1), name
        assert b.p_value == pytest.approx(a.p_value, abs=0.08), name
        assert b.low == pytest.approx(a.low, abs=0.02), name


def test_chance_is_what_shuffled_rows_give():
    frame = predictions(30)
    counts = encode(frame, NAMED).count("g")
    found = {}
    for family in sampling.families(counts):
        found |= infer(family, draws=500, rng=np.random.default_rng(0))
    rng, shuffled = np.random.default_rng(1), []
    for _ in range(60):
        mixed = encode(frame.assign(g=rng.permutation(frame.g)), NAMED)
        table = mixed.count("g").table
        shuffled.append(metrics.over_classes([metrics.gaps(table, k) for k in range(30)]))
    for name in ("demographic_parity_difference", "equal_opportunity_difference"):
        by_hand = np.mean([gaps[f"{name}_class_mean"] for gaps in shuffled])
        assert found[f"{name}_class_mean"].expected_null == pytest.approx(by_hand, rel=0.05)


def test_two_hundred_and_fifty_classes_are_audited_and_compared(tmp_path):
    frame = predictions(250)
    got = audit(frame, **KW)
    part = got.document["attributes"]["g"]
    assert got.document["positive"] is None and len(part["classes"]) == 250 and part["counts"] is None
    k = "17"
    cell = part["groups"]["0"]["classes"][k]["rates"]["tpr"]
    rows = frame[(frame.g == 0) & (frame.y == 17)]
    assert (cell["numerator"], cell["denominator"]) == ((rows.p == 17).sum(), len(rows))
    assert "250 classes" in write_audit(got, tmp_path / "a").read_text()
    better = frame.assign(p=np.where(np.arange(3000) % 2, frame.y, frame.p))
    change = compare(frame, better, **KW)
    entry = change.document["attributes"]["g"]["groups"]["0"]["rates"]["accuracy"]
    assert entry["b"] == pytest.approx((better.p == better.y)[better.g == 0].mean())
    assert write_comparison(change, tmp_path / "c").exists()


def test_paired_counts_are_those_of_the_rows():
    frame = predictions(20)
    other = frame.assign(p=np.random.default_rng(5).integers(0, 20, 3000))
    got = compare(frame, other, **KW).document["attributes"]["g"]
    per_class = audit(other, **KW).document["attributes"]["g"]["gaps"]
    for name, entry in got["changes"].items():
        assert entry["b"] == pytest.approx(per_class[name]["value"]), name
