"""The two apps as a deployment loads them: every machine builds its part from its own files.

`flower-supernode` starts `client_app` and Flower's simulation engine does so, too; `flower-superlink` starts
`server_app`. What all must share (method, model, words, seed) travels in Flower's run config together with a
fingerprint that every machine compares with its own. What belongs to one machine (its table, its device,
where its weights lie, its smallest cell) stands in that machine's node config and never travels.

What this module does not do: it starts no process and opens no connection; `deploy/` has the commands.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fvlfp.clip.encoder import Encoder
from fvlfp.clip.lookup import PLACES
from fvlfp.config import Config
from fvlfp.data.card import Card
from fvlfp.data.table import Dataset, read_table
from fvlfp.errors import InputError
from fvlfp.federation.checkpoint import Checkpoints
from fvlfp.federation.client_app import make_client_app
from fvlfp.federation.protocol import MOMENTS, log
from fvlfp.federation.server_app import serve
from fvlfp.federation.trust import Roll
from fvlfp.runs.ledger import Ledger, OwnLimits, split_of
from fvlfp.runs.save import write_result
from fvlfp.runs.train import Prepared, Stopwatch, load_encoder, trained_of
from fvlfp.training.examples import ClientData, Split, encode_table, own_rows, with_groups
from fvlfp.training.task import Task

#: Keys of a Config that each machine sets for itself; all others are agreed.
OF_ONE_MACHINE = ("data", "device", "precision", "pretrained", "model_config", "prompts")


@dataclass(frozen=True)
class Site:
    """One machine's frozen model and words. fingerprint: equal on all machines of a run, or it stops."""

    cfg: Config
    encoder: Encoder
    task: Task
    fingerprint: str

    @classmethod
    def open(cls, cfg: Config, card: Card) -> Site:
        """Load the model, say the words.

        Raises:
            InputError: unknown model or weights, or words missing from the card.
        """
        encoder = load_encoder(cfg)
        task = Task.make(encoder, card, cfg)
        words: list[Any] = [card.templates, task.classes, card.class_texts(cfg.label)]
        words += [[name, card.group_texts(name)] for name in cfg.groups]
        model = [encoder.provenance[key] for key in ("weights_sha256", "activation", "transform")]
        said = json.dumps([model, words, agreed(cfg)], sort_keys=True)
        return cls(cfg, encoder, task, hashlib.sha256(said.encode()).hexdigest()[:16])

    def split(self, dataset: Dataset, *, cache: Path | None = None) -> Split:
        """All rows of a table, encoded. cache: where this machine keeps its features."""
        return encode_table(dataset, self.encoder, self.task, self.cfg, cache=cache)

    def client(self, number: int, dataset: Dataset, *, cache: Path | None = None) -> ClientData:
        """Client `number` from its own table: train and validation rows, drawn by named seed."""
        rows = np.arange(len(dataset))
        client = own_rows(self.split(dataset, cache=cache), rows, number, dataset.frame, self.cfg)
        return with_groups(client, self.task, self.cfg)

    def held_out(self, dataset: Dataset) -> Prepared:
        """A table of test rows, for `predict`. No client comes with it."""
        facts = {
            **self.encoder.provenance,
            **dataset.facts,
            "split": f"{len(dataset)} test rows, on no client",
            "prompts": {
                "templates": dataset.card.templates,
                "classes": dataset.card.classes[self.cfg.label],
            },
            "config": self.cfg.to_dict(),
        }
        split = self.split(dataset)
        return Prepared(self.cfg, self.task, [], split, dataset.frame, facts, 0.0, dataset.rows)


def agreed(cfg: Config) -> dict[str, object]:
    """The part of a Config that all machines must share."""
    return {key: value for key, value in cfg.to_dict().items() if key not in OF_ONE_MACHINE}


def check_deployable(cfg: Config) -> None:
    """Refuse, before anything starts, what a deployment would silently do otherwise.

    Raises:
        InputError: the method pools clients' data, leaves each its own model, or needs a step after training.
    """
    needs = {"pooling": "federated", "posthoc": "none", "personalise": False}
    for key, value in needs.items():
        if getattr(cfg, key) != value:
            raise InputError(
                f"method = {cfg.method!r} cannot be deployed: it needs {key} = {getattr(cfg, key)!r}, and a "
                f"deployment has {key} = {value!r} alone; use `fvlfp train`"
            )


