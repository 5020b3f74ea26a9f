"""Write benchmarks/RESULTS.md and its figure from the committed cells alone.

    python -m benchmarks.results

Every number and every sentence about a number is computed here from `results/grid`. What this module does not
do: run anything (`benchmarks.run`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.frontier import SHOWN, draw
from benchmarks.goal import over_tasks, verdicts
from benchmarks.grid import CORNERS, DRAWS, FUSIONS, OPTIONS, OURS, PAIRED_DRAWS, PARTS, SETTINGS, TASKS
from benchmarks.machine import named
from benchmarks.markdown import table
from benchmarks.options import ceiling, counterfactuals, options
from benchmarks.summary import summary, transfer
from benchmarks.table import COLUMNS, ODDS, Cell, Grid, Mean, excess, main_effect, over_seeds, reduction

PAGE = Path(__file__).parent / "RESULTS.md"
FIGURE = Path("results") / "frontier.png"
RECHECK = Path(__file__).parent / "results" / "recheck.json"
SMALL_CLIPS = Path(__file__).parent / "results" / "small_clips.json"
#: zero-shot balanced accuracy under which a model is called weak
WEAK = 0.65
COMPONENTS = {"cdfp": "CDFP", "dsop": "DSOP", "fpf": "FPF"}


def page(grid: Grid) -> str:
    """The whole page as Markdown."""
    named = grid.without({*OPTIONS, *FUSIONS})
    sections = [_head(grid), _first(grid), summary(named), _goal(named), _frontier(named)]
    sections += [_task(task, named[task]) for task in TASKS if task in named and TASKS[task].kind != "fusion"]
    sections += [_ablation(named), options(grid), counterfactuals(named), ceiling(), transfer()]
    sections += [_cost(named), _loses(named), _absent(grid), _models()]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(grid: Grid) -> str:
    cells = grid.cells()
    made = [cell["made_by"] for cell in cells]
    where = sorted({named(m) for m in made})
    seeds = sorted({cell["seed"] for cell in cells})
    sources = {m["source"] for m in made}
    minutes = sum(cell["seconds"] for cell in cells) / 60
    return (
        "# Results\n\n"
        "Written by `python -m benchmarks.results` from `results/grid`; do not edit. `python -m "
        "benchmarks.run "
        "--task T --method M --seed S` runs any cell again.\n\n"
        "Groups are *perceived* labels given by annotators (FairFace, CelebA), recorded age and sex "
        "(HAM10000), or properties of drawn beings. Rank, "
        "lambda, steps and thresholds were chosen on the clients' validation rows; nothing was chosen on "
        "test "
        "rows. All models are small and were trained for this purpose: their numbers say nothing about any "
        "released CLIP.\n\n"
        f"{len(cells)} cells, seeds {_list(map(str, seeds))}, made by {len(sources)} version"
        f"{'' if len(sources) == 1 else 's'} of the code. Intervals: 95 %, {DRAWS:,} draws; paired changes "
        f"{PAIRED_DRAWS:,} draws. Machine: {'; '.join(where)}. Training took {minutes:.0f} minutes in all."
    )


def _first(grid: Grid) -> str:
    """What a reader must know before any gap: weak models, missing cells, states of the code."""
    lines = ["## Read this first", "", *_missed(grid)]
    for task in (t for t in TASKS if TASKS[t].kind in ("main", "vision") and TASKS[t].source != "toy"):
        cells = grid.get(task, {}).get("zero-shot")
        if cells and (mean := over_seeds(cells, "balanced_accuracy")) and mean.value < WEAK:
            lines.append(
                f"- **{TASKS[task].model} is weak on {TASKS[task].title}**: zero-shot balanced accuracy "
                f"{mean.value:.3f}. Its gaps are those of a poor classifier."
            )
    run = [m for m in PARTS["main"].methods if any(m in methods for methods in grid.values())]
    if never := [f"`{m}`" for m in PARTS["main"].methods if m not in run]:
        lines.append(f"- **Methods without any cell yet: {', '.join(never)}.**")
    lacking = {t: _seeds_done(grid.get(t, {}), run) for t in PARTS["main"].tasks}
    wanted = PARTS["main"].seeds
    if part := [f"{TASKS[t].title} ({n} of {wanted} seeds)" for t, n in lacking.items() if 0 < n < wanted]:
        lines.append(f"- **Not complete: {'; '.join(part)}.**")
    if none := [TASKS[t].title for t, n in lacking.items() if not n]:
        lines.append(f"- **No seed has been run with all of the other methods yet: {'; '.join(none)}.**")
    states: dict[str, int] = {}
    for cell in grid.cells():
        made = cell["made_by"]
        state = made.get("commit") or f"source {made['source']}"
        states[state] = states.get(state, 0) + 1
    told = ", ".join(f"{state} ({n:,})" for state, n in states.items())
    lines.append(f"- Versions of the code, and how many cells each made: {told}. Each cell names its own.")
    if RECHECK.is_file():
        again = json.loads(RECHECK.read_text(encoding="utf-8"))
        equal = sum(not c["differs"] for c in again["cells"].values())
        lines.append(
            f"- {equal} of {len(again['cells'])} cells run again at {again['code']} were equal to the last "
            "digit."
        )
    return "\n".join(lines)


def _missed(grid: Grid) -> list[str]:
    """For each of our methods a sentence on the tasks where it misses the goal's three main parts."""
    parts = {
        "excess over chance falls": "the excess over chance does not fall enough on",
        "balanced accuracy within 1 point": "balanced accuracy falls by more than one point on",
        "worst cell not lower": "the worst cell gets worse on",
    }
    missed = [v for v in verdicts(grid) if not v.hit]
    lines = []
    for method in OURS:
        where = {goal: [v.task for v in missed if (v.method, v.goal) == (method, goal)] for goal in parts}
        told = [
            f"{words} {_list(f'`{t}`' for t in where[goal])}" for goal, words in parts.items() if where[goal]
        ]
        lines += [f"- Missed by the {_name(method).strip('*')}: {'; '.join(told)}."] if told else []
    return lines


