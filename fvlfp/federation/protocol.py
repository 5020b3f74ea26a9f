"""What travels: tensors, numbers, undefined values, and replies in a fixed order.

What this module does not do: it decides nothing about what may travel; see `fvlfp.federation.app`.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fvlfp.federation.replies import Check
from fvlfp.federation.trust import accept, answers, enough

log = logging.getLogger("fvlfp")


def arrays_of(tensors: dict[str, Tensor]) -> ArrayRecord:
    """Tensors as a Flower record."""
    return ArrayRecord({k: Array(t.detach().cpu().numpy()) for k, t in tensors.items()})


def read_arrays(content: RecordDict | ArrayRecord, key: str | None = None) -> dict[str, Tensor]:
    """The inverse of `arrays_of`, on the CPU."""
    record: Any = content if key is None else content[key]
    return {name: torch.from_numpy(array.numpy().copy()) for name, array in record.items()}


def reply_with(message: Message, arrays: dict[str, Tensor], metrics: dict[str, Any]) -> Message:
    """A client's answer: one record of arrays, one of numbers."""
    return Message(
        RecordDict({"arrays": arrays_of(arrays), "metrics": MetricRecord(metrics)}), reply_to=message
    )


def on_wire(value: float | None) -> float:
    """Undefined is NaN in a message; `fvlfp.fpf.defined` undoes it."""
    return math.nan if value is None else value


def number(record: MetricRecord | ConfigRecord, key: str) -> float:
    """One number of a record.

    Raises:
        TypeError: the entry is no number.
    """
    value = record[key]
    if not isinstance(value, (int, float)):
        raise TypeError(f"{key} is {type(value).__name__}, not a number")
    return value


def ask(
    grid: Grid, message_type: str, content: RecordDict, *, check: Check, deadline: float, needed: int
) -> list[Message]:
    """The same message to every node; usable replies in the order of client numbers.

    check: says what is wrong with a reply. deadline: seconds. needed: usable replies at least.

    Raises:
        RuntimeError: fewer than `needed` replies are usable.
    """
    nodes = sorted(grid.get_node_ids())
    messages = [Message(content, dst_node_id=node, message_type=message_type) for node in nodes]
    replies, late = answers(nodes, grid.send_and_receive(messages, timeout=deadline), deadline)
    good, refused = accept(replies, check)
    enough(good, late | refused, needed)
    return good


def payload_bytes(content: RecordDict) -> int:
    """Bytes of all arrays in a message."""
    return sum(len(a.data) for record in content.array_records.values() for a in record.values())
