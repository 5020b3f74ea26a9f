"""What every test shares: no network, one thread, a tiny random CLIP, and clients with a planted bias."""

import json
import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

# What somebody's shell or a build machine has set reaches no test, and nothing that a test starts.
os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}
os.environ.pop("FVLFP_NOISE_SEED", None)
os.environ.pop("FVLFP_CUDA_GRAPHS", None)
os.environ.pop("FORCE_COLOR", None)  # these three: typer would colour what the tests read
os.environ.pop("PY_COLORS", None)
os.environ.pop("GITHUB_ACTIONS", None)

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from fvlfp.audit.report import plots, write
from fvlfp.clip.encoder import Encoder
from fvlfp.config import Config
from fvlfp.data.card import Attribute, Card
from fvlfp.runs.train import Prepared
from fvlfp.training.examples import ClientData, Split
from fvlfp.training.task import Task

torch.set_num_threads(1)
# torch shows many warnings once a process only: which test would fail for one would hang on the order.
torch.set_warn_always(True)

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "patch_size": 8, "image_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3},
}


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """One folder for all workers of this test run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(shared):
    """Drawings and features are made once in a run; no kernel reads what somebody has set up for IPython."""
    os.environ.setdefault("FVLFP_CACHE", str(shared / "cache"))
    os.environ["IPYTHONDIR"] = str(shared / "ipython")
    os.environ["JUPYTER_RUNTIME_DIR"] = str(shared / "jupyter")


@pytest.fixture
def start():
    """Start a process in a session of its own; every process so started has ended when the test has.

    start(command, **options of subprocess.Popen); stdout and stderr are pipes of text unless said otherwise.
    """
    started: list[subprocess.Popen] = []

    def begin(command, **options) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, start_new_session=True, **(pipes | options))
        started.append(process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError, PermissionError):  # it has ended; macOS says so in the second way
            os.killpg(process.pid, signal.SIGKILL)  # what it has started itself, too
        process.communicate()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing may talk to the world at run time; kernels and grids use the loopback."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def reports_made_in_process(request, monkeypatch):
    """A kernel takes seconds to start and makes the same page: tests of the kernel itself carry its mark."""
    if "kernel" not in request.keywords:
        monkeypatch.setattr(write, "execute", write.in_process)


@pytest.fixture(autouse=True)
def figures_of_reports(request, monkeypatch):
    """Turning figures into SVG takes most of a report's time: tests of figures and of the kernel do it.

    In all others every figure is composed, and a blank one stands in the page.
    """
    if not {"figures", "kernel"} & set(request.keywords):
        monkeypatch.setattr(plots, "svg", lambda figure: b'<svg xmlns="http://www.w3.org/2000/svg"/>')


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory) -> tuple[Path, Path]:
    """Config and random weights of a small open_clip model: (json, safetensors)."""
    import open_clip

    folder = tmp_path_factory.mktemp("tiny")
    config, weights = folder / "tiny-test-clip.json", folder / "tiny.safetensors"
    config.write_text(json.dumps(TINY))
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-test-clip")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    return config, weights


@pytest.fixture(scope="session")
def encoder(tiny_files) -> Encoder:
    config, weights = tiny_files
    return Encoder.load("tiny-test-clip", pretrained=str(weights), model_config=config, device="cpu")


CARD = Card(
    name="planted",
    source="made by the tests",
    licence="CC0",
    label_origin="drawn",
    templates=["a photo of a {}", "a drawing of a {}"],
    classes={"smiling": {"no": "serious face", "yes": "smiling face"}},
    groups={
        "shape": Attribute({"round": ["round", "oval"], "square": ["square"]}, "{word} face"),
        "tint": Attribute({"amber": ["amber"], "teal": ["teal"], "violet": ["violet"]}, "{word} face"),
    },
)


def planted_split(task: Task, n: int, seed: int, bias: float = 0.6) -> Split:
    """Features near the class texts, pushed towards class 1 in group 1 of `shape` by `bias`."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (n,), generator=rng)
    g = {name: torch.randint(0, len(groups), (n,), generator=rng) for name, groups in task.groups.items()}
    texts, words = task.frozen_texts, task.group_texts["shape"]
    lean = (texts[1] - texts[0]) * bias
    group = (words[1] - words[0]) * 3
    z = texts.mean(0) + (texts[1] - texts[0]) * (y[:, None] - 0.5)
    z = z + (lean + group) * (g["shape"][:, None] - 0.5)
    z = z + 0.1 * torch.randn(z.shape, generator=rng)
    return Split(torch.nn.functional.normalize(z, dim=-1), y, g)


@pytest.fixture(scope="session")
def planted(encoder) -> Prepared:
    """`plant`, with the tiny causal model."""
    return plant(encoder)


def plant(encoder: Encoder) -> Prepared:
    """Four clients and a test split with a planted gap, no images: training tests take a second."""
    cfg = Config.make("smoke", groups=("shape", "tint"), clients=4, rounds=3, batch=32, device="cpu")
    task = Task.make(encoder, CARD, cfg)
    clients = [
        ClientData(k, planted_split(task, 90 + 30 * k, 10 + k), planted_split(task, 60, 50 + k))
        for k in range(4)
    ]
    test = planted_split(task, 400, 99)
    frame = pd.DataFrame(
        {
            "smiling": np.array(task.classes)[test.y],
            **{name: np.array(groups)[test.g[name]] for name, groups in task.groups.items()},
        }
    )
    return Prepared(cfg, task, clients, test, frame, encoder.provenance, 0.0)