def _seeds_done(methods: dict[str, list[Cell]], names: list[str]) -> int:
    """Seeds for which every one of these methods has a cell."""
    seeds = [{c["seed"] for c in methods.get(m, [])} for m in names]
    return len(set.intersection(*seeds)) if seeds else 0


def _goal(grid: Grid) -> str:
    found = verdicts(grid)
    if not found:
        return ""
    hits = sum(v.hit for v in found)
    mine = {m: [v.hit for v in found if v.method == m] for m in OURS}
    counts = "; ".join(f"{_name(m)} {sum(h)} of {len(h)}" for m, h in mine.items() if h)
    lines = [
        "## The goal",
        "",
        f"Against FedAvg prompts with class-balanced cross-entropy, {hits} of {len(found)} parts of the goal "
        f"are hit and {len(found) - hits} missed: {counts}. Each part is judged on the mean over "
        "seeds, or on every seed where the table says so. A hit counts even if its interval includes 0, so "
        "read the intervals. The best free projection is picked on test rows, which favours it over our "
        "method.",
        "",
    ]
    whole = [v for m in OURS for v in over_tasks(grid, m)]
    lines += ["Over all tasks together:", ""] if whole else []
    lines += [f"- {_name(v.method)}: {v.told}: {'hit' if v.hit else '**missed**'}." for v in whole]
    lines += [
        "",
        "<details><summary>Every part on every task, misses first</summary>",
        "",
    ]
    by = {(v.goal, v.task, v.method): v for v in found}
    goals = list(dict.fromkeys(v.goal for v in found))
    rows = [(goal, task, [by.get((goal, task, m)) for m in OURS]) for goal in goals for task in TASKS]
    rows.sort(key=lambda row: all(v is None or v.hit for v in row[2]))  # misses first
    parts = []
    for goal, task, cells in rows:
        if any(cells):
            told = [f"{'hit' if v.hit else '**missed**'}: {v.told}" if v else "not run" for v in cells]
            parts.append([goal, TASKS[task].title, *told])
    lines += [*table(["", "task", *map(_name, OURS)], parts), "", "</details>"]
    if hits < len(found):
        lines += [
            "",
            "To reduce the misses, these were tried on a development split of training rows: "
            "class-conditional and oblique (LEACE) projections, a loss that weights class-group cells "
            "equally, groups that the model reads itself, and other rules for choosing the rank. [One "
            "option at a time](#one-option-at-a-time) shows the options of each component on test rows; no "
            "default was chosen by them. [How far could anything go here](#how-far-could-anything-go-here) "
            "shows what a linear head can reach, even one that is told the group.",
        ]
    return "\n".join(lines)


