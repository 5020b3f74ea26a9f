"""After the last round: the final model on each client's validation rows, and prompts of the client's own.

What this module does not do: nothing here leaves a client in a deployment; this is for runs in one process.
Cells of fewer than `min_cell` rows count for nothing, and sizes below it are not told.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import save

from fvlfp import metrics
from fvlfp.config import Config
from fvlfp.files import write_atomically
from fvlfp.fpf import defined
from fvlfp.output_folder import no_formula
from fvlfp.runs.train import Prepared, Trained
from fvlfp.training.client import train_client
from fvlfp.training.examples import ClientData, with_groups
from fvlfp.training.local import Job
from fvlfp.training.model import ClientPrompts, Model, Prompts
from fvlfp.training.readout import Readout

_SHOWN = 20  # clients in a report; all are in the CSV


def client_table(cfg: Config, prepared: Prepared, trained: Trained, own: dict[int, Model]) -> pd.DataFrame:
    """One row for each client, the least accurate first.

    Columns: `client` (its own name), `training_rows`, `validation_rows`, `balanced_accuracy`, `odds_gap NAME`
    for each attribute; with personal prompts also `own balanced_accuracy`, `own odds_gap NAME` and
    `own prompts`, the file that holds them. What is undefined, or of fewer than `min_cell` rows, is empty.

    Args:
        own: client number -> its personal model; {} where none were trained.
    """
    clients, rows = clients_of(cfg, prepared), []
    for client, readout in zip(clients, client_readouts(prepared, trained), strict=True):
        found = {
            "client": client.called,
            "training_rows": _unless_small(len(client.train), cfg),
            "validation_rows": _unless_small(len(client.val), cfg),
            **_judged(cfg, readout, client, ""),
        }
        if client.client in own:
            found |= _judged(cfg, _readout(prepared, trained, own[client.client]), client, "own ")
            found["own prompts"] = _file_of(client.client)
        rows.append(found)
    table = pd.DataFrame(rows).astype({"training_rows": "Int64", "validation_rows": "Int64"})
    return table.sort_values("balanced_accuracy", kind="stable", ignore_index=True)


def clients_of(cfg: Config, prepared: Prepared) -> list[ClientData]:
    """The clients as they trained: with groups as labelled or as read."""
    return [with_groups(client, prepared.task, cfg) for client in prepared.clients]


def personal_models(cfg: Config, prepared: Prepared, trained: Trained) -> dict[int, Model]:
    """Client number -> the global prompts after `local_epochs` more on the client's own training rows.

    By the cross-entropy and the anchor alone: CDFP's directions are the federation's. A client keeps them.
    """
    alone = cfg.replace(
        lambda_cf=0.0, lambda_gap=0.0, lambda_uniform=0.0, lambda_prox=0.0, lr_schedule="constant"
    )
    projection = trained.projection.to(prepared.task.frozen_texts.device)
    found: dict[int, Model] = {}
    for client in clients_of(cfg, prepared):
        data = client.train.project(projection)
        start = Prompts(trained.prompts.to(data.z.device))
        job = Job(start, data, {}, f"client/{client.client}/personal", projection)
        found[client.client] = train_client(job, prepared.task, alone).model
    return found


def write_clients(table: pd.DataFrame, own: dict[int, Model], out: Path) -> None:
    """`clients.csv`, and `personal/NUMBER.safetensors` for each client with prompts of its own."""
    table.assign(client=table["client"].map(no_formula)).to_csv(out / "clients.csv", index=False)
    for client, model in own.items():
        path = out / _file_of(client)
        path.parent.mkdir(exist_ok=True)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in model.tensors().items()}
        write_atomically(path, save(tensors))


def _file_of(client: int) -> str:
    return f"personal/{client}.safetensors"


def in_words(table: pd.DataFrame) -> list[str]:
    """One line for each client, for a report; the least accurate first, at most 20."""
    lines = []
    for row in table.head(_SHOWN).to_dict("records"):
        known = {
            key: value
            for key, value in row.items()
            if key not in ("client", "own prompts") and not pd.isna(value)
        }
        said = ", ".join(
            f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
            for key, value in known.items()
        )
        lines.append(f"{row['client']}: {said or 'too few rows'}")
    more = len(table) - _SHOWN
    return [*lines, f"{more} more in clients.csv"] if more > 0 else lines


def _unless_small(n: int, cfg: Config) -> int | None:
    return n if n >= cfg.min_cell else None


def client_readouts(prepared: Prepared, trained: Trained) -> list[Readout]:
    """The classifier that each client ends with: its own, or the common one."""
    model = trained.model
    if isinstance(model, ClientPrompts):
        return [Readout(prepared.task, texts) for texts in model.class_texts(prepared.task)]
    return [_readout(prepared, trained, model)] * len(prepared.clients)


def _readout(prepared: Prepared, trained: Trained, model: Model) -> Readout:
    return Readout.of(prepared.task, model, projection=trained.projection, posthoc=trained.posthoc)


def _judged(cfg: Config, readout: Readout, client: ClientData, prefix: str) -> dict[str, float | None]:
    counts: dict[str, np.ndarray] = readout.confusion(client.val)
    values = {
        "balanced_accuracy": metrics.balanced_accuracy(next(iter(counts.values())), min_cell=cfg.min_cell)
    }
    for name, table in counts.items():
        values[f"odds_gap {name}"] = metrics.recall_gap(table, min_cell=cfg.min_cell)
    return {f"{prefix}{what}": defined(float(value)) for what, value in values.items()}
