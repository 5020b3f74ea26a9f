"""How fast training and auditing are, each measured beside what a user would pick instead, in the same run.

    python -m benchmarks.speed                 all parts; or name some: python -m benchmarks.speed loop text
    python -m benchmarks.speed --device cuda   the same, and larger towers, on a GPU

Writes benchmarks/results/speed.json, speed.md and speed.png; parts not named keep their last numbers.
Random weights do: time does not depend on what a model knows. FaceCLIP-64 is taken from FVLFP_SHARED where
that is set.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import speed_page
from benchmarks.machine import machine
from benchmarks.reference_loop import reference_loop
from fvlfp.clip.cache import features
from fvlfp.clip.decode import Pictures, batches_of
from fvlfp.clip.device import pick_device
from fvlfp.clip.encoder import BATCH, Encoder
from fvlfp.config import Config
from fvlfp.data import toyfaces
from fvlfp.data.card import Attribute, Card
from fvlfp.data.table import Dataset, Files
from fvlfp.federation.protocol import arrays_of, payload_bytes
from fvlfp.runs.train import Prepared, Trained, train
from fvlfp.runs.zero_shot import audit_clip
from fvlfp.training.client import train_client
from fvlfp.training.examples import ClientData, Split
from fvlfp.training.local import Job
from fvlfp.training.loss import Batch, batch_loss, plan
from fvlfp.training.model import Prompts
from fvlfp.training.stacked import _stack_batches, train_stacked
from fvlfp.training.task import Task

RESULTS = Path(__file__).parent / "results"
PLAIN = {"lambda_anchor": 0.0, "depth": 1, "class_balanced": False, "local_epochs": 1}


def random_clip(name: str, device: str) -> Encoder:
    """An open_clip model with random weights (seed 0)."""
    torch.manual_seed(0)
    model, _, transform = open_clip.create_model_and_transforms(name)
    model = model.to(pick_device(device))
    provenance = {
        "model": name,
        "weights_sha256": f"random {name}",
        "transform": " ".join(str(transform).split()),
        "device": device,
    }
    return Encoder(model, transform, open_clip.get_tokenizer(name), provenance)


def faceclip(device: str) -> Encoder | None:
    """FaceCLIP-64, where its files are."""
    folder = Path(os.environ.get("FVLFP_SHARED", "")) / "models" / "faceclip64"
    config = folder / "FaceCLIP-64.json"
    if not config.is_file():
        return None
    weights = str(folder / "faceclip64_fp16.safetensors")
    return Encoder.load("FaceCLIP-64", pretrained=weights, model_config=config, device=device)


def jpegs(n: int, size: int, folder: Path) -> Dataset:
    """n drawn faces as JPEG files of `size` pixels."""
    data = toyfaces.make(n, seed=1)
    paths = [folder / f"{i}.jpg" for i in range(n)]
    for image, path in zip(data.images, paths, strict=True):
        image.resize((size, size)).save(path, quality=90)
    return Dataset(data.frame.assign(path=[p.name for p in paths]), Files(paths), data.card)


def now(device: str) -> float:
    """Seconds: of the wall on a GPU; on a CPU those that this process and its children spent computing.

    The tower runs in one thread there, so that both are the same on a quiet machine, and on a busy one the
    ratios still hold. Work that a second core could hide, such as opening files, is counted in full.
    """
    if device == "cuda":
        return clock()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def clock() -> float:
    """Seconds of the wall, once the GPU has done what it was given, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], Any], *, device: str = "cpu", repeat: int = 3) -> float:
    """Median seconds of `repeat` runs after one that does not count."""
    return timed_in_turn([work], device=device, repeat=repeat)[0]


