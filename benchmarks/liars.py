"""What liars cost in every phase: training, moments, validation and judging, one by one and all at once.

    python -m benchmarks.liars [--seeds 2] [--single]

Built-in data, lesson profile (6,000 drawn faces, 10 clients, 8 rounds). Writes `results/liars.json` after
every run (a second call goes on from it) and `liars.md` at the end. A seed draws new faces, clients and
batches; the liars are the first 1 or 3 of a permutation drawn by the seed. Liars that know everything and
optimise what they say are in `benchmarks.knowing`. `--single` adds the phases one by one.

What this module does not do: it chooses nothing by these numbers; they are of test rows.
"""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from benchmarks import RESULTS
from benchmarks.bad_clients import run_with
from benchmarks.knowing import AIMS, LIES, Knowing, along_the_classes, for_one
from benchmarks.machine import named
from benchmarks.seeds import run_missing, states
from fvlfp.config import Config
from fvlfp.federation.protocol import CANDIDATES, JUDGE, MOMENTS, TRAIN, arrays_of, read_arrays
from fvlfp.runs.train import Prepared, prepare
from fvlfp.training.task import Task

#: directions between groups from words alone: no client is asked for moments
WORDS = {"cf_directions": "text", "dsop": "text", "recentre": False}
#: rule -> config
RULES: dict[str, dict[str, Any]] = {
    "FedAvg": {"method": "fedavg"},
    "fvlfp": {"method": "fvlfp"},
    "fvlfp, robust": {"method": "fvlfp", "robust": "trimmed-mean"},
    "fvlfp-peers, robust": {"method": "fvlfp-peers", "robust": "trimmed-mean"},
    "fvlfp, robust, from words": {"method": "fvlfp", "robust": "trimmed-mean"} | WORDS,
    "fvlfp-peers, robust, from words": {"method": "fvlfp-peers", "robust": "trimmed-mean"} | WORDS,
}
#: phase -> what a liar does in it: the strongest that was found and that the server's checks let pass
PHASES = {
    TRAIN: "the opposite of its update, nine times as long and all in the first layer, accuracy 1 and "
    "gap 0, which earn the largest weight",
    MOMENTS: "10,000 examples in every cell, all of one class's text",
    CANDIDATES: "100,000 rows in every cell; perfect for the candidate that removes most, all wrong for the "
    "others",
    JUDGE: "100,000 rows in every cell; of every candidate the opposite of what it sees",
}
SINGLE = tuple(PHASES)
#: what the knowing liars of `benchmarks.knowing` do in the same phases
KNOWING = {
    TRAIN: "every number is the largest or smallest honest one, on the side on which the harm of the prompts "
    "rises that the trimmed mean then gives",
    MOMENTS: f"the most harmful of {LIES} lies, each tried through a whole run: every number of a mean, or "
    "of a difference between groups, is the largest or smallest honest one, along or against what tells the "
    "classes apart; 10,000 examples in every cell",
    CANDIDATES: "100,000 rows in every cell; perfect for the candidate whose choice harms most, all wrong "
    "for the others",
    JUDGE: "100,000 rows in every cell; all right for the most harmful quarter of the candidates, all wrong "
    "for the others",
}
#: liars -> points of balanced accuracy that they may cost
LIMITS = {1: 1.0, 3: 3.0}
ACCURACY, GAP = "balanced_accuracy", "equalized_odds_difference_worst"


@dataclass(frozen=True)
class Liars(ClientApp):
    """A ClientApp some of whose clients lie in some phases, from the first round on."""

    honest: ClientApp
    who: frozenset[int]
    phases: tuple[str, ...]
    task: Task
    cfg: Config

    def __call__(self, message: Message, context: Context) -> Message:
        """The honest answer, or a lie."""
        reply = self.honest(message, context)
        kind = message.metadata.message_type
        if int(context.node_config["partition-id"]) not in self.who or kind not in self.phases:
            return reply
        arrays = read_arrays(reply.content, "arrays")
        if kind == TRAIN:
            arrays["prompts"] = opposite(arrays["prompts"], read_arrays(message.content, "arrays")["prompts"])
            report = reply.content.metric_records["metrics"]
            report.update({"perf": 1.0, "disp": 0.0})
        elif kind == MOMENTS:
            arrays = along_the_classes(arrays, self.task)
        elif kind == CANDIDATES:
            arrays = for_the_last(arrays)
        else:
            arrays = turned(arrays)
        reply.content["arrays"] = arrays_of(arrays)
        return reply