def run_config_of(site: Site, **more: str | bool) -> dict[str, str | bool]:
    """What `flwr run` hands to every machine. more: `server` (a folder of the server's), `resume`.

    Raises:
        InputError: no deployment can do the method.
    """
    check_deployable(site.cfg)
    return {"agreed": json.dumps(agreed(site.cfg)), "fingerprint": site.fingerprint, **more}


def config_of(run_config: Mapping[str, Any], own: Mapping[str, Any]) -> Config:
    """The agreed part, then this machine's own keys.

    Raises:
        InputError: the run config holds no such part, or a key is bad.
    """
    try:
        values = json.loads(str(run_config["agreed"]))
    except (KeyError, ValueError):
        raise InputError("the run config holds no `agreed` config: start runs with deploy/trial.py") from None
    if not isinstance(values, dict) or set(values) & set(OF_ONE_MACHINE):
        raise InputError("the run config sets keys that belong to one machine")
    if str(values.get("model", "")).startswith(PLACES):  # or a run could send a node to any address
        raise InputError(
            "the run config names a place for the model; a node loads its own pretrained and model_config"
        )
    return Config.make(**values, **{key: str(own[key]) for key in OF_ONE_MACHINE if key in own})


def open_node(run_config: Mapping[str, Any], node_config: Mapping[str, Any]) -> ClientApp:
    """The ClientApp of one machine.

    node_config: `data` (its table), `client` (its number), and, as needed, `device`, `pretrained`,
    `model-config`, `prompts`, and the owner's limits (`OwnLimits`). On the simulation engine, which sets
    `partition-id` instead, the run config's `simulated-data` names the tables, with {} for the number.

    Raises:
        InputError: another model, other words or another config than the server's, a missing table, a run
            that would let smaller counts out than this machine's `min-cell`, or more splits or questions
            than its owner allows.
    """
    own = {key.replace("-", "_"): value for key, value in node_config.items()}
    if "num_partitions" in own and "data" not in own:
        own["client"] = own["partition_id"]
        own["data"] = str(run_config["simulated-data"]).format(own["client"])
    if "data" not in own or "client" not in own:
        raise InputError("the node config must name this machine's `data` and `client`")
    cfg = config_of(run_config, own)
    limits = OwnLimits.of(node_config)
    limits.permit(cfg)
    table = Path(cfg.data)
    with in_own_log_alone():
        dataset = read_table(
            table, label=cfg.label, groups=cfg.groups, prompts=cfg.prompts or None, judged=False
        )
    site = Site.open(cfg, dataset.card)
    if site.fingerprint != run_config["fingerprint"]:
        raise InputError(
            f"this machine's model, words or config (fingerprint {site.fingerprint}) are not the run's "
            f"({run_config['fingerprint']})"
        )
    ledger = Ledger(table.parent / "answers.json", limits)
    ledger.admit(split_of(table, int(own["client"]), cfg))
    with in_own_log_alone():
        data = site.client(int(own["client"]), dataset, cache=table.parent / "features")
    return Remembering(make_client_app(lambda context: data, site.task, cfg), ledger)