def timed_in_turn(works: Sequence[Callable[[], Any]], *, device: str, repeat: int) -> list[float]:
    """`timed` of each, in turn, so that a machine that others use as well is the same for all."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(repeat + 1):
        for work, took in zip(works, seconds, strict=True):
            started = now(device)
            work()
            took.append(now(device) - started)
    return [statistics.median(took[1:]) for took in seconds]


def loop(device: str) -> dict[str, Any]:
    """(a) Seconds a round against the reference loop."""
    out = {}
    for encoder, clients, each, size in (
        (random_clip("ViT-B-32", device), 10, 16, 224),
        (faceclip(device), 10, 100, 64),
    ):
        if encoder is not None:
            with tempfile.TemporaryDirectory() as folder:
                found = round_of(encoder, jpegs(clients * each, size, Path(folder)), clients, each)
            out[encoder.provenance["model"]] = found
    return out


def round_of(encoder: Encoder, data: Dataset, clients: int, each: int, rounds: int = 2) -> dict[str, Any]:
    """`loop` for one tower: `clients` with `each` images."""
    device = encoder.device
    settings = {"rounds": rounds, "clients": clients, "batch": 16, **PLAIN}
    cfg = Config.make("full", "fedavg", **settings)
    task = Task.make(encoder, data.card, cfg)
    started = now(device.type)
    z = torch.from_numpy(features(encoder, data.images)).to(device)
    encoding = now(device.type) - started
    y = torch.from_numpy(pd.Index(task.classes).get_indexer(pd.Index(data.frame[cfg.label]))).to(device)
    g = {"shape": torch.zeros_like(y)}
    everything = Split(z, y, g)
    rows = np.arange(len(data)).reshape(clients, each)
    people = [ClientData(k, everything.take(mine), everything.take(mine)) for k, mine in enumerate(rows)]
    prepared = Prepared(cfg, task, people, everything, data.frame, encoder.provenance, 0.0)
    seconds, runs = {}, {}
    for name, stacked in (("stacked", True), ("sequential", False)):

        def run(stacked: bool = stacked) -> Trained:
            return train(cfg, prepared, stacked=stacked, progress=None)

        runs[name] = run()
        seconds[name] = timed(run, device=device.type, repeat=1) / rounds
    orders = [
        [
            [
                torch.from_numpy(rows[k])[epoch.cpu()]
                for epoch in plan(people[k].train, task, cfg, f"client/{k}/round/{r}").rows
            ]
            for k in range(clients)
        ]
        for r in range(1, rounds + 1)
    ]
    head = data.card.templates[0].partition("{}")[0].strip()
    texts = [f"{head} {data.card.classes[cfg.label][name]}" for name in task.classes]
    ids = encoder.text.tokenizer(texts).to(device)
    _, losses, reference = reference_loop(
        encoder.model,
        encoder.transform,
        ids,
        data.images,
        y,
        orders,
        task.initial[0],
        batch=cfg.batch,
        lr=cfg.lr,
        clock=lambda: now(device.type),
    )
    ours = [row.loss for row in runs["stacked"].history]
    reference_s = statistics.median(reference)
    return {
        "clients": clients,
        "images": len(data),
        "rounds": rounds,
        "encoding_seconds_once": encoding,
        "reference_seconds_a_round": reference_s,
        "sequential_seconds_a_round": seconds["sequential"],
        "stacked_seconds_a_round": seconds["stacked"],
        "times_faster": reference_s / seconds["stacked"],
        "times_faster_with_encoding": sum(reference) / (encoding + rounds * seconds["stacked"]),
        "loss": ours,
        "reference_loss": losses,
        "largest_loss_difference": max(abs(a - b) for a, b in zip(ours, losses, strict=True)),
    }


aten = torch.ops.aten
#: What a tower's operations are, by the kernels that do them; whatever has no name here is a copy or a sum.
KINDS: dict[str, set[Any]] = {
    "matrix products": {aten.mm, aten.addmm, aten.bmm},
    "attention": {
        getattr(aten, f"_scaled_dot_product_{how}{way}")
        for how in ("flash_attention", "efficient_attention", "flash_attention_for_cpu")
        for way in ("", "_backward")
    },
    "layer norm": {aten.native_layer_norm, aten.native_layer_norm_backward},
    "GELU": {aten.gelu, aten.gelu_backward},
}
COPIES = "copies and sums"


class Operations(TorchDispatchMode):
    """Writes down every operation that computes or copies, by its kind, with its operands."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, list[tuple[Any, Any, Any]]] = {kind: [] for kind in (*KINDS, COPIES)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note, then do as asked."""
        kwargs = kwargs or {}
        if not func.is_view:
            kind = next((kind for kind, ops in KINDS.items() if func.overloadpacket in ops), COPIES)
            self.seen[kind].append((func, args, kwargs))
        return func(*args, **kwargs)

    @property
    def flop(self) -> int:
        """Floating-point operations of all matrix products."""
        pairs = (args[-2:] for _, args, _ in self.seen["matrix products"])
        return sum(2 * a.numel() * b.shape[-1] for a, b in pairs)

    def again(self, kind: str) -> None:
        """The operations of one kind, nothing between them."""
        with torch.no_grad():
            for func, args, kwargs in self.seen[kind]:
                func(*args, **kwargs)


