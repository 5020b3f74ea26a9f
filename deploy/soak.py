"""A soak: twelve SuperNodes, twenty rounds, one node killed about every minute, one slow, one with garbage.

    python -m deploy.soak runs/soak [--minutes 15]

SuperLink and SuperNodes with TLS and keys on the loopback, FedAvg on few drawn faces, a part of the nodes
drawn in each round. A node that has ended is started again, as a supervisor would, until the SuperLink lets
it in. Every round that the server logs is looked up in the checkpoint at once. Memory is the resident set of
the SuperLink and the ServerApp. A soak that takes longer than `--minutes` is stopped and its page says so.
Writes `benchmarks/results/soak.json` and `soak.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import psutil

from benchmarks import RESULTS
from benchmarks.machine import code_state, machine, named
from deploy.bad_node import SLOW
from deploy.keys import make_keys
from deploy.trial import APP, Trial
from fvlfp.data.card import Card
from fvlfp.federation.checkpoint import Checkpoints, ServerState
from fvlfp.runs.deployment import Site, run_config_of

ROOT = Path(__file__).resolve().parent.parent
NODES, ROUNDS, DEADLINE, EVERY = 12, 20, 60.0, 60.0
SETTINGS = {"method": "fedavg", "n": 900, "clients": NODES, "rounds": ROUNDS, "fraction": 1 / 6,
            "deadline": DEADLINE, "min_available": 1}  # fmt: skip
#: client -> what its node config says of `deploy.bad_node`
WAYS = {10: "slow", 11: "garbage"}
#: a word of a command line -> whose memory is measured
MEASURED = {"flower-superlink": "SuperLink", "flwr-serverapp": "ServerApp"}


class SoakTrial(Trial):
    """A trial whose nodes run `deploy.bad_node`; processes that wait ask less often, for twelve nodes ask."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, **SETTINGS)
        self.app = self.folder / "app"

    def environment(self, home: str = "flwr") -> dict[str, str]:
        """That of a trial, and where `deploy` lies."""
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return super().environment(home) | {"PYTHONPATH": path, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "1.5"}

    def start(self) -> None:
        """Begin anew: keys, data, the app of the soak, SuperLink and nodes."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.app.mkdir(parents=True)
        honest = (APP / "pyproject.toml").read_text()
        (self.app / "pyproject.toml").write_text(
            honest.replace("fvlfp.runs.deployment:client_app", "deploy.bad_node:client_app")
        )
        make_keys(self.key_folder, nodes=NODES)
        super().start()

    def start_supernode(self, name: str, client: int, **more: Any) -> None:
        """One SuperNode, with its ways."""
        if client in WAYS:
            more["more"] = f'ways="{WAYS[client]}"'
        super().start_supernode(name, client, **more)


class Soak:
    """The run under way: kills and restarts, what the server says, what lies on its disk."""

    def __init__(self, trial: SoakTrial, seconds: float) -> None:
        self.trial, self.began, self.limit = trial, time.monotonic(), seconds
        self.rng = random.Random(0)
        self.away: dict[str, float] = {}  # node -> when it was killed
        self.ended: dict[str, float] = {}  # node -> when it was last seen before it ended again
        named = json.loads((trial.folder / "server" / "nodes.json").read_text())
        self.ids = {entry["name"]: node for node, entry in named.items()}
        self.nodes: dict[str, dict[str, float]] = {
            f"node-{k}": {"kills": 0, "starts": 0, "away": 0.0} for k in range(NODES)
        }
        self.memory: list[dict[str, float]] = []
        self.rounds: list[dict[str, Any]] = []
        site = Site.open(trial.cfg, Card.read(trial.folder / "server" / "words.toml"))
        self.checkpoints = Checkpoints(trial.folder / "server" / "checkpoints", site.fingerprint)
        self.site, self.runs = site, 0
        self.submit()

    def submit(self) -> None:
        """Begin, or go on from the newest checkpoint."""
        words = run_config_of(self.site, server=str(self.trial.folder / "server"), resume=self.runs > 0)
        self.run = self.trial.submit_words(words)
        self.runs += 1

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def go(self) -> str:
        """Until the run is over or the time is; returns how it ended."""
        next_kill, next_look = EVERY, 0.0
        while self.now() < self.limit:
            self.look_at_rounds()
            if sum("the run is over" in line for line in self.trial.server_log()) == self.runs:
                if len(self.rounds) == ROUNDS:
                    return "completed"
                self.submit()  # no node answered in a round: an operator would resume
            self.supervise()
            if self.rounds and self.now() >= next_kill:
                next_kill = self.now() + EVERY
                self.kill_one()
            if self.now() >= next_look:
                next_look = self.now() + 10
                self.measure()
            time.sleep(1)
        self.trial.flwr("stop", str(self.run), "trial")
        return "stopped by the limit"

    def kill_one(self) -> None:
        """SIGKILL of one node that is there."""
        name = self.rng.choice([name for name in self.nodes if name not in self.away])
        self.trial.kill(name)
        self.away[name] = self.now()
        self.nodes[name]["kills"] += 1
        print(f"{self.now():.0f} s: {name} is killed", flush=True)

    def supervise(self) -> None:
        """Start a killed node again, ten seconds after each end, until it is let in."""
        for name, killed in list(self.away.items()):
            if self.let_in(name) > self.nodes[name]["kills"]:
                self.nodes[name]["away"] += self.now() - killed
                del self.away[name]
                self.ended.pop(name, None)
                print(f"{self.now():.0f} s: {name} is let in again", flush=True)
            elif self.trial.lives(name):
                self.ended[name] = self.now()
            elif self.now() > self.ended.get(name, killed) + 10:
                self.nodes[name]["starts"] += 1
                self.trial.start_supernode(name, int(name.removeprefix("node-")))

    def let_in(self, name: str) -> int:
        """How often the SuperLink has let a node in."""
        return self.trial.log("superlink").count(f"Activated node_id={self.ids[name]}")

    def look_at_rounds(self) -> None:
        """Every round that the server has said must lie on its disk, with the rounds before it."""
        said = [line for line in self.trial.server_log() if re.search(r"INFO round +\d+/", line)]
        if len(said) == len(self.rounds):
            return
        state = self.checkpoints.load()
        for line in said[len(self.rounds) :]:
            print(line, flush=True)
            number = int(re.search(r"round +(\d+)/", line)[1])  # type: ignore[index]
            memory = self.measure()
            self.rounds.append({"round": number, "line": line, "seconds": round(self.now()),
                                "saved": holds(state, number), **memory})  # fmt: skip

    def measure(self) -> dict[str, float]:
        """MiB of the processes that are measured now; kept with the time."""
        found: dict[str, float] = {}
        for pid in self.trial.processes():
            try:
                words, rss = " ".join(psutil.Process(pid).cmdline()), psutil.Process(pid).memory_info().rss
            except psutil.Error:  # gone meanwhile
                continue
            for word, name in MEASURED.items():
                if word in words:
                    found[name] = max(found.get(name, 0.0), round(rss / 2**20, 1))
        self.memory.append({"seconds": round(self.now()), **found})
        return found


def holds(state: ServerState | None, round_: int) -> bool:
    """Whether a checkpoint holds this round and all before it."""
    return state is not None and [r.round for r in state.history[:round_]] == list(range(1, round_ + 1))


def results_of(soak: Soak, ended: str) -> dict[str, Any]:
    """What the page needs, as JSON types; the history is the newest checkpoint's."""
    for name, killed in soak.away.items():
        soak.nodes[name]["away"] += soak.now() - killed
    state = soak.checkpoints.load()
    return {
        "machine": machine(),
        "code": code_state(),
        "ended": ended,
        "resumed": soak.runs - 1,
        "minutes": soak.now() / 60,
        "nodes": soak.nodes,
        "rounds": soak.rounds,
        "memory": soak.memory,
        "history": [asdict(report) for report in (state.history if state else [])],
    }


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rounds, history = results["rounds"], results["history"]
    lines = [
        "# Soak",
        "",
        f"Written by `python -m deploy.soak`; do not edit. SuperLink and {NODES} SuperNodes, TLS and node "
        "keys, on the loopback of one machine that other work shared; FedAvg, few drawn faces, a part "
        f"(one of six) of the nodes that are there drawn in each round, deadline {DEADLINE:g} s. "
        f"About every {EVERY:g} s one node is killed (SIGKILL) and started again until the SuperLink lets it "
        f"in. node-10 waits {SLOW:g} s before it answers; node-11 sends garbage in every even round: NaN, "
        "another shape, bytes that are no array, no report, an error of a million characters.",
        "",
        f"Machine: {named(results['machine'])}. Code: {results['code']}.",
        "",
        f"- Rounds that went on: **{len(rounds)} of {ROUNDS}**; the run was {results['ended']} after "
        f"{results['minutes']:.1f} minutes, and resumed {results['resumed']} times.",
        f"- {kept(rounds, history)}",
        *memory_lines(results["memory"]),
        "",
        *node_table(results["nodes"], history),
        "",
        *round_table(rounds, history),
    ]
    return "\n".join(lines) + "\n"


