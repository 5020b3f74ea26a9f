"""Faults, tried with real processes on the loopback: what happened, what was lost, what was said.

    python -m deploy.faults runs/faults [--only NAME ...]

One SuperLink and three SuperNodes with TLS and keys, some short runs, and some runs of `fvlfp train`. Each
row ends by comparing the final prompts with those of an undisturbed run, bit for bit. Every wait has an end,
and every process is ended whatever happens. Writes `benchmarks/results/faults.json` and `faults.md`. The
clock row needs libfaketime (Debian: `apt-get install libfaketime`) and says so without it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from benchmarks import RESULTS
from benchmarks.machine import code_state, machine, named
from deploy.keys import make_keys, make_node_key
from deploy.trial import Trial, send
from fvlfp.runs.save import read_result

SETTINGS = {"method": "fedavg", "n": 900, "rounds": 3, "deadline": 150.0, "min_available": 2}
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
TWIN = "a second SuperNode claims client 0 (registered key, same data)"
PATIENCE = 900.0  # seconds that one run may take


class Soak:
    """One trial that all rows share, and the rows told so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.trial = Trial(self.folder, **SETTINGS)
        self.server = self.folder / "server"
        self.rows: list[dict[str, str]] = []

    def tell(self, fault: str, happened: str, lost: str, message: str) -> None:
        """One row of the table."""
        message = " ".join(message.replace(str(self.folder), "DIR").split())[:300]
        row = {"fault": fault, "happened": happened, "lost": lost, "message": message}
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def start(self) -> None:
        """Keys, data, SuperLink, nodes."""
        self.trial.stop()
        if not (self.trial.key_folder / "ca.crt").exists():
            make_keys(self.trial.key_folder)
        self.trial.start()

    def submit(self, *, resume: bool = False) -> int:
        """A run, into an empty server folder unless it resumes."""
        (self.server / "prompts.safetensors").unlink(missing_ok=True)
        (self.server / "server.log").unlink(missing_ok=True)
        if not resume:
            shutil.rmtree(self.server / "checkpoints", ignore_errors=True)
        return self.trial.submit(resume=resume)

    def finish(self, number: int) -> str:
        """Wait for the end; returns the server's log."""
        status = self.trial.wait(number, seconds=PATIENCE, say=lambda line: print("   ", line, flush=True))
        if status != "finished:completed":
            raise RuntimeError(f"the run ended as {status}: {' / '.join(self.trial.server_log()[-2:])}")
        return "\n".join(self.trial.server_log())

    def until(self, what: str, seconds: float = PATIENCE) -> None:
        """Wait until the server's log says `what`.

        Raises:
            RuntimeError: it does not.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if any(re.search(what, line) for line in self.trial.server_log()):
                return
            time.sleep(0.1)
        raise RuntimeError(f"the server never said {what!r}")

    def against_straight(self) -> str:
        """Whether the prompts are those of the undisturbed run."""
        mine, straight = (
            read_result(path / "prompts.safetensors").prompts
            for path in (self.server, self.folder / "straight")
        )
        if torch.equal(mine, straight):
            return "nothing: prompts equal the undisturbed run's bit for bit"
        return (
            f"prompts differ from the undisturbed run's by at most {float((mine - straight).abs().max()):.2g}"
        )


def straight(soak: Soak) -> None:
    """No fault: the reference of all others."""
    soak.finish(soak.submit())
    (soak.folder / "straight").mkdir(exist_ok=True)
    shutil.copy(soak.server / "prompts.safetensors", soak.folder / "straight")
    soak.tell("none", "three rounds, three clients", "nothing", soak.trial.server_log()[-2])


def strangers(soak: Soak) -> None:
    """Nodes that must not take part, beside three good ones, in one run."""
    trial, keys = soak.trial, soak.trial.key_folder
    other = soak.folder / "other-ca"
    shutil.rmtree(other, ignore_errors=True)
    make_keys(other, nodes=0)
    for name in ("twin", "stranger", "words", "clock", "foreign"):
        for file in keys.glob(f"{name}*"):
            file.unlink()
        make_node_key(keys / name)
    for name in ("twin", "words", "clock"):
        trial.register(name)
    card = (soak.folder / "node-1" / "faces.card.toml").read_text().replace("smiling face", "happy face")
    (soak.folder / "other.card.toml").write_text(card)
    trial.start_supernode("foreign", 0, ca=other / "ca.crt")
    trial.start_supernode("nobody", 0, key="")
    trial.start_supernode("stranger", 0)
    trial.start_supernode("twin", 0)
    trial.start_supernode("words", 1, more=f'prompts="{soak.folder / "other.card.toml"}"')
    if FAKETIME.exists():
        os.environ |= {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "+1h"}
        try:
            trial.start_supernode("clock", 2)
        finally:
            del os.environ["LD_PRELOAD"], os.environ["FAKETIME"]
    time.sleep(20)  # each of them has tried to connect by now
    log = soak.finish(soak.submit())
    lost = soak.against_straight()

    def said(by: str, what: str) -> str:
        """The last line of a process's log that matches."""
        lines = [line for line in trial.log(by).splitlines() if re.search(what, line)]
        return re.sub(r"\x1b\[\d+m", "", lines[-1]) if lines else "(nothing in its log)"

    def by_server(what: str) -> str:
        found = [line for line in log.splitlines() if re.search(what, line)]
        return found[0].split("WARNING ")[-1] if found else "(nothing in the server's log)"

    away, code = "never joined; the run went on without it", r"\[code: \d+\]"
    soak.tell("a SuperNode trusts another CA (wrong certificate)", away, lost, said("foreign", "SSL: "))
    soak.tell("a SuperNode without a key", away, lost, said("nobody", code))
    soak.tell("a SuperNode with an unregistered key", away, lost, said("stranger", code))
    soak.tell(
        TWIN,
        "left out in every phase: the operator has named another node for client 0",
        lost,
        by_server("named no such node"),
    )
    soak.tell(
        "a client with another model or other words",
        "answered with an error, left out",
        lost,
        by_server("fingerprint"),
    )
    if FAKETIME.exists():
        refused = said("superlink", "activate-node.* 401").partition(" - ")[2]
        happened = "refused, it ended without a reason in its own log; the run went on without it"
        soak.tell("a SuperNode's clock is an hour ahead", happened, lost, f"SuperLink: {refused}")
    else:
        soak.tell("a SuperNode's clock is an hour ahead", "not run", "", f"{FAKETIME} is not here")
    for name in ("foreign", "nobody", "stranger", "twin", "words", "clock"):
        if name != "clock" or FAKETIME.exists():
            trial.kill(name, signal.SIGTERM)  # so that it says goodbye, and the next run does not ask it