def _frontier(grid: Grid) -> str:
    if not any(TASKS[t].kind == "main" for t in grid):
        return ""
    return (
        "## Fairness and performance\n\n"
        f"![Odds gap against balanced accuracy, one panel per task]({FIGURE.as_posix()})\n\n"
        "Points are means over seeds; bars show one standard deviation over seeds. Up and left is better. "
        "The dotted line joins the methods that no other method beats on both axes. Methods more than "
        f"{SHOWN * 100:.0f} points of balanced accuracy below FedAvg are counted but not drawn."
    )


def _task(task: str, methods: dict[str, list[Cell]]) -> str:
    some = next(iter(methods.values()))[0]
    entry = some["metrics"]
    null, floor = entry[ODDS], entry["demographic_parity_difference"].get("perfect_classifier")
    lines = [
        f"## {TASKS[task].title[0].upper()}{TASKS[task].title[1:]}",
        "",
        f"`--task {task}`. n = {some['n_test']:,} test rows, {some['groups']} groups, {len(some['clients'])} "
        f"clients with {min(some['clients'])} to {max(some['clients']):,} training rows (seed "
        f"{some['seed']}). If all groups had equal rates, the odds gap would be {null['expected_null']:.3f} "
        f"by chance, on average (95 % point: {null['null_95']:.3f})."
        + (f" A perfect classifier has a parity gap of {floor:.3f}." if floor is not None else "")
        + " Cells show the mean ± the standard deviation over seeds, and in brackets the sampling interval "
        "(its ends averaged over seeds). Excess: the odds gap minus its average by chance; in brackets the "
        "change against FedAvg.",
        "",
    ]
    rows = []
    fedavg = methods.get("fedavg")
    for method in _ordered(methods):
        cells = methods[method]
        told = [_mean(over_seeds(cells, metric)) for metric in COLUMNS]
        share = reduction(cells, fedavg) if fedavg and method != "fedavg" else None
        told.append(f"{excess(cells):.3f}" + (f" ({-share:+.0%})" if share is not None else ""))
        told.append(_chosen(cells))
        reads = _list(cells[0]["labels_read"]) or "none"
        rows.append([_name(method), reads, len(cells), *told])
    lines += table(["", "group labels read", "seeds", *COLUMNS.values(), "excess", "rank, λ"], rows)
    own = {m: methods[m] for m in _ordered(methods) if "mean_client" in methods[m][0]}
    if own:
        lines += ["", *_own_models(own)]
    if fedavg:
        lines += ["", *_changes(methods)]
    return "\n".join(lines)


def _own_models(methods: dict[str, list[Cell]]) -> list[str]:
    """Methods that leave each client its own model: the mean client, and clients on their own rows."""

    def told(tables: list[dict[str, float]]) -> str:
        mean = {k: np.mean([t[k] for t in tables]) for k in ("balanced_accuracy", "worst_cell_recall", ODDS)}
        return " / ".join(f"{x:.3f}" for x in mean.values())

    lines = [
        "These methods leave each client a model of its own. In the table above, each test row is judged by "
        "the model of one client, drawn in proportion to its size. The table below shows balanced accuracy / "
        "worst cell / odds gap three times: of the mean client (weighted by size) on the test rows; on all "
        "clients' held-out rows, each judged by its own client's model; and of FedAvg on those held-out "
        "rows.",
        "",
    ]
    shown = []
    for method, cells in methods.items():
        rows = [c["own_rows"] for c in cells if "own_rows" in c]
        own = [told([r[whose] for r in rows]) if rows else "not run" for whose in ("own", "fedavg")]
        shown.append([_name(method), told([c["mean_client"] for c in cells]), *own])
    return lines + table(["", "mean client, test rows", "own model, own rows", "FedAvg, own rows"], shown)


