"""Clients are checked, not trusted: each kind of bad answer is left out with its reason, the others count."""

import math
import re
from typing import ClassVar

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord
from flwr.clientapp import ClientApp

from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.federation.client_app import make_client_app
from fvlfp.federation.local_grid import LocalGrid, in_this_process
from fvlfp.federation.protocol import arrays_of, read_arrays
from fvlfp.federation.server_app import serve

BAD = 2  # this client's answers are spoilt; its node is number 3


class Spoilt(ClientApp):
    """Honest clients, but one, whose replies of one message type go through `spoil`."""

    def __init__(self, honest, spoil, kind="train"):
        self.honest, self.spoil, self.kind = honest, spoil, kind

    def __call__(self, message, context):
        reply = self.honest(message, context)
        if context.node_config["partition-id"] == BAD and message.metadata.message_type == self.kind:
            self.spoil(reply.content, message.content)
        return reply


def run(planted, spoil, kind="train", *, method="fpf", **changes):
    keep = {k: getattr(planted.cfg, k) for k in ("groups", "clients", "batch", "device")}
    cfg = Config.make("smoke", method, **(keep | {"rounds": 2} | changes))
    honest = make_client_app(lambda c: planted.clients[int(c.node_config["partition-id"])], planted.task, cfg)
    with in_this_process():
        return serve(LocalGrid(Spoilt(honest, spoil, kind), len(planted.clients)), planted.task, cfg)


def report(**values):
    def spoil(content, sent):
        content["metrics"] = MetricRecord(dict(content["metrics"]) | values)

    return spoil


def prompts(change):
    def spoil(content, sent):
        mine, start = read_arrays(content, "arrays")["prompts"], read_arrays(sent, "arrays")["prompts"]
        content["arrays"] = arrays_of({"prompts": change(mine, start)})

    return spoil


def lying_header(content, sent):
    """The record says one dtype, the bytes hold another."""
    array = Array(read_arrays(content, "arrays")["prompts"].double().numpy())
    array.dtype = "float32"
    content["arrays"] = ArrayRecord({"prompts": array})


def not_an_array(content, sent):
    array = content["arrays"]["prompts"]
    array.data = b"nonsense"
    content["arrays"] = ArrayRecord({"prompts": array})


def extra_record(content, sent):
    content["diary"] = ConfigRecord({"note": "every image"})


@pytest.fixture(scope="module")
def without(planted):
    """The run in which that client always fails."""

    def fail(content, sent):
        raise RuntimeError("gone")

    return run(planted, fail)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (prompts(lambda p, s: p[:, :-1]), r"prompts is \(2, 3, 32\) float32, not \(2, 4, 32\) float32"),
        (prompts(lambda p, s: p.double()), "float64, not"),
        (lying_header, "holds .* float64, not .* float32"),
        (not_an_array, "cannot be read"),
        (prompts(lambda p, s: p * math.nan), "holds NaN or infinity"),
        (prompts(lambda p, s: p + torch.inf), "holds NaN or infinity"),
        (prompts(lambda p, s: s + 100 * (p - s)), "past 10 times the median"),
        (report(perf=1.2), "perf = 1.2 is outside"),
        (report(disp=-0.1), "disp = -0.1 is outside"),
        (report(**{"num-examples": -3}), "is no count of examples"),
        (report(**{"num-examples": 3.5}), "is no count of examples"),
        (report(disp=[1.0, 2.0]), "is no number"),
        (report(weight=1e9), "the report holds .*weight"),
        (report(loss=math.inf), "loss = inf is not finite"),
        (report(client=-1), "is no client number"),
        (report(client=0), "client 0 is node 1"),
        (report(birthday=3), "the report holds"),
        (extra_record, "the records are"),
    ],
)
def test_a_bad_answer_is_left_out_with_its_reason(planted, without, spoil, reason, caplog):
    with caplog.at_level("WARNING", "fvlfp"):
        state = run(planted, spoil)
    assert torch.equal(state.prompts, without.prompts)
    for row in state.history:
        assert row.failed == [f"node {BAD + 1}"]
        assert row.clients == len(planted.clients) - 1
        (told,) = row.reasons
        assert told.startswith(f"client node {BAD + 1} refused: ")
        assert re.search(reason, told), told
        assert told in caplog.text


def test_an_honest_run_refuses_nobody(planted):
    state = run(planted, lambda content, sent: None, method="fvlfp")
    assert all(row.failed == [] and row.reasons == [] for row in state.history)


