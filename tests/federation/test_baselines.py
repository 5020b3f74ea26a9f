"""Every baseline by its name, on clients with a planted gap."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from fvlfp import metrics
from fvlfp.baselines.f3 import fair_acc_avg, fair_avg
from fvlfp.baselines.fedclip import adapt
from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.federation.local_grid import in_this_process
from fvlfp.federation.protocol import ClientReport
from fvlfp.methods import METHODS
from fvlfp.runs.predict import predict, readout_of
from fvlfp.runs.train import train, with_posthoc
from fvlfp.training.alone import merged
from fvlfp.training.examples import ClientData, Split
from fvlfp.training.fit_posthoc import crossed_groups
from fvlfp.training.model import initial_model
from fvlfp.training.readout import Readout
from fvlfp.training.reports import countable_rows

LABEL_FREE = [m for m in METHODS if not Config.make("smoke", m).labels_read()]


def config(prepared, method, **changes):
    keep = {k: getattr(prepared.cfg, k) for k in ("groups", "clients", "rounds", "batch", "device", "seed")}
    keep["rounds"] = METHODS[method].get("rounds", keep["rounds"])
    return Config.make("smoke", method, **(keep | changes))


def run(prepared, method, **changes):
    return train(config(prepared, method, **changes), prepared, progress=None)


@pytest.fixture(scope="module")
def fedavg(planted):
    return run(planted, "fedavg")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_is_reproducible_and_differs_from_fedavg(planted, fedavg, method):
    rounds = METHODS[method].get("rounds", 1)
    first, again = (run(planted, method, rounds=rounds) for _ in range(2))
    for a, b in zip(first.model.tensors().values(), again.model.tensors().values(), strict=True):
        assert torch.equal(a, b)
    frame = predict(planted, first)
    assert frame["prediction"].tolist() == predict(planted, again)["prediction"].tolist()
    assert np.isfinite(frame["score"]).all()
    if first.posthoc is None:  # a projection may cost the tiny model its task
        assert (frame["prediction"] == frame["smiling"]).mean() > 0.6
    if method not in ("fedavg", "thresholds", "probe-projection", "leace"):  # these may leave scores alone
        assert not np.array_equal(frame["score"], predict(planted, fedavg)["score"])


def scrambled(split: Split) -> Split:
    return Split(split.z, split.y, {k: torch.zeros_like(v) for k, v in split.g.items()})


@pytest.mark.parametrize("method", LABEL_FREE)
def test_label_free_reads_no_group_anywhere(planted, method):
    """With every group label of training, validation and test overwritten, nothing changes."""
    clients = [ClientData(c.client, scrambled(c.train), scrambled(c.val)) for c in planted.clients]
    blind = dataclasses.replace(planted, clients=clients, test=scrambled(planted.test))
    rounds = METHODS[method].get("rounds", 1)
    seen, unseen = (predict(p, run(p, method, rounds=rounds))["score"] for p in (planted, blind))
    assert np.array_equal(seen, unseen)


def test_what_reads_labels_says_so():
    free = {"zero-shot", "local", "fedavg", "fedprox", "qfedavg", "fedclip", "ffdvp"}
    assert free | {"leace-prompted", "fvlfp-label-free"} <= {*LABEL_FREE}
    said = {m: Config.make("smoke", m).labels_read() for m in METHODS if m not in LABEL_FREE}
    assert said["gaploss"] == said["reweight"] == ["training"]
    assert said["leace"] == said["probe-projection"] == ["training", "validation"]
    assert said["thresholds"] == ["validation", "inference"]
    assert said["fairfed"] == said["f3"] == said["f3-acc"] == ["validation"]


def test_zero_shot_is_the_hand_written_prompt(planted):
    frame = predict(planted, run(planted, "zero-shot"))
    assert np.allclose(frame["score"], predict(planted)["score"], atol=1e-5)


def test_promptfl_sends_one_layer(planted, fedavg):
    shallow = run(planted, "promptfl")
    assert shallow.prompts.shape == (1, *planted.task.initial.shape[1:])
    half = 4 * 4 * planted.task.initial[1].numel()  # four clients, four bytes a number
    assert fedavg.history[0].uplink_bytes - shallow.history[0].uplink_bytes == half


def test_centralised_is_one_client_with_everything(planted):
    one = dataclasses.replace(planted, clients=[merged(planted.clients)])
    assert len(one.clients[0].train) == sum(len(c.train) for c in planted.clients)
    assert torch.equal(run(planted, "centralised").prompts, run(one, "fedavg").prompts)


def test_local_is_every_client_alone(planted):
    alone = run(planted, "local")
    second = run(dataclasses.replace(planted, clients=[planted.clients[1]]), "fedavg")
    assert torch.allclose(alone.model.text[1], second.prompts, atol=1e-3)
    one_by_one = train(config(planted, "local"), planted, stacked=False, progress=None)
    assert torch.allclose(alone.model.text, one_by_one.model.text, atol=1e-3)
    assert [row.uplink_bytes for row in alone.history] == [0, 0, 0]
    assert alone.model.sizes == tuple(len(c.train) for c in planted.clients)


def test_prox_with_a_huge_lambda_stays_where_it_was(planted, fedavg):
    held = run(planted, "fedprox", lambda_prox=1e4, rounds=1)
    moved = (run(planted, "fedavg", rounds=1).prompts - planted.task.initial).norm()
    assert (held.prompts - planted.task.initial).norm() < 0.5 * moved


def test_cells_of_one_group_are_the_class_balanced_loss(planted):
    """Where a client has one group only, cells are classes."""
    clients = [ClientData(c.client, scrambled(c.train), c.val) for c in planted.clients]
    one_group = dataclasses.replace(planted, clients=clients)
    a, b = (run(one_group, m, rounds=1).prompts for m in ("fedavg", "reweight"))
    assert torch.allclose(a, b, atol=1e-4)


def replies(planted, prompts, losses):
    asked = [Message(RecordDict(), dst_node_id=k + 1, message_type="train") for k in range(len(prompts))]
    return [
        Message(
            RecordDict(
                {
                    "arrays": ArrayRecord({"prompts": Array(p)}),
                    "metrics": MetricRecord({"start-loss": f, "num-examples": 10}),
                }
            ),
            reply_to=message,
        )
        for message, p, f in zip(asked, prompts, losses, strict=True)
    ]


def test_qfedavg_is_the_published_step(planted):
    """And Flower's own gives the same."""
    from flwr.serverapp.strategy import QFedAvg

    from fvlfp.dsop import no_projection
    from fvlfp.federation.baseline_rules import strategy_for
    from fvlfp.federation.checkpoint import ServerState
    from fvlfp.training.model import Prompts

    cfg = config(planted, "qfedavg", q=0.5, lipschitz=2.0)
    rng = np.random.default_rng(0)
    w, parts = rng.normal(size=(2, 3)).astype("f4"), rng.normal(size=(3, 2, 3)).astype("f4")
    losses = [0.2, 1.0, 3.0]
    with in_this_process():
        state = ServerState(Prompts(planted.task.initial), no_projection(16))
        strategy = strategy_for(cfg, planted.task, state)
        strategy.sent = ArrayRecord({"prompts": Array(w)})
        good = replies(planted, parts, losses)
        reports = [ClientReport(k, 10, None, None, 0.0, start_loss=f) for k, f in enumerate(losses)]
        found = strategy._fuse(1, good, reports)["prompts"].numpy()
        theirs = QFedAvg(1 / 2.0, q=0.5, train_loss_key="start-loss")
        theirs.current_arrays = ArrayRecord({"prompts": Array(w)})
        flowers, _ = theirs.aggregate_train(1, replies(planted, parts, losses))
    delta = [f**0.5 * 2 * (w - p) for p, f in zip(parts, losses, strict=True)]
    h = [0.5 * f**-0.5 * (4 * (w - p) ** 2).sum() + 2 * f**0.5 for p, f in zip(parts, losses, strict=True)]
    assert found.dtype == np.float32
    assert np.allclose(found, w - sum(delta) / sum(h), atol=1e-5)
    assert np.allclose(found, flowers["prompts"].numpy(), atol=1e-5)


