"""Rounds and clients: who takes part, the rate, when it ends, what each client gets, what is resumed."""

import dataclasses
import json
import logging

import pandas as pd
import pytest
import torch

from fvlfp.config import Config
from fvlfp.data import toyfaces
from fvlfp.errors import InputError
from fvlfp.federation.client_app import make_client_app
from fvlfp.federation.local_grid import LocalGrid, in_this_process
from fvlfp.federation.server_app import best_round, has_stalled, serve
from fvlfp.federation.trust import Roll
from fvlfp.methods import METHODS
from fvlfp.runs.deployment import check_deployable
from fvlfp.runs.experiment import run_and_audit
from fvlfp.runs.predict import predict
from fvlfp.runs.train import prepare, train
from fvlfp.training.reports import RoundReport

TINY = {"n": 150, "clients": 2, "rounds": 1, "device": "cpu", "baseline": "zero-shot", "draws": 100}


def config(method="fedavg", **settings):
    base = {"groups": ("shape", "tint"), "clients": 4, "batch": 64, "device": "cpu", "rounds": 2}
    return Config.make(
        "smoke", method, **(base | ({"rounds": 0} if method == "zero-shot" else {}) | settings)
    )


def quiet(cfg, planted, **more):
    return train(cfg, planted, progress=None, **more)


def run(out, **settings):
    said: list[str] = []
    method = settings.pop("method", "fedavg")
    run_and_audit(Config.make("smoke", method, **(TINY | settings)), out, say=said.append)
    return said


def report_facts(out):
    return json.loads((out / "audit" / "method" / "audit.json").read_text())["provenance"]


# one of each way to train, save or fit; the others are settings of the same code
DISTINCT = (
    "fvlfp",
    "qfedavg",
    "fairfed",
    "fedclip",
    "local",
    "pfedfair",
    "fedmgp",
    "centralised",
    "leace",
    "thresholds",
    "zero-shot",
)


@pytest.mark.parametrize(
    "method", [m if m in DISTINCT else pytest.param(m, marks=pytest.mark.slow) for m in METHODS]
)
def test_a_killed_run_of_every_method_resumes_to_the_same_bits(planted, tmp_path, method):
    cfg = config(method)
    straight = quiet(cfg, planted, out=tmp_path / "a")

    def killed(report):
        raise KeyboardInterrupt

    if cfg.rounds:
        with pytest.raises(KeyboardInterrupt):
            quiet(cfg, planted, out=tmp_path / "b", on_round=killed)
    resumed = quiet(cfg, planted, out=tmp_path / "b", resume=True)
    for name, tensor in straight.model.tensors().items():
        assert torch.equal(resumed.model.tensors()[name], tensor), name
    assert resumed.history == straight.history and resumed.candidates == straight.candidates