def trusted_entities(soak: Soak) -> None:
    """A trial of its own: its one SuperNode runs signed apps alone, and nobody has signed the app."""
    folder = soak.folder / "trusted"
    shutil.rmtree(folder, ignore_errors=True)
    trial = Trial(folder, method="fedavg", n=300, clients=1, rounds=1, deadline=90.0, min_available=1)
    make_keys(trial.key_folder, nodes=1)
    trial.make_data()
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    (folder / "trusted.yaml").write_text(f"fpk_trial: {line}\n")
    try:
        trial.start_superlink()
        trial.register("node-0")
        trial.start_supernode("node-0", 0, options=["--trusted-entities", str(folder / "trusted.yaml")])
        status = trial.wait(trial.submit(), seconds=PATIENCE)
        server, own = trial.server_log(), trial.log("node-0").splitlines()
    finally:
        trial.stop()
    said = [re.sub(r"\x1b\[\d+m", "", line) for line in own if "FAB" in line]
    answers = [line.split("WARNING ")[-1] for line in server if "WARNING" in line]
    happened = f"the node ran nothing of it and answered with an error; the run ended as {status}"
    if not said:
        happened = f"THE NODE DID NOT REFUSE IT; the run ended as {status}"
    lost = "the run: this trial cannot use the option"
    message = f"node: {said[-1] if said else 'nothing'} / server: {answers[-1] if answers else server[-1]}"
    soak.tell("the one SuperNode has `--trusted-entities` with a key that signed no app", happened, lost,
              message)  # fmt: skip


