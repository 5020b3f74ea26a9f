"""Steps replayed as a graph give the bits of steps run one by one, on a pretended device that can record."""

import pytest
import torch

from fvlfp.config import Config
from fvlfp.runs.train import train
from fvlfp.training import graphs
from fvlfp.training.local import Job
from fvlfp.training.model import Prompts
from fvlfp.training.stacked import train_stacked
from tests.device.pretended import DEVICE, Graph, recorded


@pytest.fixture
def made(monkeypatch):
    """The graphs that are recorded, on a device that records."""
    made = []
    monkeypatch.setattr(graphs, "is_cuda", lambda device: device == DEVICE)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: made.append(Graph()) or made[-1])
    monkeypatch.setattr(torch.cuda, "graph", recorded)
    return made


def trained(prepared, switch, monkeypatch, **settings):
    """Prompts and losses of three clients with 16, 14 and 4 steps."""
    monkeypatch.setenv("FVLFP_CUDA_GRAPHS", switch)
    cfg = Config.make("smoke", "cdfp", groups=("shape", "tint"), batch=20, local_epochs=2, **settings)
    task, rows = prepared.task, (150, 130, 40)
    directions = {name: texts - texts.mean(0) for name, texts in task.group_texts.items()}
    jobs = [
        Job(Prompts(task.initial), prepared.clients[2].train.take(range(n)), directions, f"client/{n}")
        for n in rows
    ]
    done = train_stacked(jobs, task, cfg)
    return torch.stack([result.model.text.cpu() for result in done]), [result.loss for result in done]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pairing": "layers"},
        {"lambda_gap": 1.0, "lambda_prox": 0.1, "lambda_uniform": 1.0},
    ],
    ids=str,
)
def test_a_replayed_step_gives_the_same_bits(planted_there, watch, made, monkeypatch, settings):
    (wanted, losses), (ours, our_losses) = (
        trained(planted_there, switch, monkeypatch, **settings) for switch in ("off", "on")
    )
    assert torch.equal(ours, wanted) and our_losses == losses
    # of 4 steps of three clients, 10 of two and 2 of one, those behind the third of a size
    assert [graph.replays for graph in made] == [1, 7]


def test_every_method_that_trains_in_stacks_is_replayed(planted_there, watch, made, monkeypatch):
    for method in ("fvlfp", "fedpgp", "fedmgp"):
        cfg = Config.make("smoke", method, groups=("shape", "tint"), rounds=1, batch=20)
        monkeypatch.setenv("FVLFP_CUDA_GRAPHS", "off")
        wanted = train(cfg, planted_there, progress=None).model.tensors()
        monkeypatch.setenv("FVLFP_CUDA_GRAPHS", "on")
        ours = train(cfg, planted_there, progress=None).model.tensors()
        assert made and all(torch.equal(ours[name].cpu(), x.cpu()) for name, x in wanted.items()), method
        made.clear()


def test_what_cannot_be_recorded_runs_one_by_one(planted_there, watch, made, monkeypatch, caplog):
    wanted, _ = trained(planted_there, "off", monkeypatch)

    def out_of_memory(graph):
        raise torch.OutOfMemoryError("out of memory\nand more")

    monkeypatch.setattr(torch.cuda, "graph", out_of_memory)
    ours, _ = trained(planted_there, "on", monkeypatch)
    assert torch.equal(ours, wanted)
    assert [r.message for r in caplog.records] == ["training steps run one by one: out of memory"]


def test_a_replay_with_other_numbers_is_noticed(planted_there, watch, made, monkeypatch, caplog):
    wanted, _ = trained(planted_there, "off", monkeypatch)
    monkeypatch.setattr(graphs, "tree_leaves", lambda batch: [])  # the graph is never given the new batch
    ours, _ = trained(planted_there, "on", monkeypatch)
    torch.testing.assert_close(ours, wanted)
    assert [r.message for r in caplog.records] == [
        "training steps run one by one: a replayed step gave other numbers"
    ]


def test_a_step_that_waits_cannot_be_recorded(watch):
    x, graph = torch.ones(3).to(DEVICE), Graph()
    with pytest.raises(RuntimeError, match="not permitted"), recorded(graph):
        float((x + 1).sum())
    with recorded(graph := Graph()):
        y = x + 1
    assert y.isnan().cpu().all()
    x.mul_(2)
    graph.replay()
    assert y.tolist() == [3.0, 3.0, 3.0]
