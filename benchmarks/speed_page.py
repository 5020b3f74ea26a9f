"""The page and the figure of benchmarks/speed.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.markdown import table

_NO_GPU = [
    "No GPU was at hand: `python -m benchmarks.speed --device cuda` is written to run these parts on",
    "one, with ViT-B/16 and ViT-L/14 in the text part, and was not run.",
]
_VISION = "Vision prompts: `python -m benchmarks.vision` measures what they cost, see [vision.md](vision.md)."


def page(found: dict[str, Any]) -> str:
    """benchmarks/results/speed.md: every target of the benchmark, met or missed, and the tables behind it."""
    made_on, growth, images, audit = (found[k] for k in ("machine", "growth", "images", "audit"))
    lines = [
        "# How fast",
        "",
        "Written by `python -m benchmarks.speed`; each ratio is of two measurements in one run. ViT-B/32 has",
        "random weights. Measured on",
        f"{_machines(found['machines'])}.",
        "Others used these virtual machines at the same time. So seconds on the CPU are those spent",
        "computing, of all threads and child processes, with one thread for the towers: what a clock shows",
        "on a quiet machine, except that opening files, which a second core hides, counts in full. Few",
        "repetitions.",
        "",
        "![Seconds a round; share of the matrix-product rate; growth with each size](speed.png)",
        "",
        "| target | measured | |",
        "|---|---|---|",
        *(f"| {what} | {value} | {'met' if met else 'missed'} |" for what, value, met in targets(found)),
        "",
        "## A round against a plain loop",
        "`benchmarks/reference_loop.py` encodes every image in every epoch, pads prompts to 77 tokens and",
        "trains clients one after another. Same examples, order, loss, first prompt.",
        "",
        "| model | clients x images | reference s | one by one s | stacked s | times | with encoding once "
        "| largest loss difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found["loop"].items():
        lines.append(
            f"| {name} | {row['clients']} x {row['images'] // row['clients']} "
            f"| {row['reference_seconds_a_round']:.2f} | {row['sequential_seconds_a_round']:.3f} "
            f"| {row['stacked_seconds_a_round']:.3f} | {row['times_faster']:.0f} "
            f"| {row['times_faster_with_encoding']:.1f} over {row['rounds']} rounds "
            f"| {row['largest_loss_difference']:.1e} |"
        )
    lines += [
        "",
        "Images are encoded once, not once a round, so the last ratio grows with the number of rounds.",
        "",
        *_text_page(found["text"]),
        *_compile_page(found["compile"]),
    ]
    lines += [
        "## Image encoding",
        "JPEG files of 224 x 224 to features, by the clock, with nothing else running: as many processes as",
        "there are processors open the pictures, at a lower priority than the tower, which computes in one",
        "thread. Each run, with starting and ending the processes, stands between two of the bare tower, on",
        "pixels in memory, and is divided by their mean; the median of eight, and all eight. How far they",
        "differ, and how far some are above 1, is how much the machine varies from minute to minute.",
        "",
        *table(
            ["model", "images", "bare, images/s", "from files, images/s", "share", "each"],
            (
                (
                    name,
                    f"{row['images']:,}",
                    f"{row['bare_images_a_second']:.1f}",
                    f"{row['files_images_a_second']:.1f}",
                    f"{row['share']:.3f}",
                    ", ".join(f"{share:.3f}" for share in row["shares"]),
                )
                for name, row in images["files"].items()
            ),
        ),
        "",
        "What reaches a tower that takes no time (resized to 64 x 64), images/s: "
        + ", ".join(f"{rate:,.0f} by {who}" for who, rate in images["feeding"].items())
        + ".",
        "Threads are the default on a CPU; `--workers` asks for processes.",
        "",
        "The bare tower, images/s by batch size:",
        "",
        *_batch_tables(images["images_a_second_by_batch"]),
        f"## fvlfp audit clip ({audit['model']})",
        f"{audit['images']} JPEG files, by the clock. First audit {audit['first_seconds']:.1f} s, of which",
        f"{audit['tower_seconds']:.1f} s inside the image tower's forward: {audit['share_of_encoding']:.3f}",
        f"of encoding, {audit['share_of_all']:.3f} of all. A second audit reads the cache and takes",
        f"{audit['second_seconds']:.1f} s: bootstrap, tests, figures, report, whatever the model. By these",
        f"numbers the tower has 95 % of the whole from {audit['images_for_95_percent'] or 'no number of'}",
        "images on (computed, not measured). What encoding takes beside the tower is hashing the files and",
        "opening the first batch, before anything can overlap.",
        "",
        "## Growth",
        "Seconds of one round of local training (CDFP, ToyCLIP-64, 128 examples a client, 4 steps; 10",
        "clients, 2 classes, 4 context vectors and 2 groups where not said).",
        "",
    ]
    for what in ("clients", "classes", "n_ctx", "groups"):
        curves = growth[what]
        sizes = list(curves["stacked"])
        lines += [f"| {what} | " + " | ".join(sizes) + " |", "|---|" + "---|" * len(sizes)]
        for kind in ("stacked", "sequential"):
            cells = (f"{curves[kind][k]:.3f}" if k in curves[kind] else "" for k in sizes)
            lines.append(f"| {kind} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [
        f"Stacked, ten clients and more: {1e3 * growth['stacked_seconds_a_client']:.2f} ms a client; one by",
        f"one {1e3 * growth['sequential_seconds_a_client']:.2f} ms. Stacked seconds grow with clients to the",
        f"power {growth['power_of_clients']:.2f}.",
        "",
        "## Start, bytes, memory",
        "| fresh interpreter | s |",
        "|---|---|",
        *(f"| `{name}` | {seconds:.2f} |" for name, seconds in found["start"].items()),
        "",
        "| uplink of a client and round, bytes | prompts | LoRA r=4, query and value, both towers | model |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row['prompts']:,} | {row['lora']:,} ({row['lora'] / row['prompts']:.0f} x) "
            f"| {row['model']:,} ({row['model'] / row['prompts']:,.0f} x) |"
            for name, row in found["bytes"].items()
        ),
        "",
        "| clients in one round (ViT-B/32 text tower, 128 examples each) | peak MB |",
        "|---|---|",
        *(f"| {clients} | {mb:,.0f} |" for clients, mb in found["memory"].items()),
        "",
        "0 clients is the process with the model alone. Activations of a stack are bounded by",
        "`fvlfp.training.stacked.MOST_BYTES` (1 GiB), however many clients there are.",
        "",
        "## Not measured here",
        *([] if "gpu" in made_on else _NO_GPU),
        _VISION,
    ]
    return "\n".join(lines) + "\n"


def _machines(found: dict[str, Any]) -> str:
    """Each machine, and in brackets the parts that it measured."""
    parts: dict[str, list[str]] = {}
    for part, where in found.items():
        parts.setdefault(f"{where.get('gpu', where['cpu'])}, torch {where['torch']}", []).append(part)
    return ", and on ".join(f"{where} ({', '.join(some)})" for where, some in parts.items())


def _text_page(found: dict[str, Any]) -> list[str]:
    rates, shares = [], []
    for name, by_clients in found.items():
        for clients, row in by_clients.items():
            rate = [f"{row['seconds']:.4f}", f"{row['tflops']:.3f}", f"{row['matmul_tflops']:.3f}"]
            rates.append([name, clients, *rate, f"{row['share']:.2f}", f"{row['tokens_a_second']:,.0f}"])
            parts = [*row["shares"].values(), 1 - sum(row["shares"].values())]
            shares.append([name, clients, *(f"{part:.2f}" for part in parts)])
    narrow, by_clients = list(found.items())[-1]
    row = by_clients["100"]
    kinds, of = row["operations"], row["shares"]
    arithmetic = sum(part for kind, part in of.items() if kind != "copies and sums")
    heads = ["model", "clients stacked", "s", "TFLOP/s", "products alone, TFLOP/s", "share", "tokens/s"]
    return [
        "## The text tower against its own matrix products",
        "Forward and backward to the prompts, 2 classes, 4 context vectors, depth 2. The share is the time",
        "of the same matrix products with nothing between them, divided by the time of the tower.",
        "",
        *table(heads, rates),
        "",
        "Where the time goes: the operations of each kind run again alone, as a share of the tower's time.",
        "",
        *table(["model", "clients stacked", *of, "views, autograd, calls"], shares),
        "",
        f"{narrow} is narrow: of its {sum(kinds.values())} operations that compute or copy,",
        f"{kinds['matrix products']} are matrix products, on a few hundred tokens of few numbers. With 100",
        f"clients, the share would be {row['share'] / arithmetic:.2f} without a single copy, sum or call.",
        "Tried, and not kept: attention as two products and a softmax (24.0 ms, as before; with 10 clients",
        "6.9 ms for 6.6), and PyTorch's `math` kernel (4 % more). What would help is one kernel for several",
        "operations, which the next section measures.",
        "",
    ]


def _compile_page(found: dict[str, Any]) -> list[str]:
    rows = [
        (
            clients,
            ", ".join(f"{s:.0f} for {size}" for size, s in row["compile_seconds"].items()),
            f"{1e3 * row['eager_seconds_a_step']:.1f}",
            f"{1e3 * row['compiled_seconds_a_step']:.1f}",
            f"{row['steps_to_pay']:,.0f}",
            f"{row['largest_difference']:.0e} of {row['largest_gradient']:.1f}",
        )
        for clients, row in found["clients"].items()
    ]
    heads = ["clients stacked", "s to compile, by size of the stack", "ms a step", "compiled"]
    return [
        "## torch.compile",
        f"Loss and gradient of a stacked step (CDFP, {found['model']}, batch 32), compiled whole.",
        "",
        *table([*heads, "steps until it pays", "largest difference of the gradient"], rows),
        "",
        "A stack shrinks as its clients finish, and each size is compiled anew. The default run (12,000",
        "drawn faces, 10 clients of unequal size, 15 rounds) has 840 steps, in 9 sizes. So nothing is",
        "compiled. On a GPU, steps are replayed as CUDA graphs (`fvlfp/training/graphs.py`), recorded in a",
        "few steps.",
        "",
    ]


def _batch_tables(by_model: dict[str, Any]) -> list[str]:
    lines = []
    for name, rates in by_model.items():
        sizes = list(rates["float32"])
        lines += [f"| {name} | " + " | ".join(sizes) + " |", "|---|" + "---|" * len(sizes)]
        for kind, row in rates.items():
            lines.append(f"| {kind} | " + " | ".join(f"{rate:.1f}" for rate in row.values()) + " |")
        lines.append("")
    return lines


def targets(found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """What was to be reached, what was measured, whether it was met."""
    rows = []
    for name, row in found["loop"].items():
        times, off = row["times_faster"], row["largest_loss_difference"]
        rows.append((f"a round 20 x faster than the plain loop, {name}", f"{times:.0f} x", times >= 20))
        near = "1e-3" if "gpu" in found["machine"] else "1e-4"  # the images are encoded in bfloat16 there
        rows.append((f"loss curves within {near}, {name}", f"{off:.1e}", off <= float(near)))
    for name, by_clients in found["text"].items():
        share = by_clients["100"]["share"]
        rows.append(
            (f"60 % of the matrix-product rate, 100 clients, {name}", f"{100 * share:.0f} %", share >= 0.6)
        )
    for name, row in found["images"]["files"].items():
        share = row["share"]
        rows.append((f"encoding files at 0.97 of the bare tower, {name}", f"{share:.3f}", share >= 0.97))
    fed = max(found["images"]["feeding"].values())
    rows.append(("1,500 images/s to a tower that takes no time", f"{fed:,.0f}", fed >= 1500))
    audit = found["audit"]
    rows.append(
        (
            "audit clip: 95 % of encoding inside the tower",
            f"{100 * audit['share_of_encoding']:.1f} %",
            audit["share_of_encoding"] >= 0.95,
        )
    )
    rows.append(
        (
            f"audit clip: 95 % of everything, {audit['images']} images, {audit['model']}",
            f"{100 * audit['share_of_all']:.1f} %",
            audit["share_of_all"] >= 0.95,
        )
    )
    growth = found["growth"]
    slope = growth["stacked_seconds_a_client"] / growth["sequential_seconds_a_client"]
    limit = 0.2 if "gpu" in found["machine"] else 0.5
    rows.append((f"seconds a client at most {limit} of one after another", f"{slope:.2f}", slope <= limit))
    seconds = found["start"]["fvlfp --help"]
    rows.append(("`fvlfp --help` in 0.5 s", f"{seconds:.2f} s", seconds <= 0.5))
    return rows


def picture(found: dict[str, Any], path: Path) -> None:
    """Four panels: the round, the text tower, growth with clients, growth with the other sizes."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    ways = ("reference", "sequential", "stacked")
    for i, (name, row) in enumerate(found["loop"].items()):
        heights = [row[f"{way}_seconds_a_round"] for way in ways]
        bars = axes[0, 0].bar([x + 0.4 * i for x in range(3)], heights, 0.36, label=name)
        axes[0, 0].bar_label(bars, fmt="%.2g")
    axes[0, 0].set(yscale="log", ylabel="seconds a round", title="One round of 10 clients")
    axes[0, 0].set_xticks([0.2, 1.2, 2.2], ["plain loop", "one by one", "stacked"])
    axes[0, 0].legend()
    for name, by_clients in found["text"].items():
        x = [int(k) for k in by_clients]
        axes[0, 1].plot(x, [row["share"] for row in by_clients.values()], "o-", label=name)
    axes[0, 1].axhline(0.6, color="grey", ls=":")
    axes[0, 1].set(
        xscale="log", ylim=(0, 1), xlabel="clients stacked", title="Share of the matrix-product rate"
    )
    axes[0, 1].legend()
    for kind, curve in found["growth"]["clients"].items():
        axes[1, 0].plot([int(k) for k in curve], list(curve.values()), "o-", label=kind)
    axes[1, 0].set(xscale="log", yscale="log", xlabel="clients", ylabel="seconds a round", title="Clients")
    axes[1, 0].legend()
    for what in ("classes", "n_ctx", "groups"):
        curve = found["growth"][what]["stacked"]
        axes[1, 1].plot([int(k) for k in curve], list(curve.values()), "o-", label=what)
    axes[1, 1].set(
        xscale="log", yscale="log", ylabel="seconds a round", title="Other sizes, 10 clients stacked"
    )
    axes[1, 1].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