def test_qfedavg_with_q_0_is_the_plain_mean_of_clients(planted):
    run_cfg = config(planted, "qfedavg", q=0.0, rounds=1)
    equal = [ClientData(c.client, c.train.take(np.arange(90)), c.val) for c in planted.clients]
    even = dataclasses.replace(planted, clients=equal)
    mean = train(run_cfg, even, progress=None).prompts
    assert torch.allclose(mean, run(even, "fedavg", rounds=1).prompts, atol=1e-6)


def test_fairfed_follows_its_rule_over_rounds(planted):
    """The weights of every round, recomputed from the prompts each round started from."""
    from fvlfp.baselines.fairfed import fairfed_distance, fairfed_weights

    seen = []
    n = np.array([len(c.train) for c in planted.clients], float)
    weights, start = list(n / n.sum()), planted.task.initial
    for rounds in (1, 2):
        texts = planted.task.class_texts(start)
        readout = Readout(planted.task, texts)
        own = [
            [t for _, t in sorted(readout.confusion(countable_rows(c.val, planted.cfg.min_cell)).items())]
            for c in planted.clients
        ]
        everybody = [sum(parts) for parts in zip(*own, strict=True)]
        distances = [fairfed_distance(t, everybody, min_cell=planted.cfg.min_cell) for t in own]
        weights = fairfed_weights(weights, distances, beta=1.0)
        trained = run(planted, "fairfed", rounds=rounds)
        start = trained.prompts
        seen.append(trained.history[-1].largest_weight)
        assert seen[-1] == pytest.approx(max(weights))
    assert seen[0] != seen[1]