def _changes(methods: dict[str, list[Cell]]) -> list[str]:
    shown = [m for m in _ordered(methods) if m in (*CORNERS, *OURS) and m != "fedavg"]
    if not shown:
        return []
    lines = [
        "Paired change against FedAvg on the same rows: the mean over seeds, its interval (ends averaged "
        "over seeds), and the number of seeds whose interval excludes 0.",
        "",
    ]
    rows = []
    for method in shown:
        told = []
        for metric in COLUMNS:
            cells = methods[method]
            mean = over_seeds(cells, metric, change=True)
            if mean is None:
                told.append("undefined")
                continue
            clear = sum(c["changes"][metric]["high"] < 0 or c["changes"][metric]["low"] > 0 for c in cells)
            told.append(f"{mean.value:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}], {clear} of {len(cells)}")
        rows.append([_name(method), *told])
    return lines + table(["", *COLUMNS.values()], rows)


def _ablation(grid: Grid) -> str:
    rows, said = [], []
    for component, name in COMPONENTS.items():
        helped: list[str] = []
        harmed: list[str] = []
        unclear: list[str] = []
        for task in TASKS:
            effects = {m: main_effect(grid.get(task, {}), component, m) for m in COLUMNS}
            gap = effects[ODDS]
            if gap is None:
                continue
            told = [
                "undefined" if e is None else f"{e[0]:+.3f} [{e[1]:+.3f}, {e[2]:+.3f}]"
                for e in effects.values()
            ]
            rows.append([name, TASKS[task].title, *told])
            where = helped if gap[2] < 0 else harmed if gap[1] > 0 else unclear
            where.append(f"`{task}`")
        if helped or harmed or unclear:
            parts = [
                f"{word} {_list(where)}"
                for word, where in (
                    ("lowers the odds gap on", helped),
                    ("raises it on", harmed),
                    ("has no clear effect on", unclear),
                )
                if where
            ]
            said.append(f"- **{name}** {'; '.join(parts)}.")
    if not rows:
        return ""
    return "\n".join(
        [
            "## What each component does (2 x 2 x 2)",
            "",
            "The effect of switching one component on, averaged over the four settings of the other two, "
            "with a 95 % t interval over seeds. Training uses no group labels.",
            "",
            *said,
            "",
            *table(["", "task", *COLUMNS.values()], rows),
        ]
    )


def _cost(grid: Grid) -> str:
    methods: dict[str, list[Cell]] = {}
    tasks = [t for t in grid if TASKS[t].kind == "main" and TASKS[t].source != "toy"] or list(grid)
    for task in tasks:
        for method, cells in grid[task].items():
            methods.setdefault(method, []).extend(cells)
    lines = [
        "## Cost",
        "",
        f"Means over {_list(f'`{t}`' for t in tasks)}. Bytes: the arrays that all clients together send; "
        "`centralised` sends every image instead of prompts. Seconds: training on cached features, on a "
        "machine that did other work too; those of a post-hoc method include FedAvg's training.",
        "",
    ]
    rows = []
    for method in _ordered(methods):
        cells = methods[method]
        mean = {
            k: np.mean([c[k] for c in cells])
            for k in ("parameters", "uplink_bytes_a_round", "uplink_bytes_after", "seconds")
        }
        sent = (f"{mean[k] / 1024:,.0f}" for k in ("uplink_bytes_a_round", "uplink_bytes_after"))
        rows.append([_name(method), f"{mean['parameters']:,.0f}", *sent, f"{mean['seconds']:.1f}"])
    heads = ["", "parameters", "uplink per round, KiB", "uplink once, KiB", "seconds"]
    return "\n".join([*lines, *table(heads, rows)])


def _loses(grid: Grid) -> str:
    lines = []
    for task, methods in grid.items():
        fedavg = methods.get("fedavg")
        for ours in OURS:
            cells = methods.get(ours)
            if not cells or not fedavg:
                continue
            odds = over_seeds(cells, ODDS)
            floor = over_seeds(fedavg, "balanced_accuracy")
            better = []
            for name, theirs in methods.items():
                gap, accuracy = over_seeds(theirs, ODDS), over_seeds(theirs, "balanced_accuracy")
                if name in (*OURS, *CORNERS) or not (gap and accuracy and odds and floor):
                    continue
                if gap.value < odds.value and accuracy.value >= floor.value - 0.01:
                    better.append((gap.value, name))
            if better and odds:
                told = _list(f"`{name}` ({value:.3f})" for value, name in sorted(better)[:5])
                more = f" and {len(better) - 5} more" if len(better) > 5 else ""
                lines.append(
                    f"- `{task}`, {_name(ours)}: its odds gap is {odds.value:.3f}. Lower, with a balanced "
                    f"accuracy within one point of FedAvg's: {told}{more}."
                )
            for metric, heading in COLUMNS.items():
                change = over_seeds(cells, metric, change=True)
                worse = change and (change.high < 0 if "gap" not in heading else change.low > 0)
                if change and worse:
                    lines.append(
                        f"- `{task}`, {_name(ours)}: {heading} is worse than FedAvg's by "
                        f"{abs(change.value):.3f} "
                        f"[{change.low:+.3f}, {change.high:+.3f}]."
                    )
    if not lines:
        lines = ["On none of these tasks was FedAvg or another method better by the measures above."]
    return "\n".join(["## Where the method loses", "", *lines])


