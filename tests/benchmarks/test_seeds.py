"""Runs over seeds, kept in one file; and bad clients that do the same twice."""

import json

import pytest
import torch

from benchmarks import bad_clients, private
from benchmarks.seeds import complete, over_seeds, repeat, repeated, run_missing
from fvlfp.config import Config
from fvlfp.federation.client_app import make_client_app
from fvlfp.federation.local_grid import LocalGrid, in_this_process
from fvlfp.federation.server_app import serve

BALANCED, ODDS = "balanced_accuracy", "equalized_odds_difference_worst"


def made(value):
    metric = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {BALANCED: metric, ODDS: metric, "refused": 1, "refused honest": 0, "largest_share": [0.1, 0.3],
            "seconds": 1.0}  # fmt: skip


def test_what_stands_in_the_file_is_not_run_again(tmp_path):
    asked = []

    def case(key, value):
        return key, lambda: asked.append(key) or made(value)

    path = tmp_path / "runs.json"
    run_missing(path, [case("a|0", 0.5)])
    results = run_missing(path, [case("a|0", 0.1), case("a|10", 0.7), case("b|0", 0.2), case("a|2", 0.6)])
    assert asked == ["a|0", "a|10", "b|0", "a|2"]
    assert json.loads(path.read_text()) == results
    assert complete(results, ["a"]) == ["0", "2", "10"]
    assert complete(results, ["a", "b"]) == ["0"]
    runs = [results["runs"][f"a|{seed}"] for seed in (0, 2, 10)]
    assert over_seeds(runs, BALANCED) == "0.600 ± 0.100 [0.400, 0.600]"


def test_runs_are_made_again_and_what_differs_is_named(tmp_path):
    path, now = tmp_path / "runs.json", {"a|0": made(0.5 + 1e-9), "b|0": made(0.6), "c|0": made(0.7)}
    before = {"a|0": made(0.5), "b|0": made(0.5)}
    path.write_text(json.dumps({"runs": before}))
    assert repeated(json.loads(path.read_text())) == ""
    results = repeat(path, [(key, lambda key=key: now[key]) for key in now], 9)
    assert results["runs"] == before and set(results["repeated"]) == {"a|0", "b|0"}
    assert "2 of the 2 runs were made again by" in repeated(results)
    assert repeated(results).endswith("these differ: b|0.")
    path.write_text(json.dumps({"runs": before}))
    assert "all were equal" in repeated(repeat(path, [("a|0", lambda: now["a|0"])], 1))


def test_the_pages_show_every_case_that_has_run():
    machine = {"cpu": "a processor", "cores": 2, "torch": "2", "flwr": "1"}
    keys = [f"{kind}|{bad}|{rule}|0" for kind, bad, rule in bad_clients.cases() if kind != "inflated"]
    page = bad_clients.page({"machine": machine, "runs": {key: made(0.5) for key in keys}})
    assert page.count("0.500 ± 0.000") == 2 * len(keys)
    assert "| inflated |" not in page
    keys = [f"{method}|{noise}|{seed}" for method in private.METHODS for noise in private.NOISE
            for seed in range(2)]  # fmt: skip
    page = private.page({"machine": machine, "runs": {key: made(0.5) for key in keys}})
    assert page.count("| fpf |") == len(private.NOISE)
    assert "| fedavg | off | infinite | 0.200 |" in page
    assert "has 0.167 of the multiplier" in page  # 1 / (60 clients x a share of 0.1)


@pytest.mark.parametrize("kind", ["broken", "lying", "inflated"])
def test_bad_clients_do_the_same_twice(planted, kind):
    keep = {k: getattr(planted.cfg, k) for k in ("groups", "clients", "batch", "device")}
    cfg = Config.make("smoke", "fedavg", rounds=2, norm_bound=0.0, **keep)

    def trained(kind):
        honest = make_client_app(
            lambda c: planted.clients[int(c.node_config["partition-id"])], planted.task, cfg
        )
        app = bad_clients.Bad(honest, kind, frozenset({1}), cfg) if kind else honest
        with in_this_process():
            return serve(LocalGrid(app, len(planted.clients)), planted.task, cfg).prompts

    assert torch.equal(trained(kind), trained(kind))
    assert not torch.equal(trained(kind), trained(None))