def opposite(prompts: Tensor, start: Tensor) -> Tensor:
    """Against the update, nine times its length, in the first layer alone."""
    update = prompts - start
    out = start.clone()
    first = update[0] / update[0].norm().clamp_min(1e-12)
    out[0] -= 9 * update.norm() * first
    return out


def for_the_last(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Validation tables that praise the candidate of the highest rank with lambda 1 alone."""
    number = {int(name.partition("/")[0]) for name in arrays}
    return for_one(arrays, (max(number) + 1) // 2)  # "off" is 0, then all ranks with lambda 1, then with 1/2


def turned(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """A judge's answer, turned round: shares of right rows become shares of wrong ones."""
    out = {}
    for name in [name for name in arrays if name.startswith("total/")]:
        total, right = arrays[name], arrays[name.replace("total/", "right/")]
        share = 1 - right / total.clamp_min(1)
        out[name] = torch.full_like(total, 100_000)
        out[name.replace("total/", "right/")] = (share * 100_000).round().long()
    return out


class Case(NamedTuple):
    """Some liars: what the page calls them, how many, in which phases, and what knowing liars aim at."""

    name: str
    bad: int
    phases: tuple[str, ...] = ()
    aim: str | None = None
    rules: tuple[str, ...] = tuple(RULES)
    told: int | None = None  # of how many liars the server is told; None: of as many as there are, or of 1


def cases(*, single: bool) -> list[Case]:
    """Every case; knowing liars meet the robust rules alone, the other rules are ruined already."""
    robust = tuple(rule for rule in RULES if "robust" in rule)
    out = [Case("nobody", 0), Case("nobody, told of three", 0, rules=robust, told=3)]
    out += [Case("every phase", bad, SINGLE) for bad in (1, 3)]
    for aim in AIMS:
        out += [Case(f"every phase, knowing, for the {aim}", bad, SINGLE, aim, robust) for bad in (1, 3)]
    out.append(Case(f"{TRAIN}, knowing, for the error", 3, (TRAIN,), "error", robust))
    asked = tuple(rule for rule in robust if Config.make("lesson", **RULES[rule]).asks_moments)
    out.append(Case(f"{MOMENTS}, knowing, for the error", 3, (MOMENTS,), "error", asked))
    if single:
        out += [Case(phase, 1, (phase,)) for phase in SINGLE]
    return out


def run_once(prepared: Prepared, cfg: Config, case: Case, lie: int = 0) -> dict[str, Any]:
    """`run_with` the case's liars. lie: which one of a knowing liar's lies in the moments."""

    def spoil(honest: ClientApp, who: frozenset[int]) -> ClientApp:
        if case.aim is None:
            return Liars(honest, who, case.phases, prepared.task, cfg)
        return Knowing(honest, who, prepared.clients, prepared.task, cfg, case.aim, lie, case.phases)

    return run_with(prepared, cfg, case.bad, spoil) | {"lie": lie}


def worst_run(prepared: Prepared, cfg: Config, case: Case) -> dict[str, Any]:
    """The run of the lie that reaches the case's aim best, by the very numbers that the page shows."""
    several = case.aim is not None and MOMENTS in case.phases and cfg.asks_moments
    runs = [run_once(prepared, cfg, case, lie) for lie in range(LIES if several else 1)]
    if case.aim == "gap":
        return max(runs, key=lambda run: run[GAP]["value"])
    return min(runs, key=lambda run: run[ACCURACY]["value"])


class Line(NamedTuple):
    """One case under one rule: a row of the table, and the goals that it misses."""

    row: str
    missed: list[str]
    rule: str


def line_of(runs: dict[str, Any], case: Case, rule: str) -> Line | None:
    """Means over the seeds that have run, against honest runs of the same seeds; None without any."""
    honest, plain = f"nobody|0|{rule}", "nobody|0|FedAvg"
    key = f"{case.name}|{case.bad}|{rule}"
    seeds = sorted(
        name.removeprefix(f"{key}|")
        for name in runs
        if name.startswith(f"{key}|")
        and all(f"{other}|{name[len(key) + 1 :]}" in runs for other in (honest, plain))
    )
    if not seeds:
        return None

    def mean(of: str, metric: str) -> float:
        return float(np.mean([runs[f"{of}|{seed}"][metric]["value"] for seed in seeds]))

    gap, most = mean(key, GAP), mean(plain, GAP)
    cost = 100 * (mean(honest, ACCURACY) - mean(key, ACCURACY))
    refused = [sum(runs[f"{key}|{seed}"][who] for seed in seeds) for who in ("refused", "refused honest")]
    shown = [f"{mean(key, ACCURACY):.3f}", f"{cost:+.1f}", f"{gap:.3f}", f"{refused[0]}, {refused[1]}"]
    row = f"| {case.name} | {case.bad} | {rule} | {', '.join(seeds)} | {' | '.join(shown)} |"
    who, missed = f"{rule}, {case.bad} of 10 in {case.name}", []
    if case.bad and cost > LIMITS[case.bad]:
        missed.append(f"- {who}: {cost:.1f} points, more than {LIMITS[case.bad]:g}.")
    if case.bad == 1 and gap > most:
        missed.append(f"- {who}: an odds gap of {gap:.3f}, over {most:.3f}.")
    return Line(row, missed, rule)


def page(results: dict[str, Any]) -> str:
    """The results as Markdown, the goal's misses first."""
    made = (line_of(results["runs"], case, rule) for case in cases(single=True) for rule in RULES)
    lines = [line for line in made if line is not None]
    missed = [line for found in lines for line in found.missed]
    missed.sort(key=lambda line: "robust" not in line)  # what a user who asked for robustness must know first
    met = sorted({line.rule for line in lines} - {line.rule for line in lines if line.missed})
    return "\n".join(
        [
            "# Liars in every phase",
            "",
            "Written by `python -m benchmarks.liars`; do not edit. Built-in data, smiling by shape, 10 "
            "clients (Dirichlet 0.3), 8 rounds, 2,000 test rows, means over the seeds in the table. Wanted: "
            "one liar of ten costs at most 1 point of balanced accuracy and leaves the odds gap no higher "
            "than honest FedAvg's; three liars cost at most 3 points. Cost: against the same rule and seeds "
            "with honest clients.",
            "",
            "## Missed",
            "",
            "The robust rules come first.",
            "",
            *(missed or ["Nothing."]),
            "",
            f"Met in every case of the table by: {'; '.join(met) or 'no rule'}.",
            "",
            "## What a liar does",
            "",
            *(f"- `{phase}`: {said}." for phase, said in PHASES.items()),
            "",
            "A knowing liar knows every honest answer of the round, the server's rule and the other liars, "
            "and tries each lie on the server's own code before it sends it. Its harm is either the error "
            "or the gap between groups, of soft answers on all clients' validation rows. It plans no more "
            "than one round ahead, and meets the robust rules alone: the others are ruined already.",
            "",
            *(f"- `{phase}`: {said}." for phase, said in KNOWING.items()),
            "",
            "`robust` is `robust = \"trimmed-mean\"`, told how many liars there are. `from words`: the "
            "directions between groups come from words alone (`cf_directions = \"text\"`, `dsop = \"text\"`, "
            "`recentre = false`), so that no client is asked for moments. What the checks refuse stands in "
            "`fvlfp/federation/replies.py`; the last column counts training replies that were "
            "refused, of liars and of honest clients.",
            "",
            f"Machine: {named(results['machine'])}. Made by these states of the code: {states(results)}.",
            "",
            "| liars act in | of 10 | rule | seeds | balanced accuracy | cost, points | odds gap | refused |",
            "|---|--:|---|---|--:|--:|--:|--:|",
            *(line.row for line in lines),
        ]
    ) + "\n"  # fmt: skip


def runs_of(seed: int, *, single: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every case of one seed; faces are drawn for the first that runs."""
    prepared = functools.cache(lambda: prepare(Config.make("lesson", seed=seed, device="cpu")))
    for case in cases(single=single):
        for rule in case.rules:

            def run(case: Case = case, settings: Any = RULES[rule]) -> dict[str, Any]:
                cfg = Config.make(
                    "lesson", seed=seed, device="cpu", liars=case.told or max(case.bad, 1), **settings
                )
                return worst_run(prepared(), cfg, case)

            yield f"{case.name}|{case.bad}|{rule}|{seed}", run


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--single", action="store_true", help="also the phases one by one")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    logging.getLogger("fvlfp").setLevel(logging.ERROR)
    every = (case for seed in range(args.seeds) for case in runs_of(seed, single=args.single))
    results = run_missing(RESULTS / "liars.json", every)
    (RESULTS / "liars.md").write_text(page(results))
    print(RESULTS / "liars.md")


if __name__ == "__main__":
    main()