def text(device: str) -> dict[str, Any]:
    """(b) The text tower, forward and backward, against its own matrix products alone."""
    names = ["ViT-B-32"] + (["ViT-B-16", "ViT-L-14"] if device == "cuda" else [])
    encoders = [*(random_clip(name, device) for name in names), faceclip(device)]
    return {e.provenance["model"]: text_tower(e) for e in encoders if e is not None}


def text_tower(encoder: Encoder, stacks: Sequence[int] = (1, 10, 100)) -> dict[int, dict[str, Any]]:
    """`text` for one tower, by the number of clients in a stack."""
    device = encoder.device.type
    task = Task.make(encoder, toyfaces.CARD, Config.make("full", "fedavg"))
    out = {}
    for clients in stacks:
        prompts = task.initial.expand(clients, -1, -1, -1).clone().requires_grad_()

        def tower(prompts: Tensor = prompts) -> None:
            texts = task.class_texts(prompts)
            torch.autograd.grad(texts.sum(), prompts)

        with Operations() as operations:
            tower()
        parts = {kind: partial(operations.again, kind) for kind in operations.seen}
        seconds, *each = timed_in_turn([tower, *parts.values()], device=device, repeat=9)
        took = dict(zip(parts, each, strict=True))
        alone = took["matrix products"]
        tokens = clients * task.class_tokens.ids.numel()
        out[clients] = {
            "seconds": seconds,
            "tflops": operations.flop / seconds / 1e12,
            "matmul_tflops": operations.flop / alone / 1e12,
            "share": alone / seconds,
            "tokens_a_second": tokens / seconds,
            "operations": {kind: len(seen) for kind, seen in operations.seen.items()},
            "shares": {kind: s / seconds for kind, s in took.items()},
        }
    return out


def images(device: str) -> dict[str, Any]:
    """(c) From JPEG files to features against the bare tower, what feeds the tower, and the batch size."""
    encoders = [encoder for encoder in (random_clip("ViT-B-32", device), faceclip(device)) if encoder]
    with tempfile.TemporaryDirectory() as folder:
        files = jpegs(24_576 if device == "cuda" or len(encoders) > 1 else 512, 224, Path(folder)).images
        return {
            "files": {e.provenance["model"]: files_against_bare(e, files) for e in encoders},
            "feeding": _feeding(encoders[-1], files),
            "images_a_second_by_batch": {e.provenance["model"]: _by_batch(e, device) for e in encoders},
        }