def test_rows_are_on_disk_as_rounds_come_and_go_to_a_hook(tmp_path):
    seen = []

    def hook(report):
        lines = (tmp_path / "r" / "method" / "history.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["round"] == report.round == len(lines), "on disk before the hook"
        seen.append(report.loss)

    cfg = Config.make("smoke", "fedavg", **(TINY | {"rounds": 3}))
    run_and_audit(cfg, tmp_path / "r", say=lambda line: None, on_round=hook)
    history = pd.read_csv(tmp_path / "r" / "method" / "history.csv")
    assert seen == history["loss"].tolist() and len(seen) == 3


def test_a_fraction_of_the_clients_takes_part_drawn_by_seed(planted, monkeypatch):
    asked: list[list[int]] = []
    from fvlfp.federation.strategy import FairFusion

    drawn = FairFusion._drawn
    monkeypatch.setattr(FairFusion, "_drawn", lambda *a: asked.append(drawn(*a)) or asked[-1])
    cfg = config(fraction=0.5, rounds=6)
    first = quiet(cfg, planted)
    assert [r.clients for r in first.history] == [2] * 6 and all(not r.failed for r in first.history)
    assert len({tuple(nodes) for nodes in asked}) > 1, "not always the same clients"
    again = quiet(cfg, planted, stacked=False)
    assert asked[:6] == asked[6:]
    assert torch.allclose(first.prompts, again.prompts, atol=1e-4)
    assert [len(nodes) for nodes in asked] == [2] * 12


def test_a_deployment_draws_the_clients_that_one_process_draws(planted):
    """By client number, whatever ids the SuperLink gave its nodes; some are past 2^63."""
    cfg = config(fraction=0.5, rounds=3)
    app = make_client_app(lambda c: planted.clients[int(c.node_config["partition-id"])], planted.task, cfg)
    grid, ids = LocalGrid(app, 4), [2**63 + 5, 7, 2**64 - 9, 3]
    contexts = zip(ids, grid._contexts.values(), strict=True)
    grid._contexts = {node: dataclasses.replace(context, node_id=node) for node, context in contexts}
    with in_this_process():
        state = serve(grid, planted.task, cfg, roll=Roll({node: k for k, node in enumerate(ids)}))
    assert [row.clients for row in state.history] == [2] * 3 and not any(r.failed for r in state.history)
    assert torch.equal(state.prompts, quiet(cfg, planted, stacked=False).prompts)


def test_the_rate_falls_by_a_cosine():
    cfg = config(lr=0.1, lr_schedule="cosine", rounds=4)
    rates = [cfg.at_round(r).lr for r in (1, 2, 3, 4)]
    assert rates[0] == 0.1 and rates == sorted(rates, reverse=True) and rates[2] == pytest.approx(0.05)
    assert config(lr=0.1).at_round(3).lr == 0.1


def test_a_schedule_acts_stacked_and_alone_and_binds_the_number_of_rounds(planted, tmp_path):
    cfg = config(lr_schedule="cosine", rounds=3)
    a, b = quiet(cfg, planted, out=tmp_path), quiet(cfg, planted, stacked=False)
    assert torch.allclose(a.prompts, b.prompts, atol=1e-4)
    assert not torch.allclose(a.prompts, quiet(config(rounds=3), planted).prompts, atol=1e-4)
    with pytest.raises(InputError, match="another config"):
        quiet(cfg.replace(rounds=5), planted, out=tmp_path, resume=True)


def history_of(*values):
    return [RoundReport(round=i + 1, clients=1, balanced_accuracy=v) for i, v in enumerate(values)]


def test_when_a_run_has_stalled():
    assert best_round(history_of(0.5, 0.7, 0.7, None)) == 2 and best_round(history_of(None)) == 0
    assert has_stalled(history_of(0.5, 0.7, 0.6), 1) and not has_stalled(history_of(0.5, 0.7, 0.6), 2)
    assert has_stalled(history_of(0.5, 0.7, 0.6, 0.7), 2)
    assert not has_stalled(history_of(0.5), 1) and not has_stalled(history_of(0.9, 0.1, 0.1), 0)


def test_early_stop_and_best_round(planted, tmp_path):
    cfg = config(rounds=12, patience=1, best_round=True, lr=0.2)
    ended = quiet(cfg, planted, out=tmp_path)
    assert len(ended.history) < 12 and has_stalled(ended.history, 1)
    best = best_round(ended.history)
    assert best < len(ended.history)
    straight = quiet(config(rounds=best, lr=0.2), planted)
    assert torch.equal(ended.prompts, straight.prompts), "the best round's prompts, not the last one's"
    again = quiet(cfg, planted, out=tmp_path, resume=True)
    assert again.history == ended.history and torch.equal(again.prompts, ended.prompts)
    longer = quiet(cfg.replace(patience=0, rounds=len(ended.history) + 1), planted, out=tmp_path, resume=True)
    assert len(longer.history) == len(ended.history) + 1, "more rounds on resume"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "zero-shot", "rounds": 3}, "means rounds = 0, not 3"),
        ({"method": "local", "fraction": 0.5}, "needs fraction = 1.0, not 0.5"),
        ({"method": "local", "patience": 2}, "needs patience = 0, not 2"),
        ({"method": "fedclip", "personalise": True}, "personalise = True needs tune = 'prompts'"),
        ({"method": "leace", "personalise": True}, "personalise = True needs posthoc = 'none'"),
        ({"fraction": 0.0}, "fraction = 0.0 is outside"),
        ({"lr_schedule": "step"}, "did you mean|is not one of constant, cosine"),
    ],
)
def test_what_has_no_effect_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        config(**settings)


def test_shots_and_the_floor_of_rows(tmp_path):
    cfg = Config.make("smoke", "fedavg", **(TINY | {"shots": 4, "min_rows": 20}))
    prepared = prepare(cfg, cache=tmp_path)
    for client in prepared.clients:
        counts = torch.bincount(client.train.y)
        assert int(counts.max()) <= 4 and len(client.val) > 0
    more = prepare(cfg.replace(shots=0, min_rows=40), cache=tmp_path)
    assert min(len(c.train) + len(c.val) for c in more.clients) >= 40
    with pytest.raises(InputError, match="cannot give 2 clients 400 rows each"):
        prepare(cfg.replace(min_rows=400), cache=tmp_path)