def _absent(grid: Grid) -> str:
    lack = []
    for part in PARTS.values():
        for task, method in itertools.product(part.tasks, part.methods):
            there = {cell["seed"] for cell in grid.get(task, {}).get(method, [])}
            if set(range(part.seeds)) - there:
                lack.append((task, len(set(range(part.seeds)) - there)))
    lines = [
        "## What was not tried",
        "",
        "- Training with a released CLIP (`benchmarks.run --model` does it on a machine that has one), and "
        "training for more than one attribute at once. Other pages: [what released CLIPs "
        "answer](results/released.md), [vision prompts](results/vision.md), [clients that "
        "lie](results/bad_clients.md), [privacy](results/private.md).",
        "- A search for the best setting of each baseline on each task. Every baseline runs with the one "
        "setting in `fvlfp/methods.py`, and so does our method.",
    ]
    if lack:
        n = sum(k for _, k in lack)
        tasks = _list(f"`{t}`" for t in dict.fromkeys(task for task, _ in lack))
        lines.append(f"- {n} cells of the grid were not run, on {tasks}.")
    return "\n".join(lines)


def _models() -> str:
    """How the small models of CelebA and HAM10000 were made; "" before the first."""
    if not SMALL_CLIPS.is_file():
        return ""
    lines = [
        "## The small models",
        "",
        "`python -m benchmarks.small_clips`. The repository holds the recipe, seed and sha256 of each model, "
        "not its weights. The same machine with the same versions gives the same bits.",
        "",
    ]
    rows = []
    for name, told in json.loads(SMALL_CLIPS.read_text(encoding="utf-8")).items():
        recipe = told["recipe"]
        training = (f"{told['rows']:,}", f"{recipe['epochs']:g}", recipe["seed"], told["processor_minutes"])
        rows.append([name, recipe["tower"], *training, f"`{told['weights_sha256']}`"])
    heads = ["", "tower", "pretraining rows", "epochs", "seed", "processor minutes", "sha256"]
    return "\n".join([*lines, *table(heads, rows)])


def _ordered(methods: dict[str, list[Cell]]) -> list[str]:
    return [name for name in SETTINGS if name in methods]


def _name(method: str) -> str:
    return {
        "fvlfp-peers-label-free": "**full method judged by peers, no group label**",
        "fvlfp-label-free": "**full method, no group label**",
        "fvlfp": "**full method, labels for choices**",
        "fvlfp-labels": "**full method, labels in training**",
        "fedavg": "**fedavg**",
    }.get(method, f"`{method}`")


def _mean(mean: Mean | None) -> str:
    if mean is None:
        return "undefined"
    return f"{mean.value:.3f} ± {mean.sd:.3f} [{mean.low:.3f}, {mean.high:.3f}]"


def _chosen(cells: list[Cell]) -> str:
    found = sorted({f"{c.get('rank', 0)}, {c.get('lambda', 1):g}" for c in cells if c.get("rank")})
    off = sum(not c.get("rank") for c in cells)
    if not found:
        return ""
    return "; ".join(found) + (f"; off in {off}" if off else "")


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)


def main() -> None:
    """Read the cells, write figure and page."""
    grid = Grid.read()
    if not grid:
        raise SystemExit("no cells yet: run python -m benchmarks.run --all")
    draw(grid.without({*OPTIONS, *FUSIONS}), PAGE.parent / FIGURE)
    PAGE.write_text(page(grid), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