def killed_run(soak: Soak) -> None:
    """SIGKILL of the ServerApp in round 3, resume; then the same with a damaged checkpoint."""
    soak.submit()
    soak.until(r"round +2/3")
    time.sleep(random.Random(0).uniform(0, 5))
    for pid in soak.trial.processes():
        if "flwr-serverapp" in Path(f"/proc/{pid}/cmdline").read_text():
            send(pid, signal.SIGKILL)
    kept = soak.folder / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(soak.server / "checkpoints", kept)
    log = soak.finish(soak.submit(resume=True))
    happened = f"resumed, {log.count('round ')} of 3 rounds were left"
    soak.tell("SIGKILL of the run in round 3", happened, soak.against_straight(), log.splitlines()[0])
    shutil.rmtree(soak.server / "checkpoints")
    shutil.copytree(kept, soak.server / "checkpoints")
    newest = max((soak.server / "checkpoints").glob("*.safetensors"))
    body = bytearray(newest.read_bytes())
    body[len(body) // 2] ^= 1
    newest.write_bytes(body)
    log = soak.finish(soak.submit(resume=True))
    warned = next((line for line in log.splitlines() if "damaged" in line), "(no warning)")
    happened = f"noticed by its sha256, resumed from the one before: {log.count('round ')} rounds were left"
    soak.tell("one bit of the newest checkpoint is flipped", happened, soak.against_straight(), warned)


def killed_superlink(soak: Soak) -> None:
    """SIGKILL of the SuperLink in round 2, restart with its database on the same port, resume."""
    number = soak.submit()
    soak.until(r"round +1/3")
    time.sleep(2)
    port = soak.trial.port("superlink")
    soak.trial.kill("superlink")
    time.sleep(5)
    soak.trial.start_superlink(port)
    time.sleep(8)
    status = soak.trial.status(number)
    log = soak.finish(soak.submit(resume=True))
    happened = (
        f"the nodes came back by themselves, keys were still registered; Flower called the old run {status}; "
        f"a new run resumed with {log.count('round ')} rounds left"
    )
    soak.tell("SIGKILL of the SuperLink in round 2, restart with its database", happened,
              soak.against_straight(), log.splitlines()[0])  # fmt: skip


def killed_supernode(soak: Soak) -> None:
    """SIGKILL of a SuperNode in round 2 of 6; from 5 s later on it is started until it is let in."""
    trial, before = soak.trial, soak.trial.cfg
    trial.cfg = before.replace(rounds=6)
    try:
        number = soak.submit()
        soak.until(r"round +1/6")
        time.sleep(4)
        trial.kill("node-2")
        killed, starts = time.monotonic(), 0
        time.sleep(5)
        joined = trial.log("superlink").count("Activated node_id")
        while trial.log("superlink").count("Activated node_id") == joined:
            if time.monotonic() > killed + PATIENCE:
                raise RuntimeError("the SuperNode was never let in again")
            if not starts or not trial.lives("node-2"):
                trial.start_supernode("node-2", 2)
                starts += 1
            time.sleep(0.5)
        away = time.monotonic() - killed
        log = soak.finish(number)
    finally:
        trial.cfg = before
    warned = next((line for line in log.splitlines() if "WARNING" in line), "(no warning)")
    history = read_result(soak.server / "prompts.safetensors").history
    counted = ", ".join(str(row.clients) for row in history)
    happened = f"let in again at start {starts}, after {away:.0f} s; clients counted a round: {counted}"
    lost = "that client's updates of the rounds without it; the run went on with the others"
    soak.tell("SIGKILL of a SuperNode in round 2 of 6, started again as a supervisor would", happened, lost,
              warned)  # fmt: skip


def killed_train(soak: Soak) -> None:
    """SIGKILL of `fvlfp train` at five random moments, each time resumed; one process, no Flower server."""
    words = [sys.executable, "-c", "from fvlfp.cli import app; app()", "train"]
    words += ["--set", "profile=smoke", "--set", "baseline=zero-shot", "--set", "device=cpu"]
    words += ["--set", "rounds=12", "--set", "draws=100"]
    whole, broken = soak.folder / "train", soak.folder / "train-killed"
    for folder in (whole, broken):
        shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    subprocess.run([*words, "--out", str(whole)], check=True, capture_output=True, timeout=PATIENCE)
    length = time.monotonic() - started
    rng, kills = random.Random(0), 0
    for _ in range(5):
        more = ["--resume"] if (broken / "config.json").exists() else []
        process = subprocess.Popen([*words, "--out", str(broken), *more], stdout=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.3, 1.0) * length)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    done = subprocess.run(
        [*words, "--out", str(broken), "--resume"],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    same = all(
        (whole / name).read_bytes() == (broken / name).read_bytes()
        for name in ("method/prompts.safetensors", "predictions.csv")
    )
    lost = "nothing: prompts and predictions are equal byte for byte" if same else "RESULTS DIFFER"
    soak.tell(f"SIGKILL of `fvlfp train` at {kills} random moments", "resumed each time", lost,
              done.stdout.splitlines()[-1])  # fmt: skip


def full_disk(soak: Soak) -> None:
    """No room for the checkpoint of round 3: a limit on file size stands for a full disk; then resume."""
    words = [sys.executable, "-m", "deploy.faults", "--full-disk", str(soak.folder / "full")]
    shutil.rmtree(soak.folder / "full", ignore_errors=True)
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    lines = done.stdout.splitlines()
    stopped = next((line for line in lines if line.startswith("stopped: ")), "(it did not stop)")
    same = (
        "nothing: prompts equal an undisturbed run's bit for bit" if "same" in lines else done.stderr[-300:]
    )
    happened = "the run stopped; it was resumed when there was room"
    soak.tell("no room on the disk for the checkpoint of round 3", happened, same,
              stopped.removeprefix("stopped: "))  # fmt: skip


def full_disk_here(out: Path) -> None:
    """The part of `full_disk` that runs in a process of its own, because the limit is the process's."""
    from fvlfp.config import Config
    from fvlfp.runs.train import prepare, train

    cfg = Config.make("smoke", "fedavg", rounds=4, device="cpu")
    prepared = prepare(cfg, cache=out / "features")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_round(line: str) -> None:
        if " 2/4" in line:
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))

    try:
        train(cfg, prepared, out=out, progress=on_round)
    except (OSError, RuntimeError) as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        print(f"stopped: {error}")
    resumed = train(cfg, prepared, out=out, resume=True, progress=None)
    if torch.equal(resumed.prompts, train(cfg, prepared, progress=None).prompts):
        print("same")


