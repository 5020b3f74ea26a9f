"""All rows that need a GPU, in one command of at most eight minutes: `make gpu-rows`.

Parts come in the order of their value; each has a limit of its own, and the JSON is written after each, so
that a machine that is taken away loses one part at most. With a GPU, the page gpu.md is written beside it.

To a machine that has Python and torch but no network, carry the repository and `make gpu-carry`'s folder:

    python -m pip install --no-index --no-deps --find-links build/carry build/carry/*.whl
    PYTHONPATH=. python -m benchmarks.gpu_rows

    python -m benchmarks.gpu_rows --device cpu --small --out /tmp     a rehearsal without a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks import speed, vision
from benchmarks.machine import machine
from benchmarks.markdown import table
from fvlfp.clip.encoder import Encoder
from fvlfp.config import Config
from fvlfp.methods import METHODS
from fvlfp.runs.predict import predict
from fvlfp.runs.train import prepare, train
from fvlfp.training.stacked import n_steps, train_stacked

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Plan:
    """What is measured: small is a rehearsal, in seconds, whose times say nothing."""

    device: str
    small: bool = False

    @cached_property
    def towers(self) -> list[Encoder]:
        """Of random weights: time does not depend on what a model knows."""
        if self.small:
            return [Encoder.load("toyclip", device=self.device)]
        found = [speed.faceclip(self.device)]
        found += [speed.random_clip(name, self.device) for name in ("ViT-B-16", "ViT-L-14")]
        return [encoder for encoder in found if encoder is not None]

    @property
    def tower(self) -> Encoder:
        """ViT-B/16, for parts that take one tower."""
        return next((e for e in self.towers if e.provenance["model"] == "ViT-B-16"), self.towers[0])


#: Median wall seconds of some runs after one that does not count.
seconds = partial(speed.timed, device="cuda", repeat=5)


def methods(plan: Plan) -> dict[str, Any]:
    """Does every method run, and give what the CPU gives? The largest difference of a trained number."""
    sizes = {"n": 300, "clients": 2, "rounds": 1} if plan.small else {"n": 900, "clients": 3, "rounds": 2}
    out: dict[str, Any] = {}
    for name in list(METHODS)[:: 8 if plan.small else 1]:
        found = []
        for device in ("cpu", plan.device):
            cfg = Config.make("smoke", name, **(sizes | METHODS[name]), device=device, precision="float32")
            prepared = prepare(cfg)
            trained = train(cfg, prepared, progress=None)
            found.append((trained.model, predict(prepared, trained)["prediction"].to_numpy()))
        (here, said_here), (there, said_there) = found
        changed = float((said_here != said_there).mean())
        out[name] = {"largest_difference": _difference(here, there), "predictions_changed": changed}
    return out


def _difference(a: Any, b: Any) -> float:
    pairs = zip(a.tensors().values(), b.tensors().values(), strict=True)
    return max(float((x.cpu() - y.cpu()).abs().max()) for x, y in pairs)


def bits(plan: Plan) -> dict[str, Any]:
    """Do a second run of one seed, a resumed one, and one without CUDA graphs have the bits of the first?"""
    cfg = Config.make("smoke", n=300 if plan.small else 900, clients=2, rounds=2, device=plan.device)
    prepared = prepare(cfg)
    with tempfile.TemporaryDirectory() as folder:
        first = train(cfg, prepared, out=folder, progress=None).model
        again = train(cfg, prepared, progress=None).model
        newest = sorted((Path(folder) / "checkpoints").iterdir())[-1].name.split(".")[0]
        for path in (Path(folder) / "checkpoints").glob(f"{newest}*"):
            path.unlink()
        resumed = train(cfg, prepared, out=folder, resume=True, progress=None).model
    with patch.dict(os.environ, FVLFP_CUDA_GRAPHS="off"):
        plain = train(cfg, prepared, progress=None).model
    others = {"same_seed": again, "resumed": resumed, "without_graphs": plain}
    return {name: _difference(first, other) == 0 for name, other in others.items()}


def steps(plan: Plan) -> dict[str, Any]:
    """Seconds of one optimiser step of all clients at once, replayed as a CUDA graph and not; peak memory."""
    out: dict[str, Any] = {}
    stacks, epochs, repeat = ((1, 2), 2, 1) if plan.small else ((1, 10, 100), 8, 3)
    for encoder, clients, graphs in product(plan.towers, stacks, ("on", "off")):
        jobs, task, cfg = speed._world(encoder, classes=2, groups=2, clients=clients)
        cfg = cfg.replace(local_epochs=epochs)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with patch.dict(os.environ, FVLFP_CUDA_GRAPHS=graphs):
            took = seconds(partial(train_stacked, jobs, task, cfg), repeat=repeat)
        step, tokens = took / n_steps(jobs[0], cfg), clients * task.class_tokens.ids.numel()
        row = {"seconds": step, "tokens_a_second": tokens / step}
        if torch.cuda.is_available():
            row["peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
        by_clients = out.setdefault(encoder.provenance["model"], {}).setdefault(f"graphs {graphs}", {})
        by_clients[clients] = row
    return out


def encoding(plan: Plan) -> dict[str, Any]:
    """Images a second from files to features, and of the bare tower in the same number format."""
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = speed.jpegs(64 if plan.small else 2048, 256, Path(folder)).images
        for encoder in plan.towers:
            found = speed.files_against_bare(encoder, files, pairs=1 if plan.small else 3)
            row = {"dtype": encoder.provenance["dtype"], "batch": encoder.batch}
            out[encoder.provenance["model"]] = row | found
    return out


def text(plan: Plan) -> dict[str, Any]:
    """The text tower beside its own matrix products, by clients in a stack."""
    stacks = (1, 2) if plan.small else (1, 10, 100)
    return {e.provenance["model"]: speed.text_tower(e, stacks) for e in plan.towers}


def loop(plan: Plan) -> dict[str, Any]:
    """A round beside a plain training loop."""
    clients, each = (2, 4) if plan.small else (10, 16)
    with tempfile.TemporaryDirectory() as folder:
        faces = speed.jpegs(clients * each, 64 if plan.small else 224, Path(folder))
        return speed.round_of(plan.tower, faces, clients, each)


def growth(plan: Plan) -> dict[str, Any]:
    """Seconds of a round as clients, classes, context and groups grow: stacked, and one by one."""
    sizes: dict[str, tuple[int, ...]] = {
        "clients": (1, 10, 100, 1000), "classes": (2, 100, 1000), "n_ctx": (4, 32), "groups": (2, 50)
    }  # fmt: skip
    return speed.growth(plan.device, {"clients": (10, 11)} if plan.small else sizes, repeat=1)


def vision_prompts(plan: Plan) -> dict[str, Any]:
    """Seconds and peak memory of a step with prompts in both towers, beside one with text prompts alone."""
    encoder = speed.random_clip("ViT-S-32-alt", plan.device) if plan.small else plan.tower
    out: dict[str, Any] = {}
    for way, name in vision.WAYS.items():
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        clients, batch = (1, 2) if plan.small else (3, 64)
        out[name] = list(vision.steps(way, clients, encoder, batch))[-1]
    return out


def audit(plan: Plan) -> dict[str, Any]:
    """`fvlfp audit clip` on JPEG files: the share of its time inside the image tower."""
    return speed.audit_share(plan.tower, 64 if plan.small else 2000)


#: Part -> (what measures it, seconds it may take), the most valuable first.
PARTS: dict[str, tuple[Callable[[Plan], dict[str, Any]], int]] = {
    "methods": (methods, 110), "bits": (bits, 20), "steps": (steps, 65), "encoding": (encoding, 70),
    "text": (text, 40), "vision prompts": (vision_prompts, 40), "growth": (growth, 35),
    "loop": (loop, 40), "audit": (audit, 40),
}  # fmt: skip


class Late(Exception):
    """A part has used its time."""


def measure(plan: Plan, out: Path, *, budget: float = 460.0) -> dict[str, Any]:
    """Every part within its limit and the budget in seconds; `out/gpu.json` holds what is known so far."""

    def late(*_: Any) -> None:
        raise Late

    signal.signal(signal.SIGALRM, late)
    end = time.monotonic() + budget
    found: dict[str, Any] = {"machine": _machine(), "small": plan.small}
    for name, (work, limit) in PARTS.items():
        left = int(min(limit, end - time.monotonic()))
        started = time.monotonic()
        try:
            if left <= 0:
                raise Late
            signal.alarm(left)
            found[name] = work(plan)
        except Late:
            found[name] = "no time was left"
        except Exception as error:  # one part that fails must not lose the others
            found[name] = f"{type(error).__name__}: {str(error)[:300]}"
        finally:
            signal.alarm(0)
        _write(out / "gpu.json", json.dumps(found, indent=1) + "\n")
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    if "gpu" in found["machine"]:
        _write(out / "gpu.md", page(json.loads((out / "gpu.json").read_text())))
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _machine() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return dict(machine())
    gpu = {"gpu": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability()}
    return {**machine(), **gpu}


def page(found: dict[str, Any]) -> str:
    """benchmarks/results/gpu.md: each part's question, and its numbers as they are in the JSON."""
    where = found["machine"]
    lines = [
        "# On a GPU",
        "",
        f"Written by `make gpu-rows`. Machine: {where['gpu']}, {where['cpu']}, torch {where['torch']}.",
        "One run each; times are wall times, medians of a few repetitions.",
    ]
    for name, (work, _) in PARTS.items():
        lines += ["", f"## {name}", (work.__doc__ or "").strip(), ""]
        lines += table(["row", "measured"], _rows(found.get(name, "not measured")))
    return "\n".join(lines) + "\n"


def _rows(found: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(found, dict):
        return [
            row for key, value in found.items() for row in _rows(value, f"{name}, {key}" if name else key)
        ]
    return [(name or "all", f"{found:.4g}" if isinstance(found, float) else str(found))]


def main() -> None:
    """Measure all parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a rehearsal whose times say nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--budget", type=float, default=460.0, help="seconds in all")
    args = parser.parse_args()
    measure(Plan(args.device, args.small), args.out, budget=args.budget)


if __name__ == "__main__":
    main()
