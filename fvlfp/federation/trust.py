"""Clients are checked, not trusted: what a reply must be before the server counts with it.

Every refusal has a reason that is logged and stands in the run's history; the round goes on with the others.

What this module does not do: it cannot see a plausible lie. A client that reports a perfect accuracy, or
sends an update of ordinary length in a bad direction, passes; the weight cap and a robust rule bound what it
can do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from statistics import median

import numpy as np
from flwr.app import Message, RecordDict

from fvlfp.errors import RunStopped
from fvlfp.fpf import Fusion

log = logging.getLogger("fvlfp")

#: The numbers that come with an update; NaN means undefined and is allowed where `None` stands.
REPORT = ("num-examples", "weight", "perf", "disp", "loss", "client")

#: Array name -> (shape, dtype) that a reply must have.
Shapes = dict[str, tuple[tuple[int, ...], str]]

#: Says what is wrong with one reply's content, or None.
Check = Callable[[RecordDict], str | None]


def accept(replies: Iterable[Message], check: Check) -> tuple[list[Message], dict[int, str]]:
    """Good replies by client number, and node id -> why it is left out (each logged).

    Left out: a client that raised an error, one that `check` refuses, and a second node that claims a client
    number which a node with a smaller id has claimed.
    """
    good: dict[int, Message] = {}
    refused: dict[int, str] = {}
    for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
        node = reply.metadata.src_node_id
        if reply.has_error():
            refused[node] = f"failed: {reply.error.reason}"
            continue
        reason = _unreadable(reply.content) or check(reply.content)
        if reason is None:
            client = int(reply.content.metric_records["metrics"]["client"])  # type: ignore[arg-type]
            if client not in good:
                good[client] = reply
                continue
            reason = f"client {client} has answered already, from node {good[client].metadata.src_node_id}"
        refused[node] = f"refused: {reason}"
    for node, reason in refused.items():
        log.warning("client node %d %s", node, reason)
    return [good[client] for client in sorted(good)], refused


def _unreadable(content: RecordDict) -> str | None:
    if set(content) != {"arrays", "metrics"} or "arrays" not in content.array_records:
        return f"the records are {sorted(content)}, not arrays and metrics"
    client = content.metric_records["metrics"].get("client")
    if not isinstance(client, int) or client < 0:
        return f"client = {client!r} is no client number"
    return None


def expects(shapes: Shapes) -> Check:
    """A check for arrays of these shapes and dtypes, all finite. shapes: name -> (shape, dtype)."""

    def check(content: RecordDict) -> str | None:
        arrays = content.array_records["arrays"]
        if set(arrays) != set(shapes):
            return f"the arrays are {sorted(arrays)}, not {sorted(shapes)}"
        for name, (shape, dtype) in shapes.items():
            array = arrays[name]
            if tuple(array.shape) != tuple(shape) or array.dtype != dtype:
                found = f"{tuple(array.shape)} {array.dtype}"
                return f"{name} is {found}, not {tuple(shape)} {dtype}"
            try:
                values = array.numpy()
            except (ValueError, TypeError, OSError, EOFError) as error:
                return f"{name} cannot be read: {error}"
            # What the bytes hold may differ from what the record says of them.
            if values.shape != tuple(shape) or str(values.dtype) != dtype:
                return f"{name} holds {values.shape} {values.dtype}, not {tuple(shape)} {dtype}"
            if not np.isfinite(values).all():
                return f"{name} holds NaN or infinity"
        return None

    return check


def report_of(
    content: RecordDict, fusion: Fusion, *, own_weight: bool, most: int = 0, more: tuple[str, ...] = ()
) -> str | None:
    """A client's numbers: present, finite, possible.

    own_weight: the client computed its weight itself; then it must lie within [1/cap, cap] times n^a, or be
    n^a where neither performance nor fairness counts. most: the largest number of examples a client can have;
    0: off. more: how the names of further numbers begin that a fusion rule asks for; none may be negative.
    """
    report = content.metric_records["metrics"]
    further = {key for key in report if key.startswith(more)}
    if set(report) - further != set(REPORT):
        return f"the report holds {sorted(report)}, not {sorted(REPORT)}"
    for key in further:
        if not (np.isfinite(report[key]).all() and np.greater_equal(report[key], 0).all()):
            return f"{key} = {report[key]} holds an impossible number"
    values = {key: report[key] for key in REPORT}
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"{key} = {value!r} is no number"
    n, weight, loss = (float(report[key]) for key in ("num-examples", "weight", "loss"))  # type: ignore
    if not isinstance(values["num-examples"], int) or n < 1:
        return f"num-examples = {values['num-examples']} is no count of examples"
    if most and n > most:
        return f"num-examples = {n:g} is past max_examples = {most}"
    for key in ("perf", "disp"):
        value = float(values[key])  # type: ignore[arg-type]
        if not (math.isnan(value) or 0.0 <= value <= 1.0):
            return f"{key} = {value:g} is outside [0, 1]"
    if not math.isfinite(loss):
        return f"loss = {loss} is not finite"
    if not (math.isfinite(weight) and weight > 0):
        return f"weight = {weight} is not a positive number"
    if own_weight:
        cap = fusion.cap if fusion.beta or fusion.gamma else 1.0
        factor, slack = weight / n**fusion.a, 1 + 1e-9
        if not 1 / cap / slack <= factor <= cap * slack:
            return f"weight = {weight:g} for {n:g} examples is past the cap of {cap:g}"
    return None


def moments_of(content: RecordDict) -> str | None:
    """Sums of unit features and their counts: no count below 0, no sum longer than its count."""
    arrays = content.array_records["arrays"]
    for name in arrays:
        if name.startswith("counts/"):
            counts = arrays[name].numpy()
            sums = arrays[name.replace("counts/", "sums/", 1)].numpy()
            if (counts < 0).any():
                return f"{name} holds a negative count"
            if (np.linalg.norm(sums, axis=-1) > counts * (1 + 1e-3) + 1e-3).any():
                return f"the sums to {name} are longer than so many unit features can be"
    return None


def counts_of(content: RecordDict) -> str | None:
    """Validation counts: none below 0."""
    for name, array in content.array_records["arrays"].items():
        if (array.numpy() < 0).any():
            return f"{name} holds a negative count"
    return None


def too_long(
    replies: list[Message], sent: dict[str, np.ndarray], *, bound: float, clip: float | None = None
) -> tuple[list[Message], dict[int, str]]:
    """Leave out updates longer than `bound` times the round's median length; needs three to judge.

    sent: the arrays they started from, by name; the length is that of all their numbers together. bound: 0
    switches it off. clip: under differential privacy no update may be longer, whatever the others do.
    """
    length = [
        math.hypot(*(np.linalg.norm(arrays[name].numpy() - start) for name, start in sent.items()))
        for arrays in (reply.content.array_records["arrays"] for reply in replies)
    ]
    limit = bound * median(length) if bound > 0 and len(length) >= 3 else math.inf
    good: list[Message] = []
    refused: dict[int, str] = {}
    for reply, norm in zip(replies, length, strict=True):
        node = reply.metadata.src_node_id
        if clip is not None and norm > clip * (1 + 1e-4):
            refused[node] = f"refused: an update of length {norm:.4g} was not clipped to {clip:g}"
        elif norm > limit:
            refused[node] = (
                f"refused: an update of length {norm:.4g} is past {bound:g} times the median, "
                f"{limit / bound:.4g}"
            )
        else:
            good.append(reply)
    for node, reason in refused.items():
        log.warning("client node %d %s", node, reason)
    return good, refused


def answers(
    asked: Iterable[int], replies: Iterable[Message], deadline: float
) -> tuple[list[Message], dict[int, str]]:
    """The replies of nodes that were asked, and why there is none from the others (each logged).

    A SuperLink answers in its own name for a node that it has lost: its words are then the reason.
    """
    replies, asked = list(replies), set(asked)
    mine = [reply for reply in replies if reply.metadata.src_node_id in asked]
    others = [reply for reply in replies if reply.metadata.src_node_id not in asked]
    said = {str(reply.error.reason) for reply in others if reply.has_error()}
    reason = "; ".join(sorted(said)) or f"no answer within {deadline:g} s"
    silent = sorted(asked - {reply.metadata.src_node_id for reply in mine})
    for node in silent:
        log.warning("client node %d failed: %s", node, reason)
    return mine, dict.fromkeys(silent, f"failed: {reason}")


def enough(good: list[Message], refused: dict[int, str], needed: int) -> None:
    """Stop the run where too few answers are left.

    Raises:
        RunStopped: fewer than `needed`, with the first reason.
    """
    if len(good) < max(needed, 1):
        first = next(iter(refused.values()), "no node answered").removeprefix("failed: ")
        found = f"only {len(good)} of {len(good) + len(refused)} clients" if good else "no client"
        raise RunStopped(
            f"{found} answered this round; the first said: {first}; min_available = {needed}. What was saved "
            "can be resumed"
        )
