"""Federated runs: equal where they must be equal, bit for bit."""

import dataclasses

import numpy as np
import pytest
import torch

from fvlfp import dsop
from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.runs.experiment import training_facts
from fvlfp.runs.predict import predict
from fvlfp.runs.train import Prepared, train
from fvlfp.training import select


def config(prepared, method="fvlfp", **changes):
    keep = {k: getattr(prepared.cfg, k) for k in ("groups", "clients", "rounds", "batch", "device", "seed")}
    return Config.make("smoke", method, **(keep | changes))


def run(prepared, method="fvlfp", *, out=None, resume=False, **changes):
    return train(config(prepared, method, **changes), prepared, out=out, resume=resume, progress=None)


def same(a, b):
    return (
        torch.equal(a.prompts, b.prompts)
        and torch.equal(a.projection.basis, b.projection.basis)
        and a.history == b.history
    )


def test_same_seed_same_bits_and_other_seed_other_bits(planted):
    first, again = run(planted), run(planted)
    assert same(first, again)
    assert not torch.equal(run(planted, seed=1).prompts, first.prompts)


def test_components_switched_off_are_fedavg_bit_for_bit(planted):
    fedavg = run(planted, "fedavg")
    off = run(planted, "fvlfp", lambda_cf=0.0, lambda_dsop=0.0, beta=0.0, gamma=0.0)
    assert same(fedavg, off)
    by_server = run(planted, "fedavg", fpf_by="server")
    assert torch.equal(fedavg.prompts, by_server.prompts)


def test_no_projection_takes_what_separates_the_classes(planted, monkeypatch):
    """Before training, prompts written by hand do not show it; after training, validation does."""
    found = run(planted, "dsop", rounds=1)
    clients = [client.train for client in planted.clients]
    z, y = torch.cat([c.z for c in clients]), torch.cat([c.y for c in clients])
    means = []
    for words in planted.task.group_texts.values():
        cells = dsop.moments(z, y, dsop.soft_membership(z, words, planted.task.scale), 2)
        means.append(dsop.class_means(*cells))
    pair = (found.projection.rank, found.projection.lam)
    chosen = next(c for c in found.candidates if (c.rank, c.lam) == pair)
    assert chosen.rank > 0
    assert chosen.kept == pytest.approx(found.projection.kept(torch.stack(means).mean(0)), abs=1e-4)
    assert found.candidates[0].kept == 1.0 > chosen.kept > select.KEPT

    monkeypatch.setattr(select, "KEPT", chosen.kept + 0.001)
    other = run(planted, "dsop", rounds=1)
    assert (other.projection.rank, other.projection.lam) != pair
    after = run(planted, "dsop", rounds=1, dsop_at="inference")
    assert {c.kept for c in after.candidates} == {1.0}