def files_against_bare(encoder: Encoder, files: Sequence[Any], pairs: int = 8) -> dict[str, Any]:
    """Images/s of encoding by the clock, as a share of the bare tower just before and after.

    The encoder's worker processes open the pictures, or as many as there are processors where it has none.
    """
    size = encoder.model.visual.image_size
    large = (size[0] if isinstance(size, tuple) else size) > 64 and encoder.device.type == "cpu"
    n = min(len(files), 512 if large else len(files))
    some = [encoder.transform(files[i % len(files)]) for i in range(encoder.batch)]
    pixels = torch.stack(some).to(encoder.device)
    encoder.workers = encoder.workers or os.cpu_count() or 1
    encoder._encode(pixels)  # on a GPU the first pass loads what all use

    def bare() -> float:
        passes = max(n // encoder.batch // 4, 1)
        started = clock()
        for _ in range(passes):
            encoder._encode(pixels)
        return passes * encoder.batch / (clock() - started)

    towers, rates = [bare()], []
    for _ in range(pairs):
        started = clock()
        encoder.encode_images(files[:n])
        rates.append(n / (clock() - started))
        towers.append(bare())
    shares = [2 * rate / (a + b) for rate, a, b in zip(rates, towers, towers[1:], strict=False)]
    return {
        "images": n,
        "workers": encoder.workers,
        "bare_images_a_second": statistics.median(towers),
        "files_images_a_second": statistics.median(rates),
        "share": statistics.median(shares),
        "shares": shares,
    }


def _feeding(encoder: Encoder, files: Sequence[Any]) -> dict[str, float]:
    """Images/s, by the clock, that reach a tower which takes no time, by what opens them."""
    cuts = [range(i, i + BATCH) for i in range(0, min(len(files), 4096), BATCH)]
    pictures = Pictures(files, encoder.transform)

    def rate(workers: int) -> float:
        seconds = []
        for _ in range(4):
            started = clock()
            for _batch in batches_of(pictures, cuts, workers=workers):
                pass
            seconds.append(clock() - started)
        return len(cuts) * BATCH / statistics.median(seconds[1:])

    return {name: rate(workers) for workers, name in enumerate(("threads", "1 process", "2 processes"))}


def _by_batch(encoder: Encoder, device: str) -> dict[str, dict[int, float]]:
    """Images a second of the bare tower, by number format or memory layout, and by batch size."""
    size = encoder.model.visual.image_size
    rates: dict[str, dict[int, float]] = {}
    size = size[0] if isinstance(size, tuple) else size
    for name in ("float32", "bfloat16", "channels_last"):
        rates[name] = {}
        for batch in (1, 8, 32) if size > 64 and device == "cpu" else (1, 8, 32, 64, 256):
            layout = torch.channels_last if name == "channels_last" else torch.contiguous_format
            model = encoder.model.to(memory_format=layout)
            some = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=layout)

            def work(model: Any = model, some: Tensor = some, half: bool = name == "bfloat16") -> None:
                with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=half):
                    model.encode_image(some)

            rates[name][batch] = batch / timed(work, device=device, repeat=2)
    return rates


def audit(device: str) -> dict[str, Any]:
    """`fvlfp audit clip` on a folder of JPEGs: the share of its time inside the image tower's forward.

    By the wall clock, because what overlaps is the point: run this part on a quiet machine.
    """
    return audit_share(random_clip("ViT-B-16", device), 512 if device == "cpu" else 20_000)


def audit_share(encoder: Encoder, n: int) -> dict[str, Any]:
    """`audit` of one model and n images."""
    inside, forward = [0.0], encoder.model.encode_image

    def watched(pixels: Tensor) -> Tensor:
        started = time.perf_counter()
        out = forward(pixels)
        inside[0] += clock() - started
        return out

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(encoder.model, "encode_image", watched),
        patch.dict(os.environ, FVLFP_CACHE=f"{folder}/cache"),
    ):
        data = jpegs(n, 256, Path(folder))
        seconds = []
        for run in ("first", "second"):
            started = time.perf_counter()
            audit_clip(encoder, data, Path(folder) / run, label="smiling", groups=["shape"])
            seconds.append(time.perf_counter() - started)
            if run == "first":
                tower = inside[0]
    rest = seconds[1]
    encoding = seconds[0] - rest
    return {
        "model": encoder.provenance["model"],
        "images": n,
        "first_seconds": seconds[0],
        "second_seconds": seconds[1],
        "tower_seconds": tower,
        "share_of_encoding": tower / encoding,
        "share_of_all": tower / seconds[0],
        "images_for_95_percent": _enough(tower / n, encoding / n, rest),
    }


def _enough(tower: float, encoding: float, rest: float) -> int | None:
    """n with n tower / (n encoding + rest) = 0.95; None where no n is enough."""
    slope = tower - 0.95 * encoding
    return int(np.ceil(0.95 * rest / slope)) if slope > 0 else None


def _world(encoder: Encoder, *, classes: int, groups: int, clients: int, **settings: Any) -> tuple[Any, ...]:
    """Task, config and jobs with random features: 128 examples a client, 4 steps a round."""
    card = Card(
        name="sizes",
        source="made here",
        licence="CC0",
        label_origin="random",
        templates=["a drawing of a {}"],
        classes={"smiling": {str(c): f"face {c}" for c in range(classes)}},
        groups={"shape": Attribute({str(i): [f"shape {i}"] for i in range(groups)}, "{word} face")},
    )
    cfg = Config.make("full", "cdfp", batch=32, local_epochs=1, **settings)
    task = Task.make(encoder, card, cfg)
    rng = torch.Generator().manual_seed(0)
    d, jobs = task.frozen_texts.shape[1], []
    directions = {name: texts - texts.mean(0) for name, texts in task.group_texts.items()}
    for k in range(clients):
        z = F.normalize(torch.randn(128, d, generator=rng), dim=-1).to(encoder.device)
        y = torch.randint(0, classes, (128,), generator=rng).to(encoder.device)
        g = {"shape": torch.randint(0, groups, (128,), generator=rng).to(encoder.device)}
        jobs.append(Job(Prompts(task.initial), Split(z, y, g), directions, f"client/{k}"))
    return jobs, task, cfg


