"""A round with judges: who is asked, what is believed, and what one liar can do in every phase."""

import numpy as np
import pytest
import torch

from fvlfp import metrics
from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.federation.client_app import make_client_app
from fvlfp.federation.local_grid import LocalGrid, in_this_process
from fvlfp.federation.protocol import arrays_of, read_arrays
from fvlfp.federation.server_app import serve
from fvlfp.runs.train import train
from fvlfp.training.readout import Readout
from tests.federation.test_checks import Spoilt


def config(planted, method="fpf-peers", **changes):
    keep = {k: getattr(planted.cfg, k) for k in ("groups", "clients", "batch", "device")}
    return Config.make("smoke", method, **(keep | {"rounds": 3, "lr": 0.05} | changes))


def run(planted, cfg, spoil=None, kind="query.judge"):
    honest = make_client_app(lambda c: planted.clients[int(c.node_config["partition-id"])], planted.task, cfg)
    app = Spoilt(honest, spoil, kind) if spoil else honest
    with in_this_process():
        return serve(LocalGrid(app, len(planted.clients)), planted.task, cfg)


def measured(planted, state):
    readout = Readout(planted.task, planted.task.class_texts(state.prompts))
    counts = readout.confusion(planted.test)["shape"]
    return metrics.balanced_accuracy(counts), metrics.recall_gap(counts)


def test_what_judges_say_is_what_they_hold(planted, monkeypatch):
    """Right answers and rows of every judge, against a confusion table of each client's prompts."""
    from fvlfp.federation import peer_fusion

    seen = []
    believe = peer_fusion.recalls

    def spy(right, total, *, nobody, liars):
        seen.append((right, total, nobody))
        return believe(right, total, nobody=nobody, liars=liars)

    monkeypatch.setattr(peer_fusion, "recalls", spy)
    cfg = config(planted, rounds=1)
    alone = run(planted, config(planted, "fedavg", rounds=1))
    run(planted, cfg)
    right, total, nobody = seen[0]  # the first attribute, the clients' own prompts
    assert np.array_equal(nobody, np.eye(4, dtype=bool))
    assert total.shape == (4, 2, 2)
    assert ((right <= total[:, None]) & (right >= 0)).all()
    assert ((total == 0) | (total >= cfg.min_cell)).all()
    assert not seen[2][2].any(), "fused prompts are nobody's own"
    assert alone.history[0].uplink_bytes < run(planted, cfg).history[0].uplink_bytes


def test_the_gap_falls_and_the_run_repeats_bit_for_bit(planted):
    first = run(planted, config(planted))
    assert torch.equal(first.prompts, run(planted, config(planted)).prompts)
    _, plain = measured(planted, run(planted, config(planted, "fedavg")))
    _, gap = measured(planted, first)
    assert gap <= plain + 0.02
    row = first.history[-1]
    assert row.reasons == [] and 0 < row.largest_weight < 1


def test_a_resumed_run_ends_with_the_same_bits(planted, tmp_path):
    cfg = config(planted, judges=2)
    straight = train(cfg, planted, progress=None)

    class Enough(Exception):
        pass

    def stop(line):
        if "2/3" in line:
            raise Enough

    with pytest.raises(Enough):
        train(cfg, planted, out=tmp_path, progress=stop)
    resumed = train(cfg, planted, out=tmp_path, resume=True, progress=None)
    assert torch.equal(straight.model.text, resumed.model.text)


def test_judges_are_drawn_by_the_seed(planted, monkeypatch):
    asked = []
    deliver = LocalGrid._deliver

    def spy(self, message):
        if message.metadata.message_type == "query.judge":
            asked.append(message.metadata.dst_node_id)
        return deliver(self, message)

    monkeypatch.setattr(LocalGrid, "_deliver", spy)
    run(planted, config(planted, judges=2))
    assert len(asked) == 2 * 2 * 3
    first = list(asked)
    asked.clear()
    run(planted, config(planted, judges=2))
    assert asked == first
    asked.clear()
    run(planted, config(planted, judges=2, seed=5))
    assert asked != first


def opposite(content, sent):
    """A judge that says the opposite of what it sees."""
    arrays = read_arrays(content, "arrays")
    for name in [name for name in arrays if name.startswith("total/")]:
        right = name.replace("total/", "right/")
        arrays[right] = arrays[name] - arrays[right]
    content["arrays"] = arrays_of(arrays)


def test_a_lying_judge_is_outvoted(planted):
    honest = measured(planted, run(planted, config(planted)))
    lied = measured(planted, run(planted, config(planted), opposite))
    assert lied[0] >= honest[0] - 0.03


def impossible(content, sent):
    arrays = read_arrays(content, "arrays")
    arrays["right/shape"] += 10**6
    content["arrays"] = arrays_of(arrays)


def unequal(content, sent):
    arrays = read_arrays(content, "arrays")
    arrays["total/tint"] += 50
    content["arrays"] = arrays_of(arrays)


@pytest.mark.parametrize(
    ("spoil", "reason"), [(impossible, "more than its rows"), (unequal, "disagree about the number of rows")]
)
def test_an_impossible_judge_is_left_out_with_its_reason(planted, spoil, reason):
    state = run(planted, config(planted, rounds=1), spoil)
    row = state.history[0]
    assert row.failed == []
    assert len(row.reasons) == 2
    assert all(reason in line and line.startswith("judge node 3 refused") for line in row.reasons)


def test_without_any_judge_sizes_count(planted):
    class NoJudges(LocalGrid):
        def send_and_receive(self, messages, *, timeout=None):
            messages = [m for m in messages if m.metadata.message_type != "query.judge"]
            return super().send_and_receive(messages, timeout=timeout)

    cfg = config(planted, rounds=1)
    app = make_client_app(lambda c: planted.clients[int(c.node_config["partition-id"])], planted.task, cfg)
    with in_this_process():
        state = serve(NoJudges(app, 4), planted.task, cfg)
    assert len(state.history[0].reasons) == 8
    sizes = np.array([len(c.train) for c in planted.clients])
    assert state.history[0].largest_weight == pytest.approx(sizes.max() / sizes.sum())


@pytest.mark.parametrize("changes", [{"dp_noise": 1.0}, {"robust": "krum"}, {"vision_ctx": 2}, {"beta": 1.0}])
def test_what_the_rule_cannot_do_is_refused(planted, changes):
    with pytest.raises(InputError):
        config(planted, **changes)


def test_with_the_robust_rule_a_liar_in_all_phases_is_held(planted):
    """The opposite update, nine times as long, and the opposite judgement."""

    def lie(content, sent):
        mine, start = read_arrays(content, "arrays")["prompts"], read_arrays(sent, "arrays")["prompts"]
        content["arrays"] = arrays_of({"prompts": start - 9 * (mine - start)})

    cfg = config(planted, robust="trimmed-mean")
    honest, lied = measured(planted, run(planted, cfg)), measured(planted, run(planted, cfg, lie, "train"))
    plain = measured(planted, run(planted, config(planted, "fedavg"), lie, "train"))
    assert lied[0] >= honest[0] - 0.03
    assert lied[0] > plain[0]
