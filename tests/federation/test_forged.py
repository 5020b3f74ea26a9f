"""Forged replies of every kind: whatever one client sends, the round goes on with the others.

No training here: replies are written by hand and handed to what reads them, a whole round of the strategy or
a check.
"""

import io
import math

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fvlfp.config import Config
from fvlfp.dsop import no_projection
from fvlfp.federation.baseline_rules import FairFedFusion, QFedAvgFusion
from fvlfp.federation.checkpoint import ServerState
from fvlfp.federation.local_grid import in_this_process
from fvlfp.federation.replies import check_counts, check_moments
from fvlfp.federation.strategy import FairFusion
from fvlfp.federation.trust import MOST_WORDS, accept
from fvlfp.training.model import Prompts
from tests.fuzzing import FIXED

SHAPE = (2, 4, 8)
BAD = 3  # this node's replies are forged


@pytest.fixture(autouse=True, scope="module")
def inside():
    with in_this_process():
        yield


def content(seed=0, client=0, **more):
    prompts = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32) * 0.1
    report = {"num-examples": 100, "perf": 0.8, "disp": 0.1, "loss": 0.5, "client": client}
    return RecordDict(
        {
            "arrays": ArrayRecord({"prompts": Array(prompts)}),
            "metrics": MetricRecord(report | more),
        }
    )


def asked(node, kind=MessageType.TRAIN):
    return Message(RecordDict(), dst_node_id=node, message_type=kind)


def reply(node, body):
    return Message(body, reply_to=asked(node))


def npy(values) -> bytes:
    out = io.BytesIO()
    np.save(out, values, allow_pickle=True)
    return out.getvalue()


def header(text: str, body: bytes = b"") -> bytes:
    """An .npy file whose header says `text`."""
    line = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + body


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, prompts=np.zeros(SHAPE, np.float32))
    return out.getvalue()


def with_data(data, shape=SHAPE, dtype="float32"):
    """Bytes in place of the prompts' own; the record goes on saying what is expected."""

    def forge(body):
        array = Array(np.zeros(SHAPE, np.float32))
        array.data, array.shape, array.dtype = data, shape, dtype
        body["arrays"] = ArrayRecord({"prompts": array})

    return forge


def with_array(values):
    return lambda body: body.update(arrays=ArrayRecord({"prompts": Array(values)}))


def with_report(**values):
    """Numbers that Flower's own record would refuse come in as they would through another implementation."""

    def forge(body):
        record = MetricRecord(dict(body["metrics"]))
        for key, value in values.items():
            record._data[key.replace("_", "-")] = value
        body["metrics"] = record

    return forge


def without(key):
    return lambda body: body["metrics"].pop(key)


def record(name, value):
    return lambda body: body.update({name: value})


SAID = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"
ONES = np.ones(SHAPE, np.float32)
FORGED = {
    # records
    "metrics is a ConfigRecord": record("metrics", ConfigRecord({"client": 0})),
    "metrics is an ArrayRecord": record("metrics", ArrayRecord({"a": Array(ONES)})),
    "arrays is a MetricRecord": record("arrays", MetricRecord({"a": 1.0})),
    "no metrics": lambda body: body.pop("metrics"),
    "no arrays": lambda body: body.pop("arrays"),
    "nothing at all": lambda body: body.clear(),
    "one record more": record("diary", ConfigRecord({"note": "every image"})),
    "a thousand records": lambda body: body.update({f"r{i}": MetricRecord({}) for i in range(1000)}),
    # arrays
    "no prompts": record("arrays", ArrayRecord({})),
    "another name": record("arrays", ArrayRecord({"prompt": Array(ONES)})),
    "one array more": record("arrays", ArrayRecord({"prompts": Array(ONES), "x": Array(ONES)})),
    "ten thousand names": record("arrays", ArrayRecord({f"{i}": Array(ONES[0, 0]) for i in range(10_000)})),
    "another shape": with_array(np.ones((2, 4, 9), np.float32)),
    "no shape": with_array(np.array(1.0, np.float32)),
    "float64": with_array(ONES.astype(float)),
    "integers": with_array(ONES.astype(int)),
    "text": with_array(np.full(SHAPE, "a")),
    "NaN": with_array(ONES * np.float32(math.nan)),
    "infinity": with_array(ONES * np.float32(math.inf)),
    "1e38": with_array(ONES * np.float32(1e38)),
    # bytes
    "nonsense": with_data(b"nonsense"),
    "no bytes": with_data(b""),
    "an .npz": with_data(npz()),
    "a broken zip": with_data(b"PK\x03\x04" + b"\0" * 40),
    "a pickle": with_data(b"\x80\x04\x95\x05\0\0\0\0\0\0\0\x8c\x01a\x94."),
    "an .npy of objects": with_data(npy(np.array([{"a": 1}], object))),
    "a header of 40 TB": with_data(header(SAID % "(10000000000000,)")),
    "a negative shape": with_data(header(SAID % "(-2, 4, 8)", ONES.tobytes())),
    "5,000 minus signs": with_data(header(SAID % f"({'-' * 5000}2, 4, 8)", ONES.tobytes())),
    "a header that calls": with_data(header(SAID % "__import__('os').abort()")),
    "half of the numbers": with_data(npy(ONES)[:-100]),
    "a gigabyte's worth behind": with_data(npy(ONES) + b"\0" * 10**7),
    "another dtype inside": with_data(npy(ONES.astype(float))),
    # numbers
    "no num-examples": without("num-examples"),
    "no disp": without("disp"),
    "no client": without("client"),
    "client is True": with_report(client=True),
    "client is 10^400": with_report(client=10**400),
    "num-examples is 10^400": with_report(num_examples=10**400),
    "num-examples is 2^62": with_report(num_examples=2**62),
    "num-examples is 0": with_report(num_examples=0),
    "num-examples is text": with_report(num_examples="100"),
    "num-examples is a list": with_report(num_examples=[1] * 10**5),
    "a weight of its own": with_report(weight=1e300),
    "loss is 1e300": with_report(loss=1e300),
    "loss is 10^400": with_report(loss=10**400),
    "perf is 10^400": with_report(perf=10**400),
    "perf is None": with_report(perf=None),
    "a number more": with_report(birthday=3),
    "ten thousand numbers more": with_report(**{f"n{i}": 1 for i in range(10_000)}),
    "a key of a megabyte": with_report(**{"x" * 10**6: 1}),
    "a list as perf": with_report(perf=[0.5, 0.5]),
}


