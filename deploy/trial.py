"""A trial of the deployment: SuperLink and SuperNodes on this machine's loopback, with TLS and node keys.

    python -m deploy.keys runs/trial                    certificates and keys
    python -m deploy.trial start runs/trial             data, one SuperLink, three SuperNodes
    python -m deploy.trial run runs/trial               one federated run, then the audit report
    python -m deploy.trial stop runs/trial              end every process of the trial
    python -m deploy.trial all runs/trial               the four in one go (`make deploy-trial`)

`run --set key=value` changes a config key, `run --resume` goes on from the server's last checkpoint, `run
--limit SECONDS` stops a run that takes longer. Processes listen on 127.0.0.1 only, on free ports, and pass by
any proxy; their logs lie in DIR/logs. Flower installs nothing, asks for no update and sends no telemetry: the
environment below says so. A start that fails ends what it has started.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import tomli_w

from deploy.data import make_data
from deploy.keys import make_keys
from fvlfp.config import Config
from fvlfp.errors import InputError
from fvlfp.runs.deployment import check_deployable

APP = Path(__file__).parent / "app"
#: What the trial trains: the smoke profile, three clients, a free baseline.
SETTINGS: dict[str, Any] = {
    "profile": "smoke",
    "clients": 3,
    "baseline": "zero-shot",
    "device": "cpu",
    "deadline": 120.0,
}


class Trial:
    """The processes and files of one trial, in one folder."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder.resolve()
        self.cfg = Config.make(**(SETTINGS | settings))
        self.app = APP
        self.bin = Path(sys.executable).parent  # Flower's commands lie beside this Python
        self._state = self.folder / "processes.json"

    def environment(self, home: str = "flwr") -> dict[str, str]:
        """What every Flower process of the trial inherits."""
        return os.environ | {
            "FLWR_HOME": str(self.folder / "home" / home),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
            "FVLFP_TRIAL": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            **past_proxies(),
        }

    @property
    def key_folder(self) -> Path:
        """Certificates and keys."""
        return self.folder / "keys"

    def make_data(self) -> None:
        """Tables of the nodes and of the audit, the server's words; once."""
        if not (self.folder / "server" / "words.toml").exists():
            make_data(self.folder, self.cfg)

    def memory(self) -> str:
        """What the largest client will need, before anything is started."""
        from fvlfp.data.table import read_table
        from fvlfp.runs.deployment import Site
        from fvlfp.training.memory import estimate

        tables = [self.folder / f"node-{k}" / "faces.csv" for k in range(self.cfg.clients)]
        largest = max(tables, key=lambda table: table.stat().st_size)
        dataset = read_table(largest, label=self.cfg.label, groups=self.cfg.groups)
        site = Site.open(self.cfg, dataset.card)
        needed = estimate(site.encoder, site.task, self.cfg, len(dataset))
        return f"{needed.describe()}; {needed.clients_on(16 * 2**30)} such clients on a 16 GiB GPU"

    def start(self) -> None:
        """SuperLink, registered keys, SuperNodes.

        Raises:
            InputError: no keys, the trial runs already, or no deployment can do the method.
            RuntimeError: a process does not come up; those that did are ended.
        """
        check_deployable(self.cfg)
        if not (self.key_folder / "ca.crt").exists():
            raise InputError(f"no keys in {self.key_folder}: python -m deploy.keys {self.folder}")
        if self.processes():
            raise InputError(
                f"the trial in {self.folder} runs already: python -m deploy.trial stop {self.folder}"
            )
        self.make_data()
        for old in self.folder.glob("superlink.db*"):
            old.unlink()  # a new trial, new registrations
        try:
            self.start_superlink()
            named = {
                self.register(f"node-{k}"): {"client": k, "name": f"node-{k}"}
                for k in range(self.cfg.clients)
            }
            (self.folder / "server" / "nodes.json").write_text(json.dumps(named))
            for k in range(self.cfg.clients):
                self.start_supernode(f"node-{k}", k)
        except BaseException:  # Ctrl-C, too, leaves nothing running
            self.stop()
            raise

    def start_superlink(self, port: int = 0) -> None:
        """One SuperLink with TLS, node authentication and its database on disk."""
        port = port or free_port()
        keys = self.key_folder
        self._connect(port, {"root-certificates": str(keys / "ca.crt")})
        words = ["flower-superlink", "--host", "127.0.0.1", "--port", str(port), "--enable-supernode-auth"]
        words += ["--ssl-ca-certfile", str(keys / "ca.crt"), "--ssl-certfile", str(keys / "superlink.crt")]
        words += ["--ssl-keyfile", str(keys / "superlink.key")]
        words += [
            "--database",
            str(self.folder / "superlink.db"),
            "--disable-runtime-dependency-installation",
        ]
        self._spawn("superlink", words, port=port)
        self._wait_for_port(port, "superlink")

    def start_simulation(self, port: int) -> None:
        """A SuperLink that runs Flower's simulation engine instead of waiting for SuperNodes."""
        self._connect(port, {"insecure": True})
        words = ["flower-superlink", "--simulation", "--insecure", "--host", "127.0.0.1"]
        words += ["--port", str(port), "--disable-runtime-dependency-installation"]
        self._spawn("superlink", words, port=port)
        self._wait_for_port(port, "superlink")

    def _connect(self, port: int, more: dict[str, Any]) -> None:
        home = self.folder / "home" / "flwr"
        home.mkdir(parents=True, exist_ok=True)
        connection = {"address": f"127.0.0.1:{port}", **more}
        (home / "config.toml").write_text(tomli_w.dumps({"superlink": {"trial": connection}}))

    def register(self, key: str) -> int:
        """Tell the SuperLink a node's public key; no other node may connect. Returns the node's id."""
        said = self.flwr(
            "supernode", "register", str(self.key_folder / f"{key}.pub"), "trial", "--format", "json"
        )
        return int(json.loads(said[said.index("{") :])["node-id"])

    def start_supernode(
        self,
        name: str,
        client: int,
        *,
        key: str | None = None,
        ca: Path | None = None,
        more: str = "",
        options: Iterable[str] = (),
    ) -> None:
        """One SuperNode.

        key: its private key, default `name`. more: further words of its node config. options: of its command.
        """
        port = free_port()
        own = f'client={client} data="{self.folder / f"node-{client}" / "faces.csv"}" {more}'
        words = ["flower-supernode", "--superlink", f"127.0.0.1:{self.port('superlink')}"]
        words += ["--root-certificates", str(ca or self.key_folder / "ca.crt")]
        if key != "":
            words += ["--auth-supernode-private-key", str(self.key_folder / (key or name))]
        words += ["--node-config", own.strip(), "--host", "127.0.0.1", "--port", str(port), *options]
        self._spawn(name, words, port=port)

    def submit(self, *, resume: bool = False) -> int:
        """`flwr run`; returns Flower's run id."""
        from fvlfp.data.card import Card
        from fvlfp.runs.deployment import Site, run_config_of

        server = self.folder / "server"
        site = Site.open(self.cfg, Card.read(server / "words.toml"))
        return self.submit_words(run_config_of(site, server=str(server), resume=resume))

    def submit_words(self, run_config: dict[str, str | bool], *more: str) -> int:
        """`flwr run` with this run config and further words; returns Flower's run id."""
        file = self.folder / "run.toml"
        file.write_text(tomli_w.dumps(run_config))
        said = self.flwr("run", str(self.app), "trial", "--run-config", str(file), "--format", "json", *more)
        return int(json.loads(said[said.index("{") :])["run-id"])

    def status(self, run: int) -> str:
        """Flower's word for where the run stands, e.g. `finished:completed`."""
        said = self.flwr("ls", "trial", "--run-id", str(run), "--format", "json")
        return str(json.loads(said[said.index("{") :])["runs"][0]["status"])

    def wait(self, run: int, *, seconds: float, say: Callable[[str], None] = print) -> str:
        """The run's last status; what its server says is told as it comes.

        Flower's own command is asked now and then only: each call of it costs seconds of processor time.

        Raises:
            RuntimeError: it is not over after `seconds`, and was stopped; or the SuperLink has ended.
        """
        end = time.monotonic() + seconds
        asked, told = time.monotonic(), 0
        while time.monotonic() < end:
            lines = self.server_log()
            for line in lines[told:]:
                say(line)
            over = any("the run is over" in line for line in lines[told:])
            told = len(lines)
            if over or time.monotonic() > asked + 20:
                asked = time.monotonic() if not over else 0.0
                if (status := self.status(run)).startswith("finished"):
                    return status
            if not self.lives("superlink"):
                raise RuntimeError(f"the SuperLink has ended; see {self.folder / 'logs'}")
            time.sleep(0.5)
        self.flwr("stop", str(run), "trial")
        raise RuntimeError(
            f"run {run} was not over after {seconds:g} s (--limit) and was stopped; see "
            f"{self.folder / 'logs'}"
        )

    def server_log(self) -> list[str]:
        """What the server's side of the run has said so far, one line per round."""
        path = self.folder / "server" / "server.log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def audit(self) -> Path:
        """Predict the held-out table with the run's result, zero-shot beside it; returns the report."""
        from fvlfp.data.table import read_table
        from fvlfp.runs.deployment import Site
        from fvlfp.runs.experiment import audit_runs
        from fvlfp.runs.save import read_result

        dataset = read_table(
            self.folder / "audit" / "faces.csv", label=self.cfg.label, groups=self.cfg.groups
        )
        trained = read_result(self.folder / "server" / "prompts.safetensors")
        held_out = Site.open(self.cfg, dataset.card).held_out(dataset)
        runs = {"baseline": None, "method": trained}
        return audit_runs(self.cfg, held_out, runs, self.folder / "report")

    def stop(self) -> None:
        """End every process of this trial, and see that none is left.

        Raises:
            RuntimeError: one does not end.
        """
        for sign, patience in ((signal.SIGTERM, 6.0), (signal.SIGKILL, 6.0)):
            end = time.monotonic() + patience
            mine = self.processes()
            for pid in mine:
                send(pid, sign)
            while time.monotonic() < end:
                if not self.processes():
                    self._state.unlink(missing_ok=True)
                    return
                time.sleep(0.2)
        raise RuntimeError(f"processes {self.processes()} of {self.folder} do not end")

    def kill(self, name: str, sign: signal.Signals = signal.SIGKILL) -> None:
        """End one process as a power cut would, or as `sign` does; its own children notice and end."""
        send(self._known()[name]["pid"], sign)

    def port(self, name: str) -> int:
        """Where a process of the trial listens."""
        return int(self._known()[name]["port"])

    def lives(self, name: str) -> bool:
        """Whether a process of the trial still runs."""
        return self._known()[name]["pid"] in self.processes()

    def processes(self) -> list[int]:
        """Every living process of this trial, children's children too, by its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("FVLFP_TRIAL") == str(self.folder)
                if mine and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found.append(process.pid)
            except (psutil.Error, OSError):  # somebody else's, or gone meanwhile
                continue
        return found

    def flwr(self, *words: str) -> str:
        """One call of Flower's command line.

        Raises:
            RuntimeError: it fails; with what it said.
        """
        done = subprocess.run(
            [str(self.bin / "flwr"), *words],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"flwr {' '.join(words[:2])}: {done.stdout}{done.stderr}")
        return done.stdout

    def log(self, name: str) -> str:
        """What a process of the trial has said."""
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")

    def _spawn(self, name: str, words: list[str], *, port: int) -> None:
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{name}.log").open("ab") as out:
            process = subprocess.Popen(
                [str(self.bin / words[0]), *words[1:]],
                env=self.environment(name if name != "superlink" else "flwr"),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,  # the database, features and logs are for this user alone
            )
        known = self._known() | {name: {"pid": process.pid, "port": port}}
        self._state.write_text(json.dumps(known))

    def _known(self) -> dict[str, dict[str, int]]:
        return json.loads(self._state.read_text()) if self._state.exists() else {}

    def _wait_for_port(self, port: int, name: str, seconds: float = 90.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if not self.lives(name):
                break
            time.sleep(0.2)
        raise RuntimeError(f"{name} does not come up:\n{self.log(name)[-2000:]}")


def send(pid: int, sign: signal.Signals) -> None:
    """A signal to one process, if it still lives."""
    try:
        os.kill(pid, sign)
        os.waitpid(pid, os.WNOHANG)
    except (ProcessLookupError, ChildProcessError):
        pass


def past_proxies() -> dict[str, str]:
    """Variables that let the loopback pass by the proxies that the environment names."""
    known = [os.environ[name] for name in ("NO_PROXY", "no_proxy", "no_grpc_proxy") if os.environ.get(name)]
    hosts = ",".join(["127.0.0.1", "localhost", *known])
    return dict.fromkeys(("NO_PROXY", "no_proxy", "no_grpc_proxy"), hosts)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(trial: Trial, *, resume: bool = False, seconds: float = math.inf) -> Path:
    """Submit, wait at most `seconds`, audit; returns the report.

    Raises:
        RuntimeError: the run did not complete.
    """
    if not resume:
        shutil.rmtree(trial.folder / "server" / "checkpoints", ignore_errors=True)
        for name in ("prompts.safetensors", "server.log"):
            (trial.folder / "server" / name).unlink(missing_ok=True)
    number = trial.submit(resume=resume)
    print(f"run {number} is submitted", flush=True)
    status = trial.wait(number, seconds=seconds)
    if status != "finished:completed":
        raise RuntimeError(
            f"the run ended as {status}:\n{trial.flwr('log', str(number), 'trial', '--show')[-2000:]}"
        )
    return trial.audit()


def settings_of(words: Iterable[str]) -> dict[str, str]:
    """`key=value` words as a mapping.

    Raises:
        InputError: a word without "=".
    """
    pairs = [word.partition("=") for word in words]
    if bad := [key for key, equals, _ in pairs if not equals]:
        raise InputError(f"--set {bad[0]!r}: write key=value")
    return {key: value for key, _, value in pairs}


def main(argv: Iterable[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("start", "run", "stop", "all"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--resume", action="store_true", help="go on from the server's last checkpoint")
    parser.add_argument(
        "--limit", type=float, default=math.inf, metavar="SECONDS", help="stop a run that takes longer"
    )
    args = parser.parse_args(None if argv is None else list(argv))
    for name in ("resume", "limit"):
        if args.what not in ("all", "run") and getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} would not be used: it needs run or all")
    try:
        trial = Trial(args.folder, **settings_of(args.settings))
        check_deployable(trial.cfg)
    except InputError as error:
        sys.exit(f"deploy.trial: {error}")
    try:
        if args.what == "all":
            trial.stop()
            if not (trial.key_folder / "ca.crt").exists():
                make_keys(trial.key_folder, nodes=trial.cfg.clients)
        if args.what in ("all", "start"):
            trial.make_data()
            print(trial.memory(), flush=True)
            trial.start()
            print(
                f"SuperLink on 127.0.0.1:{trial.port('superlink')}, {trial.cfg.clients} SuperNodes",
                flush=True,
            )
        if args.what in ("all", "run"):
            print(f"report: {run(trial, resume=args.resume, seconds=args.limit)}")
    except (InputError, RuntimeError) as error:
        sys.exit(f"deploy.trial: {error}")
    finally:
        if args.what in ("all", "stop"):
            trial.stop()


if __name__ == "__main__":
    main()