def test_nobody_claims_more_examples_than_agreed(planted):
    n = max(len(client.train) for client in planted.clients)
    state = run(planted, report(**{"num-examples": n + 1}), max_examples=n)
    assert f"past max_examples = {n}" in state.history[0].reasons[0]


@pytest.mark.parametrize(
    ("kind", "method", "spoil", "reason"),
    [
        ("query.moments", "dsop", lambda c, s: c["arrays"].pop("counts/prompted/shape"), "the arrays are"),
        (
            "query.moments",
            "dsop",
            lambda c, s: c.update(arrays=arrays_of({k: 9 * v if k.startswith("sums") else v
                                                    for k, v in read_arrays(c, "arrays").items()})),
            "longer than so many unit features",
        ),
        (
            "evaluate",
            "dsop",
            lambda c, s: c.update(arrays=arrays_of({k: v - 9 for k, v in read_arrays(c, "arrays").items()})),
            "holds a negative count",
        ),
    ],
)  # fmt: skip
def test_sums_and_counts_are_checked_too(planted, kind, method, spoil, reason, caplog):
    with caplog.at_level("WARNING", "fvlfp"):
        run(planted, spoil, kind, method=method, rounds=1)
    assert "client node 3 refused" in caplog.text
    assert reason in caplog.text


def test_too_few_usable_answers_stop_the_run(planted):
    with pytest.raises(
        RuntimeError, match=r"only 3 of 4 clients answered this round; the first said: refused"
    ):
        run(planted, report(perf=7.0), min_available=4)


def test_a_silent_client_is_named_after_the_deadline(planted, caplog):
    keep = {k: getattr(planted.cfg, k) for k in ("groups", "clients", "batch", "device")}
    cfg = Config.make("smoke", "fedavg", rounds=1, deadline=7.0, **keep)
    app = make_client_app(lambda c: planted.clients[int(c.node_config["partition-id"])], planted.task, cfg)

    class Slow(LocalGrid):
        asked_to_wait: ClassVar[list[float]] = []

        def send_and_receive(self, messages, *, timeout=None):
            self.asked_to_wait.append(timeout)
            replies = super().send_and_receive(messages, timeout=timeout)
            return [reply for reply in replies if reply.metadata.src_node_id != BAD + 1]

    with in_this_process(), caplog.at_level("WARNING", "fvlfp"):
        state = serve(Slow(app, 4), planted.task, cfg)
    assert set(Slow.asked_to_wait) == {7.0}
    assert state.history[0].reasons == ["client node 3 failed: no answer within 7 s"]


def test_a_lost_client_is_named_with_the_superlinks_reason(planted):
    """A SuperLink answers for a node that it has lost, with an error that names itself as the source."""
    keep = {k: getattr(planted.cfg, k) for k in ("groups", "clients", "batch", "device")}
    cfg = Config.make("smoke", "fvlfp", rounds=1, **keep)
    app = make_client_app(lambda c: planted.clients[int(c.node_config["partition-id"])], planted.task, cfg)

    class Lost(LocalGrid):
        def send_and_receive(self, messages, *, timeout=None):
            replies = super().send_and_receive(messages, timeout=timeout)
            for reply in replies:
                if reply.metadata.src_node_id == BAD + 1:
                    lost = Message(Error(code=6, reason="Node Unavailable"), reply_to=reply)
                    lost.metadata.__dict__["_src_node_id"] = 999
                    yield lost
                else:
                    yield reply

    with in_this_process():
        row = serve(Lost(app, 4), planted.task, cfg).history[0]
    assert (row.clients, row.reasons) == (3, ["client node 3 failed: Node Unavailable"])


@pytest.mark.parametrize("robust", ["krum", "multi-krum", "trimmed-mean", "median"])
def test_a_robust_rule_holds_a_liar_off(planted, robust):
    """The opposite update, twice as long: ordinary enough for the checks."""
    lie = prompts(lambda p, s: s - 2 * (p - s))
    honest = run(planted, lambda c, s: None, method="fedavg", rounds=1).prompts

    def moved(robust):
        out = run(planted, lie, method="fedavg", rounds=1, robust=robust)
        assert out.history[0].failed == []
        assert out.prompts.dtype == torch.float32
        return float((out.prompts - honest).norm())

    assert moved(robust) < moved("none")


def test_robust_rules_need_a_majority(planted):
    with pytest.raises(InputError, match="needs more than 4 clients"):
        run(planted, lambda c, s: None, robust="median", liars=2)