def node_table(nodes: dict[str, dict[str, float]], history: list[dict[str, Any]]) -> list[str]:
    """What each node missed."""
    lines = [
        "## What each node missed",
        "",
        "Left out: it was asked and no usable answer came. Away: from the kill until it was let in again.",
        "",
        "| node | kills | starts until let in | away, s | left out, rounds | why |",
        "|---|--:|--:|--:|---|---|",
    ]
    for name, node in nodes.items():
        missed = {h["round"]: reasons(h, name) for h in history if name in h["failed"]}
        counted = Counter(reason for said in missed.values() for reason in said)
        why = "; ".join(f"{reason} ({n})" for reason, n in counted.items())
        cells = [f"{node[key]:.0f}" for key in ("kills", "starts", "away")]
        cells += [", ".join(map(str, missed)) or "none", why]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def reasons(report: dict[str, Any], name: str) -> list[str]:
    """Why a node was left out of a round, as a table's cell can hold it."""
    who = f"client {name} "
    said = [line.removeprefix(who).replace("|", "/") for line in report["reasons"] if line.startswith(who)]
    return [reason if len(reason) <= 90 else reason[:90] + "..." for reason in said]


def round_table(rounds: list[dict[str, Any]], history: list[dict[str, Any]]) -> list[str]:
    """What the server saw in each round."""
    lines = [
        "## Round by round",
        "",
        "SuperLink, ServerApp: MiB in memory when the round was logged.",
        "",
        "| round | logged at, s | clients counted | left out | in the checkpoint | SuperLink | ServerApp |",
        "|--:|--:|--:|---|---|--:|--:|",
    ]
    for row, report in zip(rounds, history, strict=False):
        cells = [row["round"], row["seconds"], report["clients"], ", ".join(report["failed"]) or "none"]
        cells += ["yes" if row["saved"] else "NO", *(row.get(name, "?") for name in MEASURED.values())]
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return lines


