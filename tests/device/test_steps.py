"""What a training step costs beside its arithmetic: no transfer, and no wait for the device."""

import dataclasses
from collections import Counter

import pytest

from fvlfp.data import toyfaces
from fvlfp.runs.train import prepare
from fvlfp.training import stacked
from fvlfp.training.client import train_client
from fvlfp.training.local import Job, adam
from fvlfp.training.model import Prompts, initial_model
from fvlfp.training.stacked import train_stacked
from tests.device.test_runs import config


def jobs_of(prepared):
    """Of two clients; directions for CDFP from words."""
    directions = {name: texts - texts.mean(0) for name, texts in prepared.task.group_texts.items()}
    return [
        Job(Prompts(prepared.task.initial), c.train, directions, f"client/{c.client}")
        for c in prepared.clients[:2]
    ]


def one_by_one(jobs, task, cfg):
    for job in jobs:
        train_client(job, task, cfg)


def adapter(jobs, task, cfg):
    start = initial_model(task, cfg)
    one_by_one([dataclasses.replace(job, model=start) for job in jobs], task, cfg)


def counted(watch, work, *args) -> tuple[Counter[str], Counter[str]]:
    watch.clear()
    work(*args)
    return watch.transfers, watch.waits


@pytest.mark.parametrize(
    "settings",
    [
        {"lambda_cf": 0.0},
        {"cf_directions": "prompted"},
        {"pairing": "words"},
        {"pairing": "layers"},
        {"lambda_gap": 1.0, "lambda_prox": 0.1, "lambda_uniform": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("work", [train_stacked, one_by_one], ids=["stacked", "one by one"])
def test_a_step_moves_nothing_and_waits_for_nothing(planted_there, watch, work, settings):
    few, many = (config("cdfp", batch=batch, **settings) for batch in (100, 20))
    jobs, task = jobs_of(planted_there), planted_there.task
    assert counted(watch, work, jobs, task, few) == counted(watch, work, jobs, task, many)


def test_neither_does_a_step_of_an_adapter(planted_there, watch):
    few, many = (config("fedclip", batch=batch) for batch in (100, 20))
    jobs, task = jobs_of(planted_there), planted_there.task
    assert counted(watch, adapter, jobs, task, few) == counted(watch, adapter, jobs, task, many)


def test_a_step_of_vision_prompts_waits_for_nothing(encoder_there, watch, tmp_path):
    settings = {"groups": ("shape",), "model": "tiny-test-clip", "vision_ctx": 2, "vision_depth": 2}
    few, many = (config("cdfp", batch=batch, **settings) for batch in (100, 20))
    faces = toyfaces.make(120, seed=0, label="smiling")
    prepared = prepare(few, dataset=faces, encoder=encoder_there, cache=tmp_path)
    (job, *_) = jobs_of(prepared)
    job = dataclasses.replace(job, model=initial_model(prepared.task, few))
    (moved, waits), (moved_by_many, waits_of_many) = (
        counted(watch, train_client, job, prepared.task, cfg) for cfg in (few, many)
    )
    assert waits_of_many == waits
    assert len(moved_by_many - moved) == 1  # the line that sends pictures


def test_adam_is_one_kernel(planted_there):
    assert adam([planted_there.task.initial.clone()], 0.1).param_groups[0]["fused"]


def test_a_stack_fills_half_of_what_is_free(planted_there, monkeypatch):
    cfg, task = config(), planted_there.task
    monkeypatch.setattr(stacked, "free_bytes", lambda device: None)
    on_cpu = stacked.clients_at_once(task, cfg)
    for times in (4, 40):
        monkeypatch.setattr(stacked, "free_bytes", lambda device, n=times: 2 * n * stacked.MOST_BYTES)
        assert stacked.clients_at_once(task, cfg) == pytest.approx(times * on_cpu, abs=times)
    monkeypatch.setattr(stacked, "free_bytes", lambda device: 0)
    assert stacked.clients_at_once(task, cfg) == 1