class Remembering(ClientApp):
    """A ClientApp whose answers to the question for moments are noted, or refused, before they leave."""

    def __init__(self, app: ClientApp, ledger: Ledger) -> None:
        super().__init__()
        self._app, self._ledger = app, ledger

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message."""
        reply = self._app(message, context)
        if message.metadata.message_type == MOMENTS and reply.has_content():
            arrays = reply.content.array_records["arrays"]
            self._ledger.tell_moments(b"".join(arrays[name].data for name in sorted(arrays)))
        return reply


@contextmanager
def in_own_log_alone() -> Iterator[None]:
    """What is wrong with this machine's table names rows, values and counts: the server must not read it.

    Raises:
        InputError: without any of them.
    """
    try:
        yield
    except InputError as error:
        log.error("%s", error)
        raise InputError("this machine's table cannot be used; its own log says why") from None


class NodeApp(ClientApp):
    """A ClientApp that is built when its first message arrives, from the Context's run and node config."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message.

        Raises:
            InputError, RuntimeError: the answer is an error; its text travels, so what other code says of
                rows and paths stays in this machine's own log.
        """
        try:
            return open_node(context.run_config, context.node_config)(message, context)
        except InputError:
            raise
        except Exception as error:
            log.exception("cannot answer")
            raise RuntimeError(f"{type(error).__name__}; this machine's own log says more") from None


def run_server(grid: Grid, run_config: Mapping[str, Any]) -> None:
    """The ServerApp's work: wait for the machines, train, write `prompts.safetensors` into its folder.

    run_config: `server` names a folder of the server's with `words.toml` (the data card) and, where needed,
    `server.json` (its own `device`, `pretrained`, `model_config`) and `nodes.json` (`read_roll`: which
    node is which client; then no other node counts). Checkpoints, `server.log` and the result
    go there; with `resume` the run goes on from the newest checkpoint.

    Raises:
        InputError: the server's own model, words or config have another fingerprint than the run.
        RuntimeError: too few machines came, or too few usable answers.
    """
    folder = Path(str(run_config["server"]))
    with log_to(folder / "server.log"):
        try:
            _train(grid, run_config, folder)
        except Exception as error:
            log.error("%s: %s; the run is over", type(error).__name__, error)
            raise
        log.info("the run is over")


def _train(grid: Grid, run_config: Mapping[str, Any], folder: Path) -> None:
    own = folder / "server.json"
    cfg = config_of(run_config, json.loads(own.read_text(encoding="utf-8")) if own.is_file() else {})
    check_deployable(cfg)
    site = Site.open(cfg, Card.read(folder / "words.toml"))
    if site.fingerprint != run_config["fingerprint"]:
        raise InputError("the server's model, words or config are not those the run was started with")
    wait_for_nodes(grid, cfg.clients, cfg.min_available, cfg.deadline)
    watch = Stopwatch(cfg.rounds, log.info)
    state = serve(
        grid,
        site.task,
        cfg,
        checkpoints=Checkpoints(folder / "checkpoints", site.fingerprint),
        resume=bool(run_config["resume"]),
        on_round=watch.on_round,
        roll=read_roll(folder / "nodes.json"),
    )
    trained = trained_of(cfg, state, watch.seconds())
    if cfg.dp_noise > 0:
        from fvlfp.runs.experiment import privacy_of  # audits: a node loads this module and needs none

        log.info("%s", privacy_of(trained))
    write_result(folder, trained, {"fingerprint": site.fingerprint, **site.encoder.provenance})


def read_roll(path: Path) -> Roll:
    """The operator's list of nodes, `{"node id": {"client": number, "name": text}, ...}`; else an empty roll.

    Node ids are those that `flwr supernode register` gave. A plain number stands for a client of that name.

    Raises:
        InputError: it is no such list, or names a client twice.
    """
    if not path.is_file():
        return Roll()
    clients: dict[int, int] = {}
    names: dict[int, str] = {}
    try:
        for node, entry in json.loads(path.read_text(encoding="utf-8")).items():
            entry = entry if isinstance(entry, dict) else {"client": entry, "name": entry}
            clients[int(node)], names[int(node)] = int(entry["client"]), str(entry["name"])
    except (ValueError, TypeError, AttributeError, KeyError):
        wanted = '{"node id": {"client": number, "name": "..."}, ...}'
        raise InputError(f"{path} is no list of nodes: {wanted}") from None
    for what, found in (("client number", clients), ("name", names)):
        if len(set(found.values())) < len(found):
            raise InputError(f"{path} gives one {what} to two nodes")
    return Roll(clients, names=names)


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """What fvlfp says in this process also goes to the end of a file, with time and level."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)
        handler.close()


def wait_for_nodes(grid: Grid, wanted: int, at_least: int, deadline: float) -> None:
    """Return when `wanted` nodes are there, or `at_least` of them after `deadline` seconds.

    Raises:
        RuntimeError: fewer.
    """
    end = time.monotonic() + deadline
    while (there := len(list(grid.get_node_ids()))) < wanted:
        if time.monotonic() >= end:
            if there >= at_least:
                log.warning(
                    "%d of %d clients came within %g s; going on without the rest", there, wanted, deadline
                )
                return
            raise RuntimeError(
                f"{there} of {wanted} clients came within {deadline:g} s; {at_least} are needed"
            )
        time.sleep(0.5)


client_app = NodeApp()
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """What `flower-superlink` starts for a run."""
    run_server(grid, context.run_config)