def kept(rounds: list[dict[str, Any]], history: list[dict[str, Any]]) -> str:
    """Whether every round that was logged is in a checkpoint, then and at the end."""
    logged = [row["round"] for row in rounds]
    lost = [row["round"] for row in rounds if not row["saved"]]
    lost += sorted(set(logged) - {report["round"] for report in history} - set(lost))
    told = "Acknowledged is what the server's log says. "
    if lost:
        return told + f"**Lost: rounds {', '.join(map(str, lost))}**."
    return (
        told + f"Nothing was lost: each of the {len(logged)} logged rounds was in a checkpoint with a right "
        "sha256, with every round before it, when the log was read (within seconds), and all are in the last "
        "checkpoint's history."
    )


def memory_lines(samples: list[dict[str, float]]) -> list[str]:
    """How the resident set of each measured process went on."""
    lines = []
    for name in MEASURED.values():
        known = [sample[name] for sample in samples if name in sample]
        if len(known) >= 8:
            quarter = len(known) // 4
            early, late = mean(known[quarter : 2 * quarter]), mean(known[-quarter:])
            lines.append(
                f"- Memory of the {name}: {early:.0f} MiB in the second quarter of the time, {late:.0f} in "
                f"the last, at most {max(known):.0f} ({len(known)} samples)."
            )
    return lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=15.0, help="all in all, the start included")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    code_state()  # kept from now on: a soak goes on with the code it began with
    trial = SoakTrial(args.folder)
    trial.stop()
    try:
        trial.start()
        soak = Soak(trial, end - time.monotonic())
        results = results_of(soak, soak.go())
    finally:
        trial.stop()
    (RESULTS / "soak.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "soak.md").write_text(page(results))
    print(RESULTS / "soak.md")


if __name__ == "__main__":
    main()
