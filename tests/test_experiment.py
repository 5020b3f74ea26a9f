"""What the kit must show on its built-in data, measured on test rows that nothing was chosen on."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fvlfp.audit import compare
from fvlfp.audit.report import plots
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


def test_a_damaged_audit_is_refused_before_a_run_goes_on(tmp_path):
    """It was refused after the training."""
    settings = ["profile=smoke", "device=cpu", "n=90", "clients=2", "rounds=1", "method=fedavg", "draws=100"]
    cfg = Config.read(None, [*settings, "baseline=zero-shot"])
    run_and_audit(cfg, tmp_path, say=lambda line: None)
    (tmp_path / "audit" / "method" / "audit.json").write_text("{")
    said: list[str] = []
    with pytest.raises(InputError, match=r"method holds audit.json and no audit.*remove it"):
        run_and_audit(cfg, tmp_path, resume=True, say=said.append)
    assert not said, "nothing was begun"


#: A run in a process of its own: argv is the folder, then settings. Figures are left out, as they are here.
RUN = """
import sys
from pathlib import Path
from fvlfp.audit.report import plots
from fvlfp.config import Config
from fvlfp.runs.experiment import run_and_audit
plots.svg = lambda figure: {svg!r}
run_and_audit(Config.read(None, sys.argv[2:]), Path(sys.argv[1]), say=lambda line: None)
"""


def test_two_runs_write_the_same_files_whatever_the_seed_of_hashes(tmp_path):
    """To the byte, in two processes, in which sets of names have another order each."""
    settings = ["profile=smoke", "device=cpu", "n=300", "clients=3", "rounds=1", "groups=shape,tint"]
    cfg = Config.read(None, settings)
    report = run_and_audit(cfg, tmp_path / "a", say=lambda line: None)
    assert report.read_text().startswith("<!doctype html>")
    another = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    command = [sys.executable, "-c", RUN.format(svg=plots.svg(None)), str(tmp_path / "b"), *settings]
    subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": another}, check=True)
    a, b = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "a", tmp_path / "b")
    )
    assert set(a) == set(b)
    assert [path for path in a if a[path] != b[path]] == []
    assert json.loads(a[Path("config.json")]) == cfg.to_dict()
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