ROWS: dict[str, Callable[[Soak], None]] = {
    "straight": straight,
    "killed-run": killed_run,
    "full-disk": full_disk,
    "strangers": strangers,
    "trusted-entities": trusted_entities,
    "killed-superlink": killed_superlink,
    "killed-supernode": killed_supernode,
    "killed-train": killed_train,
}


#: rows that need no server, or have their own
APART = {"full-disk", "killed-train", "trusted-entities"}


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    where = results["machine"]
    states = sorted({row["commit"] for rows in results["rows"].values() for row in rows})
    lines = [
        "# Faults",
        "",
        "Written by `python -m deploy.faults`; do not edit. SuperLink, three SuperNodes, TLS and node keys "
        "on the loopback of one machine; FedAvg, three rounds, deadline 150 s. Acknowledged is what "
        "the server has said in its log: a round is said after its checkpoint is on the disk. Rows may come "
        "from several calls; other work ran on the machine.",
        "",
        f"Machine of the last call: {named(where)}. States of the code: {', '.join(states)}; each "
        "row's stands in `faults.json`.",
        "",
        "| fault | what happened | what was lost | message seen |",
        "|---|---|---|---|",
    ]
    for rows in results["rows"].values():
        for row in rows:
            cells = (row[key].replace("|", "/") for key in ("fault", "happened", "lost", "message"))
            lines.append("| " + " | ".join(cells) + " |")
    if not any(row["fault"] == TWIN for rows in results["rows"].values() for row in rows):
        lines += [
            "",
            f"Not measured since `nodes.json` decides which node is which client: {TWIN}. Without processes, "
            "examples in `fvlfp/federation/trust.py` show that a node which the operator has not named is "
            "refused.",
        ]
    missing = [name for name in ROWS if name not in results["rows"]]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)} (`python -m deploy.faults DIR --only NAME`)."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try every row; a row that breaks says so in the table and the next one is tried."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=ROWS, action="append", help="default: all")
    parser.add_argument("--full-disk", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.full_disk:
        full_disk_here(args.folder)
        return
    path = RESULTS / "faults.json"
    soak = Soak(args.folder)
    names = args.only or list(ROWS)
    try:
        if set(names) - APART:
            soak.start()
        for name in names:
            soak.rows = []
            try:
                ROWS[name](soak)
            except Exception as error:
                traceback.print_exc()
                soak.tell(name, "THE ROW BROKE", "", f"{type(error).__name__}: {error}")
            results = json.loads(path.read_text()) if path.is_file() else {"rows": {}}
            told = [row | {"commit": code_state()} for row in soak.rows]
            rows = results["rows"] | {name: told}
            results = {"machine": machine(), "rows": {key: rows[key] for key in ROWS if key in rows}}
            path.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        soak.trial.stop()
    (RESULTS / "faults.md").write_text(page(results))
    print(RESULTS / "faults.md")


if __name__ == "__main__":
    main()