def state():
    return ServerState(Prompts(torch.zeros(SHAPE)), no_projection(SHAPE[-1]))


def a_round(strategy, replies, asked=(1, 2, 3, 4)):
    """What one round makes of these replies: fused prompts and the history's row."""
    strategy.sent, strategy.asked = content(99)["arrays"], list(asked)
    arrays, _ = strategy.aggregate_train(1, replies)
    return arrays["prompts"].numpy(), strategy.history[-1]


def fusion(**settings):
    return FairFusion(Config.make("smoke", "fpf", device="cpu", **settings), 2, state())


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("norm_bound", [10.0, 0.0])
def test_a_forged_reply_is_left_out_and_the_round_goes_on(forge, norm_bound):
    def honest():
        return [reply(node, content(node, client=node)) for node in (1, 2, 4)]

    expected, _ = a_round(fusion(norm_bound=norm_bound), honest())
    body = content(BAD, client=BAD)
    forge(body)
    fused, row = a_round(fusion(norm_bound=norm_bound), [*honest(), reply(BAD, body)])
    assert np.array_equal(fused, expected)
    assert (row.clients, row.failed) == (3, [f"node {BAD}"])
    (reason,) = row.reasons
    assert reason.startswith(f"client node {BAD} refused: ")
    assert len(reason) < MOST_WORDS + 80
    assert reason.isprintable()


def test_a_client_number_stays_with_the_node_that_had_it_first():
    """A node that comes later with a smaller id does not push the first one out."""
    strategy = fusion()
    strategy.sent, strategy.asked = content(99)["arrays"], [2, 3, 4]
    strategy.aggregate_train(1, [reply(node, content(node, client=node)) for node in (2, 3, 4)])
    strategy.asked = [1, 2, 3, 4]
    later = [reply(1, content(1, client=4)), *(reply(node, content(node, client=node)) for node in (2, 3))]
    strategy.aggregate_train(2, [*later, reply(4, content(4, client=2))])
    assert strategy.history[-1].failed == ["node 1", "node 4"]
    assert strategy.history[-1].reasons == [
        "client node 1 refused: client 4 is node 4",
        "client node 4 refused: this node is client 4, not 2",
    ]


def test_there_are_more_than_forty_kinds():
    assert len(FORGED) >= 42


