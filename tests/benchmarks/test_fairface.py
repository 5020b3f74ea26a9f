"""A small version of the FairFace benchmark, wherever the real faces are."""

import os
from pathlib import Path

import pytest

from benchmarks.fairface import METHODS, load_encoder, page, run_seed
from data_prep.fairface import convert

pytestmark = pytest.mark.skipif(not os.environ.get("FVLFP_SHARED"), reason="FVLFP_SHARED is not set")


def test_small_run_on_real_faces(tmp_path, monkeypatch):
    monkeypatch.setenv("FVLFP_CACHE", str(tmp_path / "cache"))
    shared = Path(os.environ["FVLFP_SHARED"])
    table = convert(shared / "data" / "fairface", tmp_path, tasks=("age",))["age"]
    settings = {"rounds": 3, "clients": 4, "concentration": 1.0, "device": "cpu"}
    run = run_seed(table, "age", 0, load_encoder(shared), settings, rows=1200)
    assert sum(run["clients"]) > 500
    assert set(run["metrics"]) == {"zero-shot", *METHODS}
    for name, entry in run["metrics"].items():
        assert entry["balanced_accuracy"]["value"] > 0.6, name
    zero_shot = run["metrics"]["zero-shot"]["equalized_odds_difference_worst"]
    assert zero_shot["value"] > zero_shot["null_95"], "FaceCLIP-64 has a real disparity to mitigate"
    full = run["changes"]["full method"]["equalized_odds_difference_worst"]
    assert full["low"] <= full["change"] <= full["high"]
    machine = dict.fromkeys(("cpu", "cores", "system", "torch", "flwr"), "x")
    text = page({"machine": machine, "tasks": {"age": {"0": run}}})
    assert "| full method | none |" in text