@pytest.mark.parametrize(("method", "share"), [("f3", 0.5), ("f3", 0.05), ("f3-acc", 0.5)])
def test_f3_keeps_the_clients_that_are_fairest_on_all_validation_rows(planted, method, share):
    """A round, recomputed from what each client trains and one table of everybody's countable rows."""
    cfg = config(planted, method, rounds=1, peers_share=share)
    each = run(planted, "local", rounds=1).model.text
    gaps, accuracies = [], []
    for prompts in each:
        readout = Readout(planted.task, planted.task.class_texts(prompts))
        tables = [readout.confusion(countable_rows(c.val, cfg.min_cell)) for c in planted.clients]
        pooled = [sum(table[name] for table in tables) for name in planted.task.groups]
        gaps.append(max(metrics.recall_gap(table) for table in pooled))
        accuracies.append(np.nanmean(np.concatenate([metrics.recalls(table).ravel() for table in pooled])))
    w = fair_avg(gaps, share=share) if method == "f3" else fair_acc_avg(gaps, accuracies, share=share)
    fused = train(cfg, planted, progress=None)
    assert torch.allclose(fused.prompts, torch.einsum("k,klnw->lnw", torch.tensor(w), each), atol=1e-5)
    assert fused.history[0].largest_weight == pytest.approx(max(w))


def test_f3_goes_by_size_where_no_gap_is_known(planted):
    one_group = [ClientData(c.client, c.train, scrambled(c.val)) for c in planted.clients]
    blind = dataclasses.replace(planted, clients=one_group)
    assert torch.equal(run(blind, "f3", rounds=1).prompts, run(blind, "fedavg", rounds=1).prompts)
    with pytest.raises(InputError, match="fusion = 'f3' needs robust = 'none'"):
        config(planted, "f3", robust="krum")


def test_the_adapter_starts_as_zero_shot_and_is_fedclips(planted):
    cfg = config(planted, "fedclip")
    adapter = initial_model(planted.task, cfg).weights
    z = planted.test.z
    assert torch.allclose(adapt(z, adapter), z, atol=1e-5)
    d = z.shape[1]
    rng = torch.Generator().manual_seed(0)
    adapter = torch.randn(2, d, d + 1, generator=rng)
    (w1, b1), (w2, b2) = ((layer[:, :d], layer[:, d]) for layer in adapter)
    net = torch.nn.Sequential(
        torch.nn.Linear(d, d), torch.nn.Tanh(), torch.nn.Linear(d, d), torch.nn.Softmax(-1)
    )
    net[0].weight.data, net[0].bias.data, net[2].weight.data, net[2].bias.data = w1, b1, w2, b2
    assert torch.allclose(adapt(z, adapter), F.normalize(net(z) * z, dim=-1), atol=1e-5)


def test_posthoc_reuses_the_trained_prompts(planted, fedavg):
    cfg = config(planted, "leace")
    again = with_posthoc(cfg, planted, fedavg)
    assert torch.equal(run(planted, "leace").prompts, again.prompts)
    assert torch.equal(again.prompts, fedavg.prompts)
    assert again.candidates[0].rank == 0
    assert again.posthoc.uplink_bytes > 0


def test_validation_chooses_the_smallest_gap_that_costs_little(planted, fedavg):
    for tolerance in (0.0, 1.0):
        found = with_posthoc(config(planted, "leace", tolerance=tolerance), planted, fedavg)
        tried = found.candidates
        fit = [c for c in tried if c.cell_accuracy >= tried[0].cell_accuracy - tolerance]
        best = min(fit, key=lambda c: c.odds_gap)
        assert (found.posthoc.rank, found.posthoc.lam) == (best.rank, best.lam)
    assert found.posthoc.rank > 0


def test_thresholds_close_the_gap_where_they_were_fitted(planted, fedavg):
    trained = with_posthoc(config(planted, "thresholds"), planted, fedavg)
    val = merged(planted.clients).val
    with torch.no_grad():
        score = readout_of(planted, fedavg).logits(val.z).softmax(-1)[:, 1].double().numpy()
    group, y = crossed_groups(val), val.y.numpy()

    def gap(chosen):
        recall = [[(chosen == c)[(y == c) & (group == k)].mean() for k in np.unique(group)] for c in (0, 1)]
        return np.ptp(recall, axis=1).max()

    assert gap(trained.posthoc.thresholds.decide(score, group, 0)) < gap(score >= 0.5)


def test_thresholds_judges_unknown_groups_at_one_half(planted, fedavg):
    cfg = config(planted, "thresholds")
    trained = with_posthoc(cfg, planted, fedavg)
    g = {k: torch.full_like(v, 9) for k, v in planted.test.g.items()}
    other = dataclasses.replace(planted, test=Split(planted.test.z, planted.test.y, g))
    plain = predict(planted, fedavg)["prediction"]
    assert predict(other, trained)["prediction"].tolist() == plain.tolist()


def test_with_method_undoes_what_a_method_set():
    cfg = Config.make("smoke", "promptfl", lr=0.5)
    back = cfg.with_method("fedavg")
    assert (back.depth, back.lr, back.lambda_cf, back.method) == (2, 0.5, 0.0, "fedavg")
    assert Config.make("smoke", "zero-shot").with_method("fedavg").rounds == 2
    with pytest.raises(InputError, match="did you mean 'leace'"):
        cfg.with_method("lease")
