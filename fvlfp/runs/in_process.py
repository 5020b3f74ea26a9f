"""A federation of clients whose data lie in this process, through the same two Flower apps as a deployment.

A module of its own, because it loads Flower: whoever only prepares data or predicts does not wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context

from fvlfp.config import Config
from fvlfp.federation.checkpoint import Checkpoints, ServerState
from fvlfp.federation.client_app import make_client_app
from fvlfp.federation.local_grid import LocalGrid, in_this_process
from fvlfp.federation.server_app import serve
from fvlfp.federation.together import TrainTogether
from fvlfp.federation.trust import Roll
from fvlfp.training.examples import ClientData
from fvlfp.training.reports import RoundReport
from fvlfp.training.task import Task


def federate(
    cfg: Config,
    task: Task,
    clients: list[ClientData],
    *,
    stacked: bool,
    on_round: Callable[[RoundReport], None],
    folder: Path | None = None,
    key: str = "",
    resume: bool = False,
) -> ServerState:
    """Train one model with these clients.

    stacked: all clients as one batch where the run allows it. folder: where a checkpoint is kept after every
    round, under `key`; with `resume` the run goes on from the newest one.

    Raises:
        InputError: the folder holds checkpoints of another key. RuntimeError: no client answered.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)

    def load(context: Context) -> ClientData:
        return clients[int(context.node_config["partition-id"])]

    stackable = cfg.tune == "prompts" and not cfg.vision_ctx
    together = TrainTogether(load, task, cfg) if stacked and stackable else None
    app = make_client_app(load, task, cfg, trainer=together.trainer if together else None)
    with in_this_process():
        return serve(
            LocalGrid(app, len(clients), together=together),
            task,
            cfg,
            checkpoints=Checkpoints(folder, key) if folder else None,
            resume=resume,
            on_round=on_round,
            roll=Roll(names={node: client.called for node, client in enumerate(clients, 1)}),
        )