def _one_by_one(jobs: list[Job], task: Task, cfg: Config) -> None:
    for job in jobs:
        train_client(job, task, cfg)


#: What grows in `growth`; two numbers of clients at least are 10 or more.
SIZES: dict[str, Sequence[int]] = {
    "clients": (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
    "classes": (2, 5, 10, 50, 100, 300, 1000),
    "n_ctx": (4, 8, 16, 32),
    "groups": (2, 5, 10, 20, 50),
}


def growth(device: str, sizes: Mapping[str, Sequence[int]] = SIZES, repeat: int = 3) -> dict[str, Any]:
    """(d) Seconds of one round's local training (CDFP, ToyCLIP-64) as each size grows, the others fixed."""
    encoder = Encoder.load("toyclip", device=device)
    base = {"classes": 2, "groups": 2, "clients": 10}
    out: dict[str, Any] = {}
    for what, values in sizes.items():
        out[what] = {"stacked": {}, "sequential": {}}
        for value in values:
            world = _world(encoder, **(base | {what: value}))
            out[what]["stacked"][value] = timed(partial(train_stacked, *world), device=device, repeat=repeat)
            if what != "clients" or value <= 100:
                out[what]["sequential"][value] = timed(partial(_one_by_one, *world), device=device, repeat=1)
    for curve in ("stacked", "sequential"):
        points = {k: s for k, s in out["clients"][curve].items() if k >= 10}
        out[f"{curve}_seconds_a_client"] = float(np.polyfit(list(points), list(points.values()), 1)[0])
    many = {k: s for k, s in out["clients"]["stacked"].items() if k >= 10}
    out["power_of_clients"] = float(np.polyfit(np.log(list(many)), np.log(list(many.values())), 1)[0])
    return out


def compiled(device: str) -> dict[str, Any]:
    """(i) `torch.compile` of the loss of a stacked step (CDFP): what compiling takes, and what it gives."""
    encoder = faceclip(device) or Encoder.load("toyclip", device=device)
    out: dict[str, Any] = {"model": encoder.provenance["model"], "clients": {}}
    for clients, sizes in ((10, (10, 9)), (100, (100,))):
        with (
            tempfile.TemporaryDirectory() as folder,
            patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder, TORCHINDUCTOR_COMPILE_THREADS="1"),
        ):
            out["clients"][clients] = _compiled(encoder, clients, sizes, device)
    return out


def _compiled(encoder: Encoder, clients: int, sizes: Sequence[int], device: str) -> dict[str, Any]:
    jobs, task, cfg = _world(encoder, classes=2, groups=2, clients=clients)
    each = torch.func.vmap(partial(batch_loss, task=task, options=cfg, directions=jobs[0].directions))

    def plain(prompts: Tensor, batch: Batch) -> Tensor:
        return each(task.encode_texts(prompts, pairs=False), batch)

    torch.compiler.reset()
    fast = torch.compile(plain, fullgraph=True)
    prompts, batch_at = task.initial.expand(clients, -1, -1, -1).clone(), _stack_batches(jobs, task, cfg)

    def step(losses_of: Callable[[Tensor, Batch], Tensor], n: int = clients) -> Tensor:
        mine = prompts[:n].clone().requires_grad_()
        return torch.autograd.grad(losses_of(mine, batch_at(0, n)).sum(), mine)[0]

    step(plain)
    compiling = {}
    for n in sizes:
        started = now(device)
        step(fast, n)
        compiling[n] = now(device) - started
    eager_s, fast_s = timed_in_turn([partial(step, plain), partial(step, fast)], device=device, repeat=25)
    return {
        "compile_seconds": compiling,
        "eager_seconds_a_step": eager_s,
        "compiled_seconds_a_step": fast_s,
        "steps_to_pay": compiling[clients] / (eager_s - fast_s),
        "largest_difference": float((step(plain) - step(fast)).abs().max()),
        "largest_gradient": float(step(plain).abs().max()),
    }


