"""The soak's page tells what was lost and missed; its garbage is refused, and no more than that."""

from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from deploy import bad_node
from deploy.soak import NODES, holds, kept, page
from fvlfp.federation.replies import check_report
from fvlfp.federation.trust import fault
from fvlfp.training.reports import RoundReport


def report(round_, **more):
    return {"round": round_, "clients": 2, "failed": [], "reasons": [], **more}


def result(rounds, history):
    machine = {"cpu": "a processor", "cores": 2, "torch": "2", "flwr": "1"}
    nodes = {f"node-{k}": {"kills": 1, "starts": 3, "away": 50.4} for k in range(NODES)}
    memory = [{"seconds": k, "SuperLink": 100.0 + k, "ServerApp": 900.0} for k in range(20)]
    return {"machine": machine, "code": "abc", "ended": "completed", "minutes": 9.0, "resumed": 0,
            "nodes": nodes, "rounds": rounds, "memory": memory, "history": history}  # fmt: skip


def test_the_page_tells_what_a_node_missed_and_what_was_lost():
    rounds = [{"round": k, "seconds": 30 * k, "saved": True, "SuperLink": 100.0} for k in (1, 2)]
    late = "client node-1 failed: no answer within 60 s"
    history = [report(1), report(2, failed=["node-1"], reasons=[late, "client node-11 refused: NaN"])]
    told = page(result(rounds, history))
    assert "| node-1 | 1 | 3 | 50 | 2 | failed: no answer within 60 s (1) |" in told
    assert "| 2 | 60 | 2 | node-1 | yes | 100.0 | ? |" in told
    assert "**2 of 20**" in told and "Nothing was lost" in told
    assert "Lost: rounds 2" in kept(rounds, history[:1])
    assert "Lost: rounds 1" in kept([rounds[0] | {"saved": False}], history)


def test_a_round_is_held_only_with_all_before_it():
    state = SimpleNamespace(history=[RoundReport(1, 2), RoundReport(3, 2)])
    assert holds(state, 1) and not holds(state, 2) and not holds(None, 1)


@pytest.mark.parametrize("garbage", bad_node.GARBAGE, ids=lambda kind: kind.__name__)
def test_every_kind_of_garbage_is_refused_or_an_error(garbage):
    numbers = {"num-examples": 9, "perf": 0.8, "disp": 0.1, "loss": 0.5, "client": 0}
    prompts = Array(np.zeros((2, 4, 8), np.float32))
    content = RecordDict({"arrays": ArrayRecord({"prompts": prompts}), "metrics": MetricRecord(numbers)})
    check = check_report({"prompts": ((2, 4, 8), "float32")})
    assert fault(content, check) is None
    if garbage is bad_node.long_error:
        with pytest.raises(RuntimeError):
            garbage(content)
    else:
        garbage(content)
        assert fault(content, check) is not None