def test_fedavg_equals_flowers_own(planted):
    """One round, summed by Flower's FedAvg by num-examples."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    from fvlfp.training.local import local_train

    cfg = config(planted, "fedavg", rounds=1)
    replies = []
    for data in planted.clients:
        prompts, _ = local_train(
            planted.task.initial,
            data.train,
            planted.task,
            cfg,
            directions={},
            seed_name=f"client/{data.client}/round/1",
        )
        record = {"arrays": ArrayRecord({"prompts": Array(prompts.numpy())})}
        replies.append(RecordDict({**record, "metrics": MetricRecord({"num-examples": len(data.train)})}))
    theirs = aggregate_arrayrecords(replies, "num-examples")["prompts"].numpy()
    ours = train(cfg, planted, stacked=False, progress=None).prompts
    assert ours.dtype == torch.float32
    assert torch.equal(ours, torch.from_numpy(theirs))


def test_every_component_changes_the_run(planted):
    fedavg = run(planted, "fedavg")
    for method in ("cdfp", "dsop", "fpf"):
        changed = {"rank": 1, "lambda_dsop": 1.0} if method == "dsop" else {}
        assert not torch.equal(run(planted, method, **changed).prompts, fedavg.prompts), method


def test_the_order_of_clients_changes_nothing(planted):
    shuffled = dataclasses.replace(planted, clients=[planted.clients[k] for k in (2, 0, 3, 1)])
    assert same(run(planted), run(shuffled))


@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_killed_after_any_round_and_resumed_is_the_straight_run(planted, tmp_path, killed_after):
    class Kill(Exception):
        pass

    rounds_seen = []

    def progress(line):
        rounds_seen.append(line)
        if len(rounds_seen) == killed_after:
            raise Kill

    cfg = config(planted)
    straight = train(cfg, planted, progress=None)
    if killed_after:
        with pytest.raises(Kill):
            train(cfg, planted, out=tmp_path, progress=progress)
    rounds_seen.clear()
    resumed = train(cfg, planted, out=tmp_path, resume=True, progress=rounds_seen.append)
    assert same(straight, resumed)
    assert len(rounds_seen) == cfg.rounds - killed_after


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(planted, tmp_path, caplog):
    straight = run(planted, out=tmp_path)
    newest = max((tmp_path / "checkpoints").glob("*.safetensors"))
    body = bytearray(newest.read_bytes())
    body[-1] ^= 1
    newest.write_bytes(body)
    with caplog.at_level("WARNING", "fvlfp"):
        resumed = run(planted, out=tmp_path, resume=True)
    assert "is damaged (its sha256 does not match)" in caplog.text
    assert same(straight, resumed)


def test_a_checkpoint_of_another_config_is_refused(planted, tmp_path):
    run(planted, out=tmp_path, rounds=1)
    with pytest.raises(InputError, match="holds a run with another config"):
        run(planted, out=tmp_path, rounds=1, resume=True, alpha=1.0)


def test_a_checkpoint_of_other_examples_is_refused(planted, tmp_path):
    run(planted, out=tmp_path, rounds=1)
    first = planted.clients[0]
    changed = dataclasses.replace(first, train=dataclasses.replace(first.train, y=1 - first.train.y))
    other = dataclasses.replace(planted, clients=[changed, *planted.clients[1:]])
    with pytest.raises(InputError, match="another config, model or data"):
        run(other, out=tmp_path, rounds=1, resume=True)


def test_a_run_goes_on_on_a_device_that_rounds_otherwise(planted, tmp_path):
    """Features differ in their last bits there; the stored pictures say that they are the same examples."""

    def elsewhere(split, first=0, noise=0.0):
        digests = np.arange(first, first + len(split), dtype="<u8").repeat(4).view("V32")
        return dataclasses.replace(split, z=split.z + noise, digests=digests)

    def clients(train_from, noise):
        return [
            dataclasses.replace(
                c, train=elsewhere(c.train, train_from, noise), val=elsewhere(c.val, 10**6, noise)
            )
            for c in planted.clients
        ]

    here, there = (dataclasses.replace(planted, clients=clients(0, noise)) for noise in (0.0, 1e-7))
    run(here, out=tmp_path, rounds=1)
    assert len(run(there, out=tmp_path, rounds=2, resume=True).history) == 2
    with pytest.raises(InputError, match="another config, model or data"):
        run(dataclasses.replace(planted, clients=clients(1, 0.0)), out=tmp_path, rounds=2, resume=True)


def test_no_group_is_needed_at_inference(planted):
    trained = run(planted)
    blind = dataclasses.replace(
        planted,
        test=dataclasses.replace(planted.test, g={}),
        test_frame=planted.test_frame[["smiling"]],
    )
    assert predict(blind, trained)["prediction"].tolist() == predict(planted, trained)["prediction"].tolist()


@pytest.mark.parametrize("method", ["fedavg", "dsop", "cdfp"])
def test_label_free_training_reads_no_group_label(planted, method):
    """Wrong labels at the training rows change nothing where the method says it needs none."""

    def scrambled(data):
        return dataclasses.replace(data.train, g={k: torch.zeros_like(v) for k, v in data.train.g.items()})

    clients = [dataclasses.replace(c, train=scrambled(c)) for c in planted.clients]
    blind: Prepared = dataclasses.replace(planted, clients=clients)
    assert same(run(planted, method), run(blind, method))


def test_a_failing_client_is_reported_and_the_round_goes_on(planted, caplog):
    broken = dataclasses.replace(planted.clients[1], train=None, name="St. Ann")
    clients = [planted.clients[0], broken, *planted.clients[2:]]
    with caplog.at_level("WARNING", "fvlfp"):
        trained = run(dataclasses.replace(planted, clients=clients), "fedavg")
    assert [row.failed for row in trained.history] == [["St. Ann"]] * 3
    assert [row.clients for row in trained.history] == [3] * 3
    assert "client St. Ann failed: AttributeError" in caplog.text
    assert training_facts("fedavg", trained)["failed_clients"] == ["St. Ann"]
    assert "FAILED clients: St. Ann" in trained.history[0].describe(3, 1.0)
    assert all("node" not in line for row in trained.history for line in row.reasons)


def test_no_client_left_stops_the_run_with_the_first_reason(planted):
    clients = [dataclasses.replace(c, train=None) for c in planted.clients]
    with pytest.raises(RuntimeError, match="no client answered this round; the first said: AttributeError"):
        run(dataclasses.replace(planted, clients=clients), "fedavg")


def test_only_prompts_and_reports_leave_a_client(planted, monkeypatch):
    """Every field of every reply, written down."""
    from fvlfp.federation import local_grid

    seen = set()
    deliver = local_grid.LocalGrid._deliver

    def spy(self, message):
        key = deliver(self, message)
        content = self._replies[key].content
        for record in (*content.array_records.items(), *content.metric_records.items()):
            seen.update(f"{message.metadata.message_type}: {record[0]}/{name}" for name in record[1])
        assert not content.config_records
        return key

    monkeypatch.setattr(local_grid.LocalGrid, "_deliver", spy)
    run(planted, rank=1, lambda_dsop=1.0)
    both = ("prompted/shape", "prompted/tint")
    assert seen == {
        *(f"query.moments: arrays/{part}/{name}" for part in ("sums", "counts") for name in both),
        "query.moments: metrics/client",
        "train: arrays/prompts",
        *(f"train: metrics/{k}" for k in ("num-examples", "perf", "disp", "loss", "client")),
    }


def test_a_task_that_was_not_prepared_is_refused(planted):
    with pytest.raises(InputError, match="depth differs from what was prepared"):
        run(planted, depth=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"pairing": "words"},
        {"pairing": "layers"},
        {"cf_directions": "image"},
        {"cf_directions": "text"},
        {"dsop": "text"},
        {"dsop": "text-span"},
        {"dsop": "image"},
        {"dsop_at": "inference"},
        {"dsop_at": "inference", "dsop_words": "fair"},
        {"recentre": False},
        {"lambda_gap": 1.0},
        {"fpf_by": "server", "fpf_momentum": 0.5},
        {"class_balanced": False},
    ],
)
def test_every_option_runs_is_reproducible_and_makes_a_difference(planted, by_default, changes):
    a, b = run(planted, rounds=2, **changes), run(planted, rounds=2, **changes)
    assert same(a, b)
    assert torch.isfinite(a.prompts).all()
    assert not same(a, by_default)


@pytest.fixture(scope="module")
def by_default(planted):
    return run(planted, rounds=2)


def test_no_room_for_a_checkpoint_stops_the_run_and_loses_nothing_told(planted, tmp_path, monkeypatch):
    import errno
    import os

    from fvlfp.errors import RunStopped
    from fvlfp.federation import checkpoint

    write, told = checkpoint.write_atomically, []

    def full(path, body):
        if path.name.startswith("round-000003"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, body)

    cfg = config(planted)
    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(RunStopped, match=r"cannot save round 3 to .*: No space left on device; .* resume"):
        train(cfg, planted, out=tmp_path, progress=told.append)
    assert len(told) == 2  # the third round was never told
    monkeypatch.setattr(checkpoint, "write_atomically", write)
    assert same(
        train(cfg, planted, progress=None), train(cfg, planted, out=tmp_path, resume=True, progress=None)
    )


def test_a_client_column_with_another_number_of_clients_is_refused(planted):
    from fvlfp.training.examples import owners

    frame = planted.test_frame.assign(client=["north", "south"] * (len(planted.test_frame) // 2))
    assert owners(frame, config(planted, partition="column", clients=2)).max() == 1
    with pytest.raises(InputError, match="names 2 clients: set clients = 2"):
        owners(frame, config(planted, partition="column", clients=10))