def start(device: str) -> dict[str, Any]:
    """(e) Start-up: seconds of a fresh interpreter, median of five, nothing cached but the files."""
    cell = json.loads(Path("notebooks/00_start_here.ipynb").read_text())["cells"]
    code = ["".join(c["source"]) for c in cell if c["cell_type"] == "code"]
    first = next(source for source in code if "import" in source)
    imports = re.sub(r"^%.*\n", "", first, flags=re.MULTILINE)
    libraries = "import torch, pandas, matplotlib.pyplot"
    python = {
        "python -c pass": ["pass"],
        "import fvlfp": ["import fvlfp"],
        "fvlfp --help": ["from fvlfp.cli import app; app()", "--help"],
        libraries: [libraries],
        "first imports of lesson 00": [imports],
    }
    quiet = partial(subprocess.run, stdout=subprocess.DEVNULL, check=True)
    return {
        name: timed(partial(quiet, [sys.executable, "-c", *words]), repeat=5)
        for name, words in python.items()
    }


def bytes_up(device: str) -> dict[str, Any]:
    """(f) Bytes a client sends in a round, beside the model's and beside LoRA of rank 4 (float32 all)."""
    out = {}
    for name in ("ViT-B-32", "ViT-L-14"):
        with torch.device("meta"):
            model = open_clip.create_model(name, device="meta")
        attention = [m for m in model.modules() if isinstance(m, torch.nn.MultiheadAttention)]
        cfg = Config()
        width = model.token_embedding.weight.shape[1]
        prompts = torch.zeros(cfg.depth, cfg.n_ctx, width)
        out[name] = {
            "prompts": payload_bytes_of(prompts),
            "model": 4 * sum(p.numel() for p in model.parameters()),
            # Two matrices (query, value) an attention layer, each A (4, width) and B (width, 4), both towers.
            "lora": 4 * sum(2 * 4 * 2 * m.embed_dim for m in attention),
        }
    return out


def payload_bytes_of(prompts: Tensor) -> int:
    """What the Flower record of these prompts holds."""
    from flwr.app import RecordDict

    return payload_bytes(RecordDict({"arrays": arrays_of({"prompts": prompts})}))


def memory(device: str) -> dict[int, float]:
    """(g) Peak resident memory of a fresh process that trains one round, above the same without training."""
    out = {}
    for clients in (0, 10, 100, 400):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed", "--peak", str(clients), "--device", device],
            capture_output=True,
            text=True,
            check=True,
        )
        out[clients] = float(done.stdout.split()[-1])
    return out


def peak(clients: int, device: str) -> None:
    """Print the peak MB of this process after one round (a stack of ViT-B/32 text towers)."""
    encoder = random_clip("ViT-B-32", device)
    jobs, task, cfg = _world(encoder, classes=2, groups=2, clients=max(clients, 1))
    if clients:
        train_stacked(jobs, task, cfg.replace(batch=128))
    if device == "cuda":
        print(torch.cuda.max_memory_allocated() / 1e6)
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


PARTS = {
    "loop": loop, "text": text, "images": images, "audit": audit,
    "growth": growth, "compile": compiled, "start": start, "bytes": bytes_up, "memory": memory,
}  # fmt: skip


def main() -> None:
    """Measure the named parts, then write JSON, page and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak is not None:
        return peak(args.peak, args.device)
    if args.device == "cpu":
        torch.set_num_threads(1)
    name = "speed" if args.device == "cpu" else "speed_cuda"
    file = RESULTS / f"{name}.json"
    found = json.loads(file.read_text()) if file.is_file() else {}
    for part in args.parts or PARTS:
        found[part] = PARTS[part](args.device)
        found["machine"] = {**machine(), "threads": torch.get_num_threads()}
        if args.device == "cuda":
            found["machine"]["gpu"] = torch.cuda.get_device_name()
        found.setdefault("machines", {})[part] = found["machine"]
        file.write_text(json.dumps(found, indent=1) + "\n")
        print(part, flush=True)
    if set(PARTS) <= set(found):
        found = json.loads(file.read_text())  # keys are text there
        (RESULTS / f"{name}.md").write_text(speed_page.page(found))
        speed_page.picture(found, RESULTS / f"{name}.png")
        print(RESULTS / f"{name}.md")


if __name__ == "__main__":
    main()
