"""Clients are checked, not trusted: what a reply must be before the server counts with it.

Every refusal has a reason that is logged (`tell`) and stands in the run's history; the round goes on with the
others.

What this module does not do: it cannot see a plausible lie. A client that reports a perfect accuracy, or
sends an update of ordinary length in a bad direction, passes; the weight cap and a robust rule bound what it
can do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from statistics import median
from types import MappingProxyType

import numpy as np
from flwr.app import Message, RecordDict

from fvlfp.errors import RunStopped
from fvlfp.federation.protocol import client_number
from fvlfp.federation.replies import Check, bad_records

log = logging.getLogger("fvlfp")

#: Characters of a client's own words that are kept.
MOST_WORDS = 300


class Roll:
    """Which node speaks for which client, for the time of one run.

    names: node id -> what the client is called in logs and reports. named: node id -> client number, as the
    operator knows them; nobody else then takes part. Without, a
    number belongs to the first node that gave a usable answer with it (of several in one phase, to the one
    with the smallest id), and a node has one number. A node's id is bound to its key where the SuperLink asks
    for keys.

    >>> roll = Roll()
    >>> roll.note(11, 0)
    >>> roll.refusal(11, 0), roll.refusal(12, 0), roll.refusal(11, 2)
    (None, 'client 0 is node 11', 'this node is client 0, not 2')
    >>> Roll({11: 0}).refusal(12, 1)
    'the operator has named no such node'
    >>> roll = Roll(names={11: "St. Ann"})
    >>> roll.name(11), roll.name(12)
    ('St. Ann', 'node 12')
    """

    def __init__(
        self,
        named: Mapping[int, int] = MappingProxyType({}),
        *,
        names: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        self._client, self._complete, self._names = dict(named), bool(named), dict(names)

    def name(self, node: int) -> str:
        """What a node's client is called; its node id where nobody has said."""
        return self._names.get(node, f"node {node}")

    def in_order(self, nodes: Iterable[int]) -> list[int]:
        """Node ids by client number where the operator has named them, else by themselves."""
        return sorted(nodes, key=lambda node: (self._client.get(node, 0) if self._complete else 0, node))

    def refusal(self, node: int, client: int) -> str | None:
        """Why this node may not speak for this client, or None."""
        mine = self._client.get(node)
        if mine is not None:
            return None if mine == client else f"this node is client {mine}, not {client}"
        if self._complete:
            return "the operator has named no such node"
        owner = next((other for other, number in self._client.items() if number == client), None)
        return None if owner is None else f"client {client} is {self.name(owner)}"

    def note(self, node: int, client: int) -> None:
        """From now on the node is this client, and nobody else."""
        self._client[node] = client


def accept(
    replies: Iterable[Message], check: Check, roll: Roll | None = None
) -> tuple[list[Message], dict[int, str]]:
    """Good replies by client number, and node id -> why it is left out.

    Left out: a client that raised an error, one that `check` refuses or fails on, whatever it sent, and a
    node whose client number is another's on the `roll`.
    """
    roll = Roll() if roll is None else roll
    good: dict[int, Message] = {}
    refused: dict[int, str] = {}
    for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
        node = reply.metadata.src_node_id
        if reply.has_error():
            refused[node] = f"failed: {words_of(reply)}"
            continue
        reason = fault(reply.content, check)
        if reason is None:
            client = client_number(reply.content)
            reason = roll.refusal(node, client)
            if reason is None:
                roll.note(node, client)
                good[client] = reply
                continue
        refused[node] = f"refused: {shortened(reason)}"
    return [good[client] for client in sorted(good)], refused


def tell(refused: Mapping[int, str], roll: Roll, *, role: str = "client") -> list[str]:
    """One line, logged too, for each node that is left out: what its client is called, and why."""
    lines = [f"{role} {roll.name(node)} {reason}" for node, reason in sorted(refused.items())]
    for line in lines:
        log.warning("%s", line)
    return lines


def fault(content: RecordDict, check: Check) -> str | None:
    """What is wrong with a reply's content, or None. Whatever a client sends, this does not raise."""
    try:
        return bad_records(content) or check(content)
    except Exception as error:  # a client chooses the bytes, so any library may fail on them in any way
        return f"it cannot be read: {type(error).__name__}"


def words_of(reply: Message) -> str:
    """The reason in an error reply, shortened: it is the client's own text."""
    return shortened(str(reply.error.reason))


def shortened(text: str) -> str:
    """At most `MOST_WORDS` characters on one line, control characters replaced."""
    kept = text[:MOST_WORDS]
    line = "".join(c if c.isprintable() else " " for c in kept)
    return line if len(text) <= MOST_WORDS else f"{line} ... ({len(text)} characters)"


def too_long(
    replies: list[Message], sent: dict[str, np.ndarray], *, bound: float, clip: float | None = None
) -> tuple[list[Message], dict[int, str]]:
    """Leave out updates longer than `bound` times the round's median length; needs three to judge.

    sent: the arrays they started from, by name; the length is that of all their numbers together. bound: 0
    switches it off. clip: under differential privacy no update may be longer, whatever the others do.
    """
    length = [
        math.hypot(
            *(np.linalg.norm(arrays[name].numpy().astype(float) - start) for name, start in sent.items())
        )
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
    return good, refused


def answers(
    asked: Iterable[int], replies: Iterable[Message], deadline: float
) -> tuple[list[Message], dict[int, str]]:
    """The replies of nodes that were asked, and node id -> why there is none from the others.

    A SuperLink answers in its own name for a node that it has lost: its words are then the reason.
    """
    replies, asked = list(replies), set(asked)
    mine = [reply for reply in replies if reply.metadata.src_node_id in asked]
    others = [reply for reply in replies if reply.metadata.src_node_id not in asked]
    said = {words_of(reply) for reply in others if reply.has_error()}
    reason = shortened("; ".join(sorted(said))) or f"no answer within {deadline:g} s"
    silent = sorted(asked - {reply.metadata.src_node_id for reply in mine})
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