@pytest.mark.parametrize("settings", [{"n": 90, "clients": 6, "min_rows": 5}, {"shots": 1, "clients": 6}])
@pytest.mark.parametrize("method", ["fvlfp", "leace", "fvlfp-labels"])
def test_few_rows_train_and_say_what_is_off(tmp_path, caplog, settings, method):
    cfg = Config.make("smoke", method, **(TINY | settings | {"groups": ("tint",)}))
    prepared = prepare(cfg.replace(min_cell=10), cache=tmp_path)
    with caplog.at_level(logging.WARNING, "fvlfp"):
        trained = quiet(cfg.replace(min_cell=50), prepared)
    assert bool(torch.isfinite(trained.prompts).all()) and trained.projection.rank == 0
    assert "min_cell = 50" in caplog.text


def test_thresholds_are_off_where_no_group_has_both_classes(tmp_path, caplog):
    few = TINY | {"n": 60, "clients": 6, "min_rows": 2, "groups": ("shape", "tint")}
    prepared = prepare(Config.make("smoke", "fedavg", **few), cache=tmp_path)
    with caplog.at_level(logging.WARNING, "fvlfp"):
        cut = quiet(Config.make("smoke", "thresholds", **few), prepared)
    assert "posthoc = 'thresholds' is off" in caplog.text
    plain = quiet(Config.make("smoke", "fedavg", **few), prepared)
    assert predict(prepared, cut)["prediction"].tolist() == predict(prepared, plain)["prediction"].tolist()


@pytest.fixture(scope="module")
def hospitals():
    """A table whose clients have names; `=two` is one that a spreadsheet would run."""
    faces = toyfaces.make(150, seed=3)
    faces.frame["client"] = ["=two" if i % 3 else "St. Ann" for i in range(150)]
    return faces


def test_clients_keep_their_names_and_are_counted(hospitals, tmp_path):
    cfg = Config.make("smoke", "fedavg", **(TINY | {"partition": "column"}))
    run_and_audit(cfg, tmp_path / "r", dataset=hospitals, say=lambda line: None)
    table = pd.read_csv(tmp_path / "r" / "method" / "clients.csv")
    assert set(table["client"]) == {"'=two", "St. Ann"}
    assert list(table) == [
        *("client", "training_rows", "validation_rows", "balanced_accuracy", "odds_gap shape")
    ]
    facts = report_facts(tmp_path / "r")
    assert facts["training"] == "fedavg, 1 rounds, 2 clients"
    assert any(line.startswith("St. Ann: training_rows ") for line in facts["clients_on_validation"])
    page = (tmp_path / "r" / "audit" / "method" / "report.html").read_text()
    assert "own validation rows" in page and "St. Ann: training_rows" in page


def test_counts_under_min_cell_are_not_told(hospitals, tmp_path):
    cfg = Config.make("smoke", "fedavg", **(TINY | {"partition": "column", "min_cell": 15}))
    run_and_audit(cfg, tmp_path / "r", dataset=hospitals, say=lambda line: None)
    table = pd.read_csv(tmp_path / "r" / "method" / "clients.csv").set_index("client")
    small = table.loc["St. Ann"]
    assert pd.isna(small["validation_rows"]) and pd.isna(small["balanced_accuracy"])


def test_a_client_without_training_rows_is_named(hospitals, tmp_path):
    frame = hospitals.frame.copy()
    frame.loc[frame["split"] != "test", "client"] = "St. Ann"
    frame.loc[frame.index[frame["split"] != "test"][0], "client"] = "Lonely"
    lonely = type(hospitals)(frame, hospitals.images, hospitals.card)
    with pytest.raises(InputError, match="client 'Lonely' has no training row"):
        prepare(Config.make("smoke", **(TINY | {"partition": "column"})), dataset=lonely, cache=tmp_path)


def test_personal_prompts_stay_with_the_client_and_stand_beside_the_global_ones(tmp_path):
    run(tmp_path / "r", personalise=True, method="dsop", rank=1, lambda_dsop=1.0)
    method = tmp_path / "r" / "method"
    table = pd.read_csv(method / "clients.csv")
    assert {"own balanced_accuracy", "own odds_gap shape"} <= set(table)
    assert set(table["own prompts"]) == {"personal/0.safetensors", "personal/1.safetensors"}
    assert {p.name for p in (method / "personal").iterdir()} == {"0.safetensors", "1.safetensors"}
    run(tmp_path / "plain", method="dsop", rank=1, lambda_dsop=1.0)
    one, other = ((tmp_path / x / "predictions.csv").read_bytes() for x in ("r", "plain"))
    assert one == other, "the global model is the same"
    with pytest.raises(InputError, match="cannot be deployed"):
        check_deployable(Config.make("smoke", "dsop", personalise=True))


def test_epsilon_is_said_and_stands_in_the_report(tmp_path):
    said = run(tmp_path / "r", dp_noise=1.0)
    (line,) = [line for line in said if line.startswith("epsilon = ")]
    assert "at delta = 0.05" in line
    assert report_facts(tmp_path / "r")["privacy"] == line
