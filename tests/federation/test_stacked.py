"""Many clients as one batch: what one after another gives, within float32 sums."""

import pytest
import torch

from fvlfp.config import Config
from fvlfp.runs.train import train
from fvlfp.training import stacked
from fvlfp.training.client import train_client
from fvlfp.training.local import Job
from fvlfp.training.model import Prompts

#: Largest difference of a unit class embedding, and of the mean loss, between the two ways of training.
TOLERANCE = 1e-4


def config(prepared, method="fvlfp", **changes):
    keep = {k: getattr(prepared.cfg, k) for k in ("groups", "clients", "rounds", "device", "seed")}
    return Config.make("smoke", method, **(keep | {"batch": 32, "local_epochs": 2} | changes))


def jobs_of(prepared):
    """Four clients of 90, 120, 150 and 37 rows: other numbers of steps, and every last batch is short."""
    directions = {name: texts - texts.mean(0) for name, texts in prepared.task.group_texts.items()}
    splits = [client.train for client in prepared.clients]
    splits[3] = splits[3].take(range(37))
    return [
        Job(Prompts(prepared.task.initial), data, directions, f"client/{k}") for k, data in enumerate(splits)
    ]


def alone(jobs, task, cfg):
    return [train_client(job, task, cfg) for job in jobs]


def assert_same(ours, theirs):
    for (model, texts, loss), (wanted, wanted_texts, wanted_loss) in zip(ours, theirs, strict=True):
        assert model.text.shape == wanted.text.shape
        torch.testing.assert_close(texts, wanted_texts, atol=TOLERANCE, rtol=0)
        assert loss == pytest.approx(wanted_loss, abs=TOLERANCE)


@pytest.mark.parametrize(
    "changes",
    [
        {"lambda_cf": 0.0},
        {"lambda_cf": 0.0, "class_balanced": False, "batch": 1000},
        {"cf_directions": "prompted"},
        {"cf_directions": "text"},
        {"cf_directions": "image"},
        {"pairing": "words"},
        {"pairing": "layers"},
        {"lambda_gap": 1.0},
    ],
    ids=str,
)
def test_stacked_equals_sequential(planted, changes):
    cfg, jobs = config(planted, **changes), jobs_of(planted)
    ours = stacked.train_stacked(jobs, planted.task, cfg)
    assert_same(ours, alone(jobs, planted.task, cfg))
    assert not torch.allclose(ours[0].model.text, ours[1].model.text)


def test_a_stack_never_holds_more_than_fits(planted, monkeypatch):
    cfg, jobs = config(planted), jobs_of(planted)
    whole = stacked.train_stacked(jobs, planted.task, cfg)
    one = stacked.MOST_BYTES // stacked.clients_at_once(planted.task, cfg)
    monkeypatch.setattr(stacked, "MOST_BYTES", 2 * one)
    assert stacked.clients_at_once(planted.task, cfg) == 2
    seen = []
    inner = stacked._train_stack
    monkeypatch.setattr(stacked, "_train_stack", lambda jobs, *a: seen.append(len(jobs)) or inner(jobs, *a))
    assert_same(stacked.train_stacked(jobs, planted.task, cfg), whole)
    assert seen == [2, 2]


@pytest.mark.parametrize("method", ["fedavg", "fvlfp"])
def test_a_whole_run_is_the_same_either_way(planted, method):
    cfg = config(planted, method, local_epochs=1)
    together, one_by_one = (train(cfg, planted, stacked=s, progress=None) for s in (True, False))
    texts = [planted.task.class_texts(run.prompts) for run in (together, one_by_one)]
    torch.testing.assert_close(*texts, atol=TOLERANCE, rtol=0)
    for a, b in zip(together.history, one_by_one.history, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=TOLERANCE)
        assert a.uplink_bytes == b.uplink_bytes


def test_a_loss_that_cannot_be_stacked_trains_one_by_one_and_says_so(planted, monkeypatch, caplog):
    def by_value(said, batch, task, options, directions):
        return said.texts.sum() if batch.y.sum() > 0 else said.texts.mean()

    monkeypatch.setattr(stacked, "batch_loss", by_value)
    cfg = config(planted, "fedavg", rounds=1)
    with caplog.at_level("WARNING", "fvlfp"):
        fallen_back = train(cfg, planted, progress=None)
    assert "clients train one after another: " in caplog.text
    assert torch.equal(fallen_back.prompts, train(cfg, planted, stacked=False, progress=None).prompts)
