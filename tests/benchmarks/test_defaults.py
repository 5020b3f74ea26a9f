"""Defaults are compared on training rows only, and by the rule that the script states."""

import dataclasses

import numpy as np

from benchmarks import defaults
from benchmarks.grid import config_of
from benchmarks.machine import machine
from fvlfp.data import toyfaces


def test_no_test_row_is_in_a_development_split():
    data = toyfaces.make(300, seed=0)
    named = dataclasses.replace(data, frame=data.frame.assign(row=np.arange(300)))
    cfg = config_of("toy-shape", "fedavg", 0)
    found = defaults.development(named, cfg, seed=1)
    train = set(named.frame.loc[named.frame["split"] != "test", "row"])
    assert set(found.frame["row"]) == train
    assert 0.2 < (found.frame["split"] == "test").mean() < 0.45
    assert len(found.images) == len(train)
    again = defaults.development(named, cfg, seed=1).frame
    assert (again["split"] == found.frame["split"]).all()


def test_every_variant_is_a_config():
    for changed in defaults.variants().values():
        config_of("toy-shape", defaults.METHOD, 0, **changed)


def test_the_page_names_the_best_value_and_every_interval():
    runs = {
        f"{name}|{task}|0": {
            "balanced_accuracy": 0.8 - 1e-3 * i - 1e-4 * i * t,
            "excess": 0.2 - 1e-2 * i + 1e-3 * i * t,
        }
        for i, name in enumerate(defaults.variants())
        for t, task in enumerate(("age-gender", "toy-shape", "toy-tint"))
    }
    text = defaults.page({"runs": runs, "machine": machine()})
    assert "3 tasks, seeds 0." in text
    assert "| default | -0.001 [-0.001, -0.001] | 0.191 |" in text
    assert "| beta = 4 | -0.011 [-0.013, -0.009] | 0.110 | -0.081 [-0.103, -0.059] |" in text
    assert "- `alpha`: alpha = 4" in text and "- `depth`: default" in text


def test_the_best_is_the_fairest_that_keeps_the_accuracy():
    runs = {
        "fedavg|a|0": {"balanced_accuracy": 0.80, "excess": 0.20},
        "default|a|0": {"balanced_accuracy": 0.80, "excess": 0.10},
        "alpha = 1|a|0": {"balanced_accuracy": 0.795, "excess": 0.05},
        "alpha = 4|a|0": {"balanced_accuracy": 0.70, "excess": 0.01},
        "gamma = 0|a|0": {"balanced_accuracy": 0.80, "excess": 0.12},
        "fedavg|a|1": {"balanced_accuracy": 0.10, "excess": 0.90},  # not every variant has it
    }
    found = defaults.means(runs)
    assert found["fedavg"] == (0.80, 0.20)
    best = defaults.best(found)
    assert best["alpha"] == "alpha = 1" and best["gamma"] == "default" and best["depth"] == "default"
    assert defaults.means({}) == {}