def test_an_error_of_120_megabytes_leaves_one_line():
    body = Message(Error(code=2, reason="row 17\n" * (120 * 10**6 // 7)), reply_to=asked(BAD))
    honest = [reply(node, content(node, client=node)) for node in (1, 2, 4)]
    _, row = a_round(fusion(), [*honest, body])
    assert len(row.reasons[0]) < MOST_WORDS + 80
    assert "\n" not in row.reasons[0]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (QFedAvgFusion, {"start-loss": 0.5}),
        (FairFedFusion, {"counts/shape": [5] * 8}),
    ],
)
@pytest.mark.parametrize("lie", ["missing", 1e300, 10**400, -1.0, math.nan, "a", [1.0] * 7, [[1]], None])
def test_numbers_of_other_rules_are_checked_too(kind, more, lie):
    needs = {key: 8 if isinstance(value, list) else 0 for key, value in more.items()}
    cfg = Config.make("smoke", "fedavg", device="cpu")

    def strategy():
        return kind(cfg, 2, state(), more=needs)

    def honest():
        return [reply(node, content(node, client=node, **more)) for node in (1, 2, 4)]

    expected, _ = a_round(strategy(), honest())
    body = content(BAD, client=BAD, **more)
    (key,) = more
    if lie == "missing":
        body["metrics"].pop(key)
    else:
        body["metrics"]._data[key] = lie
    fused, row = a_round(strategy(), [*honest(), reply(BAD, body)])
    assert row.failed == [f"node {BAD}"]
    assert np.array_equal(fused, expected)


def moments(sums, counts):
    arrays = {
        "sums/prompted/shape": Array(np.asarray(sums, np.float32)),
        "counts/prompted/shape": Array(np.asarray(counts, np.float32)),
    }
    return RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"client": 0})})


MOMENTS = {"sums/prompted/shape": ((2, 2, 3), "float32"), "counts/prompted/shape": ((2, 2), "float32")}


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([[20, 20], [20, 2]], "fewer than min_cell = 5"),
        ([[20, 20], [20, -20]], "negative"),
        ([[20, 20], [20, 10**6]], "counts more than 100 examples"),
        ([[20, 20], [20, 2**62]], "number past"),
    ],
)
def test_moments_are_bound_to_possible_counts(counts, reason):
    check = check_moments(MOMENTS, min_cell=5, most=100)
    good, _ = accept([reply(1, moments(np.zeros((2, 2, 3)), [[20, 20], [20, 20]]))], check)
    assert len(good) == 1
    good, refused = accept([reply(1, moments(np.zeros((2, 2, 3)), counts))], check)
    assert not good
    assert reason in refused[1]


def counts(*tables):
    arrays = ArrayRecord({f"{i}/shape": Array(np.asarray(t, np.int64)) for i, t in enumerate(tables)})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"client": 0})})


ONE = np.full((2, 2, 2), 5)


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (ONE * 2, "disagree about the number of rows of a cell"),
        (ONE * [[[1, -1]]], "negative"),
        (ONE // 5, "fewer than min_cell = 5"),
        (ONE * 10**8, "counts more than 100 examples"),
        (ONE * 2**60, "number past"),
    ],
)
def test_votes_are_bound_to_the_same_rows(second, reason):
    check = check_counts({f"{i}/shape": ((2, 2, 2), "int64") for i in range(2)}, min_cell=5, most=100)
    moved = ONE + np.array([[[1, -1]]])
    assert len(accept([reply(1, counts(ONE, moved))], check)[0]) == 1
    good, refused = accept([reply(1, counts(ONE, second))], check)
    assert not good
    assert reason in refused[1]


NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=9),
)
BYTES = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda at, value: npy(ONES)[:at] + value + npy(ONES)[at + len(value) :],
              st.integers(0, 200), st.binary(min_size=1, max_size=8)),
)  # fmt: skip
KEYS = ("num-examples", "perf", "disp", "loss", "client")


REPLY = st.fixed_dictionaries(
    {
        "report": st.dictionaries(st.sampled_from([*KEYS, "other"]), NUMBERS, max_size=4),
        "data": st.one_of(st.none(), BYTES),
        "gone": st.sets(st.sampled_from([*KEYS, "arrays", "metrics"]), max_size=2),
    }
)
FORGERS = (5, 6, 7, 8)
CFG = Config.make("smoke", "fpf", device="cpu")


@settings(max_examples=500, **FIXED)
@given(st.tuples(*[REPLY] * len(FORGERS)))
def test_none_of_two_thousand_replies_ends_a_round(replies):
    """Whatever is in them, replies are taken or left out; what is taken leaves finite prompts."""
    honest = [reply(node, content(node, client=node)) for node in (1, 2, 4)]
    forged = [reply(node, spoilt(node, **parts)) for node, parts in zip(FORGERS, replies, strict=True)]
    fused, row = a_round(FairFusion(CFG, 2, state()), [*honest, *forged], asked=[1, 2, 4, *FORGERS])
    assert np.isfinite(fused).all()
    assert row.clients == 3 + len(FORGERS) - len(row.failed)
    assert set(row.failed) <= {f"node {node}" for node in FORGERS}


def spoilt(node, report, data, gone):
    body = content(node, client=node)
    for key, value in report.items():
        body["metrics"]._data[key] = value
    if data is not None:
        with_data(data)(body)
    for key in sorted(gone, key=lambda name: name in ("arrays", "metrics")):
        if key in KEYS:
            body["metrics"]._data.pop(key, None)
        else:
            body.pop(key)
    return body
