"""What the kit must show on its built-in data, measured on test rows that nothing was chosen on."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from fvlfp.audit import compare
from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.runs.experiment import run_and_audit
from fvlfp.runs.predict import predict
from fvlfp.runs.train import prepare, train


def test_the_full_method_lowers_the_odds_gap_of_fedavg(tmp_path):
    """Paired interval excludes 0; balanced accuracy within 2 points."""
    cfg = Config.make("lesson", device="cpu")
    prepared = prepare(cfg, cache=tmp_path)
    frames = {}
    for method in ("fedavg", "fvlfp"):
        frames[method] = predict(
            prepared, train(Config.make("lesson", method, device="cpu"), prepared, progress=None)
        )
    result = compare(
        frames["fedavg"],
        frames["fvlfp"],
        label="smiling",
        prediction="prediction",
        groups=["shape"],
        positive="yes",
    ).to_json()
    gap = result["attributes"]["shape"]["changes"]["equalized_odds_difference_worst"]
    accuracy = result["overall"]["rates"]["balanced_accuracy"]
    assert gap["change"] < 0
    assert gap["high"] < 0, gap
    assert accuracy["change"] > -0.02, accuracy


def test_two_runs_into_two_folders_write_the_same_numbers(tmp_path):
    cfg = Config.make("smoke", device="cpu", n=600, clients=3)
    reports = [run_and_audit(cfg, tmp_path / name, say=lambda line: None) for name in ("a", "b")]
    assert all(report.read_text().startswith("<!doctype html>") for report in reports)
    for file in (
        "predictions.csv",
        "method/prompts.safetensors",
        "audit/comparison/gaps.csv",
        "audit/method/groups.csv",
    ):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    assert json.loads((tmp_path / "a" / "config.json").read_text()) == cfg.to_dict()
    saved = pd.read_csv(tmp_path / "a" / "audit" / "method" / "predictions.csv")
    table = pd.read_csv(tmp_path / "a" / "predictions.csv")
    assert saved["prediction"].tolist() == table["method"].tolist()


def test_zero_shot_baseline(tmp_path):
    cfg = Config.make("smoke", device="cpu", n=600, clients=3, baseline="zero-shot")
    said: list[str] = []
    run_and_audit(cfg, tmp_path / "run", say=said.append)
    assert "training fedavg" not in said
    assert not (tmp_path / "run" / "baseline").exists()
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert list(table) == ["smiling", "shape", "baseline", "method", "baseline score", "method score"]
    assert ((table["method score"] > 0.5) == (table["method"] == "yes")).all()


@pytest.mark.parametrize("method", ["local", "leace"])
def test_a_baseline_by_its_name(tmp_path, method):
    cfg = Config.make("smoke", method, device="cpu", n=300, clients=2, rounds=1, draws=100)
    run_and_audit(cfg, tmp_path / "run", say=lambda line: None)
    assert (tmp_path / "run" / "method" / "prompts.safetensors").is_file()
    document = json.loads((tmp_path / "run" / "audit" / "method" / "audit.json").read_text())
    projection = document["provenance"]["projection"]
    assert projection.startswith("leace: rank" if method == "leace" else "rank 0")


def test_training_gets_no_test_row(tmp_path):
    """`train` works, to the bit, when the test rows are not there at all."""
    cfg = Config.make("smoke", device="cpu", n=600, clients=3)
    prepared = prepare(cfg, cache=tmp_path)
    blind = dataclasses.replace(prepared, test=None, test_frame=None)
    a, b = train(cfg, prepared, progress=None), train(cfg, blind, progress=None)
    assert a.history == b.history
    assert bool((a.prompts == b.prompts).all())


def test_a_value_without_words_is_named(tmp_path):
    from fvlfp.data import toyfaces

    made = toyfaces.make(120, seed=0)
    made.frame.loc[5, "shape"] = "hexagon"
    with pytest.raises(InputError, match="row 7: shape = 'hexagon' has no words on the data card"):
        prepare(Config.make("smoke", device="cpu", clients=2), dataset=made, cache=tmp_path)


def test_a_run_is_not_overwritten(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds a run"):
        run_and_audit(Config.make("smoke"), Path(tmp_path), say=lambda line: None)
